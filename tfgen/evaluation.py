"""Metrics of generated structures: valid, unique, new, and on target, next to plain draws."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms
from tqdm import tqdm

from tfgen import similarity
from tfgen.records import STAGES, raw_structures, record_of
from tfgen.validity import Thresholds, thresholds_from, valid

if TYPE_CHECKING:
    from tfgen.datasets.storage import Dataset

__all__ = ["HIT_TOLERANCES", "evaluate"]

# property -> half width of a hit where none is asked for; see `evaluate` for all others.
HIT_TOLERANCES = {"energy_per_atom": 0.01}  # eV/atom


def evaluate(
    generated: Sequence[Atoms],
    dataset: Dataset,
    *,
    hit_tolerance: Mapping[str, float] | None = None,
    duplicate_tolerance: float = 0.05,
    progress: bool = False,
) -> dict[str, Any]:
    """Measures generated structures against what was asked for and against the training set.

    - validity: share of all structures that are finite, free of overlaps and one connected
      piece, by thresholds that at least 99 % of the training structures pass.
    - uniqueness: share of the valid ones that equal no earlier valid one.
    - novelty: share of the valid and unique ones that equal no training structure.
    - hit rate, per stage and target: share of *all* structures made for the target that are valid
      at that stage and have every property in the target's range, or within its tolerance:

          |value - target| <= tolerance

      A decoded property belongs to no structure yet, so validity does not enter there.
    - mae, per stage and target: mean distance of each property to the target, or to the nearer
      end of its range (0 inside); over the structures that are valid and have the value.
    - baseline: the same two for plain draws from the training structures of the compositions
      made for the target, which needs no model at all.

    "Equal" is up to rotation, reflection and permutation. Final positions are judged: relaxed
    where the structure was relaxed; `raw` has the three shares for the reconstructed positions.

    Args:
        generated: structures with their records in `atoms.info` (see `tfgen generate`); records
            may be missing, for all structures or some.
        dataset: the data set the model was trained on.
        hit_tolerance: property -> largest distance to a target value that is a hit, in the
            property's unit. Default: 0.01 eV/atom for `energy_per_atom`; for any other property
            5 % of its range in the training split, which is also what 0.01 eV/atom is for Pt13.
        duplicate_tolerance: structures are equal if all their sorted interatomic distances are
            within this, Å.
        progress: show a progress bar on stderr.

    Returns:
        Metrics as plain JSON types; None where a share of nothing would be needed. `structures`
        has one row per structure, in order.

    Raises:
        ValueError: if there are no structures, the data set has no training structures, a record
            is malformed, or a tolerance is out of range, missing or of an unknown property.
    """
    rows = [record_of(atoms, f"structure {i}") for i, atoms in enumerate(_listed(generated))]
    if not (math.isfinite(duplicate_tolerance) and duplicate_tolerance > 0):
        raise ValueError(
            f"duplicate_tolerance is {duplicate_tolerance!r}; a number of Å above 0 is needed"
        )
    train = dataset.select("train")
    if len(train) == 0:
        raise ValueError("dataset has no training structures to compare with")
    tolerance = _tolerances(rows, train, hit_tolerance or {})

    with tqdm(total=4, desc="evaluating", disable=not progress, leave=False) as bar:
        limits = thresholds_from(train.structures)
        bar.update()
        final = _judge(generated, train.structures, limits, duplicate_tolerance)
        bar.update()
        raw, raw_valid = None, final["valid"]
        if any("reconstructed_positions" in atoms.arrays for atoms in generated):
            judged = _judge(
                raw_structures(generated), train.structures, limits, duplicate_tolerance
            )
            raw, raw_valid = _shares(judged), judged["valid"]
        bar.update()
        for k, row in enumerate(rows):
            row["valid_reconstructed"] = bool(raw_valid[k])
            for key, flags in final.items():
                # A structure that is not valid is neither unique nor novel, nor the opposite.
                row[key] = bool(flags[k]) if key == "valid" or final["valid"][k] else None
        targets = _targets(rows, final, raw_valid, train, tolerance)
        bar.update()

    seconds = [row["seconds"] for row in rows if row["seconds"] is not None]
    return {
        "count": len(rows),
        **_shares(final),
        "raw": raw,
        "status": dict(Counter(row["status"] or "not recorded" for row in rows)),
        "hit_rate": {
            stage: {t["label"]: t["hit_rate"][stage] for t in targets} for stage in STAGES
        },
        "mae": {stage: {t["label"]: t["mae"][stage] for t in targets} for stage in STAGES},
        "baseline": {
            "description": "plain draws from the training structures of the same compositions",
            "hit_rate": {t["label"]: t["baseline"]["hit_rate"] for t in targets},
            "mae": {t["label"]: t["baseline"]["mae"] for t in targets},
        },
        "thresholds": {
            "overlap_factor": limits.overlap_factor,
            "bond_factor": limits.bond_factor,
            "training_pass_rate": limits.pass_rate,
            "duplicate_tolerance": float(duplicate_tolerance),
            "duplicate_tolerance_unit": "Å",
            "hit_tolerance": {
                name: {"value": value, "unit": dataset.units.get(name, "")}
                for name, value in tolerance.items()
            },
        },
        "seconds_per_structure": float(np.mean(seconds)) if seconds else None,
        "training_structures": len(train),
        "units": {name: dataset.units.get(name, "") for name in _names(rows)},
        "targets": targets,
        "structures": rows,
    }


def _listed(generated: Sequence[Atoms]) -> Sequence[Atoms]:
    if isinstance(generated, Atoms) or len(generated) == 0:
        raise ValueError("generated is not a list with at least one structure")
    for i, atoms in enumerate(generated):
        if not isinstance(atoms, Atoms):
            raise ValueError(f"generated[{i}] is a {type(atoms).__name__}, not an ase.Atoms")
    return generated


def _names(rows: list[dict[str, Any]]) -> list[str]:
    """Returns all properties that the records name, in order of appearance."""
    return list(
        dict.fromkeys(
            name for row in rows for key in ("target", *STAGES) for name in row[key] or {}
        )
    )


# --- Shares and rates ---------------------------------------------------------------------------


def _judge(
    structures: Sequence[Atoms], training: list[Atoms], limits: Thresholds, tolerance: float
) -> dict[str, np.ndarray]:
    """Returns valid, unique and novel, [n] bool each; what is not valid is none of them."""
    is_valid = valid(structures, limits.overlap_factor, limits.bond_factor)
    unique, novel = np.zeros_like(is_valid), np.zeros_like(is_valid)
    members = np.flatnonzero(is_valid)
    if len(members):
        kept = [structures[m] for m in members.tolist()]
        first = similarity.duplicates(kept, tolerance=tolerance)
        unique[members] = first == np.arange(len(members))
        novel[members] = similarity.match(kept, training, tolerance=tolerance) < 0
    return {"valid": is_valid, "unique": unique, "novel": novel}


def _shares(judged: Mapping[str, np.ndarray], member: np.ndarray | None = None) -> dict[str, Any]:
    keep = slice(None) if member is None else member
    n_valid, n_unique = (int(judged[key][keep].sum()) for key in ("valid", "unique"))
    n_novel = int((judged["unique"] & judged["novel"])[keep].sum())
    return {
        "validity": n_valid / len(judged["valid"][keep]),
        "uniqueness": n_unique / n_valid if n_valid else None,
        "novelty": n_novel / n_unique if n_unique else None,
    }


def _tolerances(
    rows: list[dict[str, Any]], train: Dataset, asked: Mapping[str, float]
) -> dict[str, float]:
    targeted = list(dict.fromkeys(name for row in rows for name in row["target"] or {}))
    for name, value in asked.items():
        if name not in targeted and name not in train.properties:
            raise ValueError(
                f"hit_tolerance names {name!r}, which is no property of the targets "
                f"({', '.join(targeted) or 'none'}) or the data set ({', '.join(train.properties)})"
            )
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"hit_tolerance of {name} is {value!r}; a number above 0 is needed")
    result = {}
    for name in targeted:
        if not any(isinstance((row["target"] or {}).get(name), float) for row in rows):
            continue  # ranges only: their ends decide
        if name in asked or name in HIT_TOLERANCES:
            result[name] = float(asked.get(name, HIT_TOLERANCES.get(name, 0.0)))
        elif name in train.properties:
            result[name] = 0.05 * float(np.ptp(train.properties[name]))
        else:
            raise ValueError(
                f"target property {name!r} is not in the data set (which has "
                f"{', '.join(train.properties) or 'none'}); give its hit tolerance"
            )
    return result


def _targets(
    rows: list[dict[str, Any]],
    final: Mapping[str, np.ndarray],
    raw_valid: np.ndarray,
    train: Dataset,
    tolerance: Mapping[str, float],
) -> list[dict[str, Any]]:
    """Returns one entry per distinct target, in order of appearance."""
    groups: dict[str, list[int]] = {}
    for k, row in enumerate(rows):
        if row["target"]:
            groups.setdefault(_label(row["target"]), []).append(k)
    everywhere = np.ones(len(rows), bool)
    eligible = dict(zip(STAGES, (everywhere, raw_valid, final["valid"]), strict=True))
    formulas = np.array([atoms.get_chemical_formula("metal") for atoms in train.structures])
    result = []
    for label, members in groups.items():
        target = rows[members[0]]["target"]
        entry: dict[str, Any] = {
            "label": label,
            "target": target,
            "count": len(members),
            **_shares(final, np.array(members)),
            "hit_rate": {},
            "mae": {},
        }
        for stage in STAGES:
            values = {name: _column(rows, members, stage, name) for name in target}
            entry["hit_rate"][stage], entry["mae"][stage] = _rates(
                target, values, eligible[stage][members], tolerance
            )
        same = np.isin(formulas, [rows[k]["formula"] for k in members])
        nothing = np.full(len(train), np.nan)
        draws = {name: train.properties.get(name, nothing)[same] for name in target}
        hit_rate, mae = _rates(target, draws, np.ones(int(same.sum()), bool), tolerance)
        entry["baseline"] = {"count": int(same.sum()), "hit_rate": hit_rate, "mae": mae}
        result.append(entry)
    return result


def _column(rows: list[dict[str, Any]], members: list[int], stage: str, name: str) -> np.ndarray:
    found = [rows[k][stage].get(name) for k in members]
    return np.array([np.nan if value is None else value for value in found], float)


def _rates(
    target: Mapping[str, float | list[float]],
    values: Mapping[str, np.ndarray],
    eligible: np.ndarray,
    tolerance: Mapping[str, float],
) -> tuple[float | None, dict[str, float | None]]:
    """Returns the joint hit rate, and each property's mean absolute error.

    Args:
        target: property -> value or [lo, hi].
        values: property -> [n]; NaN where there is none.
        eligible: [n] bool, which structures can be hits.
        tolerance: property -> half width of a hit.
    """
    hits = eligible.copy()
    mae: dict[str, float | None] = {}
    missing = False
    for name, wanted in target.items():
        value = values[name]
        low, high = wanted if isinstance(wanted, list) else (wanted, wanted)
        distance = np.maximum(np.maximum(low - value, value - high), 0.0)
        known = np.isfinite(value)
        missing = missing or not known.any()
        # The small allowance keeps 0.76 a hit for 0.75 +- 0.01 in spite of rounding.
        reach = 0.0 if isinstance(wanted, list) else tolerance[name]
        hits &= known & (np.nan_to_num(distance, nan=np.inf) <= reach * (1 + 1e-9))
        judged = known & eligible
        error = float(distance[judged].mean()) if judged.any() else np.nan
        mae[name] = error if np.isfinite(error) else None
    return (None if missing else float(hits.mean())), mae


def _label(target: Mapping[str, float | list[float]]) -> str:
    """Returns a target as the command line spells it; one label, one target."""
    return ",".join(
        f"{name}={':'.join(map(repr, value)) if isinstance(value, list) else repr(value)}"
        for name, value in sorted(target.items())
    )
