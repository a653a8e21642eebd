"""The figures of the report's page: which values are plotted, and what is said below them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from ase import Atoms

from tfgen.evaluation.report import svg_charts
from tfgen.evaluation.report.format import count_statuses, format_axis
from tfgen.evaluation.results import Metrics
from tfgen.evaluation.structure_results import StructureMetrics
from tfgen.generation.records import STAGES, raw_structures

if TYPE_CHECKING:
    from tfgen.datasets.storage import Dataset

__all__ = ["Figure", "plot_distributions", "plot_targets"]


@dataclass(frozen=True)
class Figure:
    """A drawing and what is said below it.

    Attributes:
        drawing: SVG.
        caption: plain text.
    """

    drawing: str
    caption: str


def plot_targets(train: Dataset, metrics: Metrics) -> list[Figure]:
    """Plots each property of every structure over what was asked for.

    Args:
        train: the training split.
        metrics: of the generated structures.

    Returns:
        A figure for each property of which something is known.
    """
    figures = (_plot_target(name, train, metrics) for name in metrics.properties)
    return [figure for figure in figures if figure is not None]


def plot_distributions(
    generated: Sequence[Atoms], train: Dataset, metrics: Metrics
) -> list[Figure]:
    """Plots histograms of the properties, the distances and the losses, as far as they are known.

    Args:
        generated: the structures.
        train: the training split.
        metrics: of the generated structures.
    """
    figures = [_plot_property(name, train, metrics) for name in metrics.properties]
    figures += [_plot_distances(generated, train, metrics), _plot_losses(metrics)]
    return [figure for figure in figures if figure is not None]


def _plot_target(name: str, train: Dataset, metrics: Metrics) -> Figure | None:
    by_target: dict[str, list[StructureMetrics]] = {}
    for row in metrics.structures:
        target = row.target(name)
        if target is not None:
            by_target.setdefault(str(target), []).append(row)
    groups = list(by_target.values())
    values = {
        stage: [_collect_values(group, stage, name) for group in groups]
        for stage in STAGES
        if any(_value(row, stage, name) is not None for group in groups for row in group)
    }
    if not values:
        return None
    axis = format_axis(name, metrics.units)
    drawing = svg_charts.draw_targets(
        [target for group in groups if (target := group[0].target(name))],
        values,
        _select_training(name, train, [row for group in groups for row in group]),
        axis,
    )
    return Figure(
        drawing,
        f"Every structure: {axis} over its target. Decoded values are the word of the model's own "
        "network, all others were calculated. Crosses are structures that are not valid; arrow "
        "heads lie beyond the axis.",
    )


def _plot_property(name: str, train: Dataset, metrics: Metrics) -> Figure | None:
    series = {}
    for stage in ("reconstructed", "relaxed"):
        value = _collect_values(metrics.structures, stage, name)[0]
        if np.isfinite(value).any():
            series[stage] = value[np.isfinite(value)]
    if not series:
        return None
    training = _select_training(name, train, metrics.structures)
    axis = format_axis(name, metrics.units)
    wanted = [t for entry in metrics.targets for t in entry.targets if t.name == name]
    marks = {end for target in wanted for end in (target.low, target.high)}
    return Figure(
        svg_charts.draw_property(series, training, axis, sorted(marks)),
        f"Generated structures next to training structures: {axis}. The outermost bars hold "
        "everything beyond them.",
    )


def _plot_distances(generated: Sequence[Atoms], train: Dataset, metrics: Metrics) -> Figure | None:
    rows = metrics.structures
    same = _share_composition(train, rows)
    known = [s for s, k in zip(train.structures, same, strict=True) if k or not same.any()]
    final = [atoms for atoms, row in zip(generated, rows, strict=True) if row.valid]
    sets = {"training": known}
    if any("reconstructed_positions" in atoms.arrays for atoms in generated):
        raw = zip(raw_structures(generated), rows, strict=True)
        sets["reconstructed"] = [s for s, row in raw if row.valid_reconstructed]
        sets["relaxed"] = final
    else:
        sets["reconstructed"] = final
    reach = max((np.ptp(s.positions, axis=0).max() for s in known), default=0.0)
    reach = min(max(1.2 * reach, 4.0), 6.0 if any(s.pbc.any() for s in known) else 15.0)
    edges = np.linspace(0.0, reach, 121)
    series = {k: (svg_charts.count_distances(v, edges), len(v)) for k, v in sets.items() if v}
    # Nothing happens below the shortest distance; leave that out.
    used = np.flatnonzero(sum(counts for counts, _ in series.values()))
    if len(used) == 0:
        return None
    first = max(0, used[0] - 3)
    series = {k: (counts[first:], n) for k, (counts, n) in series.items()}
    which = (
        "training structures of the same composition; the numbers of structures are in brackets."
        if same.any()
        else "all training structures, as none has the same composition."
    )
    return Figure(
        svg_charts.draw_distances(series, edges[first:]),
        f"Interatomic distances of valid generated structures next to {which}",
    )


def _plot_losses(metrics: Metrics) -> Figure | None:
    losses: dict[str, list[float]] = {name: [] for name in count_statuses(metrics.status, 5)}
    for row in metrics.structures:
        if row.fingerprint_loss is not None:
            status = row.status or "not recorded"
            losses[status if status in losses else "other"].append(row.fingerprint_loss)
    if not any(losses.values()):
        return None
    drawing = svg_charts.draw_losses({k: np.maximum(v, 0.0) for k, v in losses.items() if v})
    return Figure(drawing, "How far the fingerprint of each structure is from the one decoded.")


def _select_training(name: str, train: Dataset, rows: Sequence[StructureMetrics]) -> np.ndarray:
    """Returns a property of the training structures of the compositions generated, or of all."""
    if name not in train.properties:
        return np.zeros(0)
    same = _share_composition(train, rows)
    return train.properties[name][same if same.any() else slice(None)]


def _share_composition(train: Dataset, rows: Sequence[StructureMetrics]) -> np.ndarray:
    """Returns which training structures have a composition that was generated, [n] bool."""
    formulas = {row.formula for row in rows}
    return np.array([s.get_chemical_formula("metal") in formulas for s in train.structures])


def _value(row: StructureMetrics, stage: str, name: str) -> float | None:
    """Returns a property as it was calculated, or as the network has decoded it."""
    known = stage == "decoded" or row.is_calculated(stage, name)
    return row.stage(stage).get(name) if known else None


def _collect_values(
    rows: Sequence[StructureMetrics], stage: str, name: str
) -> tuple[np.ndarray, np.ndarray]:
    """Returns a property at a stage, [n] with NaN where there is none, and valid, [n] bool."""
    found = [_value(row, stage, name) for row in rows]
    value = np.array([np.nan if v is None else v for v in found], float)
    if stage == "decoded":  # it belongs to no structure yet
        return value, np.ones(len(rows), bool)
    is_valid = [row.valid if stage == "relaxed" else row.valid_reconstructed for row in rows]
    return value, np.array(is_valid, bool)
