"""Moves that lead from minima to initial structures near other minima: for hopping and growth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from ase.data import covalent_radii

from tfgen._settings import check_number, check_range, check_whole
from tfgen.sampling.sites import add_atom, contacts, places, rotations, separate, standardise

__all__ = ["MOVES", "MoveSettings", "grow", "propose", "relocations"]

MOVES = ("rattle", "relocate", "twist", "splice", "exchange")
"""Names of the moves that `propose` knows."""


@dataclass(frozen=True, kw_only=True)
class MoveSettings:
    """How far moves go.

    Attributes:
        rattle: Å, the range from which the standard deviation of a rattle is sampled.
        relocated: the largest number of atoms that a relocation moves.
        spliced: the range from which the share of atoms that a splice takes from the first parent
            is sampled, within 0 and 1.
        exchanged: the largest number of pairs that an exchange swaps, as a share of the number of
            atoms, above 0; it swaps at least one pair.
    """

    rattle: tuple[float, float] = (0.1, 0.6)
    relocated: int = 3
    spliced: tuple[float, float] = (0.25, 0.75)
    exchanged: float = 0.25

    def __post_init__(self) -> None:
        """Checks the values.

        Raises:
            ValueError: if one is out of its range.
        """
        check_range(self, "rattle", low=0.0)
        check_range(self, "spliced", low=0.0, high=1.0)
        check_whole(self, 1, "relocated")
        check_number(self, "exchanged", low=0.0)


def propose(
    parents: np.ndarray,
    numbers: np.ndarray,
    count: int,
    rng: np.random.Generator,
    *,
    moves: Sequence[str] = MOVES,
    min_distance: float = 0.8,
    settings: MoveSettings | None = None,
) -> np.ndarray:
    """Makes initial structures from minima by moves that cross barriers.

    Structure k comes from parent k modulo p, by a move chosen at random:

    - "rattle": every atom is displaced, by 0.1 to 0.6 Å (standard deviation of each coordinate);
    - "relocate": one to three atoms, weakly bound ones first, move to other places on the surface;
    - "twist": one half is rotated against the other about a random axis;
    - "splice": one half of one parent is joined to the other half of another (cut and splice);
    - "exchange": pairs of atoms of unlike elements swap places, up to as many pairs as a quarter of
      the number of atoms. Structures of one element never get this move.

    Args:
        parents: [p, N, 3], Å; left unmodified.
        numbers: [N], atomic numbers.
        count: number of structures.
        rng: the source of all randomness.
        moves: those to choose from, of `MOVES`, all equally likely.
        min_distance: smallest distance of two atoms, in sums of their covalent radii.
        settings: how far moves go; the default values if None.

    Returns:
        [count, N, 3] float64, Å, centred on the origin, no atoms closer than `min_distance` times
        the sum of covalent radii. Composition and order of atoms are the parents'.

    Raises:
        ValueError: on an unknown move, none that can be made, parents of another shape or not
            finite, or a number out of its range.

    References:
        D. J. Wales, J. P. K. Doye, J. Phys. Chem. A 101, 5111 (1997). DOI 10.1021/jp970984n
        D. M. Deaven, K. M. Ho, Phys. Rev. Lett. 75, 288 (1995). DOI 10.1103/PhysRevLett.75.288
    """
    settings = settings or MoveSettings()
    numbers = standardise(numbers, count, min_distance)
    parents = _check_parents(parents, numbers)
    unknown = [m for m in moves if m not in MOVES]
    if unknown or len(moves) == 0:
        raise ValueError(f"moves is {list(moves)!r}; one or more of {', '.join(MOVES)} are needed")
    possible = [m for m in moves if m != "exchange" or (numbers != numbers[0]).any()]
    if not possible:
        raise ValueError("moves holds only 'exchange', which needs atoms of two elements")
    parents = parents - parents.mean(axis=1, keepdims=True)
    own = np.arange(count) % len(parents)
    result = parents[own] @ rotations(count, rng)
    kind = rng.integers(len(possible), size=count)
    for place, move in enumerate(possible):
        rows = np.flatnonzero(kind == place)
        if len(rows) == 0:
            continue
        x = result[rows]
        if move == "rattle":
            amount = rng.uniform(*settings.rattle, size=[len(rows), 1, 1])
            result[rows] = x + amount * rng.normal(size=x.shape)
        elif move == "relocate":
            result[rows] = _relocate(x, numbers, settings.relocated, rng)
        elif move == "twist":
            result[rows] = _twist(x, rng)
        elif move == "splice":
            mates = parents[_choose_mates(own[rows], len(parents), rng)] @ rotations(len(rows), rng)
            result[rows] = _splice(x, mates, numbers, settings.spliced, rng)
        else:
            result[rows] = _exchange(x, numbers, settings.exchanged, rng)
    return separate(result, numbers, min_distance)


def relocations(
    parent: np.ndarray,
    numbers: np.ndarray,
    atoms: np.ndarray,
    wanted: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """Makes structures in which one atom has moved to another place, for each atom and place.

    The places are sampled from those beside the whole parent, for each element again. Those that
    only become free when the atom leaves are not among them.

    Args:
        parent: [N, 3], Å.
        numbers: [N], atomic numbers.
        atoms: [k] int, those that may move.
        wanted: the largest number of places for each.
        rng: the source of all randomness.

    Returns:
        [n, N, 3], Å, which differ from the parent by one atom each; n is at most k * wanted.
    """
    radii = covalent_radii[numbers]
    moved = [np.zeros([0, *parent.shape])]
    for number in np.unique(numbers[atoms]):
        offered = places(parent, radii, covalent_radii[number], wanted, rng)
        for atom in atoms[numbers[atoms] == number]:
            moved.append(np.repeat(parent[None], len(offered), axis=0))
            moved[-1][:, atom] = offered
    return np.concatenate(moved)


def grow(
    parents: np.ndarray,
    parent_numbers: np.ndarray,
    numbers: np.ndarray,
    count: int,
    rng: np.random.Generator,
    *,
    min_distance: float = 0.8,
) -> np.ndarray:
    """Makes initial structures of one composition from minima of another, smaller or larger.

    Structure k comes from parent k modulo p. Surplus atoms are removed, weakly bound ones first (in
    some of the structures, any); missing ones are added at the surface; where elements still
    differ, random atoms of surplus elements become atoms of the missing ones.

    Args:
        parents: [p, M, 3], Å; left unmodified.
        parent_numbers: [M], their atomic numbers.
        numbers: [N], the atomic numbers wanted.
        count: number of structures.
        rng: the source of all randomness.
        min_distance: smallest distance of two atoms, in sums of their covalent radii.

    Returns:
        [count, N, 3] float64, Å, atoms in the order of `numbers`, centred on the origin, no atoms
        closer than `min_distance` times the sum of covalent radii.

    Raises:
        ValueError: on parents of another shape or not finite, or a number out of its range.
    """
    numbers = standardise(numbers, count, min_distance)
    parent_numbers = standardise(parent_numbers, count, min_distance)
    parents = _check_parents(parents, parent_numbers)
    m, n_atoms = len(parent_numbers), len(numbers)
    kinds = np.unique(np.concatenate([numbers, parent_numbers]))
    wanted = (numbers[:, None] == kinds).sum(axis=0)
    positions = np.zeros([count, max(m, n_atoms), 3])
    positions[:, :m] = parents[np.arange(count) % len(parents)]
    # The place of each atom's element in `kinds`; -1 where there is no atom.
    element = np.full(positions.shape[:2], -1)
    element[:, :m] = np.searchsorted(kinds, parent_numbers)
    present = element >= 0
    rows = np.arange(count)
    for _ in range(m - n_atoms):
        surplus = _count_elements(element, len(kinds)) > wanted
        loose = _score_leaving(positions, covalent_radii[kinds[element]], present, rng)
        # Only atoms of surplus elements leave. There are some, as there are too many atoms.
        loose[~(present & surplus[rows[:, None], element])] = -np.inf
        leaving = loose.argmax(axis=1)
        present[rows, leaving], element[rows, leaving] = False, -1
    for place in range(m, n_atoms):
        element[:, place] = _choose_columns(
            np.maximum(wanted - _count_elements(element, len(kinds)), 0), rng
        )
        add_atom(positions, covalent_radii[kinds[element]], present, np.full(count, place), rng)
    stay = np.argsort(~present, axis=1, kind="stable")[:, :n_atoms]
    element = _transmute(np.take_along_axis(element, stay, axis=1), wanted, rng)
    by_element = np.take_along_axis(stay, np.argsort(element, axis=1, kind="stable"), axis=1)
    result = np.empty([count, n_atoms, 3])
    result[:, np.argsort(numbers, kind="stable")] = np.take_along_axis(
        positions, by_element[:, :, None], axis=1
    )
    return separate(result, numbers, min_distance)


def _check_parents(parents: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    parents = np.asarray(parents, np.float64)
    if parents.ndim != 3 or len(parents) == 0 or parents.shape[1:] != (len(numbers), 3):
        raise ValueError(
            f"parents has shape {parents.shape}; [p, {len(numbers)}, 3] with p >= 1 is needed"
        )
    if not np.isfinite(parents).all():
        raise ValueError("parents holds positions that are not finite")
    return parents


# --- Moves: x [n, N, 3] -> [n, N, 3], Å ---------------------------------------------------------


def _relocate(
    x: np.ndarray, numbers: np.ndarray, most: int, rng: np.random.Generator
) -> np.ndarray:
    n, n_atoms = x.shape[:2]
    if n_atoms == 1:  # no other atom to sit beside
        return x
    x, rows = x.copy(), np.arange(n)
    radii = np.broadcast_to(covalent_radii[numbers], [n, n_atoms])
    present = np.ones([n, n_atoms], bool)
    leaving = np.argsort(-_score_leaving(x, radii, present, rng), axis=1, kind="stable")
    number = rng.integers(1, min(most, n_atoms - 1) + 1, size=n)
    for k in range(int(number.max())):
        present[rows[number > k], leaving[number > k, k]] = False
    for k in range(int(number.max())):
        some = rows[number > k]
        moved, there = x[some], present[some]
        add_atom(moved, radii[some], there, leaving[some, k], rng)
        x[some], present[some] = moved, there
    return x


def _twist(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    angle = rng.uniform(0.2, 2.0 * np.pi - 0.2, size=[len(x), 1])
    c, s = np.cos(angle), np.sin(angle)
    turned = np.stack(
        [c * x[..., 0] - s * x[..., 1], s * x[..., 0] + c * x[..., 1], x[..., 2]], axis=-1
    )
    return np.where(x[..., 2:] > 0.0, turned, x)


def _splice(
    x: np.ndarray,
    mates: np.ndarray,
    numbers: np.ndarray,
    shares: tuple[float, float],
    rng: np.random.Generator,
) -> np.ndarray:
    """Joins the upper part of x to the lower part of the mates; the composition stays."""
    share = rng.uniform(*shares, size=[len(x), 1])
    upper, lower = np.zeros(x.shape[:2], bool), np.zeros(x.shape[:2], bool)
    result, from_x = np.empty_like(x), np.empty(x.shape[:2], bool)
    for number in np.unique(numbers):
        block = np.flatnonzero(numbers == number)
        # An element may have one atom only, so the share is exact on average alone.
        ours = np.arange(len(block)) < np.floor(share * len(block) + rng.random([len(x), 1]))
        high, mates_high = (
            block[np.argsort(-s[:, block, 2], axis=1, kind="stable")] for s in (x, mates)
        )
        np.put_along_axis(upper, high, ours, axis=1)
        np.put_along_axis(lower, mates_high, ~ours, axis=1)
        from_x[:, block] = ours
        result[:, block] = np.where(
            ours[:, :, None],
            np.take_along_axis(x, high[:, :, None], axis=1),
            np.take_along_axis(mates, mates_high[:, :, None], axis=1),
        )
    # The upper part is shifted until the two cutting planes coincide.
    cut, mates_cut = _cut_height(x[:, :, 2], upper), _cut_height(mates[:, :, 2], ~lower)
    result[:, :, 2] += np.where(from_x, 0.0, np.nan_to_num(cut - mates_cut)[:, None])
    return result


def _cut_height(height: np.ndarray, upper: np.ndarray) -> np.ndarray:
    """Computes the height [n] midway between upper and other atoms; NaN if one part is empty."""
    above = np.where(upper, height, np.inf).min(axis=1)
    below = np.where(upper, -np.inf, height).max(axis=1)
    middle = np.full(len(height), np.nan)
    both = np.isfinite(above) & np.isfinite(below)
    middle[both] = 0.5 * (above[both] + below[both])
    return middle


def _exchange(
    x: np.ndarray, numbers: np.ndarray, share: float, rng: np.random.Generator
) -> np.ndarray:
    x, rows = x.copy(), np.arange(len(x))
    pairs = rng.integers(1, max(1, int(share * len(numbers))) + 1, size=len(x))
    for k in range(int(pairs.max())):
        first = rng.integers(len(numbers), size=len(x))
        # Each atom of another element is equally likely.
        second = np.where(
            numbers != numbers[first][:, None], rng.random([len(x), len(numbers)]), -1.0
        ).argmax(axis=1)
        some = pairs > k
        r, a, b = rows[some], first[some], second[some]
        x[r, a], x[r, b] = x[r, b], x[r, a]
    return x


# --- Choices ------------------------------------------------------------------------------------


def _choose_mates(own: np.ndarray, p: int, rng: np.random.Generator) -> np.ndarray:
    """Chooses for each parent another one, at random: [n] int; itself if there is no other."""
    return own if p == 1 else (own + rng.integers(1, p, size=len(own))) % p


def _score_leaving(
    positions: np.ndarray, radii: np.ndarray, present: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Scores atoms [n, N]: the fewer contacts the higher; in some structures mostly at random."""
    chance = rng.choice([1.0, 20.0], size=[len(positions), 1], p=[0.7, 0.3])
    return chance * rng.random(present.shape) - contacts(positions, radii, present)


def _count_elements(element: np.ndarray, kinds: int) -> np.ndarray:
    """Counts the atoms of each element in each structure: [n, kinds] int."""
    return (element[:, :, None] == np.arange(kinds)).sum(axis=1)


def _choose_columns(weights: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Chooses a column of each row at random by the row's weights [n, kinds]: [n] int."""
    total = np.cumsum(weights, axis=1)
    return (rng.random([len(weights), 1]) * total[:, -1:] >= total).sum(axis=1)


def _transmute(element: np.ndarray, wanted: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Turns random atoms of surplus elements into missing ones: [n, N] int."""
    element, rows = element.copy(), np.arange(len(element))
    while True:
        surplus = _count_elements(element, len(wanted)) - wanted
        some = np.flatnonzero((surplus > 0).any(axis=1))
        if len(some) == 0:
            return element
        new = _choose_columns(np.maximum(-surplus[some], 0), rng)
        chance = rng.random([len(some), element.shape[1]])
        chance[surplus[rows[some, None], element[some]] <= 0] = -1.0
        element[some, chance.argmax(axis=1)] = new
