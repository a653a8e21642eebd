"""The metrics as a few lines of plain text, for a terminal."""

from __future__ import annotations

from tfgen.evaluation.metrics import Baseline, Metrics, StageMetrics, TargetMetrics
from tfgen.evaluation.report.format import (
    count_statuses,
    format_number,
    format_share,
    format_wanted,
    make_printable,
)

__all__ = ["summarise"]

# Widths of the columns: the three stages and the training structures.
_COLUMNS = {"decoded": 8, "recon.": 8, "relaxed": 8, "training": 10}


def summarise(metrics: Metrics) -> str:
    """Returns the metrics as a compact table of plain text."""
    shares, limits = metrics.shares, metrics.thresholds
    statuses = count_statuses(metrics.status, 4)
    first = f"structures: {metrics.count}, compared with {metrics.training_structures} for training"
    if metrics.seconds_per_structure is not None:
        first += f", {metrics.seconds_per_structure:.2g} s a structure"
    lines = [
        first,
        f"valid {format_share(shares.validity)}   unique {format_share(shares.uniqueness)}   "
        f"new {format_share(shares.novelty)}   "
        + ", ".join(f"{count} {make_printable(name)}" for name, count in statuses.items()),
    ]
    lines += _summarise_costs(metrics)
    lines += _tabulate_targets(metrics)
    near, far = limits.overlap_factor, limits.bond_factor
    passed = format_share(limits.training_pass_rate)
    lines += [
        "",
        f"valid: atoms at least {near:g} times the sum of covalent radii apart, and in one piece",
        f"by bonds up to {far:g} times that sum; {passed} of the training structures are",
    ]
    return "\n".join(lines)


def _summarise_costs(metrics: Metrics) -> list[str]:
    """Returns one line on what hits cost and what they cover, if anything is known."""
    parts = []
    if metrics.verified is not None:
        cost = metrics.verified.relaxations_per_hit
        hits = f"{metrics.verified.hits} verified hits"
        parts.append(hits if cost is None else f"{hits}, {cost:.3g} relaxations each")
    if metrics.acceptance is not None:
        rate, tried = metrics.acceptance.rate, metrics.acceptance.candidates
        parts.append(f"{format_share(rate)} of {tried} candidates accepted")
    if metrics.basin.count:
        parts.append(f"{format_share(metrics.basin.share)} kept their basin")
    if metrics.coverage.count:
        found, count = metrics.coverage.found, metrics.coverage.count
        parts.append(f"{found} of {count} in the test split found")
    return ["   ".join(parts)] if parts else []


def _tabulate_targets(metrics: Metrics) -> list[str]:
    """Returns a line for each property of each target, below two lines of titles."""
    if not metrics.targets:
        return []
    titles = [
        [f"{make_printable(t.name)} {format_wanted(t)}" for t in entry.targets]
        for entry in metrics.targets
    ]
    width = max(len(title) for group in titles for title in group)
    names = "".join(f"{name:>{column}s}" for name, column in _COLUMNS.items())
    half = len(names) - 2
    lines = [
        "",
        f"{'':{width + 5}s}   {'hits':{half}s}mean distance to the target",
        f"{'target':{width}s}{'n':>5s}{names}{names}",
    ]
    for entry, group in zip(metrics.targets, titles, strict=True):
        lines += _tabulate_target(entry, group, width)
    return [
        *lines,
        "",
        "training: what structures sampled at random from the training set score",
    ]


def _tabulate_target(entry: TargetMetrics, titles: list[str], width: int) -> list[str]:
    columns: list[StageMetrics | Baseline] = [*entry.stages.values(), entry.baseline]
    shared = f"{entry.count:5d}" + _align([format_share(column.hit_rate) for column in columns])
    lines = []
    for title, target in zip(titles, entry.targets, strict=True):
        errors = [format_number(column.mae[target.name], 2) for column in columns]
        lines.append(f"{title:{width}s}{shared}{_align(errors)}")
        shared = " " * len(shared)  # the other properties of the same target
    return lines


def _align(texts: list[str]) -> str:
    return "".join(
        f"{text:>{column}s}" for text, column in zip(texts, _COLUMNS.values(), strict=True)
    )
