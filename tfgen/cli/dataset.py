"""`tfgen dataset`: build, import, look at and export data sets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import click

from tfgen._tensorflow import load_quietly
from tfgen.cli._options import (
    check_executor,
    compute_option,
    look_here,
    reserve_output,
    shown_warnings,
)
from tfgen.cli._output import echo, echo_json

__all__ = ["dataset"]

_OUTPUT = click.Path(dir_okay=True)  # folders are refused by the library, with exit code 1


@click.group()
def dataset() -> None:
    """Build, import, look at and export data sets."""


@dataset.command()
@click.argument("recipe", metavar="RECIPE")
@click.option("-o", "--output", required=True, type=_OUTPUT, help="HDF5 file to write.")
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Of all random choices.",
)
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    help="Number of local processes, 1 if not given; the data set does not depend on it.",
)
@click.option(
    "--executor",
    type=click.Choice(["local", "dask"]),
    default="local",
    show_default=True,
    help="Where the work runs: here, or on an existing Dask cluster.",
)
@click.option(
    "--scheduler",
    metavar="ADDRESS",
    help="Address of the Dask scheduler, like tcp://10.0.0.1:8786.",
)
@click.option(
    "--overwrite",
    is_flag=True,
    help="Replace the output, and discard what is left of another, interrupted build.",
)
@compute_option
def build(
    recipe: str,
    output: str,
    seed: int,
    workers: int | None,
    executor: str,
    scheduler: str | None,
    overwrite: bool,
    compute: dict[str, str | None],
) -> None:
    """Run RECIPE, a TOML file or a name such as pt13, and write a data set.

    After an interruption, the same command continues where it stopped.
    """
    check_executor(executor, scheduler, workers)
    load_quietly()
    look_here()
    from tfgen.datasets.building import build as run
    from tfgen.datasets.building import partial_folder
    from tfgen.datasets.recipe import load_recipe

    loaded = load_recipe(recipe)
    try:
        with shown_warnings():
            result = run(
                loaded,
                output,
                seed=seed,
                workers=workers or 1,
                executor=executor,
                scheduler=scheduler,
                overwrite=overwrite,
                compute=compute,
                progress=True,
            )
    except KeyboardInterrupt:
        done = len(list(partial_folder(output).glob("chunk-*.npz")))
        raise click.ClickException(
            f"interrupted; {done} finished chunks are kept in {str(partial_folder(output))!r}, "
            "the same command continues from there"
        ) from None
    _print_counts(result.metadata["counts"])
    _print_written(output, result.summary())


@dataset.command("import")
@click.argument("files", nargs=-1, required=True, metavar="FILES...")
@click.option("-o", "--output", required=True, type=_OUTPUT, help="HDF5 file to write.")
@click.option(
    "--property",
    "properties",
    multiple=True,
    metavar="NAME",
    help="A number to take from info, calculator results or db columns; may be repeated. "
    "Energies are taken if all structures have one.",
)
@click.option(
    "--unit",
    "units",
    multiple=True,
    metavar="NAME=UNIT",
    help="Unit of a property, to be recorded, or of energies, which are converted to eV; "
    "may be repeated.",
)
@click.option(
    "--energy",
    metavar="NAME",
    help="The total energy, in eV unless the file states another unit, stands under this name.",
)
@compute_option
@click.option(
    "--format",
    metavar="NAME",
    help="ASE's name for the format of all files, or csv, where guessing goes wrong.",
)
@click.option(
    "--missing",
    type=click.Choice(["error", "skip"]),
    default="error",
    show_default=True,
    help="What happens to structures that lack a property asked for, and to single atoms.",
)
@click.option(
    "--duplicates",
    type=click.Choice(["drop", "keep"]),
    default="drop",
    show_default=True,
    help="What happens to structures of equal geometry that differ in no property asked for.",
)
@click.option(
    "--tolerance",
    type=click.FloatRange(min=0.0),
    default=0.05,
    show_default=True,
    help="Geometries whose sorted distances differ by no more, in Å, are equal.",
)
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the split."
)
@click.option("--overwrite", is_flag=True, help="Replace the output.")
def import_(
    files: tuple[str, ...],
    output: str,
    properties: tuple[str, ...],
    units: tuple[str, ...],
    energy: str | None,
    compute: dict[str, str | None],
    format: str | None,
    missing: Literal["error", "skip"],
    duplicates: Literal["drop", "keep"],
    tolerance: float,
    seed: int,
    overwrite: bool,
) -> None:
    """Make a data set of the structures in FILES.

    They may be in any format that ASE reads, or tables (CSV) with a column cif.
    """
    table = {}
    for unit in units:
        name, equals, value = unit.partition("=")
        if not name or not equals or not value:
            raise click.BadParameter(f"{unit!r} is not of the form NAME=UNIT", param_hint="--unit")
        table[name] = value
    from tfgen._files import require_absent
    from tfgen.datasets.importing import import_files
    from tfgen.execution.results import ResultStore

    _refuse_input_as_output(files, output)
    reserve_output(output)
    require_absent(output, overwrite)
    results = ResultStore(Path(f"{output}.calculations"))
    with shown_warnings():
        result = import_files(
            files,
            properties=properties,
            units=table,
            energy=energy,
            compute=compute,
            format=format,
            missing=missing,
            duplicates=duplicates,
            duplicate_tolerance=tolerance,
            seed=seed,
            results=results,
            progress=True,
        )
    result.save(output, overwrite)
    results.remove()
    _print_counts(result.metadata["counts"])
    if (groups := result.metadata.get("groups", len(result))) < len(result):
        echo(f"{groups:8d}  groups of near copies, each in one split")
    _print_dropped(result.metadata.get("duplicates"))
    if other := result.metadata.get("other_energies"):
        names = ", ".join(map(repr, other[:8]))
        echo(f"Note: no energy was found; --energy takes one of {names}", err=True)
    _print_written(output, result.summary())


@dataset.command()
@click.argument("file", metavar="FILE.h5")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable.")
def info(file: str, as_json: bool) -> None:
    """Show counts, sizes, compositions, property ranges and units, and provenance."""
    from tfgen.datasets.storage import Dataset

    summary = Dataset.load(file).summary()
    if as_json:
        echo_json(summary)
        return
    metadata = summary["metadata"]
    echo(f"{summary['name'] or file}: {metadata.get('description') or 'no description'}")
    _print_contents(summary)
    if metadata.get("counts"):
        echo()
        _print_counts(metadata["counts"])
    versions = metadata.get("versions", {})
    made = [f"{metadata.get('kind', 'made')} {metadata.get('created', 'at an unknown time')}"]
    made += [f"seed {metadata['seed']}"] if "seed" in metadata else []
    made += [f"{name} {version}" for name, version in versions.items()]
    echo("\n" + ", ".join(made))


@dataset.command()
@click.argument("file", metavar="FILE.h5")
@click.option(
    "-o",
    "--output",
    required=True,
    type=_OUTPUT,
    help="File to write; its suffix decides on the format. "
    "extxyz, traj and db keep structures and properties to the last bit.",
)
@click.option(
    "--split",
    type=click.Choice(["train", "validation", "test", "all"]),
    default="all",
    show_default=True,
)
@click.option(
    "--vacuum",
    type=click.FloatRange(min=0.0, min_open=True),
    metavar="Å",
    help="Put clusters into boxes with this much space on all sides, for formats that need a cell.",
)
@click.option("--overwrite", is_flag=True, help="Replace the output.")
def export(file: str, output: str, split: str, vacuum: float | None, overwrite: bool) -> None:
    """Write the structures of FILE.h5 in any format that ASE writes."""
    from tfgen.datasets.exporting import export as run
    from tfgen.datasets.exporting import in_box, losses
    from tfgen.datasets.storage import Dataset

    _refuse_input_as_output([file], output)
    reserve_output(output)
    loaded = Dataset.load(file)
    count = run(loaded, output, split=split, vacuum=vacuum, overwrite=overwrite, progress=True)
    lost = losses(in_box(loaded.select(split), vacuum), output)
    if lost:
        echo(f"Note: {output} does not hold: {'; '.join(lost)}", err=True)
    echo(f"{output}: {count} structures")


def _refuse_input_as_output(files: Sequence[str], output: str) -> None:
    if Path(output).resolve() in [Path(file).resolve() for file in files]:
        raise click.BadParameter(f"{output!r} is an input, too", param_hint="--output")


def _print_counts(counts: dict[str, int]) -> None:
    for stage, count in counts.items():
        echo(f"{count:8d}  {stage}")


def _print_dropped(dropped: dict[str, Any] | None) -> None:
    """Says which duplicates an import has dropped, and how to keep them."""
    if not dropped:
        return
    energies = dropped.get("largest_energy_difference")
    apart = f" (energies up to {energies:.3g} eV/atom apart)" if energies is not None else ""
    echo(f"\nduplicates dropped{apart}:")
    for example in dropped["examples"]:
        echo(f"  {example['row']} equals {example['equals']}")
    if (more := dropped["count"] - len(dropped["examples"])) > 0:
        echo(f"  and {more} more")
    echo("  --property NAME keeps those that differ in NAME, --duplicates keep keeps all")


def _print_written(output: str, summary: dict[str, Any]) -> None:
    echo(f"\n{output}")
    _print_contents(summary)


def _print_contents(summary: dict[str, Any]) -> None:
    splits = ", ".join(f"{count} {name}" for name, count in summary["splits"].items())
    echo(f"structures    {summary['structures']} ({splits})")
    compositions = [f"{f} ({n})" for f, n in summary["compositions"].items()]
    more = f" and {len(compositions) - 8} more" if len(compositions) > 8 else ""
    echo(f"compositions  {', '.join(compositions[:8])}{more}")
    sizes = [int(size) for size in summary["sizes"]]
    reach = f"{sizes[0]}" if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"
    echo(f"atoms         {reach}")
    echo(f"periodic      {summary['periodic'] or 'none'}")
    echo(f"\n{'property':24} {'unit':10} {'lowest':>12} {'mean':>12} {'highest':>12}")
    for name, p in summary["properties"].items():
        values = "".join(f" {p[key]:12.6g}" for key in ("min", "mean", "max"))
        echo(f"{name:24} {p['unit']:10}{values}")
