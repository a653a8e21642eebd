"""`tfgen evaluate`: metrics and a report on generated structures."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import click

from tfgen._tensorflow import load_quietly
from tfgen.cli._options import (
    compute_option,
    descriptor_option,
    imported,
    reserve_output,
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
from tfgen.evaluation.settings import EvaluationSettings

__all__ = ["evaluate"]


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
@tolerance_option(
    "--hit-tolerance", help="Default: as the records say, else 0.01 for energy_per_atom, 5 % of "
    "the range in the training set for any other.",
)  # fmt: skip
@click.option(
    "--potential", default="none", show_default=True, metavar="emt|none|MODULE:NAME",
    help="Calculates the energies of the structures as they are again; with none, the values in "
    "the file count. MODULE:NAME names an ASE calculator.",
)  # fmt: skip
@potential_argument_option
@running_options
@compute_option
@click.option(
    "--duplicate-tolerance",
    metavar="Å",
    type=click.FloatRange(min=0, min_open=True),
    default=EvaluationSettings.duplicate_tolerance,
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
    potential: str,
    arguments: tuple[tuple[str, Any], ...],
    running: Running,
    compute: dict[str, str | None],
    duplicate_tolerance: float,
    descriptors: tuple[str, ...],
    overwrite: bool,
) -> None:
    """Measure generated structures and write a report on them.

    The metrics tell how many structures are valid, unique and new, and how many have the properties
    that were asked for, next to structures sampled at random from the training set.
    REPORT/index.html opens with no network.
    """
    load_quietly()
    from tfgen.datasets.storage import Dataset
    from tfgen.evaluation.evaluate import evaluate as run
    from tfgen.evaluation.report.fingerprint_map import check_model
    from tfgen.evaluation.report.summary import summarise
    from tfgen.evaluation.report.write import require_report_folder, write_report
    from tfgen.execution.results import ResultStore
    from tfgen.generation.records import read_generated

    if potential == "auto":
        raise click.BadParameter("auto is for commands that know a model", param_hint="--potential")
    reserve_output(output)
    require_report_folder(output, overwrite)
    with shown_warnings():
        generated = read_generated(structures)
    dataset = Dataset.load(dataset_path)
    model = None
    if model_path is not None:
        from tfgen.models.model import Model

        model = Model.load(model_path, [imported(path) for path in descriptors])
        check_model(model, generated, dataset)
    known = {s.get_chemical_formula("metal") for s in dataset.select("train").structures}
    foreign = {s.get_chemical_formula("metal") for s in generated} - known
    if foreign:
        echo(
            f"Warning: no training structure is {', '.join(sorted(foreign)[:5])}; is it the data "
            "set that the model was trained on?",
            err=True,
        )
    settings = EvaluationSettings(
        hit_tolerance=hit_tolerance, duplicate_tolerance=duplicate_tolerance
    )
    results = ResultStore(output.with_name(output.name + ".calculations"))
    opened = open_potential(potential, arguments, running, results=results, output=output)
    with shown_warnings(), opened as calculator:
        metrics = run(
            generated,
            dataset,
            potential=calculator,
            compute=compute,
            settings=settings,
            progress=True,
        )
    write_report(generated, dataset, metrics, output, overwrite, model=model)
    results.remove()
    echo(summarise(metrics))
    echo(f"report: {output / 'index.html'}")
