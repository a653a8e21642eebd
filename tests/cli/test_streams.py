"""Commands whose standard streams are closed, or whose reader goes away."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import ase.io
import pytest
from ase.build import molecule

from tfgen.datasets.storage import Dataset

ROOT = Path(__file__).parents[2]


def shell(line: str, folder: Path) -> subprocess.CompletedProcess[bytes]:
    """Runs a line of a shell in a folder; tfgen stands for the command."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHON": sys.executable}
    line = line.replace("tfgen", '"$PYTHON" -m tfgen')
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", line],
        check=False,
        capture_output=True,
        cwd=folder,
        env=environment,
        timeout=300,
    )


@pytest.fixture
def folder(tmp_path):
    ase.io.write(tmp_path / "in.xyz", [molecule(name) for name in ("CO2", "H2O", "NH3")])
    return tmp_path


@pytest.mark.parametrize("streams", ["2>&-", "<&- >&- 2>&-", "2>&1 | true"])
def test_the_work_is_done_whoever_listens(folder, streams):
    done = shell(f"tfgen dataset import in.xyz -o set.h5 {streams}", folder)
    assert (done.returncode, done.stderr) == (0, b"")
    assert len(Dataset.load(folder / "set.h5")) == 3
    assert sorted(path.name for path in folder.iterdir()) == ["in.xyz", "set.h5"]


def test_the_first_lines_are_enough_for_some(folder):
    done = shell("tfgen --help | head -n 1", folder)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.startswith(b"Usage: ")


def test_what_cannot_be_printed_is_an_error(folder):
    done = shell("tfgen --help > /dev/full", folder)
    assert done.returncode == 1
    assert b"No space left on device" in done.stderr
    assert b"Traceback" not in done.stderr


def test_errors_have_their_exit_code_where_nobody_listens(folder):
    for streams in (">&- 2>&-", "2>&1 | true"):
        assert shell(f"tfgen dataset info gone.h5 {streams}", folder).returncode == 1
