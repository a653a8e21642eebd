"""Options and conversions that several commands share."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tfgen._files import reserve
from tfgen.cli._output import echo
from tfgen.warnings import TfgenWarning

if TYPE_CHECKING:
    from tfgen.targets import Target

__all__ = [
    "TARGETS",
    "check_executor",
    "check_extxyz",
    "compute_option",
    "descriptor_option",
    "fingerprint_from",
    "fingerprint_option",
    "imported",
    "look_here",
    "output_option",
    "overwrite_option",
    "path_argument",
    "reserve_output",
    "seed_option",
    "shown_warnings",
    "tolerance_option",
]

seed_option = click.option(
    "--seed", type=click.IntRange(0, 2**31 - 1), default=0, show_default=True,
    help="The same seed repeats the command exactly on the same machine.",
)  # fmt: skip


class _ImportPath(click.ParamType):
    """MODULE:NAME, or a name that needs no module."""

    name = "MODULE:NAME"

    def __init__(self, *names: str) -> None:
        self._names = names

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        from tfgen.potentials.import_paths import is_import_path

        if value not in self._names and not is_import_path(value):
            known = "".join(f"{name!r}, " for name in self._names)
            self.fail(f"{value!r} is not one of {known}MODULE:NAME", param, ctx)
        return str(value)


PRESETS = ("default", "fung2022")
fingerprint_option = click.option(
    "--fingerprint", type=_ImportPath(*PRESETS), default="default", show_default=True,
    metavar=f"{'|'.join(PRESETS)}|MODULE:NAME",
    help="The project's own fingerprint, the source paper's, or your own: MODULE:NAME is a "
    "Fingerprint, or a function that makes one for a list of elements.",
)  # fmt: skip
descriptor_option = click.option(
    "--descriptor", "descriptors", type=_ImportPath(), multiple=True, metavar="MODULE:CLASS",
    help="A descriptor of your own that the model was trained with; may be repeated.",
)  # fmt: skip
overwrite_option = click.option("--overwrite", is_flag=True, help="Replace an existing output.")


def output_option(metavar: str, help: str) -> Any:
    """The -o option of a command."""
    return click.option(
        "-o", "--output", required=True, metavar=metavar, type=click.Path(path_type=Path), help=help
    )


def reserve_output(path: str | Path) -> None:
    """Reserves an output until the command ends, see `tfgen._files.reserve`.

    Raises:
        OutputInUseError: if another command is writing it.
    """
    click.get_current_context().with_resource(reserve(path))


def check_extxyz(path: Path) -> None:
    """Refuses a name by which other programs would not recognise the file as extxyz.

    Raises:
        click.BadParameter: on another suffix.
    """
    if path.suffix not in (".extxyz", ".xyz"):
        raise click.BadParameter(
            f"the output is in extxyz format; the name {str(path)!r} must end in .extxyz or .xyz",
            param_hint="--output",
        )


def path_argument(name: str, metavar: str) -> Any:
    """A required path."""
    return click.argument(name, metavar=metavar, type=click.Path(path_type=Path))


def _read_tolerances(
    _context: click.Context, _parameter: click.Parameter, values: tuple[str, ...]
) -> dict[str, float]:
    result: dict[str, float] = {}
    for value in values:
        name, _, number = value.partition("=")
        try:
            tolerance = float(number)
        except ValueError:
            tolerance = -1.0
        if not name or not 0.0 < tolerance < float("inf"):
            raise click.BadParameter(f"{value!r} is not NAME=VALUE with a value above 0")
        if name in result:
            raise click.BadParameter(f"{name!r} is given twice")
        result[name] = tolerance
    return result


def tolerance_option(flag: str, help: str) -> Any:
    """The option, under some name, that says how near a property must come to its target."""
    return click.option(
        flag, metavar="NAME=VALUE", multiple=True, callback=_read_tolerances,
        help=f"How near a property must come to its target, in the property's unit. {help}",
    )  # fmt: skip


class _Target(click.ParamType):
    """NAME=VALUE or NAME=LO:HI."""

    name = "NAME=VALUE or NAME=LO:HI"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Target:
        from tfgen.targets import Target

        if isinstance(value, Target):
            return value
        try:
            return Target.parse(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


TARGETS = _Target()


def imported(path: str) -> Any:
    """Imports what MODULE:NAME names; modules in the current folder are found as well.

    Raises:
        ValueError: if it does not exist, or its module cannot be imported.
    """
    from tfgen.potentials.import_paths import import_path

    look_here()
    try:
        return import_path(path)
    except Exception as error:  # modules raise what they like
        reason = str(error) or type(error).__name__
        raise ValueError(f"{path!r} cannot be imported: {reason}") from error


def look_here() -> None:
    """Lets modules in the current folder be imported."""
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)  # last: a file here must not hide an installed module


def fingerprint_from(name: str, species: list[str]) -> Any:
    """Returns the preset of that name for the elements, or what MODULE:NAME makes for them.

    Raises:
        ValueError: if it cannot be imported, or is not a fingerprint.
    """
    from tfgen.fingerprints.fingerprint import Fingerprint

    if name in PRESETS:
        return Fingerprint.preset(name, species)
    found = imported(name)
    if not isinstance(found, Fingerprint) and callable(found):
        found = found(species)
    if not isinstance(found, Fingerprint):
        kind = type(found).__name__
        raise ValueError(f"fingerprint {name!r} is a {kind}, not a tfgen.Fingerprint")
    return found


class _Compute(click.ParamType):
    """NAME=MODULE:FUNCTION, or the ASE name of a property that calculators compute."""

    name = "NAME=MODULE:FUNCTION"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, str | None]:
        from tfgen.potentials.import_paths import is_import_path
        from tfgen.potentials.properties import CALCULATED

        if isinstance(value, tuple):
            return value
        name, equals, path = value.partition("=")
        if not equals and name in CALCULATED:
            return name, None
        if not equals or not name.isidentifier() or not is_import_path(path):
            known = ", ".join(CALCULATED)
            self.fail(f"{value!r} is neither NAME=MODULE:FUNCTION nor one of {known}", param, ctx)
        return name, path


def _collect_compute(
    ctx: click.Context, param: click.Parameter, value: Sequence[tuple[str, str | None]]
) -> dict[str, str | None]:
    names = [name for name, _ in value]
    if twice := [name for name in names if names.count(name) > 1]:
        raise click.BadParameter(f"{twice[0]} is given twice", ctx, param)
    if value:
        look_here()
    return dict(value)


compute_option = click.option(
    "--compute", type=_Compute(), multiple=True, callback=_collect_compute,
    metavar="NAME=MODULE:FUNCTION",
    help="A property that your function of an ase.Atoms computes, or the ASE name of one that the "
    "calculator itself computes, like dipole; may be repeated.",
)  # fmt: skip
"""Passes property -> MODULE:FUNCTION, or None where the calculator computes it."""


@contextmanager
def shown_warnings() -> Iterator[None]:
    """Prints tfgen's warnings when they occur, one line each, on standard error, and no others."""

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        echo(f"Warning: {message}", err=True)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", TfgenWarning)
        warnings.showwarning = show
        yield


def check_executor(executor: str, scheduler: str | None, workers: int | None) -> None:
    """Refuses options that contradict each other on where the work runs."""
    if executor == "dask":
        if scheduler is None:
            raise click.UsageError("--executor dask needs --scheduler ADDRESS")
        if workers is not None:
            raise click.UsageError(
                "--workers applies to --executor local; Dask has its own workers"
            )
    elif scheduler is not None:
        raise click.UsageError("--scheduler applies to --executor dask")
