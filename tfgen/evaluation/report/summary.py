"""The metrics as a few lines of plain text, for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tfgen.evaluation.report.format import (
    count_statuses,
    format_number,
    format_share,
    format_wanted,
    make_printable,
)
from tfgen.evaluation.results import Baseline, Metrics, StageMetrics, TargetMetrics
from tfgen.generation.records import STAGES
from tfgen.structures.properties import ENERGIES
from tfgen.targets import SURROGATE

__all__ = ["summarise"]

# Titles and widths of the columns: what was calculated, and the training structures; and the stages
# at which the model's own network has its word.
_COLUMNS = {"recon.": 8, "relaxed": 8, "training": 10}
_GUESSED = {"decoded": 8, "recon.": 8, "relaxed": 8}


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
    lines += _tabulate_guesses(metrics)
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
        costs = {
            "calculations": metrics.verified.calculations_per_hit,
            "proposals": metrics.verified.proposed_per_hit,
        }
        known = [f"{cost:.3g} {name}" for name, cost in costs.items() if cost is not None]
        each = f", {' and '.join(known)} each" if known else ""
        parts.append(f"{metrics.verified.hits} verified hits{each}")
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
    width = _width(metrics)
    names = "".join(f"{name:>{column}s}" for name, column in _COLUMNS.items())
    lines = [
        "",
        f"{'':{width + 5}s}   {'hits':{len(names) - 2}s}mean distance to the target",
        f"{'target':{width}s}{'n':>5s}{names}{names}",
    ]
    for entry in metrics.targets:
        columns: list[StageMetrics | Baseline | None] = [*entry.stages.values(), entry.baseline]
        lines += _tabulate_target(entry, columns, _COLUMNS, width)
    return [
        *lines,
        "",
        "training: what structures sampled at random from the training set score",
        *_describe_sources(metrics),
    ]


def _describe_sources(metrics: Metrics) -> list[str]:
    """Says who calculated what was asked for, and what could be done where nobody did."""
    asked = metrics.properties if metrics.targets else []
    known = {name: metrics.evaluated_by.get(name, SURROGATE) for name in asked}
    said = [
        f"{make_printable(name)} by {make_printable(by)}"
        for name, by in known.items()
        if by != SURROGATE
    ]
    missing = [name for name, by in known.items() if by == SURROGATE]
    lines = [f"calculated: {', '.join(said)}"] if said else []
    if missing:
        ways = [
            "--potential MODULE:NAME"
            if name in ENERGIES
            else f"--compute {make_printable(name)}=MODULE:FUNCTION"
            for name in missing
        ]
        lines.append(
            f"nothing has calculated {', '.join(map(make_printable, missing))}; "
            f"{' and '.join(dict.fromkeys(ways))} would"
        )
    return lines


def _tabulate_guesses(metrics: Metrics) -> list[str]:
    """Returns what the model's own network says, under a heading of its own."""
    if not any(entry.surrogate for entry in metrics.targets):
        return []
    width = _width(metrics)
    names = "".join(f"{name:>{column}s}" for name, column in _GUESSED.items())
    lines = [
        "",
        "by the word of the model's own network, which nothing has calculated:",
        f"{'':{width + 5}s}   {'within':{len(names) - 2}s}mean distance to the target",
        f"{'target':{width}s}{'n':>5s}{names}{names}",
    ]
    for entry in metrics.targets:
        columns = [entry.surrogate.get(stage) for stage in STAGES]
        lines += _tabulate_target(entry, columns, _GUESSED, width)
    return lines


def _titles(entry: TargetMetrics) -> list[str]:
    return [f"{make_printable(t.name)} {format_wanted(t)}" for t in entry.targets]


def _width(metrics: Metrics) -> int:
    return max(len(title) for entry in metrics.targets for title in _titles(entry))


def _tabulate_target(
    entry: TargetMetrics,
    columns: Sequence[StageMetrics | Baseline | None],
    widths: Mapping[str, int],
    width: int,
) -> list[str]:
    rates = [format_share(None if column is None else column.hit_rate) for column in columns]
    shared = f"{entry.count:5d}" + _align(rates, widths)
    lines = []
    for title, target in zip(_titles(entry), entry.targets, strict=True):
        errors = [
            format_number(None if column is None else column.mae[target.name], 2)
            for column in columns
        ]
        lines.append(f"{title:{width}s}{shared}{_align(errors, widths)}")
        shared = " " * len(shared)  # the other properties of the same target
    return lines


def _align(texts: Sequence[str], widths: Mapping[str, int]) -> str:
    cells = zip(texts, widths.values(), strict=True)
    return "".join(f"{text:>{width}s}" for text, width in cells)
