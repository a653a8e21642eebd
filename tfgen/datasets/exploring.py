"""Plans the structures of a build: rounds of tasks, each made of the minima found so far."""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from ase import Atoms

from tfgen.datasets.picking import choose_parents
from tfgen.datasets.recipe import Recipe
from tfgen.datasets.settings import BuildSettings
from tfgen.datasets.tasks import Part, Results, Source, Task
from tfgen.structures.batch import bucket
from tfgen.structures.formulas import numbers_from_formula
from tfgen.structures.similarity.equality import duplicates, sorted_distances
from tfgen.structures.status import Status
from tfgen.structures.validity import connected

__all__ = ["Minima", "make_empty_minima", "make_generator", "plan"]

# What the seed is used for, so that no two uses share random numbers.
_USES = ("making", "parents", "choosing", "splitting")


def make_generator(seed: int, use: str, *place: int) -> np.random.Generator:
    """Returns the random number generator for one use of a build's seed."""
    key = (_USES.index(use), *place)
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))


@dataclass
class Minima:
    """The distinct, connected minima of one composition that are known.

    Attributes:
        numbers: [N], atomic numbers.
        structures: m structures with the atoms in the order of `numbers`.
        energy: [m], eV.
        tolerance: minima whose sorted distances differ by no more are one, Å.
    """

    numbers: np.ndarray
    structures: list[Atoms] = field(default_factory=list)
    energy: np.ndarray = field(default_factory=lambda: np.zeros(0))
    tolerance: float = BuildSettings.parent_tolerance

    def __len__(self) -> int:
        return len(self.structures)

    @property
    def positions(self) -> np.ndarray:
        """[m, N, 3], Å."""
        return np.array([s.positions for s in self.structures])

    def add(self, results: Iterable[Results]) -> None:
        """Adds what is new in the results of tasks."""
        for result in results:
            found = np.flatnonzero(result.status == Status.CONVERGED)
            structures = [Atoms(self.numbers, positions=x) for x in result.positions[found]]
            whole = np.flatnonzero(connected(structures))
            self.structures += [structures[i] for i in whole]
            self.energy = np.append(self.energy, result.energy[found[whole]])
        new = np.flatnonzero(duplicates(self.structures, self.tolerance) == np.arange(len(self)))
        self.structures = [self.structures[i] for i in new]
        self.energy = self.energy[new]


def make_empty_minima(recipe: Recipe, settings: BuildSettings | None = None) -> dict[str, Minima]:
    """Returns what is known before the first round: formula -> no minima."""
    tolerance = (settings or BuildSettings()).parent_tolerance
    return {f: Minima(numbers_from_formula(f), tolerance=tolerance) for f in recipe.sample.formula}


def plan(
    recipe: Recipe,
    seed: int,
    number: int,
    known: Mapping[str, Minima],
    settings: BuildSettings | None = None,
) -> list[Task]:
    """Plans the tasks of a round, which depend on nothing but the arguments.

    Args:
        recipe: of the build.
        seed: of the build.
        number: number of the round; 0: initial structures; 1 to `recipe.explore.rounds`: moves from
            the minima known.
        known: formula -> minima that the rounds before have found.
        settings: how many structures make a task; the defaults if None.
    """
    settings = settings or BuildSettings()
    if number == 0:
        sources = {f: [Source(recipe.sample.count)] for f in known}
    else:
        sources = _choose_sources(recipe, seed, number, known)
    # Compositions that are padded to one size are relaxed together.
    groups: dict[int, list[str]] = {}
    for formula, minima in known.items():
        groups.setdefault(bucket(len(minima.numbers)), []).append(formula)
    tasks: list[Task] = []
    for width, formulas in groups.items():
        size = 1
        if recipe.relax.batched:
            most = settings.pairs_per_task // width**2
            size = int(np.clip(most, 1, settings.structures_per_task))
        pieces_of = [(f, source) for f in formulas for source in sources[f]]
        for pieces in _cut(pieces_of, size, settings.parents_per_task):
            parts = [
                Part(f, known[f].numbers, tuple(source for _, source in own))
                for f, own in itertools.groupby(pieces, key=operator.itemgetter(0))
            ]
            tasks.append(
                Task(
                    round=number,
                    place=len(tasks),
                    parts=tuple(parts),
                    seed=seed,
                    use=_USES.index("making"),
                    sample=recipe.sample,
                    relax=recipe.relax,
                    moves=recipe.explore.moves if recipe.explore else (),
                    settings=settings,
                )
            )
    return tasks


def _choose_sources(
    recipe: Recipe, seed: int, number: int, known: Mapping[str, Minima]
) -> dict[str, list[Source]]:
    """Chooses where the structures of a round of moves come from: formula -> sources."""
    explore = recipe.explore
    if explore is None:
        raise ValueError(f"number is {number}; the recipe does not explore")
    parents = {}
    for place, (formula, minima) in enumerate(known.items()):
        if len(minima):
            positions = minima.positions
            chosen = choose_parents(
                minima.energy,
                sorted_distances(minima.numbers, positions),
                explore.parents,
                make_generator(seed, "parents", number, place),
                higher=explore.higher,
            )
            parents[formula] = positions[chosen]
    sources = {}
    for formula, minima in known.items():
        near = [f for f in parents if _are_neighbours(known[f].numbers, minima.numbers)]
        grown = round(explore.grow * explore.count) if near else 0
        shares = np.bincount(np.arange(grown) % max(1, len(near)), minlength=len(near))
        if formula in parents:
            own = Source(explore.count - grown, parents=parents[formula])
        else:
            # There is nothing to move: further initial structures, after those that were taken.
            first = recipe.sample.count + (number - 1) * explore.count
            own = Source(explore.count - grown, first=first)
        sources[formula] = [own] + [
            Source(int(share), parents=parents[f], numbers=known[f].numbers)
            for f, share in zip(near, shares, strict=True)
        ]
    return sources


def _are_neighbours(a: np.ndarray, b: np.ndarray) -> bool:
    """Says whether adding, removing or exchanging one atom leads from `a` to `b`."""
    length = max(a.max(), b.max()) + 1
    change = np.bincount(b, minlength=length) - np.bincount(a, minlength=length)
    return bool(change.any() and np.maximum(change, 0).sum() <= 1 >= np.maximum(-change, 0).sum())


def _cut(
    sources: list[tuple[str, Source]], size: int, parents: int
) -> list[list[tuple[str, Source]]]:
    """Cuts sources, one after the other, into parts of equal size, at most `size` structures.

    Each piece of a source has at least this many parents, if there are enough.
    """
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
            parts[-1].append((formula, _slice(source, done, taken, parents)))
            done += taken
            room -= taken
    return parts


def _slice(source: Source, start: int, size: int, parents: int) -> Source:
    if source.parents is None:
        return Source(size, source.first + start)
    count = len(source.parents)
    # Structure k is made from parent k, in turn, and cut-and-splice needs some more.
    turn = (start + np.arange(min(count, max(2 * size, parents)))) % count
    return Source(size, parents=source.parents[turn], numbers=source.numbers)
