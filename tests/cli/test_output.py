"""Text of files of others reaches the terminal as text, and JSON as JSON."""

from __future__ import annotations

import json

import h5py
import numpy as np
import pytest
from ase import Atoms
from commands import failed, run

from tfgen.cli._output import printable
from tfgen.datasets.storage import Dataset

# Clears the screen; names the window; turns the direction of writing around; is no Unicode.
HOSTILE = "\x1b[2J\x9b2J\x1b]0;owned\x07\u202e\ud800\x7f"


def constants(name: str) -> float:
    raise AssertionError(f"{name} is not JSON")


@pytest.fixture
def file(tmp_path):
    structures = [Atoms("Pt2", [[0, 0, 0], [0, 0, d]]) for d in (2.5, 2.6, 2.7)]
    dataset = Dataset(
        structures,
        {"\x1b[31mred": np.array([1.7e308, 1.6e308, -1e308])},
        {"\x1b[31mred": "\x07eV\x85"},
        np.zeros(3),
        {"name": "\x1b[2J", "description": "a\x00b\u202e", "versions": {"x\x9b": "1\x1b"}},
    )
    path = tmp_path / "set.h5"
    dataset.save(path)
    with h5py.File(path, "r+") as opened:
        text = opened.attrs["metadata"].decode().replace("a\\u0000", r"\ud800a\u0000")
        opened.attrs["metadata"] = text
    return path


def assert_harmless(text: str) -> None:
    """Checks that only lines and progress bars move the cursor."""
    assert all(c.isprintable() or c in "\n\r" for c in text), ascii(text)


def test_control_characters_are_escaped():
    assert printable("å λ 中\n") == "å λ 中\n"
    assert printable("\x1b[2J\t\x9b") == r"\x1b[2J\t\x9b"
    assert_harmless(printable(HOSTILE))
    printable(HOSTILE).encode()


def test_info_shows_no_control_characters(file):
    shown = run("dataset", "info", file)
    assert shown.exit_code == 0, shown.output
    assert_harmless(shown.output)
    assert r"\x1b[31mred" in shown.output


def test_info_writes_valid_json(file):
    shown = run("dataset", "info", file, "--json")
    assert shown.exit_code == 0, shown.output
    assert_harmless(shown.output)
    about = json.loads(shown.output, parse_constant=constants)
    assert about["name"] == "\x1b[2J"
    assert about["metadata"]["description"] == "\ud800a\x00b\u202e"
    assert about["properties"]["\x1b[31mred"]["unit"] == "\x07eV\x85"
    assert about["properties"]["\x1b[31mred"]["mean"] == pytest.approx(2.3 / 3 * 1e308)


def test_messages_show_no_control_characters(tmp_path):
    path = tmp_path / "set.extxyz"
    header = 'Properties=species:S:1:pos:R:3 energy="\x1b[2J\x9b"'
    path.write_text(f"2\n{header}\nPt 0 0 0\nPt 0 0 2.5\n")
    result = run("dataset", "import", path, "-o", tmp_path / "set.h5")
    assert_harmless(result.stderr)
    assert result.exit_code == 1
    recipe = tmp_path / "recipe.toml"
    recipe.write_text('name = "\\u001b[2J"\n[sample]\nformula = "\\u009b"\ncount = 1\n')
    result = run("dataset", "build", recipe, "-o", tmp_path / "set.h5")
    assert_harmless(result.stderr)
    assert result.exit_code == 1
    failed(run("evaluate", "\x1b[2J", "--dataset", "x", "-o", "y"), 1, r"\x1b[2J")
    # A note about a row that was read.
    rows = [f"2\n{header[:30]} \x1b]0;a\x07={i}.5 E={v}\nPt 0 0 0\nPt 0 0 2.{i}\n"
            for i, v in enumerate([1, 2, 3, 4, 1e9])]  # fmt: skip
    path.write_text("".join(rows))
    named = tmp_path / "\x1b[2J.extxyz"
    named.write_text("".join(rows))
    result = run("dataset", "import", named, "-o", tmp_path / "set.h5", "--property", "E")
    assert result.exit_code == 0, result.output
    assert "Warning" in result.stderr
    assert_harmless(result.stderr)
    assert_harmless(result.stdout)
