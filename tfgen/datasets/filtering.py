"""From all that a build has relaxed to the data set: filters, each of them counted."""

from __future__ import annotations

import json
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from ase import Atoms
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from tfgen.datasets.computing import FMAX, Computer
from tfgen.datasets.exploring import make_generator
from tfgen.datasets.picking import farthest_points
from tfgen.datasets.recipe import Recipe
from tfgen.datasets.storage import Dataset, assign_splits, provenance
from tfgen.datasets.tasks import Results
from tfgen.structures.factors import BOND_FACTOR
from tfgen.structures.formulas import numbers_from_formula
from tfgen.structures.properties import ENERGY_PER_ATOM, GEOMETRY, UNITS, applicable, compute
from tfgen.structures.similarity.equality import duplicates, sorted_distances
from tfgen.structures.status import Status
from tfgen.structures.validity import connected
from tfgen.warnings import TfgenWarning

__all__ = ["describe_failures", "select"]

FAILURES = (
    Status.NOT_CONVERGED, Status.CALCULATOR_FAILED, Status.CRASHED, Status.TIME_LIMIT,
)  # fmt: skip
"""How relaxations end that find no minimum, in the order in which they are counted."""


class _Kept(NamedTuple):
    """Structures of one composition.

    Attributes:
        structures: n structures.
        forces: for each [atoms, 3], eV/Å.
        energy: [n], eV.
        fmax: [n], eV/Å.
        basin: [n] int, the same for a minimum and all that leads to it.
    """

    structures: list[Atoms]
    forces: list[np.ndarray]
    energy: np.ndarray
    fmax: np.ndarray
    basin: np.ndarray

    def take(self, rows: np.ndarray) -> _Kept:
        """Returns those in `rows`, a list of places or a mask."""
        places = np.arange(len(self.structures))[rows]
        structures, forces = [self.structures[i] for i in places], [self.forces[i] for i in places]
        return _Kept(structures, forces, *(a[rows] for a in self[2:]))


def describe_failures(results: Iterable[Results]) -> str:
    """Returns what was said most often of structures that failed; "" if nothing was."""
    return _most_often(m for result in results for m in result.detail.tolist())


def _most_often(details: Iterable[str]) -> str:
    said = Counter(filter(None, details))
    return said.most_common(1)[0][0] if said else ""


def select(
    recipe: Recipe,
    seed: int,
    results: Mapping[str, Sequence[Results]],
    rounds: Sequence[Mapping[str, int]],
    computer: Computer | None = None,
) -> Dataset:
    """Filters the structures, counts what each filter takes, and makes the data set.

    Args:
        recipe: of the build.
        seed: of the build.
        results: formula -> what its tasks returned, in the order of the tasks.
        rounds: what to say of each round.
        computer: computes further properties of the structures that are left.

    Raises:
        ValueError: if nothing is left; says which filter took how many.

    Warns:
        TfgenWarning: if a property could not be computed for some structures, which are dropped.
    """
    counts: dict[str, int] = {"sampled": recipe.sample.count * len(results)}
    if recipe.explore:
        explored = recipe.explore.rounds * recipe.explore.count * len(results)
        counts["explored"] = explored
    if recipe.relax.snapshots:
        shots = sum(len(r.snapshots) for parts in results.values() for r in parts)
        counts["snapshots"] = shots
    counts[str(Status.NOT_CONVERGED)] = 0
    kept = [_filter(recipe, formula, parts, counts) for formula, parts in results.items()]
    if recipe.select.max_count is not None:
        sizes = [len(k.energy) for k in kept]
        chosen = _choose(recipe, seed, kept)
        kept = [k.take(rows) for k, rows in zip(kept, chosen, strict=True)]
        counts["above the maximum count"] = sum(sizes) - sum(len(k.energy) for k in kept)
    whole = _join(kept)
    computed: dict[str, np.ndarray] = {}
    said = describe_failures(r for parts in results.values() for r in parts)
    if computer is not None and whole.structures:
        computed, good, failed = _compute(computer, whole.structures, counts)
        whole, said = whole.take(good), failed or said
    counts["kept"] = len(whole.structures)
    if not whole.structures:
        taken = ", ".join(f"{n} {stage}" for stage, n in counts.items() if stage != "kept")
        raise ValueError(
            f"recipe {recipe.name!r} leaves no structures: {taken}"
            + (f"; most often: {said}" if said else "")
        )
    names = [ENERGY_PER_ATOM, *applicable(whole.structures)]
    properties = compute(whole.structures, names, whole.energy)
    units = {name: UNITS[name] for name in names}
    by = dict.fromkeys(names, GEOMETRY) | {ENERGY_PER_ATOM: recipe.relax.potential}
    if recipe.relax.snapshots:
        properties[FMAX], units[FMAX], by[FMAX] = whole.fmax, "eV/Å", recipe.relax.potential
    for function in computer.functions if computer is not None else ():
        properties[function.name] = computed[function.name]
        units[function.name], by[function.name] = function.unit, function.source
    return Dataset(
        structures=whole.structures,
        properties=properties,
        units=units,
        split=assign_splits(
            len(whole.structures),
            (recipe.split.train, recipe.split.validation, recipe.split.test),
            make_generator(seed, "splitting"),
            whole.basin,
        ),
        forces=whole.forces,
        metadata=_describe(recipe, seed, counts, by, rounds),
    )


def _describe(
    recipe: Recipe,
    seed: int,
    counts: Mapping[str, int],
    evaluated_by: Mapping[str, str],
    rounds: Sequence[Mapping[str, int]],
) -> dict[str, Any]:
    """Returns the metadata."""
    metadata = {
        "name": recipe.name,
        "description": recipe.description,
        "kind": "built",
        "potential": recipe.relax.potential,
        "recipe": recipe.text,
        "seed": seed,
        "counts": dict(counts),
        "evaluated_by": dict(evaluated_by),
        "thresholds": {
            "bond_factor": BOND_FACTOR,
            "duplicate_tolerance": recipe.select.duplicate_tolerance,
        },
        **provenance(),
    }
    if not recipe.relax.batched:
        metadata["calculator"] = {
            "name": recipe.relax.potential,
            "arguments": json.loads(json.dumps(recipe.relax.arguments, default=str)),
            "vacuum": recipe.relax.vacuum,
        }
    if rounds:
        metadata["rounds"] = [dict(round_) for round_ in rounds]
    return metadata


def _join(kept: Sequence[_Kept]) -> _Kept:
    """Puts compositions one after the other, and numbers their basins on."""
    ends = np.cumsum([0, *(int(k.basin.max(initial=-1)) + 1 for k in kept)])
    return _Kept(
        [atoms for k in kept for atoms in k.structures],
        [forces for k in kept for forces in k.forces],
        np.concatenate([k.energy for k in kept]),
        np.concatenate([k.fmax for k in kept]),
        np.concatenate([k.basin + end for k, end in zip(kept, ends[:-1], strict=True)]),
    )


def _compute(
    computer: Computer, structures: Sequence[Atoms], counts: dict[str, int]
) -> tuple[dict[str, np.ndarray], np.ndarray, str]:
    """Computes properties, and counts the structures that have none.

    Returns:
        Property -> [m] values; which structures have them, [n] bool; what was said most often of
        the others, "" if there are none.
    """
    values, detail = computer.compute(structures)
    good = np.array([not said for said in detail])
    counts[str(Status.PROPERTY_FAILED)] = int((~good).sum())
    failed = _most_often(detail)
    if failed and good.any():
        warnings.warn(
            f"properties could not be computed for {int((~good).sum())} of {len(good)} "
            f"structures, most often: {failed}",
            TfgenWarning,
            stacklevel=4,
        )
    return {name: column[good] for name, column in values.items()}, good, failed


def _filter(
    recipe: Recipe, formula: str, parts: Sequence[Results], counts: dict[str, int]
) -> _Kept:
    """Returns what is left of one composition, by energy; adds to `counts` what is not."""

    def took(filter_: str, count: int) -> None:
        counts[filter_] = counts.get(filter_, 0) + count

    status = np.concatenate([r.status for r in parts])
    for failed in FAILURES:
        if (status == failed).any():
            took(str(failed), int((status == failed).sum()))
    converged = [r.status == Status.CONVERGED for r in parts]

    def both(minima: str, snapshots: str) -> np.ndarray:
        found = [getattr(r, minima)[rows] for r, rows in zip(parts, converged, strict=True)]
        return np.concatenate([*found, *(getattr(r, snapshots) for r in parts)])

    numbers = numbers_from_formula(formula)
    starts = np.cumsum([0, *(len(r.energy) for r in parts)])
    initial = [
        np.flatnonzero(rows) + start for rows, start in zip(converged, starts[:-1], strict=True)
    ]
    owners = [r.owner + start for r, start in zip(parts, starts[:-1], strict=True)]
    found = _Kept(
        [Atoms(numbers, positions=x) for x in both("positions", "snapshots")],
        list(both("forces", "snapshot_forces")),
        both("energy", "snapshot_energy"),
        both("fmax", "snapshot_fmax"),
        np.concatenate([*initial, *owners]),
    )
    # Of equal ones the lowest stays.
    found = found.take(np.argsort(found.energy, kind="stable"))
    whole = connected(found.structures)
    took("disconnected", int((~whole).sum()))
    found = found.take(whole)
    first = duplicates(found.structures, recipe.select.duplicate_tolerance)
    unique = first == np.arange(len(first))
    took("duplicates", int((~unique).sum()))
    # Initial structures that lead to the same minimum are in one basin.
    same = coo_array((np.ones(len(first)), (found.basin, found.basin[first])), 2 * [starts[-1]])
    basins = connected_components(same, directed=False)[1]
    found = found._replace(basin=basins[found.basin]).take(unique)
    window = recipe.select.energy_window
    if window is not None:
        per_atom = found.energy / len(numbers)
        inside = per_atom <= per_atom.min(initial=np.inf) + window
        took("outside the energy window", int((~inside).sum()))
        found = found.take(inside)
    return found


def _choose(recipe: Recipe, seed: int, kept: Sequence[_Kept]) -> list[np.ndarray]:
    """Returns the rows of each composition that the recipe's maximum count leaves, in order."""
    sizes = np.array([len(k.energy) for k in kept])
    most = recipe.select.max_count or 0
    if recipe.select.method == "random":
        rng = make_generator(seed, "choosing")
        sampled = np.sort(rng.permutation(sizes.sum())[:most])
        ends = np.cumsum(sizes)
        return [
            sampled[(sampled >= end - size) & (sampled < end)] - (end - size)
            for end, size in zip(ends, sizes, strict=True)
        ]
    return [
        np.sort(farthest_points(_compute_features(k), share)) if share else np.zeros(0, int)
        for k, share in zip(kept, _shares(sizes, most), strict=True)
    ]


def _shares(sizes: np.ndarray, most: int) -> list[int]:
    """Divides `most` into equal shares, none above its size; the first ones get the remainder."""
    shares = np.zeros(len(sizes), int)
    while shares.sum() < min(most, sizes.sum()):
        open_ = np.flatnonzero(shares < sizes)
        spare = most - shares.sum()
        each = spare // len(open_)
        if each == 0:
            shares[open_[:spare]] += 1
        else:
            shares[open_] += np.minimum(each, sizes[open_] - shares[open_])
    return shares.tolist()


def _compute_features(kept: _Kept) -> np.ndarray:
    """Sorted distances and energy, each with a total variance of 1: [n, f]."""
    positions = np.array([s.positions for s in kept.structures])
    distances = sorted_distances(kept.structures[0].numbers, positions)
    parts = []
    for values in (distances, kept.energy[:, None]):
        centred = values - values.mean(axis=0)
        spread = np.sqrt((centred**2).sum(axis=1).mean())
        parts.append(centred / spread if spread > 0 else centred)
    return np.concatenate(parts, axis=1)
