"""What all commands share: quick help, one line for an error, exit codes."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import click
import pytest
from commands import failed, run, run_alone

from tfgen import cli
from tfgen._files import OutputExistsError, reserve
from tfgen.cli import COMMANDS, main

CONTRACT = ["dataset", "train", "generate", "reconstruct", "evaluate", "export", "demo"]


def test_lists_the_commands():
    assert list(COMMANDS) == CONTRACT
    for help_option in ("--help", "-h"):
        result = run(help_option)
        assert result.exit_code == 0
        for name in CONTRACT:
            assert f"\n  {name} " in result.output


HELP = """
import sys

from click.testing import CliRunner

from tfgen.cli import main

for line in sys.argv[1:]:
    result = CliRunner().invoke(main, [*line.split(), "--help"])
    assert result.exit_code == 0, result.output
    assert result.output.startswith("Usage: "), result.output
for name in ("tensorflow", "keras", "tensorflow_probability", "matplotlib", "ase", "pydantic"):
    assert name not in sys.modules, name
"""


def test_help_does_not_wait_for_tensorflow():
    """Of the program and of every command, in a fresh process."""
    lines = ["", *CONTRACT, *(f"dataset {name}" for name in ("build", "import", "info", "export"))]
    done = subprocess.run(
        [sys.executable, "-c", HELP, *lines],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr


def test_in_a_process_of_its_own(tmp_path):
    done = run_alone("--version", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"tfgen, version {importlib.metadata.version('tfgen')}\n"
    done = run_alone("--help", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Usage: ")


def test_wrong_usage():
    failed(run("trian"), 2, "No such command 'trian'")
    failed(run("--nonsense"), 2, "No such option")
    assert run().exit_code == 2  # click shows the help, and nothing has been done


@pytest.fixture
def failing(monkeypatch):
    """A command that raises what the test says."""

    def put(error):
        @click.command()
        def export():
            raise error

        monkeypatch.setitem(COMMANDS, "export", __name__)
        monkeypatch.setattr(sys.modules[__name__], "export", export, raising=False)

    return put


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("formula 'x' is not a formula"), "formula 'x' is not a formula"),
        (ValueError("first line\n  second line"), "first line second line"),
        (FileNotFoundError(2, "No such file", "a.h5"), "No such file: 'a.h5'"),
        (OSError(28, "No space left on device"), "No space left on device"),
        (ArithmeticError("training diverged"), "training diverged"),
        (ImportError("no module dask"), "no module dask"),
        (MemoryError(), "MemoryError"),
    ],
)
def test_what_can_be_foreseen_is_one_line(failing, error, line):
    failing(error)
    failed(run("export"), 1, line)


def test_debugging_shows_where_errors_come_from(failing, monkeypatch):
    monkeypatch.setenv("TFGEN_DEBUG", "1")
    failing(ValueError("here"))
    result = run("export")
    assert isinstance(result.exception, ValueError)


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (AssertionError("a bug"), "AssertionError: a bug (TFGEN_DEBUG=1 shows where)"),
        (KeyError("name"), "KeyError: 'name' (TFGEN_DEBUG=1 shows where)"),
        (EOFError("ended too early"), "EOFError: ended too early"),
    ],
)
def test_faults_of_the_program_are_one_line_too(failing, error, line):
    failing(error)
    failed(run("export"), 1, line)


def test_ctrl_c(failing):
    failing(KeyboardInterrupt())
    result = run("export")
    assert result.exit_code == 1
    assert result.output.strip() == "Aborted!"
    assert main is cli.main


def test_an_output_that_exists_names_the_option(failing, tmp_path):
    """The library names its own argument, which no one can give on the command line."""
    error = OutputExistsError(tmp_path / "out", "holds another build")
    assert str(error).endswith("out' holds another build; pass overwrite=True to replace it")
    failing(error)
    failed(run("export"), 1, "out' holds another build; use --overwrite to replace it")


@pytest.mark.parametrize(
    "line",
    [
        "dataset build pt13 -o OUT",
        "dataset import in.xyz -o OUT",
        "dataset export in.h5 -o OUT",
        "train in.h5 -o OUT",
        "generate model -o OUT --formula Pt13 --target energy_per_atom=1 --count 1",
        "reconstruct in.xyz -o OUT",
        "evaluate in.extxyz --dataset in.h5 -o OUT",
        "export model -o OUT",
        "demo -o OUT",
    ],
)
def test_two_commands_never_write_the_same_output(line, tmp_path):
    output = tmp_path / "out.extxyz"
    with ThreadPoolExecutor(1) as executor, reserve(output):
        arguments = [output if word == "OUT" else word for word in line.split()]
        result = executor.submit(run, *arguments).result()
        failed(result, 1, "out.extxyz' is being written by another command")
    assert list(tmp_path.iterdir()) == []
