"""What commands print: the one way to the terminal for text that may come from a file."""

from __future__ import annotations

from typing import Any

import click

from tfgen._files import to_json

__all__ = ["echo", "echo_json", "printable"]


def printable(text: str) -> str:
    r"""Returns a text with everything but lines and printable characters escaped, as in "\x1b".

    Names, comments and units come from files of others, and a terminal would take control
    characters in them as orders.
    """
    return "".join(
        c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text
    )


def echo(message: str = "", *, err: bool = False) -> None:
    """Prints a message, on standard error if `err`."""
    click.echo(printable(message), err=err)


def echo_json(value: Any) -> None:
    """Prints a value as JSON, in which unusual characters are escaped as JSON does it.

    Raises:
        ValueError: if it cannot be JSON.
    """
    text = to_json(value, indent=2)
    click.echo("".join(c if c.isprintable() or c == "\n" else _escaped(c) for c in text))


def _escaped(character: str) -> str:
    # Beyond 16 bits, JSON writes two surrogates.
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i : i + 2].hex()}" for i in range(0, len(units), 2))
