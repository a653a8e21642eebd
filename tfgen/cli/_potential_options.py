"""Options that say what computes energies, and where it runs."""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from tfgen.cli._options import check_executor, look_here

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    from tfgen.execution.results import ResultStore

__all__ = ["Running", "open_potential", "potential_argument_option", "running_options"]

F = TypeVar("F", bound=Callable[..., Any])

# Names of `--potential` that need no module.
NAMES = ("auto", "emt", "none")


class _Argument(click.ParamType):
    """KEY=VALUE, where VALUE is a value of TOML, or text."""

    name = "KEY=VALUE"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, Any]:
        if isinstance(value, tuple):
            return value
        key, equals, text = value.partition("=")
        if not equals or not key.isidentifier():
            self.fail(f"{value!r} is not of the form KEY=VALUE", param, ctx)
        try:
            return key, tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            return key, text


potential_argument_option = click.option(
    "--potential-arg", "arguments", type=_Argument(), multiple=True, metavar="KEY=VALUE",
    help="An argument of the ASE calculator that --potential names; may be repeated. VALUE is a "
    "number, true, false or another value of TOML, else text.",
)  # fmt: skip


@dataclass(frozen=True)
class Running:
    """Where ASE calculators run.

    Attributes:
        vacuum: around clusters, in a box that only the calculator sees, Å; 0: no box.
        workers: processes of this machine; None: one.
        time_limit: for one structure, s.
        executor: "local" or "dask".
        scheduler: address of the Dask scheduler.
    """

    vacuum: float
    workers: int | None
    time_limit: float
    executor: str
    scheduler: str | None


def running_options(command: F) -> F:
    """Adds the options that say where ASE calculators run; the command gets `running`."""

    @functools.wraps(command)
    def wrapped(
        *arguments: Any,
        vacuum: float,
        workers: int | None,
        time_limit: float,
        executor: str,
        scheduler: str | None,
        **options: Any,
    ) -> Any:
        check_executor(executor, scheduler, workers)
        running = Running(vacuum, workers, time_limit, executor, scheduler)
        return command(*arguments, running=running, **options)

    for option in (
        click.option(
            "--scheduler",
            metavar="ADDRESS",
            help="Address of the Dask scheduler, like tcp://10.0.0.1:8786.",
        ),
        click.option(
            "--executor", type=click.Choice(["local", "dask"]), default="local", show_default=True,
            help="Where an ASE calculator runs: here, or on an existing Dask cluster.",
        ),
        click.option(
            "--time-limit", type=click.FloatRange(0, 1e8, min_open=True), default=3600.0,
            show_default=True, metavar="SECONDS",
            help="For one calculation or relaxation by an ASE calculator; then it is stopped, and "
            "the others continue.",
        ),
        click.option(
            "--workers", type=click.IntRange(1), metavar="N",
            help="Processes in which an ASE calculator runs.  [default: 1]",
        ),
        click.option(
            "--vacuum", type=click.FloatRange(0, 100), default=0.0, show_default=True, metavar="Å",
            help="Empty space around a cluster in a box that only an ASE calculator sees, if that "
            "needs one.",
        ),
    ):  # fmt: skip
        wrapped = option(wrapped)
    return wrapped  # type: ignore[return-value]


@contextlib.contextmanager
def open_potential(
    name: str,
    arguments: Sequence[tuple[str, Any]],
    running: Running,
    *,
    option: str = "--potential",
    results: ResultStore | None = None,
    output: Path | None = None,
) -> Iterator[Any]:
    """Yields what computes energies: "auto", an `EMT`, None, or a `WorkerPotential`.

    Args:
        name: as the user gave it: "auto", "emt", "none", or MODULE:NAME of an ASE calculator.
        arguments: of the calculator.
        running: where it runs.
        option: that named it.
        results: keeps the calculator's results.
        output: what it is for; what the calculator prints goes into a file beside it.

    Raises:
        click.UsageError: if the name has another form, an argument is given twice, or there are
            arguments, but no calculator.
        ValueError: if there is no such calculator, or it cannot be made.
    """
    keys = [key for key, _ in arguments]
    if len(set(keys)) < len(keys):
        raise click.BadParameter("each KEY takes one value", param_hint="--potential-arg")
    if keys and name in NAMES:
        raise click.UsageError(f"--potential-arg goes with {option} MODULE:NAME, not with {name}")
    if name == "auto":
        yield "auto"
    elif name == "none":
        yield None
    elif name == "emt":
        from tfgen.potentials.emt import EMT

        yield EMT()
    else:
        from tfgen.potentials.import_paths import is_import_path

        if not is_import_path(name):
            raise click.BadParameter(
                f"{name!r} is not one of {', '.join(NAMES)}, MODULE:NAME", param_hint=option
            )
        with _open_workers(name, dict(arguments), running, results, output, option) as potential:
            yield potential


@contextlib.contextmanager
def _open_workers(
    name: str,
    arguments: dict[str, Any],
    running: Running,
    results: ResultStore | None,
    output: Path | None,
    option: str,
) -> Iterator[Any]:
    from tfgen.execution.dask import dask_executor
    from tfgen.execution.worker_potential import WorkerPotential
    from tfgen.potentials._output import log_beside

    look_here()
    with contextlib.ExitStack() as stack:
        log = None if output is None else stack.enter_context(log_beside(output))
        cluster = None
        if running.executor == "dask":
            cluster = stack.enter_context(dask_executor(running.scheduler or ""))
        try:
            potential = WorkerPotential(
                name,
                arguments,
                vacuum=running.vacuum,
                workers=running.workers or 1,
                time_limit=running.time_limit,
                executor=cluster,
                results=results,
                log=log,
            )
        except ValueError as error:
            raise click.ClickException(f"{error}; {option} none does without it") from error
        yield stack.enter_context(potential)
