"""Charts, as SVG text that stands inside a page.

Everything that is ink (axes, text) takes the page's text colour, so that one drawing serves light
and dark pages. Text stays text: it can be read aloud, searched and copied.
"""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms

from tfgen.evaluation.report.format import escape_svg, make_printable
from tfgen.structures.neighbours.lists import neighbour_pairs
from tfgen.targets import Target

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "count_distances",
    "draw_distances",
    "draw_losses",
    "draw_map",
    "draw_property",
    "draw_targets",
]

STAGE_COLOURS = {"decoded": "#8e6bbf", "reconstructed": "#d97a1e", "relaxed": "#2f7fc1"}
TRAINING_COLOUR = "#8b95a1"

# Placeholder of the page's text colour until the SVG text is written; no other part uses it.
_INK = "#010203"
_STYLE = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # a "$" in a property's name is a dollar
    "font.size": 10.0,
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 11.0,
    "axes.titlelocation": "left",
    "legend.frameon": False,
    "text.color": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
}
# More points than this are drawn as one image inside the SVG.
_MANY = 2000


def draw_targets(
    targets: Sequence[Target],
    values: Mapping[str, Sequence[tuple[np.ndarray, np.ndarray]]],
    training: np.ndarray,
    axis: str,
) -> str:
    """Draws the property of every structure over its target, one panel per stage.

    Args:
        targets: what was asked for, one per group; values with their tolerances.
        values: stage -> per group (property [n], valid [n] bool).
        training: [n], the property of the training structures; may be empty.
        axis: name of the property with its unit.
    """
    low, high = np.array([[target.low, target.high] for target in targets]).T
    centre = (low + high) / 2
    reach = np.array([t.tolerance if t.is_value else (t.high - t.low) / 2 for t in targets], float)
    everything = np.concatenate([v for groups in values.values() for v, _ in groups])
    bottom, top = _find_limits(np.concatenate([low - reach, high + reach, training]), everything)
    gaps = np.diff(np.unique(centre))
    width = 0.28 * (gaps.min() if len(gaps) else (top - bottom) * 0.2)

    def draw(figure: Figure) -> None:
        axes = figure.subplots(1, len(values), sharey=True, squeeze=False)[0]
        for place, (ax, (stage, groups)) in enumerate(zip(axes, values.items(), strict=True)):
            if len(training):
                band = np.quantile(training, [0.05, 0.95])
                ax.axhspan(
                    *band, color=TRAINING_COLOUR, alpha=0.18, lw=0, label="middle 90 % of training"
                )
            for k, x in enumerate(centre):
                ax.fill_between(
                    [x - 1.5 * width, x + 1.5 * width],
                    x - reach[k],
                    x + reach[k],
                    color="#35a06b",
                    alpha=0.35,
                    lw=0,
                    label="counts as a hit" if k == 0 else None,
                )
            for x, (value, is_valid) in zip(centre, groups, strict=True):
                # Golden-ratio steps spread the points evenly whatever their number.
                spread = x + width * (np.arange(1, len(value) + 1) * 0.6180339887 % 1 * 2 - 1)
                _draw_points(ax, spread, value, is_valid, (bottom, top), STAGE_COLOURS[stage])
            ax.set(title=stage, xlabel=f"target {axis}", ylim=(bottom, top))
            ax.set_xlim(centre.min() - 2 * width, centre.max() + 2 * width)
            ax.locator_params(axis="x", nbins=5)
            if place == 0:
                ax.set_ylabel(axis)
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=2, fontsize=9)

    return _write_svg(
        draw, (3.3 * max(len(values), 2) + 0.6, 3.9), f"Target against {axis}, per stage"
    )


def draw_property(
    series: dict[str, np.ndarray], training: np.ndarray, axis: str, marks: Iterable[float]
) -> str:
    """Draws histograms of a property, generated next to training.

    Args:
        series: stage -> [n].
        training: [n], may be empty.
        axis: name of the property with its unit.
        marks: targets, drawn as upright lines.
    """
    marks = list(marks)
    generated = np.concatenate([*series.values(), []])
    low, high = _find_limits(np.concatenate([training, marks]), generated)
    edges = np.linspace(low, high, 41)

    def draw(figure: Figure) -> None:
        ax = figure.subplots()
        if len(training):
            ax.stairs(
                _count_shares(training, edges),
                edges,
                fill=True,
                color=TRAINING_COLOUR,
                alpha=0.45,
                label=f"training ({len(training)})",
            )
        for stage, value in series.items():
            label = f"{stage} ({len(value)})"
            ax.stairs(
                _count_shares(value, edges), edges, color=STAGE_COLOURS[stage], lw=1.8, label=label
            )
        for k, mark in enumerate(marks):
            ax.axvline(mark, color=_INK, lw=0.9, ls=(0, (4, 3)), label="target" if k == 0 else None)
        ax.set(xlabel=axis, ylabel="share of structures", xlim=(low, high))
        ax.locator_params(axis="x", nbins=6)
        ax.legend(fontsize=9)

    return _write_svg(draw, (4.4, 3.3), f"Histogram of {axis}, generated and training")


def draw_distances(series: dict[str, tuple[np.ndarray, int]], edges: np.ndarray) -> str:
    """Draws distributions of interatomic distances.

    Args:
        series: "training" or a stage -> (histogram of the pairs over `edges`, structures).
        edges: [bins + 1], Å.
    """

    def draw(figure: Figure) -> None:
        ax = figure.subplots()
        for name, (counts, structures) in series.items():
            density = counts / max(counts.sum(), 1) / np.diff(edges)
            colour = STAGE_COLOURS.get(name, TRAINING_COLOUR)
            fill = name == "training"
            ax.stairs(
                density,
                edges,
                fill=fill,
                color=colour,
                alpha=0.45 if fill else 1.0,
                lw=1.6,
                label=f"{name} ({structures})",
            )
        ax.set(xlabel="interatomic distance (Å)", ylabel="share of pairs per Å")
        ax.set_xlim(edges[0], edges[-1])
        ax.legend(fontsize=9)

    return _write_svg(draw, (4.4, 3.3), "Interatomic distances, generated and training")


def draw_losses(losses: dict[str, np.ndarray]) -> str:
    """Draws a histogram of fingerprint losses, stacked by status.

    Args:
        losses: status -> [n], each at least 0.
    """
    everything = np.concatenate(list(losses.values()))
    positive = everything[everything > 0]
    low, high = (positive.min(), positive.max()) if len(positive) else (1e-6, 1.0)
    edges = np.geomspace(low / 1.3, high * 1.3, 31)
    palette = ["#2f7fc1", "#d97a1e", "#8e6bbf", "#c2406b", "#35a06b", "#8b95a1"]

    def draw(figure: Figure) -> None:
        ax = figure.subplots()
        base = np.zeros(len(edges) - 1)
        for k, (status, value) in enumerate(losses.items()):
            counts = np.histogram(np.clip(value, edges[0], edges[-1]), edges)[0]
            colour = palette[min(k, len(palette) - 1)]
            label = f"{make_printable(status, 40)} ({len(value)})"
            ax.stairs(base + counts, edges, baseline=base, fill=True, color=colour, label=label)
            base = base + counts
        ax.set(xscale="log", xlabel="fingerprint loss", ylabel="structures")
        ax.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        ax.xaxis.set_minor_formatter(lambda *_: "")
        figure.legend(loc="outside lower center", fontsize=9)

    return _write_svg(draw, (4.4, 3.3), "Histogram of the fingerprint loss")


def draw_map(
    training: np.ndarray,
    training_values: np.ndarray,
    generated: np.ndarray,
    generated_values: np.ndarray,
    axis: str,
) -> str:
    """Draws structures as points in a plane, coloured by a property.

    Args:
        training: [n, 2].
        training_values: [n], the property.
        generated: [m, 2]. What lies far outside most training points is drawn at the edge.
        generated_values: [m]; NaN where the property is not known.
        axis: name of the property with its unit.
    """
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    low, high = np.quantile(training_values, [0.01, 0.99])
    # Some training structures lie far out; they would squeeze all others into a corner.
    frame = [np.quantile(training[:, k], [0.01, 0.99]) for k in range(2)]
    corners = [_find_limits(frame[k], generated[:, k], 0.12) for k in range(2)]
    many = len(training) > _MANY / 4

    def draw(figure: Figure) -> None:
        ax = figure.subplots()
        scale = {"cmap": "viridis", "vmin": low, "vmax": high if high > low else low + 1.0}
        x, y = (np.clip(training[:, k], *corners[k]) for k in range(2))
        ax.scatter(x, y, c=training_values, s=9, alpha=0.55, lw=0, rasterized=many, **scale)
        inside = [np.clip(generated[:, k], *corners[k]) for k in range(2)]
        known = np.isfinite(generated_values)
        for some, colour in ((known, generated_values[known]), (~known, "none")):
            if some.any():
                ax.scatter(
                    inside[0][some], inside[1][some], c=colour, s=34, lw=1.1, edgecolors=_INK,
                    rasterized=int(some.sum()) > _MANY, **(scale if some is known else {}),
                )  # fmt: skip
        ax.set(xlim=corners[0], ylim=corners[1], xticks=[], yticks=[])
        ax.set(xlabel="first axis", ylabel="second axis")
        colours = ScalarMappable(Normalize(scale["vmin"], scale["vmax"]), scale["cmap"])
        bar = figure.colorbar(colours, ax=ax, label=axis, fraction=0.05, pad=0.02)
        bar.outline.set_visible(False)

    return _write_svg(draw, (4.6, 3.7), f"Map of structures, coloured by {axis}")


def count_distances(structures: Sequence[Atoms], edges: np.ndarray) -> np.ndarray:
    """Counts all interatomic distances in bins, [bins]; images count where periodic.

    Args:
        structures: with finite positions.
        edges: [bins + 1], Å.
    """
    counts = np.zeros(len(edges) - 1)
    sizes = np.array([0 if s.pbc.any() else len(s) for s in structures])
    for size in np.unique(sizes[sizes > 1]):
        i, j = np.triu_indices(size, 1)
        same = np.flatnonzero(sizes == size)
        for chunk in np.array_split(same, math.ceil(len(same) * len(i) / 1_000_000)):
            positions = np.array([structures[k].positions for k in chunk])
            distance = np.linalg.norm(positions[:, i] - positions[:, j], axis=-1)
            counts += np.histogram(distance, edges)[0]
    for structure in structures:
        if structure.pbc.any():
            # Every pair is listed from both its ends.
            distance = neighbour_pairs(structure, float(edges[-1])).distance
            counts += np.histogram(distance, edges)[0] / 2
    return counts


# --- Charts -------------------------------------------------------------------------------------


def _find_limits(frame: np.ndarray, extra: np.ndarray, margin: float = 0.05) -> tuple[float, float]:
    """Returns limits that show all of `frame`, and of `extra` what is not far outside."""
    frame, extra = frame[np.isfinite(frame)], extra[np.isfinite(extra)]
    base = frame if len(frame) else extra
    if len(base) == 0:
        return 0.0, 1.0
    low, high = float(base.min()), float(base.max())
    span = high - low or abs(high) * 0.1 or 1.0
    if len(extra):
        low = min(low, max(float(extra.min()), low - 0.6 * span))
        high = max(high, min(float(extra.max()), high + 0.6 * span))
    return low - margin * span, high + margin * span


def _draw_points(
    ax: Axes,
    x: np.ndarray,
    y: np.ndarray,
    is_valid: np.ndarray,
    limits: tuple[float, float],
    colour: str,
) -> None:
    """Draws points; invalid ones as crosses, those outside the limits as arrow heads."""
    known = np.isfinite(y)
    above, below = known & (y > limits[1]), known & (y < limits[0])
    inside = known & ~above & ~below
    many = len(x) > _MANY
    ax.plot(x[inside & is_valid], y[inside & is_valid], "o", ms=4.5, mec="none", color=colour,
            alpha=0.75, rasterized=many)  # fmt: skip
    ax.plot(x[inside & ~is_valid], y[inside & ~is_valid], "x", ms=5, color="#c23b3b",
            rasterized=many)  # fmt: skip
    for outside, marker, at in ((above, "^", limits[1]), (below, "v", limits[0])):
        if outside.any():  # an empty line that is not clipped upsets the layout
            ax.plot(x[outside], np.full(int(outside.sum()), at), marker, ms=5, color=colour,
                    clip_on=False, alpha=0.75)  # fmt: skip


def _count_shares(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    return np.histogram(np.clip(values, edges[0], edges[-1]), edges)[0] / max(len(values), 1)


def _write_svg(draw: Any, size: tuple[float, float], label: str) -> str:
    """Runs `draw(figure)` and returns the figure as SVG that fits the width it is given."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    text = io.StringIO()
    with mpl.rc_context({**_STYLE, "svg.hashsalt": label}), warnings.catch_warnings():
        # The page's fonts draw the text; what Matplotlib's own font lacks does not matter.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure = Figure(figsize=size, layout="constrained")
        draw(figure)
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :]
    # A style sheet inside would rule the whole page; names of groups would repeat themselves.
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg).replace(_INK, "currentColor")
    width, height = size
    opening = (
        f'<svg class="chart" viewBox="0 0 {72 * width:g} {72 * height:g}" role="img" '
        f'style="max-width: {96 * width:.0f}px" aria-label="{escape_svg(label)}" xmlns:xlink="http://www.w3.org/1999/xlink">'
    )
    return opening + svg[svg.index(">") + 1 :]
