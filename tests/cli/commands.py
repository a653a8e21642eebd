"""Runs commands as a user types them, inside this process or in one of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from click.testing import CliRunner, Result

from tfgen.cli import main

# What TensorFlow's C++ side says on standard error while it starts.
CHATTER = ("cuda", "absl", "onednn", "cpu_feature", "tensorrt", "xla", "e0000", "i0000", "w0000")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [*map(str, arguments)])


def failed(result: Result, code: int, *words: str) -> None:
    """Checks the exit code, and that one line, without a traceback, says all the words."""
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    errors = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert len(errors) == 1, result.stderr
    assert result.stderr.splitlines()[-1] == errors[0]
    if code == 1:
        assert result.stderr.splitlines() == errors  # nothing else: no usage, no half bars
    for word in words:
        assert word in errors[0]
    assert result.stdout == ""


def run_alone(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """`python -m tfgen ...` with the environment of a user, who set nothing for TensorFlow."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("TF_")}
    path = [str(Path(__file__).parents[2]), *filter(None, [environment.get("PYTHONPATH")])]
    environment["PYTHONPATH"] = os.pathsep.join(path)
    return subprocess.run(
        [sys.executable, "-m", "tfgen", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        cwd=cwd,
        env=environment,
    )


def assert_quiet(stderr: str) -> None:
    """Checks that nothing but progress bars is on standard error."""
    for line in stderr.replace("\r", "\n").splitlines():
        assert not any(word in line.lower() for word in CHATTER), line
        assert not line or "|" in line or line.endswith("]"), line
