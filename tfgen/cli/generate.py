"""`tfgen generate`."""

from __future__ import annotations

import contextlib
import functools
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from tfgen._tensorflow import load_quietly
from tfgen.cli._options import (
    TARGETS,
    check_extxyz,
    compute_option,
    descriptor_option,
    imported,
    look_here,
    output_option,
    overwrite_option,
    path_argument,
    reserve_output,
    seed_option,
    shown_warnings,
    tolerance_option,
)
from tfgen.cli._output import echo
from tfgen.cli._potential_options import (
    Running,
    open_potential,
    potential_argument_option,
    running_options,
)
from tfgen.generation.settings import GenerationSettings

if TYPE_CHECKING:
    from ase import Atoms

    from tfgen.models.model import Model
    from tfgen.targets import Target


@click.command(short_help="Generate structures and verify each.")
@path_argument("model", "MODEL")
@output_option("OUT.extxyz", "Generated structures, each with its record.")
@click.option("--formula", required=True, metavar="FORMULA", help="Composition, like Pt13.")
@click.option(
    "--target", "targets", type=TARGETS, multiple=True, required=True,
    help="Wanted value or range of a property; may be repeated. Properties that are not named are "
    "sampled as the training data has them, given those that are.",
)  # fmt: skip
@click.option("--count", type=click.IntRange(1), required=True, help="Number of structures.")
@click.option(
    "--relax", default="auto", show_default=True, metavar="auto|emt|none|MODULE:NAME",
    help="What relaxes the structures: auto is what evaluates energies, if anything does; with "
    "none they stay as reconstructed.",
)  # fmt: skip
@click.option(
    "--potential", default="auto", show_default=True, metavar="auto|emt|none|MODULE:NAME",
    help="Evaluates energies; auto is EMT if the training data is EMT's. MODULE:NAME names an "
    "ASE calculator.",
)  # fmt: skip
@potential_argument_option
@running_options
@compute_option
@tolerance_option(
    "--tolerance", help="Default: 0.01 for energy_per_atom, 5 % of the range in the training set "
    "for any other.",
)  # fmt: skip
@click.option(
    "--candidates", type=click.IntRange(1), metavar="N",
    help="Candidates that may be relaxed for one structure: those off target are replaced by the "
    "next; 1 takes the first.  [default: 10, or 1 if nothing computes the properties asked for]",
)  # fmt: skip
@click.option(
    "--fmax", type=click.FloatRange(0, 1e3, min_open=True), default=GenerationSettings.fmax,
    show_default=True, metavar="eV/Å",
    help="Largest force at which the relaxation of a candidate stops. Self-consistent methods "
    "seldom come below 0.02 to 0.05.",
)  # fmt: skip
@descriptor_option
@seed_option
@overwrite_option
def generate(
    model: Path,
    output: Path,
    formula: str,
    targets: tuple[Target, ...],
    count: int,
    relax: str,
    potential: str,
    arguments: tuple[tuple[str, Any], ...],
    running: Running,
    compute: dict[str, str | None],
    tolerance: dict[str, float],
    candidates: int | None,
    fmax: float,
    descriptors: tuple[str, ...],
    seed: int,
    overwrite: bool,
) -> None:
    """Generate structures with wanted property values, and verify each."""
    check_extxyz(output)
    from tfgen.structures.formulas import MAX_SOUGHT, numbers_from_formula

    numbers_from_formula(formula, most=MAX_SOUGHT)  # refused before TensorFlow is waited for
    load_quietly()
    from tfgen._files import require_absent
    from tfgen.execution.results import ResultStore
    from tfgen.generation.generate import InterruptedRequest
    from tfgen.generation.generate import generate as run
    from tfgen.generation.records import write
    from tfgen.generation.request import UnsupportedFormulaError, UnverifiableError
    from tfgen.models.model import Model

    names = [target.name for target in targets]
    if len(set(names)) < len(names):
        raise click.BadParameter("each property takes one target", param_hint="--target")
    reserve_output(output)
    require_absent(output, overwrite)
    look_here()
    results = ResultStore(output.with_name(output.name + ".partial"))
    loaded = Model.load(model, [imported(path) for path in descriptors])
    opened = functools.partial(open_potential, running=running, results=results, output=output)
    try:
        with contextlib.ExitStack() as stack:
            stack.enter_context(shown_warnings())
            evaluator = stack.enter_context(opened(potential, arguments))
            relaxer: Any = "auto"
            if relax not in ("auto", potential):
                relaxer = stack.enter_context(opened(relax, (), option="--relax")) or False
            generated = run(
                loaded,
                formula,
                {target.name: target.value for target in targets},
                count,
                seed=seed,
                tolerance=tolerance,
                potential=evaluator,
                relax=relaxer,
                compute=compute,
                settings=GenerationSettings(candidates=candidates, fmax=fmax),
                results=results,
                progress=True,
            )
    except UnsupportedFormulaError as error:
        raise click.ClickException(
            f"{error}; with --relax none and another --potential it can be generated"
        ) from error
    except UnverifiableError as error:
        raise click.ClickException(
            f"nothing calculates {', '.join(error.properties)}, so that --candidates can only be "
            f"1; {_what_would_help(error.properties)}"
        ) from error
    except InterruptedRequest as error:
        _keep_interrupted(error.structures, count, output)
    write(generated, output, overwrite)
    results.remove()
    _unfinished(output).unlink(missing_ok=True)
    report(generated, output, _option_of(loaded))


def _what_would_help(properties: Sequence[str], potential: str | None = None) -> str:
    """Says how properties could be calculated; `potential` as the command line names it."""
    from tfgen.structures.properties import ENERGIES

    ways = [
        f"--potential {potential or 'MODULE:NAME'}"
        if name in ENERGIES
        else f"--compute {name}=MODULE:FUNCTION"
        for name in properties
    ]
    return f"{' and '.join(dict.fromkeys(ways))} would"


def _option_of(model: Model) -> str | None:
    """Returns what follows `--potential` for what calculated the training set, if it is known."""
    known = model.calculator or {"name": model.potential}
    arguments = known.get("arguments") or {}
    options = [f"--potential-arg {key}={value}" for key, value in arguments.items()]
    return " ".join([known["name"], *options]) if known.get("name") else None


def _unfinished(output: Path) -> Path:
    """Returns the file of the structures that an interrupted request has finished."""
    return output.with_name(f"{output.stem}.unfinished{output.suffix}")


def _keep_interrupted(structures: Sequence[Atoms], count: int, output: Path) -> NoReturn:
    """Writes what there is, and says how to go on."""
    from tfgen.generation.records import write

    partial = output.with_name(output.name + ".partial")
    finished = _unfinished(output)
    said = f"interrupted; {str(partial)!r} keeps what is done, and the same command continues"
    if not partial.exists():
        said = "interrupted before there was anything to keep"
    if structures:
        write(structures, finished, overwrite=True)
        said += f"; {len(structures)} of {count} structures are finished, in {str(finished)!r}"
    raise click.ClickException(said) from None


def report(generated: Sequence[Atoms], output: Path, potential: str | None = None) -> None:
    """Prints what came of a request; what only the network says stands apart.

    Args:
        generated: the structures.
        output: their file.
        potential: what calculated the energies of the training set, as the command line names it,
            if that is known.
    """
    from tfgen.targets import SURROGATE

    counts = Counter(atoms.info["status"] for atoms in generated).most_common()
    statuses = ", ".join(f"{number} {status}" for status, number in counts)
    echo(f"{len(generated)} structures in {output}: {statuses}")
    spent = {
        name: sum(atoms.info[name] for atoms in generated)
        for name in ("candidates", "calculations", "proposed")
    }
    verified = [atoms.info["verified"] for atoms in generated if "verified" in atoms.info]
    if verified:
        echo(f"{sum(verified)} of {len(generated)} are on target, valid and new")
    echo(
        f"{spent['proposed']} proposals, {spent['candidates']} candidates and "
        f"{spent['calculations']} calculations were spent on them"
    )
    sources = generated[0].info["evaluated_by"]
    calculated = [name for name, source in sources.items() if source != SURROGATE]
    for stage in ("reconstructed", "relaxed"):
        for name in calculated:
            _print_range(generated, stage, name, f", by {sources[name]}")
    guessed = [name for name in sources if name not in calculated]
    echo("what the model's own network says, which nothing has calculated:")
    for name in generated[0].info["decoded"]:
        _print_range(generated, "decoded", name)
    for stage in ("reconstructed", "relaxed"):
        for name in guessed:
            _print_range(generated, stage, name)
    missing = [name for name in generated[0].info["target"] if name in guessed]
    if missing:
        echo(
            f"nothing has calculated {', '.join(missing)}, so that nothing is verified; "
            f"{_what_would_help(missing, potential)}"
        )


def _print_range(generated: Sequence[Atoms], stage: str, name: str, source: str = "") -> None:
    values = [atoms.info[stage].get(name) for atoms in generated]
    values = [value for value in values if value is not None]
    if values:
        echo(
            f"  {stage:>13} {name}: mean {sum(values) / len(values):.4f}, "
            f"{min(values):.4f} to {max(values):.4f}{source}"
        )
