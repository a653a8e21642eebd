"""Generations of candidates: sampled, moved, screened, followed downhill and selected.

A genetic search on the fingerprint itself. Where the fingerprint has a cheap part (`cheap_part`),
all of this uses the cheap part alone; `tfgen.inversion.refinement` judges the best candidates by
the whole fingerprint.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from ase.data import covalent_radii
from scipy.spatial.distance import cdist

from tfgen.inversion.change_pairs import best_pairs
from tfgen.inversion.descent import Goal, Objective
from tfgen.inversion.sampler import Sampler
from tfgen.inversion.screening import WhitenedError
from tfgen.inversion.settings import PopulationSettings, SearchSettings
from tfgen.sampling.sites import OVERLAP
from tfgen.structures.similarity.neighbour_distances import sorted_neighbour_distances

__all__ = ["Generations", "Population", "select_distinct", "separation"]


@dataclass
class Population:
    """Candidates of one target.

    Attributes:
        positions: [n, atoms, 3], Å.
        loss: [n].
        promoted: [n] bool, candidates that were handed on to refinement.
        relocated: [n] bool, candidates whose relocations were proposed. A better copy of one has
            its relocations proposed again.
    """

    positions: np.ndarray
    loss: np.ndarray
    promoted: np.ndarray
    relocated: np.ndarray

    @classmethod
    def of(cls, positions: np.ndarray, loss: np.ndarray) -> Population:
        """Makes a population of new candidates."""
        return cls(positions, loss, np.zeros(len(loss), bool), np.zeros(len(loss), bool))

    def join(self, other: Population) -> Population:
        """Returns the candidates of both, these first."""
        return Population(
            np.concatenate([self.positions, other.positions]),
            np.concatenate([self.loss, other.loss]),
            np.concatenate([self.promoted, other.promoted]),
            np.concatenate([self.relocated, other.relocated]),
        )

    def take(self, rows: np.ndarray) -> Population:
        """Returns the candidates in these rows."""
        columns = self.positions, self.loss, self.promoted, self.relocated
        return Population(*(column[rows] for column in columns))

    def best_loss(self) -> float:
        """Returns the least loss; infinite without candidates."""
        return self.loss.min(initial=np.inf)


def separation(one: np.ndarray, others: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Computes how far structures are from one, by `sorted_neighbour_distances`.

    Args:
        one: [atoms, 3], Å.
        others: [n, atoms, 3], Å.
        numbers: [atoms].

    Returns:
        [n], the largest difference of two distances, Å; 0 for mirror images.
    """
    if len(others) == 0:
        return np.zeros(0)
    spectra = sorted_neighbour_distances(numbers, np.concatenate([one[None], others]))
    return np.abs(spectra[1:] - spectra[0]).max(axis=1, initial=0.0)


def select_distinct(
    found: Population, numbers: np.ndarray, settings: PopulationSettings
) -> Population:
    """Selects the best distinct candidates, best first.

    Diversity matters more than rank: a population of copies of one wrong structure finds nothing.

    Args:
        found: candidates in any order.
        numbers: [atoms].
        settings: `size` and `distinct_distance` matter here.

    Returns:
        At most `size` candidates, all finite, that are all `distinct_distance` apart or more.
    """
    finite = np.isfinite(found.loss) & np.isfinite(found.positions).all(axis=(1, 2))
    order = np.argsort(np.where(finite, found.loss, np.inf), kind="stable")[: finite.sum()]
    order = order[: 4 * settings.size]
    spectra = sorted_neighbour_distances(numbers, found.positions[order])
    kept: list[int] = []
    for place in range(len(order)):
        apart = np.abs(spectra[kept] - spectra[place]).max(axis=1, initial=0.0)
        if (apart >= settings.distinct_distance).all():
            kept.append(place)
        if len(kept) == settings.size:
            break
    return found.take(order[kept])


class Generations:
    """Makes one population after the other.

    Args:
        goal: what is sought.
        objective: the loss that ranks, of the cheap part of the fingerprint if there is one.
        sampler: of structures and moves.
        rng: the source of all other randomness.
        settings: of the search.

    Attributes:
        rounds: generations after the first, of all populations.
        descents: structures that were followed downhill.
    """

    def __init__(
        self,
        goal: Goal,
        objective: Objective,
        sampler: Sampler,
        rng: np.random.Generator,
        settings: SearchSettings,
    ) -> None:
        self.rounds = self.descents = 0
        self._goal, self._objective, self._sampler, self._rng = goal, objective, sampler, rng
        self._population, self._screening = settings.population, settings.screening
        self._moves = settings.moves
        self._whitened: WhitenedError | None = None
        self._whitened_in = 0  # the round

    def begin(self, initial: np.ndarray) -> Population:
        """Makes the first generation of a population.

        Args:
            initial: [n, atoms, 3], Å, structures that belong to it; random ones fill it up.
        """
        self._whitened = None  # it belongs to other structures
        settings = self._population
        wanted = max(0, settings.initial - len(initial))
        if wanted:
            count = int(settings.sampled_per_squared_atoms * len(self._goal.numbers) ** 2)
            count = max(settings.initial, min(count, settings.max_sampled))
            free = not self._goal.periodic and not self._goal.fixed.any()
            few = min(settings.flattened, wanted // 2) if free else 0
            sampled = self._best_by_loss(self._sampler.sample(count), wanted - few)
            initial = np.concatenate([initial, sampled])
            if few:
                flat = self._sampler.flatten(self._sampler.sample(settings.flattened_sampled))
                initial = np.concatenate([initial, self._best_by_loss(flat, few)])
        return self._descend(initial)

    def advance(self, old: Population) -> Population:
        """Makes the next generation: the best distinct of the old candidates and their children."""
        new = self._next(old)
        self.rounds += 1
        return new

    def _next(self, old: Population) -> Population:
        if len(old.loss) == 0:  # no candidate has a finite fingerprint
            return self.begin(self._goal.initial[:0])
        if self._whitened is None or self.rounds - self._whitened_in >= self._screening.rounds:
            self._update_screening(old)
        relocated = self._relocate(old)
        wanted = self._moves.children - len(relocated)
        # The power 1.5 of a uniform number favours the best without leaving out the rest.
        chances = self._rng.random(wanted * self._moves.per_child) ** 1.5
        rows = (chances * len(old.loss)).astype(int)
        moved = self._screen(self._sampler.move(old.positions[rows]), wanted)
        new = self._descend(np.concatenate([relocated, moved]))
        return select_distinct(old.join(new), self._goal.numbers, self._population)

    def _relocate(self, old: Population) -> np.ndarray:
        """Puts one or two atoms of a candidate into other places.

        The candidate is the best one that was not treated so before, and is marked.

        Returns:
            [n, atoms, 3], Å, the most promising structures.
        """
        new = np.flatnonzero(~old.relocated)
        if self._goal.periodic or len(new) == 0:
            return old.positions[:0]
        old.relocated[new[0]] = True
        parent = old.positions[new[0]]
        single = self._screen(self._sampler.relocate(parent), self._moves.combined)
        pairs = self._combine(parent, single)
        pairs = self._screen(pairs, self._moves.pair_relocations)
        return np.concatenate([single[: self._moves.single_relocations], pairs])

    def _combine(self, parent: np.ndarray, single: np.ndarray) -> np.ndarray:
        """Combines relocations of single atoms to promising pairs.

        Args:
            parent: [atoms, 3], Å.
            single: [m, atoms, 3], Å, the parent but for one atom each.

        Returns:
            [n, atoms, 3], Å, the parent but for two atoms each.
        """
        numbers, max_pairs = self._goal.numbers, self._moves.max_pairs
        atom = (single != parent).any(axis=2).argmax(axis=1)
        place = single[np.arange(len(single)), atom]
        radii = covalent_radii[numbers[atom]]
        together = cdist(place, place) > OVERLAP * (radii[:, None] + radii)
        together &= atom[:, None] != atom
        if not together.any():
            return single[:0]
        # Screening reduced the errors to their size, as those of all proposals need much memory.
        every = np.concatenate([parent[None], single])
        if self._whitened is None:
            errors = self._objective.errors(every)
        else:
            errors = self._objective.errors(every, self._whitened.whiten)
        i, j = best_pairs(errors[1:], errors[0], together, 2 * max_pairs)
        # Two like atoms may go to the same two places in two ways, which make one structure.
        known = np.unique(place, axis=0, return_inverse=True)[1].reshape(-1)
        sides = [np.sort(np.stack([x[i], x[j]], axis=1), axis=1) for x in (atom, known)]
        first = np.unique(np.concatenate(sides, axis=1), axis=0, return_index=True)[1]
        kept = np.sort(first)[:max_pairs]
        return single[i[kept]] + single[j[kept]] - parent

    def _best_by_loss(self, positions: np.ndarray, count: int) -> np.ndarray:
        return positions[np.argsort(self._objective.losses(positions), kind="stable")[:count]]

    def _screen(self, proposed: np.ndarray, count: int) -> np.ndarray:
        """Selects the most promising structures [count, atoms, 3], best first."""
        if self._whitened is None or len(proposed) == 0:
            return self._best_by_loss(proposed, count)
        distance = self._objective.errors(proposed, self._whitened)
        return proposed[np.argsort(distance, kind="stable")[:count]]

    def _update_screening(self, population: Population) -> None:
        """Finds out what small displacements of the candidates change."""
        settings = self._screening
        free = 3 * (~self._goal.fixed).sum()
        few = self._objective.features < settings.features_per_coordinate * free
        if self._goal.periodic or few:
            return
        x = np.repeat(population.positions[:, None], settings.rattles, axis=1)
        x = self._sampler.restore_fixed(x + settings.rattle * self._rng.normal(size=x.shape))
        found = self._objective.errors(x.reshape(-1, *self._goal.shape))
        found = found.reshape(*x.shape[:2], -1)
        finite = np.isfinite(found).all(axis=2, keepdims=True)
        found = np.where(finite, found, 0.0)
        count = np.maximum(finite.sum(axis=1, keepdims=True), 1)
        changes = (found - found.sum(axis=1, keepdims=True) / count)[finite[:, :, 0]]
        self._whitened = WhitenedError(changes, settings) if len(changes) else None
        self._whitened_in = self.rounds

    def _descend(self, positions: np.ndarray) -> Population:
        self.descents += len(positions)
        found, loss = self._objective.descend(positions, self._population.descent)
        return select_distinct(Population.of(found, loss), self._goal.numbers, self._population)
