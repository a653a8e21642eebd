"""The content of the report's page as plain data: what is said, in which order; templates say how.

Nothing here is HTML but the drawings, which are SVG.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms

from tfgen.evaluation.report.figures import plot_distributions, plot_targets
from tfgen.evaluation.report.fingerprint_map import plot_maps
from tfgen.evaluation.report.format import (
    count_statuses,
    format_number,
    format_share,
    format_target,
    format_unit,
)
from tfgen.evaluation.report.gallery import choose_pictures, describe_scene
from tfgen.evaluation.report.settings import ReportSettings
from tfgen.evaluation.report.structure_table import tabulate_structures
from tfgen.evaluation.results import (
    CALCULATED_STAGES,
    Baseline,
    Metrics,
    StageMetrics,
    TargetMetrics,
)
from tfgen.generation.records import STAGES
from tfgen.structures.status import Status
from tfgen.targets import SURROGATE

if TYPE_CHECKING:
    from tfgen.datasets.storage import Dataset
    from tfgen.fingerprints.fingerprint import Fingerprint
    from tfgen.models.model import Model

__all__ = ["describe"]


def describe(
    generated: Sequence[Atoms],
    dataset: Dataset,
    metrics: Metrics,
    *,
    settings: ReportSettings,
    model: Model | None = None,
    fingerprint: Fingerprint | None = None,
) -> dict[str, Any]:
    """Returns the content of the page; see `tfgen.evaluation.report.write.write_report`."""
    train = dataset.select("train")
    return {
        "header": _describe_header(metrics, dataset),
        "targets": _tabulate_targets(metrics),
        "figures": {
            "targets": plot_targets(train, metrics),
            "distributions": plot_distributions(generated, train, metrics),
        },
        "maps": plot_maps(generated, train, metrics, settings, model, fingerprint),
        "gallery": choose_pictures(generated, metrics, settings.pictures),
        "table": tabulate_structures(metrics),
        "method": _describe_method(metrics),
        "provenance": _describe_provenance(dataset),
        "scene": describe_scene(generated, dataset, metrics),
    }


# --- Header -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Card:
    """One figure at the top of the page.

    Attributes:
        title: what it is of.
        value: the figure.
        note: what else belongs to it; may be empty.
    """

    title: str
    value: str
    note: str = ""


def _describe_header(metrics: Metrics, dataset: Dataset) -> dict[str, Any]:
    return {
        "count": metrics.count,
        "training_structures": metrics.training_structures,
        "dataset": str(dataset.metadata.get("name") or "the data set"),
        "cards": [*_describe_quality(metrics), *_describe_hits(metrics), *_describe_costs(metrics)],
    }


def _describe_quality(metrics: Metrics) -> list[Card]:
    converged = metrics.status.get(Status.CONVERGED, 0)
    shares = metrics.shares
    return [
        Card("structures", str(metrics.count), f"{converged} converged" if converged else ""),
        Card("valid", format_share(shares.validity), "finite, no overlap, one piece"),
        Card("unique", format_share(shares.uniqueness), "of the valid ones"),
        Card("new", format_share(shares.novelty), "not in the training set"),
    ]


def _describe_hits(metrics: Metrics) -> list[Card]:
    """Returns the hit rate at the last stage that has one; nothing where none has."""
    for stage in ("relaxed", "reconstructed"):
        known = [t for t in metrics.targets if t.stages[stage].hit_rate is not None]
        if known:
            rates = [t.stages[stage].hit_rate for t in known]
            baseline = [t.baseline.hit_rate for t in known]
            note = "" if None in baseline else f"training structures: {_format_mean(baseline)}"
            return [Card(f"on target, {stage}", _format_mean(rates), note)]
    return []


def _format_mean(shares: Sequence[float | None]) -> str:
    return format_share(float(np.mean([share for share in shares if share is not None])))


def _describe_costs(metrics: Metrics) -> list[Card]:
    cards = []
    if metrics.verified is not None:
        note = f"{metrics.verified.hits} hits that are valid, unique and new"
        for name, cost in (
            ("calculations", metrics.verified.calculations_per_hit),
            ("proposals", metrics.verified.proposed_per_hit),
        ):
            if cost is not None or name == "calculations":
                shown = "-" if cost is None else f"{cost:.3g}"
                cards.append(Card(f"{name} per verified hit", shown, note))
    if metrics.acceptance is not None:
        rate, tried = metrics.acceptance.rate, metrics.acceptance.candidates
        cards.append(Card("accepted", format_share(rate), f"of {tried} candidates"))
    if metrics.basin.count:
        note = f"moved {metrics.basin.median_rmsd:.2f} Å by relaxing (median)"
        cards.append(Card("kept their basin", format_share(metrics.basin.share), note))
    if metrics.coverage.count:
        found, count = metrics.coverage.found, metrics.coverage.count
        note = f"{found} of {count} structures held out"
        cards.append(Card("test split found", format_share(metrics.coverage.share), note))
    if metrics.seconds_per_structure is not None:
        cards.append(Card("seconds a structure", f"{metrics.seconds_per_structure:.2g}"))
    return cards


# --- Targets ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PropertyRow:
    """One property of a target.

    Attributes:
        title: the property and what is asked for.
        errors: its mean distance to the target, one text for each column.
        biases: its mean deviation; likewise.
    """

    title: str
    errors: list[str]
    biases: list[str]


@dataclass(frozen=True)
class TargetRow:
    """One target.

    Attributes:
        count: structures made for it.
        hit_rates: one text for each column.
        properties: what is asked for.
    """

    count: int
    hit_rates: list[str]
    properties: list[PropertyRow]


def _tabulate_targets(metrics: Metrics) -> dict[str, Any]:
    calculated = [*CALCULATED_STAGES, "training"]
    return {
        "tables": [
            {
                "hit_columns": calculated,
                "error_columns": calculated,
                "bias_columns": list(CALCULATED_STAGES),
                "rows": [
                    _tabulate_target(entry, [*entry.stages.values(), entry.baseline], metrics.units)
                    for entry in metrics.targets
                ],
            }
        ],
        "guesses": [
            {
                "hit_columns": list(STAGES),
                "error_columns": list(STAGES),
                "bias_columns": list(CALCULATED_STAGES),
                "rows": [
                    _tabulate_target(
                        entry, [entry.surrogate.get(stage) for stage in STAGES], metrics.units
                    )
                    for entry in metrics.targets
                ],
            }
        ]
        if any(entry.surrogate for entry in metrics.targets)
        else [],
        "sources": [Definition(k, _name_source(v)) for k, v in metrics.evaluated_by.items()],
    }


def _name_source(source: str) -> str:
    return "nothing; the model's own network guesses it" if source == SURROGATE else source


def _tabulate_target(
    entry: TargetMetrics,
    columns: Sequence[StageMetrics | Baseline | None],
    units: Mapping[str, str],
) -> TargetRow:
    """Returns the row of a target; the last two stages of `columns` have a deviation."""
    by_stage = columns[-3:-1] if columns[-1] is entry.baseline else columns[1:]
    return TargetRow(
        count=entry.count,
        hit_rates=[format_share(c.hit_rate if c is not None else None) for c in columns],
        properties=[
            PropertyRow(
                title=format_target(target, units),
                errors=[
                    format_number(c.mae[target.name] if c is not None else None, 3) for c in columns
                ],
                biases=[
                    format_number(c.bias[target.name] if c is not None else None, 2, sign=True)
                    for c in by_stage
                ],
            )
            for target in entry.targets
        ],
    )


# --- How it was measured, and on what -----------------------------------------------------------


@dataclass(frozen=True)
class Definition:
    """A term and what it means."""

    term: str
    meaning: str


def _describe_method(metrics: Metrics) -> list[Definition]:
    limits = metrics.thresholds
    equal = f"all sorted interatomic distances within {limits.duplicate_tolerance:g} Å"
    entries = [
        Definition("overlap", f"closer than {limits.overlap_factor:g} × the sum of covalent radii"),
        Definition("bond", f"within {limits.bond_factor:g} × the sum of covalent radii"),
        Definition("training structures that pass", format_share(limits.training_pass_rate)),
        Definition("equal", f"{equal} (so up to rotation, reflection and permutation)"),
        Definition(
            "kept its basin",
            f"moved by relaxing by at most {limits.basin_rmsd:g} Å (RMSD after superposition)",
        ),
    ]
    for name, tolerance in limits.hit_tolerance.items():
        width = f"{tolerance.value:.3g} {format_unit(name, metrics.units)}".rstrip()
        entries.append(Definition(f"hit, {name}", f"within {width} of the target"))
    if metrics.raw is not None:
        shares = (
            f"valid {format_share(metrics.raw.validity)}, "
            f"unique {format_share(metrics.raw.uniqueness)}, "
            f"new {format_share(metrics.raw.novelty)}"
        )
        entries.append(Definition("as reconstructed, before relaxation", shares))
    counts = count_statuses(metrics.status, 20)
    return entries + [Definition(f"status: {name}", str(n)) for name, n in counts.items()]


def _describe_provenance(dataset: Dataset) -> dict[str, Any]:
    entries = []
    for key, value in dataset.metadata.items():
        if key == "recipe" or value in (None, "", {}, []):
            continue
        if isinstance(value, Mapping):
            value = ", ".join(f"{k}: {v}" for k, v in value.items())
        entries.append(Definition(key, str(value)))
    return {"entries": entries, "recipe": str(dataset.metadata.get("recipe") or "")}
