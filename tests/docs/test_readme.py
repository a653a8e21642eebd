"""The README's promises that can be checked without running everything in it."""

from __future__ import annotations

from pathlib import Path

from tfgen.cli import COMMANDS

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")


def test_nothing_is_left_to_fill_in():
    assert "@@" not in README


def test_names_every_command():
    for command in COMMANDS:
        assert f"tfgen {command}" in README
