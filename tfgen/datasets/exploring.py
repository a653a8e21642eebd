"""Plans the structures of a build: rounds of tasks, each made of the minima found so far."""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from ase import Atoms

from tfgen.datasets.recipe import Recipe
from tfgen.datasets.selection import choose_parents
from tfgen.datasets.tasks import STATUSES, Part, Results, Source, Task
from tfgen.structures.batch import bucket
from tfgen.structures.formulas import numbers_from_formula
from tfgen.structures.similarity import duplicates, sorted_distances
from tfgen.structures.validity import connected

__all__ = ["Minima", "nothing_known", "plan", "random_numbers"]

# Structures in a task: enough to fill the relaxation's batches until the last ones have converged,
# few enough that little is lost with a task and that the work can be shared.
CHUNK = 600
# Pairs of atoms in a task's structures, so that large structures come in smaller tasks.
PAIRS_PER_CHUNK = 2_000_000
# Parents that a task of few structures is given, so that splicing has a choice of mates.
LEAST_PARENTS = 16
# Minima within this distance, Å, count as one in the choice of parents. It is not the recipe's
# tolerance, because another selection from the same minima must not change what is explored.
TOLERANCE = 0.05

# What the seed is used for, so that no two uses share random numbers.
_USES = ("making", "parents", "choosing", "splitting")


def random_numbers(seed: int, use: str, *place: int) -> np.random.Generator:
    """The random numbers of one use of a build's seed."""
    key = (_USES.index(use), *place)
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))


@dataclass
class Minima:
    """The distinct, connected minima of one composition that are known.

    Attributes:
        numbers: [N], atomic numbers.
        structures: m structures with the atoms in the order of `numbers`.
        energy: [m], eV.
    """

    numbers: np.ndarray
    structures: list[Atoms] = field(default_factory=list)
    energy: np.ndarray = field(default_factory=lambda: np.zeros(0))

    def __len__(self) -> int:
        return len(self.structures)

    @property
    def positions(self) -> np.ndarray:
        """[m, N, 3], Å."""
        return np.array([s.positions for s in self.structures])

    def add(self, results: Iterable[Results]) -> None:
        """Adds the new minima in the results of tasks."""
        converged = STATUSES.index("converged")
        for result in results:
            found = np.flatnonzero(result.status == converged)
            structures = [Atoms(self.numbers, positions=x) for x in result.positions[found]]
            whole = np.flatnonzero(connected(structures))
            self.structures += [structures[i] for i in whole]
            self.energy = np.append(self.energy, result.energy[found[whole]])
        new = np.flatnonzero(duplicates(self.structures, TOLERANCE) == np.arange(len(self)))
        self.structures = [self.structures[i] for i in new]
        self.energy = self.energy[new]


def nothing_known(recipe: Recipe) -> dict[str, Minima]:
    """Returns what is known before the first round: formula -> no minima."""
    return {f: Minima(numbers_from_formula(f)) for f in recipe.sample.formula}


def plan(recipe: Recipe, seed: int, round_: int, known: Mapping[str, Minima]) -> list[Task]:
    """Returns the tasks of a round; they depend on the arguments alone.

    Args:
        recipe: of the build.
        seed: of the build.
        round_: 0: initial structures; 1 to `recipe.explore.rounds`: moves from the known minima.
        known: formula -> minima that the rounds before have found.
    """
    if round_ == 0:
        sources = {f: [Source(recipe.sample.count)] for f in known}
    else:
        sources = _moves(recipe, seed, round_, known)
    # Compositions that are padded to one size are relaxed together.
    groups: dict[int, list[str]] = {}
    for formula, minima in known.items():
        groups.setdefault(bucket(len(minima.numbers)), []).append(formula)
    tasks: list[Task] = []
    for width, formulas in groups.items():
        size = int(np.clip(PAIRS_PER_CHUNK // width**2, 1, CHUNK)) if recipe.relax.batched else 1
        for pieces in _cut([(f, source) for f in formulas for source in sources[f]], size):
            parts = [
                Part(f, known[f].numbers, tuple(source for _, source in own))
                for f, own in itertools.groupby(pieces, key=operator.itemgetter(0))
            ]
            tasks.append(
                Task(
                    round=round_,
                    place=len(tasks),
                    parts=tuple(parts),
                    seed=seed,
                    use=_USES.index("making"),
                    sample=recipe.sample,
                    relax=recipe.relax,
                    moves=recipe.explore.moves if recipe.explore else (),
                )
            )
    return tasks


def _moves(
    recipe: Recipe, seed: int, round_: int, known: Mapping[str, Minima]
) -> dict[str, list[Source]]:
    """Returns where the structures of a round of moves come from: formula -> sources."""
    explore = recipe.explore
    if explore is None:
        raise ValueError(f"round_ is {round_}; the recipe does not explore")
    parents = {}
    for place, (formula, minima) in enumerate(known.items()):
        if len(minima):
            positions = minima.positions
            chosen = choose_parents(
                minima.energy,
                sorted_distances(minima.numbers, positions),
                explore.parents,
                random_numbers(seed, "parents", round_, place),
                higher=explore.higher,
            )
            parents[formula] = positions[chosen]
    sources = {}
    for formula, minima in known.items():
        near = [f for f in parents if _neighbours(known[f].numbers, minima.numbers)]
        grown = round(explore.grow * explore.count) if near else 0
        shares = np.bincount(np.arange(grown) % max(1, len(near)), minlength=len(near))
        if formula in parents:
            own = Source(explore.count - grown, parents=parents[formula])
        else:
            # There are no parents: more initial structures, after those that were made.
            first = recipe.sample.count + (round_ - 1) * explore.count
            own = Source(explore.count - grown, first=first)
        sources[formula] = [own] + [
            Source(int(share), parents=parents[f], numbers=known[f].numbers)
            for f, share in zip(near, shares, strict=True)
        ]
    return sources


def _neighbours(a: np.ndarray, b: np.ndarray) -> bool:
    """Says whether adding, removing or exchanging one atom leads from `a` to `b`."""
    length = max(a.max(), b.max()) + 1
    change = np.bincount(b, minlength=length) - np.bincount(a, minlength=length)
    return bool(change.any() and np.maximum(change, 0).sum() <= 1 >= np.maximum(-change, 0).sum())


def _cut(sources: list[tuple[str, Source]], size: int) -> list[list[tuple[str, Source]]]:
    """Cuts sources, one after the other, into parts of equal size, at most `size` structures."""
    total = sum(source.size for _, source in sources)
    size = math.ceil(total / max(1, math.ceil(total / size)))
    parts: list[list[tuple[str, Source]]] = []
    room = 0
    for formula, source in sources:
        done = 0
        while done < source.size:
            if room == 0:
                parts.append([])
                room = size
            taken = min(room, source.size - done)
            parts[-1].append((formula, _slice(source, done, taken)))
            done += taken
            room -= taken
    return parts


def _slice(source: Source, start: int, size: int) -> Source:
    if source.parents is None:
        return Source(size, source.first + start)
    count = len(source.parents)
    # Structure k is made from parent k modulo their number, and splicing needs some more.
    rows = (start + np.arange(min(count, max(2 * size, LEAST_PARENTS)))) % count
    return Source(size, parents=source.parents[rows], numbers=source.numbers)
