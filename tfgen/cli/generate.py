"""`tfgen generate`."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tfgen._tensorflow import load_quietly
from tfgen.cli._options import (
    TARGETS,
    check_extxyz,
    descriptor_option,
    imported,
    output_option,
    overwrite_option,
    path_argument,
    potential_argument_option,
    potential_from,
    seed_option,
    shown_warnings,
)

if TYPE_CHECKING:
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
@click.option(
    "--candidates", type=click.IntRange(1), metavar="N",
    help="Candidates that may be relaxed for one structure: those off target are replaced by the "
    "next; 1 takes the first.  [default: 10, or 1 if nothing computes the properties asked for]",
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
    candidates: int | None,
    descriptors: tuple[str, ...],
    seed: int,
    overwrite: bool,
) -> None:
    """Generate structures with wanted property values, and verify each."""
    load_quietly()
    check_extxyz(output)
    from tfgen._files import require_absent
    from tfgen.generation.generate import generate as run
    from tfgen.generation.records import write
    from tfgen.generation.request import UnsupportedFormulaError, UnverifiableError
    from tfgen.generation.settings import GenerationSettings
    from tfgen.models.model import Model

    names = [target.name for target in targets]
    if len(set(names)) < len(names):
        raise click.BadParameter("each property takes one target", param_hint="--target")
    require_absent(output, overwrite)
    evaluator = potential_from(potential, arguments)
    if relax in ("auto", potential):
        relaxer = True
    else:
        relaxer = potential_from(relax, option="--relax") or False
    loaded = Model.load(model, [imported(path) for path in descriptors])
    if relaxer is True and (
        potential == "none" or (potential == "auto" and loaded.potential != "emt")
    ):
        relaxer = False
    try:
        with shown_warnings():
            generated = run(
                loaded,
                formula,
                {target.name: target.value for target in targets},
                count,
                seed=seed,
                potential=evaluator,
                relax=relaxer,
                settings=GenerationSettings(candidates=candidates),
                progress=True,
            )
    except UnsupportedFormulaError as error:
        raise click.ClickException(
            f"{error}; with --relax none and another --potential it can be generated"
        ) from error
    except UnverifiableError as error:
        raise click.ClickException(
            f"nothing computes {', '.join(error.properties)}, so that --candidates can only be 1; "
            "--potential names what computes energies"
        ) from error
    write(generated, output, overwrite)
    counts = Counter(atoms.info["status"] for atoms in generated).most_common()
    statuses = ", ".join(f"{number} {status}" for status, number in counts)
    click.echo(f"{len(generated)} structures in {output}: {statuses}")
    verified = [atoms.info["verified"] for atoms in generated if "verified" in atoms.info]
    if verified:
        spent, kind = sum(atoms.info["candidates"] for atoms in generated), "calculations"
        click.echo(
            f"{sum(verified)} of {len(generated)} are on target, valid and new; "
            f"{spent} {kind if relaxer is False else 'relaxations'} were spent on them"
        )
    for stage in ("decoded", "reconstructed", "relaxed"):
        for name in generated[0].info[stage]:
            values = [atoms.info[stage][name] for atoms in generated]
            values = [v for v in values if v is not None]
            if values:
                click.echo(f"  {stage:>13} {name}: mean {sum(values) / len(values):.4f}, "
                           f"{min(values):.4f} to {max(values):.4f}")  # fmt: skip
