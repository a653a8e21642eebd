"""Maps of where generated structures lie among the training structures.

They are of fingerprints and, if there is a model, of its latent space.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from ase import Atoms

from tfgen.evaluation.report import svg_charts
from tfgen.evaluation.report.figures import Figure
from tfgen.evaluation.report.format import format_axis, format_name, format_share
from tfgen.evaluation.report.settings import ReportSettings
from tfgen.evaluation.results import Metrics
from tfgen.evaluation.structure_results import StructureMetrics

if TYPE_CHECKING:
    from tfgen.datasets.storage import Dataset
    from tfgen.fingerprints.fingerprint import Fingerprint
    from tfgen.models.model import Model

__all__ = ["Maps", "check_model", "compute_latents", "plot_maps", "project"]

_OF_FINGERPRINTS = (
    "Fingerprints, with each feature divided by its standard deviation over the training "
    "structures. Structures that are alike lie close together; generated structures should lie "
    "where training structures of their colour lie, or could lie."
)
_OF_LATENTS = (
    "Latent space of the model: the mean that its encoder finds for each structure with its own "
    "properties. The decoder also gets the properties, so the latent vector need not hold "
    "them: well mixed colours are good here, and generated structures should cover what the "
    "training structures cover."
)


@dataclass(frozen=True)
class Maps:
    """The maps of the page.

    Attributes:
        property: the property that colours them, as words.
        has_latents: whether one is of a model's latent space.
        figures: one for each map.
    """

    property: str
    has_latents: bool
    figures: list[Figure]


def check_model(model: Model, generated: Sequence[Atoms], dataset: Dataset) -> None:
    """Checks that a model can have been trained on the data set.

    Args:
        model: the model.
        generated: the structures that it is said to have generated.
        dataset: the data set.

    Raises:
        ValueError: if the data set lacks a property that the model is conditioned on, or an element
            is unknown to the model's fingerprint.
    """
    missing = [c.name for c in model.conditions if c.name not in dataset.properties]
    if missing:
        raise ValueError(
            f"the model is conditioned on {', '.join(missing)}, which the data set does not have "
            f"({', '.join(dataset.properties)})"
        )
    found = {str(e) for s in (*generated, *dataset.structures) for e in s.symbols}
    unknown = sorted(found - set(model.fingerprint.species))
    if unknown:
        raise ValueError(
            f"the model's fingerprint knows {', '.join(model.fingerprint.species)}, not "
            f"{', '.join(unknown)}"
        )


def plot_maps(
    generated: Sequence[Atoms],
    train: Dataset,
    metrics: Metrics,
    settings: ReportSettings,
    model: Model | None,
    fingerprint: Fingerprint | None,
) -> Maps | None:
    """Plots the maps; returns None where they cannot be drawn.

    Args:
        generated: the structures.
        train: the training split.
        metrics: of the structures; only valid ones are shown.
        settings: how many structures are shown.
        model: the model that generated them; its fingerprints and its latent space are shown.
        fingerprint: what is shown if there is no model. Default: the preset "default".
    """
    rows = [row for row in metrics.structures if row.valid]
    made = [a for a, row in zip(generated, metrics.structures, strict=True) if row.valid]
    known = train.structures
    if not made or len(known) < 3 or any(s.pbc.any() for s in (*made, *known)):
        return None
    names = [name for name in metrics.properties if name in train.properties]
    name = (names or [*train.properties])[0]
    chosen = _thin_out(len(known), settings.map_structures)
    known = [known[i] for i in chosen]
    shown = _thin_out(len(made), settings.map_structures)
    made, rows = [made[i] for i in shown], [rows[i] for i in shown]
    colours = train.properties[name][chosen], _collect_values(rows, name)

    if model is not None:
        fingerprint = model.fingerprint
    elif fingerprint is None:
        from tfgen.fingerprints.fingerprint import Fingerprint  # takes TensorFlow along

        elements = sorted({str(e) for s in (*known, *made) for e in s.symbols})
        fingerprint = Fingerprint.preset("default", elements)
    vectors = fingerprint.create(known), fingerprint.create(made)
    maps = [(vectors, _OF_FINGERPRINTS)]
    if model is not None:
        table = np.stack([train.properties[c.name][chosen] for c in model.conditions], axis=1)
        predicted = model.predict_properties(vectors[1])
        own = np.stack([_collect_values(rows, c.name) for c in model.conditions], axis=1)
        latents = (
            compute_latents(model, known, vectors[0], table),
            compute_latents(model, made, vectors[1], np.where(np.isfinite(own), own, predicted)),
        )
        maps.append((latents, _OF_LATENTS))
    axis = format_axis(name, metrics.units)
    figures = [_plot_map(*space, colours, axis, caption) for space, caption in maps]
    return Maps(format_name(name), model is not None, figures)


def _plot_map(
    known: np.ndarray,
    made: np.ndarray,
    colours: tuple[np.ndarray, np.ndarray],
    axis: str,
    caption: str,
) -> Figure:
    points, others, shares = project(known, made)
    share = format_share(float(sum(shares)))
    return Figure(
        svg_charts.draw_map(points, colours[0], others, colours[1], axis),
        f"{caption} The two axes hold {share} of the variance of the training structures.",
    )


def project(
    known: np.ndarray, made: np.ndarray
) -> tuple[np.ndarray, np.ndarray, tuple[float, float]]:
    """Projects vectors onto the two principal axes of the known ones.

    Args:
        known: [n, features]; columns are centred and divided by their spread.
        made: [m, features], treated alike.

    Returns:
        [n, 2], [m, 2], and the share of the variance of each axis.
    """
    spread = known.std(axis=0)
    spread = np.where(spread > 1e-9 * max(spread.max(), 1e-300), spread, np.inf)
    centred = (known - known.mean(axis=0)) / spread
    variance, vectors = np.linalg.eigh(centred.T @ centred)
    axes = np.vstack([vectors.T[::-1], np.zeros([2, len(vectors)])])[:2]
    # A sign of its own for each axis would turn the map over from one machine to another.
    axes *= np.where(axes[np.arange(2), np.abs(axes).argmax(axis=1)] < 0, -1.0, 1.0)[:, None]
    variance = np.maximum(variance[::-1], 0.0)
    shares = [*(variance / max(float(variance.sum()), 1e-300)).tolist(), 0.0]
    projected = (made - known.mean(axis=0)) / spread @ axes.T
    return centred @ axes.T, projected, (shares[0], shares[1])


def _thin_out(count: int, most: int) -> np.ndarray:
    """Returns the places of `most` structures, evenly spaced, or of all if there are fewer."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int))


def _collect_values(rows: Sequence[StructureMetrics], name: str) -> np.ndarray:
    """Returns a property of the structures as they are, [n]; NaN where it is not known."""
    found = [row.final.get(name) for row in rows]
    return np.array([np.nan if value is None else value for value in found], float)


def compute_latents(
    model: Model, structures: Sequence[Atoms], fingerprints: np.ndarray, table: np.ndarray
) -> np.ndarray:
    """Computes the means of the encoder's distributions over latent vectors.

    Args:
        model: the model.
        structures: n structures.
        fingerprints: [n, features], theirs.
        table: [n, conditions], the properties that the model is conditioned on, in its order.

    Returns:
        [n, latent].
    """
    numbers = np.zeros([len(structures), max(map(len, structures))], int)
    for row, atoms in zip(numbers, structures, strict=True):
        row[: len(atoms)] = atoms.numbers
    conditions = model.condition_vectors(table, numbers)
    means = model.cvae.posterior(fingerprints, conditions).mean()
    return np.asarray(means, np.float64)
