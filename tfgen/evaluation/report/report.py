"""The report on generated structures: `metrics.json`, `index.html` and a few lines of text."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ase import Atoms

from tfgen._files import new_folder, require_folder_replaceable
from tfgen.evaluation.report.body import body
from tfgen.evaluation.report.map import check_model
from tfgen.evaluation.report.page import page
from tfgen.evaluation.report.text import percent, plain, statuses, value_text, wanted_text
from tfgen.generation.records import STAGES

if TYPE_CHECKING:
    from tfgen.datasets.storage import Dataset
    from tfgen.models.model import Model

__all__ = ["check_model", "require_report_folder", "summary", "write_report"]

_FILES = {"metrics.json", "index.html"}


def require_report_folder(folder: str | os.PathLike[str], overwrite: bool = False) -> Path:
    """Returns `folder` if a report may be written there; call it before long work.

    Raises:
        FileExistsError: if it exists and `overwrite` is false, or if it holds anything but a
            report: overwriting is for reports, not for whatever a slip of the keyboard names.
        NotADirectoryError: if it is a file.
    """
    return require_folder_replaceable(folder, overwrite, _FILES)


def write_report(
    generated: Sequence[Atoms],
    dataset: Dataset,
    metrics: Mapping[str, Any],
    folder: str | os.PathLike[str],
    overwrite: bool = False,
    *,
    model: Model | None = None,
) -> None:
    """Writes `metrics.json` and `index.html`, one file that opens with no network.

    Args:
        generated: the structures that were evaluated.
        dataset: the data set they were evaluated against.
        metrics: what `tfgen.evaluation.evaluate` returned for the two.
        folder: a new folder, whole or not there.
        overwrite: replace an earlier report.
        model: the model that generated them, for a map of its latent space.

    Raises:
        FileExistsError: if the folder exists and may not be replaced.
        ValueError: if `metrics` is of other structures, or `model` is not of this data set.
    """
    if len(metrics["structures"]) != len(generated):
        raise ValueError(
            f"metrics is of {len(metrics['structures'])} structures, not of these {len(generated)}"
        )
    if model is not None:
        check_model(model, generated, dataset)
    folder = require_report_folder(folder, overwrite)
    text = json.dumps(metrics, indent=2, ensure_ascii=False, allow_nan=False)
    content = body(generated, dataset, metrics, model)
    title = f"{metrics['count']} generated structures"
    with new_folder(folder, overwrite) as temporary:
        (temporary / "metrics.json").write_text(text + "\n", encoding="utf-8")
        (temporary / "index.html").write_text(page(title, content), encoding="utf-8")


def summary(metrics: Mapping[str, Any]) -> str:
    """Returns the metrics as a compact table of plain text, for a terminal."""
    lines = [
        f"structures: {metrics['count']}, next to {metrics['training_structures']} for training",
        f"valid {percent(metrics['validity'])}   unique {percent(metrics['uniqueness'])}   "
        f"new {percent(metrics['novelty'])}   "
        + ", ".join(f"{count} {plain(name)}" for name, count in statuses(metrics, 4).items()),
    ]
    if metrics["seconds_per_structure"] is not None:
        lines[0] += f", {metrics['seconds_per_structure']:.2g} s a structure"
    lines += _cost(metrics)
    titles = [
        f"{plain(name)} {wanted_text(wanted)}"
        for entry in metrics["targets"]
        for name, wanted in entry["target"].items()
    ]
    if titles:
        width = max(map(len, titles))
        names = ("decoded", "recon.", "relaxed", "draws")
        lines += [
            "",
            f"{'':{width + 5}s}   {'hits':32s}mean distance to the target",
            f"{'target':{width}s}{'n':>5s}" + "".join(f"{name:>8s}" for name in names * 2),
        ]
    for entry in metrics["targets"]:
        rates = [entry["hit_rate"][stage] for stage in STAGES] + [entry["baseline"]["hit_rate"]]
        shared = f"{entry['count']:5d}" + "".join(f"{percent(rate):>8s}" for rate in rates)
        for name in entry["target"]:
            errors = [entry["mae"][stage][name] for stage in STAGES]
            errors.append(entry["baseline"]["mae"][name])
            cells = "".join(f"{value_text(error, 2):>8s}" for error in errors)
            lines.append(f"{titles.pop(0):{width}s}{shared}{cells}")
            shared = " " * len(shared)  # the other properties of the same target
    limits = metrics["thresholds"]
    near, far = limits["overlap_factor"], limits["bond_factor"]
    passed = percent(limits["training_pass_rate"])
    lines += [
        "",
        f"valid: atoms at least {near:g} times the sum of covalent radii apart, and in one piece",
        f"by bonds up to {far:g} times that sum; {passed} of the training structures are",
    ]
    return "\n".join(lines)


def _cost(metrics: Mapping[str, Any]) -> list[str]:
    """Returns one line on what hits cost and what they cover, if anything is known."""
    parts = []
    if metrics["verified"]:
        cost = metrics["verified"]["relaxations_per_hit"]
        hits = f"{metrics['verified']['hits']} verified hits"
        parts.append(hits if cost is None else f"{hits}, {cost:.3g} relaxations each")
    if metrics["acceptance"]:
        accepted = metrics["acceptance"]
        parts.append(f"{percent(accepted['rate'])} of {accepted['candidates']} candidates accepted")
    if metrics["basin"]["count"]:
        parts.append(f"{percent(metrics['basin']['share'])} kept their basin")
    if metrics["coverage"]["count"]:
        covered = metrics["coverage"]
        parts.append(f"{covered['found']} of {covered['count']} in the test split found")
    return ["   ".join(parts)] if parts else []
