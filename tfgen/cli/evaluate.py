"""`tfgen evaluate`: metrics and a report on generated structures."""

from __future__ import annotations

import math
from pathlib import Path

import click

from tfgen._tensorflow import load_quietly
from tfgen.cli._options import descriptor_option, imported

__all__ = ["evaluate"]


def _tolerances(
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


def _finite(_context: click.Context, _parameter: click.Parameter, value: float) -> float:
    if not math.isfinite(value):
        raise click.BadParameter(f"{value} is not a finite number")
    return value


@click.command(short_help="Measure generated structures; write a report.")
@click.argument("structures", metavar="OUT.extxyz", type=click.Path(path_type=Path))
@click.option(
    "--dataset",
    "dataset_path",
    metavar="FILE.h5",
    required=True,
    type=click.Path(path_type=Path),
    help="The data set that the model was trained on.",
)
@click.option(
    "-o",
    "--output",
    metavar="REPORT/",
    required=True,
    type=click.Path(path_type=Path),
    help="Folder to make, with metrics.json and index.html.",
)
@click.option(
    "--model",
    "model_path",
    metavar="MODEL",
    type=click.Path(path_type=Path),
    help="The model that generated them; adds a map of its latent space to the report.",
)
@click.option(
    "--hit-tolerance",
    metavar="NAME=VALUE",
    multiple=True,
    callback=_tolerances,
    help="How near a property must come to its target, in the property's unit. Default: 0.01 for "
    "energy_per_atom, 5 % of the range in the training set for any other.",
)
@click.option(
    "--duplicate-tolerance",
    metavar="Å",
    type=click.FloatRange(min=0, min_open=True),
    default=0.05,
    show_default=True,
    callback=_finite,
    help="Structures are equal if all sorted interatomic distances are within this.",
)
@descriptor_option
@click.option("--overwrite", is_flag=True, help="Replace an earlier report.")
def evaluate(
    structures: Path,
    dataset_path: Path,
    output: Path,
    model_path: Path | None,
    hit_tolerance: dict[str, float],
    duplicate_tolerance: float,
    descriptors: tuple[str, ...],
    overwrite: bool,
) -> None:
    """Measure generated structures and write a report on them.

    The metrics tell how many structures are valid, unique and new, and how many have the properties
    that were asked for, next to structures sampled at random from the training set.
    REPORT/index.html opens with no network.
    """
    from tfgen.datasets.storage import Dataset
    from tfgen.evaluation.evaluate import evaluate as run
    from tfgen.evaluation.report.fingerprint_map import check_model
    from tfgen.evaluation.report.summary import summarise
    from tfgen.evaluation.report.write import require_report_folder, write_report
    from tfgen.evaluation.settings import EvaluationSettings
    from tfgen.generation.records import read_generated

    require_report_folder(output, overwrite)
    generated = read_generated(structures)
    dataset = Dataset.load(dataset_path)
    load_quietly()
    model = None
    if model_path is not None:
        from tfgen.models.model import Model

        model = Model.load(model_path, [imported(path) for path in descriptors])
        check_model(model, generated, dataset)
    known = {s.get_chemical_formula("metal") for s in dataset.select("train").structures}
    foreign = {s.get_chemical_formula("metal") for s in generated} - known
    if foreign:
        click.echo(
            f"Warning: no training structure is {', '.join(sorted(foreign)[:5])}; is it the data "
            "set that the model was trained on?",
            err=True,
        )
    settings = EvaluationSettings(
        hit_tolerance=hit_tolerance, duplicate_tolerance=duplicate_tolerance
    )
    metrics = run(generated, dataset, settings=settings, progress=True)
    write_report(generated, dataset, metrics, output, overwrite, model=model)
    click.echo(summarise(metrics))
    click.echo(f"report: {output / 'index.html'}")
