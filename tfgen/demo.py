"""All of tfgen on Pt13 in one run, from nothing to a report."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tfgen._files import new_folder, require_folder_replaceable
from tfgen.datasets.building import build
from tfgen.evaluation.evaluate import evaluate
from tfgen.evaluation.report.summary import summarise
from tfgen.evaluation.report.write import write_report
from tfgen.generation.generate import generate
from tfgen.generation.records import write
from tfgen.models.export import export
from tfgen.models.training import train
from tfgen.structures.properties import ENERGY_PER_ATOM

__all__ = ["CONTENTS", "run"]

CONTENTS = ("pt13.h5", "model", "model.logs", "generated.extxyz", "report", "saved_model")
QUANTILES = (0.1, 0.5, 0.9)
COUNT, EPOCHS = 20, 300


def run(
    folder: str | os.PathLike[str],
    *,
    seed: int = 0,
    overwrite: bool = False,
    count: int = COUNT,
    epochs: int = EPOCHS,
    recipe: str | os.PathLike[str] = "pt13",
    say: Callable[[str], None] = print,
) -> Path:
    """Builds, trains, generates, verifies, reports and exports.

    Args:
        folder: where everything is written; it must not exist yet, or be replaceable.
        seed: of every stage.
        overwrite: replace the folder of an earlier demo.
        count: structures for each of the three targets.
        epochs: of the training.
        recipe: of the data set.
        say: called with each line of text.

    Returns:
        The folder.

    Raises:
        FileExistsError: if the folder exists and `overwrite` is false, or holds something else.
    """
    folder = require_folder_replaceable(folder, overwrite, CONTENTS)
    began = time.perf_counter()

    def stage(number: int, text: str) -> None:
        say(f"[{number}/6 {time.perf_counter() - began:4.0f} s] {text}")

    with new_folder(folder, overwrite) as work:
        stage(1, "building a data set of relaxed Pt13 clusters")
        dataset = build(recipe, work / "pt13.h5", seed=seed, progress=True)
        counts = ", ".join(f"{n} {what}" for what, n in dataset.metadata["counts"].items())
        stage(2, f"training a CVAE on {len(dataset.select('train'))} structures ({counts})")
        model = train(dataset, epochs=epochs, seed=seed, logs=work / "model.logs", progress=True)
        model.save(work / "model")
        energies = dataset.select("train").properties[ENERGY_PER_ATOM]
        targets = [round(float(q), 3) for q in np.quantile(energies, QUANTILES)]
        shown = ", ".join(f"{t:g}" for t in targets)
        stage(3, f"generating {count} structures for each of {shown} eV/atom")
        generated = [
            atoms
            for i, target in enumerate(targets)
            for atoms in generate(
                model,
                dataset.structures[0].get_chemical_formula(),
                {ENERGY_PER_ATOM: target},
                count,
                seed=seed + i,
                progress=True,
            )
        ]
        write(generated, work / "generated.extxyz")
        stage(4, "verifying them")
        metrics = evaluate(generated, dataset)
        write_report(generated, dataset, metrics, work / "report", model=model)
        stage(5, "exporting a SavedModel")
        export(model, work / "saved_model")
        stage(6, "done")
    say("")
    say(summarise(metrics))
    say("")
    say(f"everything is in {folder}; open {folder / 'report' / 'index.html'} in a browser")
    return folder
