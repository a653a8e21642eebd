"""Options and conversions that several commands share."""

from __future__ import annotations

import importlib
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from tfgen._warnings import TfgenWarning

__all__ = [
    "TARGETS",
    "check_extxyz",
    "fingerprint_option",
    "output_option",
    "overwrite_option",
    "path_argument",
    "potential_from",
    "seed_option",
    "shown_warnings",
]

seed_option = click.option(
    "--seed", type=click.IntRange(0, 2**31 - 1), default=0, show_default=True,
    help="Repeats the command exactly on the same machine.",
)  # fmt: skip
fingerprint_option = click.option(
    "--fingerprint", type=click.Choice(["default", "fung2022"]), default="default",
    show_default=True, help="The project's own fingerprint, or the source paper's.",
)  # fmt: skip
overwrite_option = click.option("--overwrite", is_flag=True, help="Replace an existing output.")


def output_option(metavar: str, help: str) -> Any:
    """The -o option of a command."""
    return click.option(
        "-o", "--output", required=True, metavar=metavar, type=click.Path(path_type=Path), help=help
    )


def check_extxyz(path: Path) -> None:
    """Refuses names under which others would not take the file for extxyz.

    Raises:
        click.BadParameter: on another suffix.
    """
    if path.suffix not in (".extxyz", ".xyz"):
        raise click.BadParameter(
            f"{str(path)!r} will be extxyz; its name must end in .extxyz or .xyz",
            param_hint="--output",
        )


def path_argument(name: str, metavar: str) -> Any:
    """A required path."""
    return click.argument(name, metavar=metavar, type=click.Path(path_type=Path))


class _Target(click.ParamType):
    """NAME=VALUE or NAME=LO:HI."""

    name = "NAME=VALUE or NAME=LO:HI"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, float | tuple[float, float]]:
        if isinstance(value, tuple):
            return value
        name, equals, text = value.partition("=")
        if not name or not equals or not text:
            self.fail(f"{value!r} is not of the form {self.name}", param, ctx)
        try:
            bounds = [float(part) for part in text.split(":")]
        except ValueError:
            self.fail(f"{text!r} in {value!r} is not a number or a range LO:HI", param, ctx)
        if len(bounds) > 2 or not all(map(math.isfinite, bounds)):
            self.fail(f"{text!r} in {value!r} is not a finite number or a range LO:HI", param, ctx)
        if bounds[0] > bounds[-1]:
            self.fail(f"the range in {value!r} has LO above HI", param, ctx)
        return name, bounds[0] if len(bounds) == 1 else (bounds[0], bounds[1])


TARGETS = _Target()


def potential_from(name: str) -> Any:
    """Returns what evaluates energies: "auto", "emt", "none", or MODULE:CLASS of an ASE calculator.

    Raises:
        ValueError: if there is no such class, or it cannot be made.
    """
    if name == "auto":
        return "auto"
    if name == "none":
        return None
    if name == "emt":
        from tfgen.potentials.emt import EMT

        return EMT()
    module, colon, attribute = name.partition(":")
    if not colon:
        raise click.BadParameter(
            f"{name!r} is none of auto, emt, none, MODULE:CLASS", param_hint="--potential"
        )
    try:
        return getattr(importlib.import_module(module), attribute)()
    except Exception as error:
        raise ValueError(f"calculator {name!r} cannot be made: {error}") from error


@contextmanager
def shown_warnings() -> Iterator[None]:
    """Prints tfgen's warnings at once, one line each, on standard error; no others."""

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        click.echo(f"Warning: {message}", err=True)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", TfgenWarning)
        warnings.showwarning = show
        yield
