"""Where generated structures lie among those of training: maps of fingerprints and latent space."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms

from tfgen.evaluation.report import charts as plotting
from tfgen.evaluation.report.structures import figure, properties
from tfgen.evaluation.report.text import axis, percent

if TYPE_CHECKING:
    from tfgen.datasets.storage import Dataset
    from tfgen.fingerprints.fingerprint import Fingerprint
    from tfgen.models.model import Model

__all__ = ["check_model", "map_section", "principal_axes"]

# More structures than this are thinned out evenly: a map does not get better by more points.
_MOST = 1000

_OF_FINGERPRINTS = (
    "Fingerprints, each feature in units of its spread over training. Structures that are "
    "alike lie together; generated ones should lie where there are, or could be, known "
    "ones of their colour."
)
_OF_LATENTS = (
    "Latent space of the model: means of what its encoder makes of each structure and "
    "its own properties. The decoder is told the properties besides, so the latent "
    "vector need not hold them: colours that are well mixed are good here, and "
    "generated structures should cover what training covers."
)


def check_model(model: Model, generated: Sequence[Atoms], dataset: Dataset) -> None:
    """Raises ValueError if a model cannot have been trained on the data set."""
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


def map_section(
    generated: Sequence[Atoms],
    train: Dataset,
    metrics: Mapping[str, Any],
    model: Model | None,
) -> str:
    """Returns the section with the maps; nothing where they cannot be drawn.

    Without a model, the map is of fingerprints (the preset "default"); with one, of its own
    fingerprints and of its latent space beside it.
    """
    rows = [row for row in metrics["structures"] if row["valid"]]
    made = [a for a, row in zip(generated, metrics["structures"], strict=True) if row["valid"]]
    names = [name for name in properties(metrics) if name in train.properties]
    name = (names or [*train.properties])[0]
    known = train.structures
    if not made or len(known) < 3 or any(s.pbc.any() for s in (*made, *known)):
        return ""
    chosen = _thinned(len(known))
    known = [known[i] for i in chosen]
    shown = _thinned(len(made))
    made, rows = [made[i] for i in shown], [rows[i] for i in shown]
    values = (train.properties[name][chosen], _final_values(rows, name))

    if model is None:
        fingerprint = _default(*sorted({str(e) for s in (*known, *made) for e in s.symbols}))
    else:
        fingerprint = model.fingerprint
    vectors = fingerprint.create(known), fingerprint.create(made)
    maps = [
        (
            vectors[0],
            vectors[1],
            _OF_FINGERPRINTS,
        )
    ]
    if model is not None:
        table = np.stack([train.properties[c.name][chosen] for c in model.conditions], axis=1)
        guessed = model.predict_properties(vectors[1])
        own = np.stack([_final_values(rows, c.name) for c in model.conditions], axis=1)
        latent = (
            _latents(model, known, vectors[0], table),
            _latents(model, made, vectors[1], np.where(np.isfinite(own), own, guessed)),
        )
        maps.append(
            (
                *latent,
                _OF_LATENTS,
            )
        )
    figures = []
    for ours, theirs, caption in maps:
        points, others, shares = principal_axes(ours, theirs)
        chart = plotting.map_chart(points, values[0], others, values[1], axis(name, metrics))
        told = f"The two axes hold {percent(float(sum(shares)))} of the variance in training."
        figures.append(figure(chart, f"{caption} {told}"))
    more = "" if model is not None else " With --model MODEL, its latent space stands here too."
    return (
        f"<section><h2>Map</h2><p>Training (dots) and generated structures (rings), coloured by "
        f"{escape(name.replace('_', ' '))}; projected onto the two directions in which training "
        f'varies most.{more}</p><div class="maps">{"".join(figures)}</div></section>'
    )


def principal_axes(
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


def _thinned(count: int) -> np.ndarray:
    return np.unique(np.linspace(0, count - 1, min(count, _MOST)).round().astype(int))


def _final_values(rows: Sequence[Mapping[str, Any]], name: str) -> np.ndarray:
    found = [(row["relaxed"] or row["reconstructed"]).get(name) for row in rows]
    return np.array([np.nan if value is None else value for value in found], float)


@functools.lru_cache(maxsize=4)
def _default(*symbols: str) -> Fingerprint:
    """Kept, because its graphs are traced anew for each object."""
    from tfgen.fingerprints.fingerprint import Fingerprint

    return Fingerprint.preset("default", symbols)


def _latents(
    model: Model, structures: Sequence[Atoms], fingerprints: np.ndarray, table: np.ndarray
) -> np.ndarray:
    """Means of the posterior, [n, latent]."""
    numbers = np.zeros([len(structures), max(map(len, structures))], int)
    for row, atoms in zip(numbers, structures, strict=True):
        row[: len(atoms)] = atoms.numbers
    conditions = model.condition_vectors(table, numbers)
    means = model.cvae.posterior(fingerprints, conditions).mean()
    return np.asarray(means, np.float64)
