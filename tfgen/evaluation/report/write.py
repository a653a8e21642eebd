"""The report on generated structures, written into a folder: `metrics.json` and `index.html`."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ase import Atoms

from tfgen._files import new_folder, require_folder_replaceable
from tfgen.evaluation.report.fingerprint_map import check_model
from tfgen.evaluation.report.page import render_page
from tfgen.evaluation.report.sections import describe
from tfgen.evaluation.report.settings import ReportSettings
from tfgen.evaluation.results import Metrics

if TYPE_CHECKING:
    from tfgen.datasets.storage import Dataset
    from tfgen.fingerprints.fingerprint import Fingerprint
    from tfgen.models.model import Model

__all__ = ["require_report_folder", "write_report"]

_FILES = {"metrics.json", "index.html"}


def require_report_folder(folder: str | os.PathLike[str], overwrite: bool = False) -> Path:
    """Returns `folder` if a report may be written there; call it before long work.

    Args:
        folder: the folder.
        overwrite: whether an earlier report may be replaced.

    Raises:
        FileExistsError: if it exists and `overwrite` is false, or if it holds anything but a
            report: overwriting is for reports, not for whatever a slip of the keyboard names.
        NotADirectoryError: if it is a file.
    """
    return require_folder_replaceable(folder, overwrite, _FILES)


def write_report(
    generated: Sequence[Atoms],
    dataset: Dataset,
    metrics: Metrics,
    folder: str | os.PathLike[str],
    overwrite: bool = False,
    *,
    model: Model | None = None,
    fingerprint: Fingerprint | None = None,
    settings: ReportSettings | None = None,
) -> None:
    """Writes `metrics.json` and `index.html`, one file that opens with no network.

    Args:
        generated: the structures that were evaluated.
        dataset: the data set they were evaluated against.
        metrics: what `tfgen.evaluate` returned for the two.
        folder: a new folder, whole or not there.
        overwrite: replace an earlier report.
        model: the model that generated them, for maps of its fingerprints and its latent space.
        fingerprint: what the map is of if there is no model. Default: the preset "default".
        settings: what may be varied. Default: `ReportSettings()`.

    Raises:
        FileExistsError: if the folder exists and may not be replaced.
        ValueError: if `metrics` is of other structures, or `model` is not of this data set.
    """
    if len(metrics.structures) != len(generated):
        raise ValueError(
            f"metrics is of {len(metrics.structures)} structures, not of these {len(generated)}"
        )
    if model is not None:
        check_model(model, generated, dataset)
    folder = require_report_folder(folder, overwrite)
    text = json.dumps(metrics.to_json(), indent=2, ensure_ascii=False, allow_nan=False)
    content = describe(
        generated,
        dataset,
        metrics,
        settings=settings or ReportSettings(),
        model=model,
        fingerprint=fingerprint,
    )
    with new_folder(folder, overwrite) as temporary:
        (temporary / "metrics.json").write_text(text + "\n", encoding="utf-8")
        (temporary / "index.html").write_text(render_page(content), encoding="utf-8")
