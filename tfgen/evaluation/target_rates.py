"""How near the structures made for one target come to it, and which of them are hits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from tfgen.evaluation.results import CALCULATED_STAGES, Baseline
from tfgen.evaluation.settings import EvaluationSettings
from tfgen.generation.records import STAGES, Record
from tfgen.targets import DEFAULT_TOLERANCES, Rates, Target, compute_rates, default_tolerance

if TYPE_CHECKING:
    from tfgen.datasets.storage import Dataset

__all__ = ["TargetGroup", "find_hits", "rate_targets", "set_tolerances"]


def set_tolerances(
    records: Sequence[Record], train: Dataset, settings: EvaluationSettings
) -> tuple[list[Record], dict[str, float]]:
    """Chooses the tolerances of what was asked for.

    Args:
        records: one for each structure.
        train: the training split; the default of a tolerance is a share of a property's range.
        settings: has the tolerances that were chosen; others are those of the records, where all
            say the same.

    Returns:
        The records with a tolerance at each target that is a value; and property -> tolerance.

    Raises:
        ValueError: if a tolerance is missing, or is of an unknown property.
    """
    targets = [target for record in records for target in record.targets]
    names = list(dict.fromkeys(target.name for target in targets))
    for name in settings.hit_tolerance:
        if name not in names and name not in train.properties:
            raise ValueError(
                f"a hit tolerance is given for {name!r}, which is no property of the targets "
                f"({', '.join(names) or 'none'}) or the data set ({', '.join(train.properties)})"
            )
    # Where only ranges are asked for, their ends decide.
    values = {target.name for target in targets if target.is_value}
    recorded = {
        name: {
            record.hit_tolerance.get(name)
            for record in records
            if (target := record.target(name)) is not None and target.is_value
        }
        for name in values
    }
    tolerances = {
        name: _choose_tolerance(name, train, settings, recorded[name])
        for name in names
        if name in values
    }

    def complete(target: Target) -> Target:
        return target.with_tolerance(tolerances[target.name]) if target.is_value else target

    found = [replace(record, targets=tuple(map(complete, record.targets))) for record in records]
    return found, tolerances


def _choose_tolerance(
    name: str, train: Dataset, settings: EvaluationSettings, recorded: set[float | None]
) -> float:
    if name in settings.hit_tolerance:
        return float(settings.hit_tolerance[name])
    (one, *others) = recorded
    if one is not None and not others:
        return one
    if name in DEFAULT_TOLERANCES:
        return DEFAULT_TOLERANCES[name]
    if name not in train.properties:
        raise ValueError(
            f"target property {name!r} is not in the data set (which has "
            f"{', '.join(train.properties) or 'none'}); give its hit tolerance"
        )
    values = train.properties[name]
    return default_tolerance(name, float(values.min()), float(values.max()))


@dataclass(frozen=True)
class TargetGroup:
    """The structures made for one target.

    Attributes:
        label: the target as the command line spells it; one label, one target.
        targets: what was asked for.
        members: their places among all structures.
        stage: at which they are judged in the end: "relaxed", or "reconstructed" if none of them
            was to be relaxed.
        calculated: whether something was to calculate every property at that stage, even if it
            failed on all structures.
        rates: stage -> how they did, by calculated values.
        surrogate: stage -> how they would have done by the word of the model's own network.
        baseline: how the training structures of their compositions do.
    """

    label: str
    targets: tuple[Target, ...]
    members: list[int]
    stage: str
    calculated: bool
    rates: Mapping[str, Rates]
    surrogate: Mapping[str, Rates]
    baseline: Baseline


def rate_targets(
    records: Sequence[Record], valid: np.ndarray, valid_raw: np.ndarray, train: Dataset
) -> list[TargetGroup]:
    """Compares the structures made for each target with it.

    Args:
        records: one for each of n structures, with tolerances.
        valid: [n] bool, which are valid.
        valid_raw: [n] bool, which were valid before they were relaxed.
        train: the training split, for the baseline.

    Returns:
        One group for each distinct target, in order of appearance.
    """
    places: dict[str, list[int]] = {}
    for k, record in enumerate(records):
        if record.targets:
            ordered = sorted(record.targets, key=lambda target: target.name)
            places.setdefault(",".join(map(str, ordered)), []).append(k)
    formulas = np.array([atoms.get_chemical_formula("metal") for atoms in train.structures])
    eligible = dict(zip(STAGES, (np.ones_like(valid), valid_raw, valid), strict=True))
    groups = []
    for label, members in places.items():
        made = [records[k] for k in members]
        targets = made[0].targets
        rates, surrogate = {}, {}
        for stage in STAGES:
            known = eligible[stage][members]
            everything = {t.name: _collect_values(made, stage, t.name) for t in targets}
            calculated = {t.name: _collect_values(made, stage, t.name, True) for t in targets}
            if stage in CALCULATED_STAGES:
                rates[stage] = compute_rates(targets, calculated, known)
            if any(_differ(everything[t.name], calculated[t.name]) for t in targets):
                surrogate[stage] = compute_rates(targets, everything, known)
        same = np.isin(formulas, [record.formula for record in made])
        last = "relaxed" if any(record.relaxed for record in made) else "reconstructed"
        groups.append(
            TargetGroup(
                label=label,
                targets=targets,
                members=members,
                stage=last,
                calculated=any(_is_calculated(record, last) for record in made),
                rates=rates,
                surrogate=surrogate,
                baseline=_rate_training(targets, train, same),
            )
        )
    return groups


def _collect_values(
    records: Sequence[Record], stage: str, name: str, calculated: bool = False
) -> np.ndarray:
    """Returns a property at a stage, [n]; NaN where there is none, or none was calculated."""
    found = [
        record.stage(stage).get(name)
        if not calculated or record.is_calculated(stage, name)
        else None
        for record in records
    ]
    return np.array([np.nan if value is None else value for value in found], float)


def _is_calculated(record: Record, stage: str) -> bool:
    """Whether something was to calculate all that was asked for, with or without success."""
    return all(
        target.name in record.stage(stage) and record.is_calculated(stage, target.name)
        for target in record.targets
    )


def _differ(one: np.ndarray, other: np.ndarray) -> bool:
    return not np.array_equal(one, other, equal_nan=True)


def _rate_training(targets: Sequence[Target], train: Dataset, members: np.ndarray) -> Baseline:
    """Returns what the training structures `members`, [n] bool, score."""
    nothing = np.full(len(train), np.nan)
    values = {t.name: train.properties.get(t.name, nothing)[members] for t in targets}
    count = int(members.sum())
    rates = compute_rates(targets, values, np.ones(count, bool))
    return Baseline(count=count, hit_rate=rates.hit_rate, mae=rates.mae, bias=rates.bias)


def find_hits(
    groups: Sequence[TargetGroup], count: int
) -> tuple[list[bool | None], list[bool | None]]:
    """Says which structures are hits when relaxed, and which are hits in the end.

    In the end is when relaxed, or as reconstructed where no structure of the target was relaxed.
    Where all calculations failed, none is a hit.

    Args:
        groups: the structures made for each target.
        count: the number of all structures.

    Returns:
        Two lists of `count` entries, None where nothing was asked for or nothing is known.
    """
    relaxed: list[bool | None] = [None] * count
    final: list[bool | None] = [None] * count
    for group in groups:
        hits = group.rates[group.stage].hits
        if hits is None and group.calculated:
            hits = np.zeros(len(group.members), bool)
        if hits is None:
            continue
        for k, hit in zip(group.members, hits.tolist(), strict=True):
            final[k] = hit
            if group.stage == "relaxed":
                relaxed[k] = hit
    return relaxed, final
