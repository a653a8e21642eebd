"""Metrics of generated structures: valid, unique, new, on target, and at what cost."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms
from tqdm import tqdm

from tfgen.generation.records import STAGES, raw_structures, record_of
from tfgen.structures import similarity
from tfgen.structures.validity import Thresholds, thresholds_from, valid
from tfgen.targets import (
    DEFAULT_TOLERANCES,
    Rates,
    Target,
    check_tolerance,
    compute_rates,
    default_tolerance,
)

if TYPE_CHECKING:
    from tfgen.datasets.storage import Dataset

__all__ = ["BASIN_RMSD", "evaluate"]

# Å; a structure this near to a minimum is nearer to it than to any other: nearest minima of Pt13
# are 0.56 Å apart and more.
BASIN_RMSD = 0.25


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
    - mae and bias, per stage and target: mean distance of each property to the target, and mean of
      value minus target, or to the nearer end of its range (0 inside); over the structures that
      are valid and have the value.
    - baseline: the same for plain draws from the training structures of the compositions made for
      the target, which needs no model at all.
    - coverage: share of the test split's structures of the compositions made that are found again
      among the valid ones; of course it grows with the number generated.
    - basin: share of relaxed structures that the relaxation moved by at most `BASIN_RMSD`, root
      mean square; they lay at the minimum that they were relaxed to.
    - verified: structures that are valid, unique, novel and, relaxed, on target, and how many
      relaxations each took: the cost that counts where a relaxation is expensive.
    - acceptance: share of the candidates tried that were on target in the end; where records say
      how many `candidates` a structure was chosen from.

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
        has one row per structure, in order: its record, valid, unique, novel, hit, verified,
        `nearest` (place of the most similar training structure in the data set and the largest
        difference of any sorted distance, Å) and `basin_rmsd`, Å.

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

    with tqdm(total=5, desc="evaluating", disable=not progress, leave=False) as bar:
        limits = thresholds_from(train.structures)
        bar.update()
        final = _judge(generated, train.structures, limits, duplicate_tolerance)
        bar.update()
        raw, raw_valid = None, final["valid"]
        raw_of = raw_structures(generated)
        if any("reconstructed_positions" in atoms.arrays for atoms in generated):
            judged = _judge(raw_of, train.structures, limits, duplicate_tolerance)
            raw, raw_valid = _shares(judged), judged["valid"]
        bar.update()
        moved = _moved(generated, raw_of, final["valid"] & raw_valid)
        bar.update()
        places = np.flatnonzero(dataset.split == 0)
        for k, row in enumerate(rows):
            row["valid_reconstructed"] = bool(raw_valid[k])
            row["valid"] = bool(final["valid"][k])
            for key in ("unique", "novel"):
                # A structure that is not valid is neither unique nor novel, nor the opposite.
                row[key] = bool(final[key][k]) if row["valid"] else None
            found = int(final["nearest"][k])
            row["nearest"] = None if found < 0 else {
                "index": int(places[found]), "distance": float(final["distance"][k])
            }  # fmt: skip
            row["basin_rmsd"] = None if np.isnan(moved[k]) else float(moved[k])
        targets = _targets(rows, final, raw_valid, train, tolerance)
        covered = _coverage(generated, final["valid"], dataset, duplicate_tolerance)
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
        "bias": {stage: {t["label"]: t["bias"][stage] for t in targets} for stage in STAGES},
        "coverage": covered,
        "basin": _basin(rows),
        "verified": _verified(rows),
        "acceptance": _acceptance(rows),
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
            "basin_rmsd": BASIN_RMSD,
            "basin_rmsd_unit": "Å",
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
    """Returns valid, unique and novel, [n] bool each; nearest, [n] int, and its distance, [n] Å.

    What is not valid is not unique or novel either, and has no nearest (-1, infinitely far).
    """
    is_valid = valid(structures, limits.overlap_factor, limits.bond_factor)
    unique = np.zeros_like(is_valid)
    nearest, distance = np.full(len(is_valid), -1), np.full(len(is_valid), np.inf)
    members = np.flatnonzero(is_valid)
    if len(members):
        kept = [structures[m] for m in members.tolist()]
        first = similarity.duplicates(kept, tolerance=tolerance)
        unique[members] = first == np.arange(len(members))
        nearest[members], distance[members] = similarity.nearest(kept, training)
    novel = is_valid & (distance > tolerance)
    return {
        "valid": is_valid,
        "unique": unique,
        "novel": novel,
        "nearest": nearest,
        "distance": distance,
    }


def _moved(generated: Sequence[Atoms], raw: Sequence[Atoms], both_valid: np.ndarray) -> np.ndarray:
    """Returns how far relaxing moved each structure, [n] Å; NaN where that cannot be said."""
    result = np.full(len(generated), np.nan)
    relaxed = ["reconstructed_positions" in a.arrays and not a.pbc.any() for a in generated]
    members = np.flatnonzero(both_valid & relaxed)
    result[members] = similarity.displacements(
        [raw[m] for m in members.tolist()], [generated[m] for m in members.tolist()]
    )
    return result


def _coverage(
    generated: Sequence[Atoms], is_valid: np.ndarray, dataset: Dataset, tolerance: float
) -> dict[str, Any]:
    made = {atoms.get_chemical_formula("metal") for atoms in generated}
    test = [
        atoms
        for atoms in dataset.select("test").structures
        if atoms.get_chemical_formula("metal") in made
    ]
    good = [generated[k] for k in np.flatnonzero(is_valid).tolist()]
    found = int((similarity.match(test, good, tolerance=tolerance) >= 0).sum()) if good else 0
    return {"share": found / len(test) if test else None, "found": found, "count": len(test)}


def _basin(rows: list[dict[str, Any]]) -> dict[str, Any]:
    moved = np.array([row["basin_rmsd"] for row in rows if row["basin_rmsd"] is not None], float)
    return {
        "share": float((moved <= BASIN_RMSD).mean()) if len(moved) else None,
        "count": len(moved),
        "median_rmsd": float(np.median(moved)) if len(moved) else None,
    }


def _verified(rows: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Returns the cost of verified hits; None where nothing was asked for or relaxed."""
    judged = [row for row in rows if row["verified"] is not None]
    if not judged:
        return None
    hits = sum(row["verified"] for row in judged)
    spent = sum(row["relaxations"] for row in judged)
    return {
        "hits": hits,
        "share": hits / len(judged),
        "relaxations": spent,
        "relaxations_per_hit": spent / hits if hits else None,
    }


def _acceptance(rows: list[dict[str, Any]]) -> dict[str, Any] | None:
    judged = [row for row in rows if row["candidates"] is not None and row["hit"] is not None]
    if not judged:
        return None
    accepted, tried = sum(row["hit"] for row in judged), sum(row["candidates"] for row in judged)
    return {"accepted": accepted, "candidates": tried, "rate": accepted / tried}


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
        check_tolerance(f"hit_tolerance of {name}", value)
    result = {}
    for name in targeted:
        if not any(isinstance((row["target"] or {}).get(name), float) for row in rows):
            continue  # ranges only: their ends decide
        if name in asked:
            result[name] = float(asked[name])
        elif name in DEFAULT_TOLERANCES:
            result[name] = DEFAULT_TOLERANCES[name]
        elif name in train.properties:
            values = train.properties[name]
            result[name] = default_tolerance(name, float(values.min()), float(values.max()))
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
    for row in rows:
        row["hit"] = row["verified"] = None
    result = []
    for label, members in groups.items():
        target = rows[members[0]]["target"]
        targets = [Target.of(name, value, tolerance.get(name)) for name, value in target.items()]
        found: dict[str, Rates] = {}
        for stage in STAGES:
            values = {name: _column(rows, members, stage, name) for name in target}
            found[stage] = compute_rates(targets, values, eligible[stage][members])
        same = np.isin(formulas, [rows[k]["formula"] for k in members])
        nothing = np.full(len(train), np.nan)
        draws = {name: train.properties.get(name, nothing)[same] for name in target}
        drawn = compute_rates(targets, draws, np.ones(int(same.sum()), bool))
        _mark(rows, members, found)
        group = [rows[k] for k in members]
        result.append(
            {
                "label": label,
                "target": target,
                "count": len(members),
                **_shares(final, np.array(members)),
                "hit_rate": {stage: rates.hit_rate for stage, rates in found.items()},
                "mae": {stage: rates.mae for stage, rates in found.items()},
                "bias": {stage: rates.bias for stage, rates in found.items()},
                "basin": _basin(group),
                "verified": _verified(group),
                "acceptance": _acceptance(group),
                "baseline": {
                    "count": int(same.sum()),
                    "hit_rate": drawn.hit_rate,
                    "mae": drawn.mae,
                    "bias": drawn.bias,
                },
            }
        )
    return result


def _mark(rows: list[dict[str, Any]], members: list[int], found: Mapping[str, Rates]) -> None:
    """Writes into the rows of one target which structures are hits in the end, and new ones."""
    for stage in ("relaxed", "reconstructed"):
        hits = found[stage].hits
        if hits is None:
            continue
        for k, hit in zip(members, hits.tolist(), strict=True):
            rows[k]["hit"] = hit
            if stage == "relaxed":
                rows[k]["verified"] = bool(hit and rows[k]["unique"] and rows[k]["novel"])
        return


def _column(rows: list[dict[str, Any]], members: list[int], stage: str, name: str) -> np.ndarray:
    found = [rows[k][stage].get(name) for k in members]
    return np.array([np.nan if value is None else value for value in found], float)


def _label(target: Mapping[str, float | list[float]]) -> str:
    """Returns a target as the command line spells it; one label, one target."""
    return ",".join(str(Target.of(name, value)) for name, value in sorted(target.items()))
