"""Commands that the pages quote: each is one that `tfgen` takes."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

import click
import pytest
from documents import PAGES, ROOT, code

from tfgen.cli import main

QUOTED = [
    pytest.param(line, id=f"{page.relative_to(ROOT)}: {line}")
    for page in PAGES
    for line in re.findall(r"^(?:\$ )?tfgen (.+?)(?:  +#.*)?$", code(page), flags=re.MULTILINE)
]


def resolve(command: click.Command, words: list[str]) -> tuple[click.Command, list[str]]:
    """The command that words name, and the words after its name."""
    while isinstance(command, click.Group):
        with click.Context(command) as context:
            _, found, words = command.resolve_command(context, words)
        assert found is not None
        command = found
    return command, words


def commands(group: click.Group, name: str = "") -> Iterator[tuple[str, click.Command]]:
    """All commands, by their full names."""
    with click.Context(group) as context:
        for part in group.list_commands(context):
            command = group.get_command(context, part)
            whole = f"{name} {part}".strip()
            if isinstance(command, click.Group):
                yield from commands(command, whole)
            else:
                yield whole, command


def without(option: str) -> set[str]:
    """Commands that do not have an option."""
    return {
        name
        for name, command in commands(main)
        if not any(option in parameter.opts for parameter in command.params)
    }


@pytest.mark.parametrize("line", QUOTED)
def test_quoted_commands_are_understood(line):
    command, words = resolve(main, shlex.split(line.replace("...", "0")))
    with command.make_context(command.name, words):
        pass  # parsed, and not run


def test_finds_the_commands():
    assert len(QUOTED) > 20
    with pytest.raises(click.NoSuchOption):
        test_quoted_commands_are_understood("train pt13.h5 -o model --epoch-s 300")


def test_the_readme_names_the_commands_without_a_seed():
    text = " ".join((ROOT / "README.md").read_text("utf-8").split())
    (named,) = re.findall(r"the others \((.+?)\) give the same result", text)
    assert set(re.findall(r"`(.+?)`", named)) == without("--seed")


def test_what_writes_can_overwrite():
    assert without("--overwrite") == {"dataset info"} == without("--output")
