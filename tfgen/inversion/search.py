"""Population search for the structures behind one fingerprint.

A genetic search on the fingerprint itself: candidates are moved (atoms relocated, halves twisted or
spliced, ...), the moves that bring the fingerprint nearest to the target are followed downhill, and
the best distinct candidates live on. Where a descriptor has a cheap part (`coarse`), all this is
done with the cheap part, and only the best candidates see the whole fingerprint.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from ase import Atoms
from ase.data import covalent_radii
from scipy.spatial.distance import cdist

from tfgen.fingerprints.fingerprint import Fingerprint
from tfgen.inversion.descent import Goal, Loss
from tfgen.inversion.gauss_newton import errors, refine
from tfgen.inversion.pairs import best_pairs
from tfgen.inversion.proposals import Draws
from tfgen.inversion.screening import Forgiving
from tfgen.sampling.sites import OVERLAP
from tfgen.structures.neighbour_distances import sorted_neighbour_distances

__all__ = ["Budget", "Found", "search", "separation"]

# All figures here as measured by `scripts/benchmark_inversion.py`; docs/inversion.md
# says what most of them give.
# Candidates: of the first generation, of a round, and those that live on.
STARTS, CHILDREN, POPULATION = 48, 24, 16
# Proposals for each candidate that is followed downhill; the rest is weeded out by their losses.
PROPOSALS = 15
# Relocations of single atoms that are combined to pairs, the best, and pairs that are looked at.
COMBINED, PAIRS = 600, 360
# Children that have one atom of the best candidate elsewhere, and that have two.
ONE, TWO = 9, 6
# Features for each free coordinate from which on weeding forgives what small displacements change:
# with fewer, displacements can mimic anything.
FORGIVING = 2.0
# Rattles of each candidate, Å, that tell what displacements change, how many, and how long their
# answer serves, rounds.
RATTLE, RATTLES, RENEWED = 0.1, 25, 5
# Random packings looked at for the first generation: by the square of the number of atoms, at most.
PACKINGS, MOST_PACKINGS = 1.7, 2500
# How many of the first generation are random packings pressed into sheets and rods, as what is
# sought need not be round, and of how many such they are the best.
PRESSED, PRESSED_PACKINGS = 8, 100
# Adam steps and first step length, Å: of a candidate; of one that is shown the whole fingerprint;
# of one that may be it.
DESCENT, WHOLE, POLISH = (60, 0.15), (80, 0.1), (300, 0.05)
# Those of what has the fingerprint but for its kinks, in turn with Gauss-Newton: step lengths of
# turns that follow each other, and turns at most of what has it, of what may have it, and in vain.
ENDING, RATES, ENDINGS, ATTEMPTS, VAIN = 300, (0.02, 0.05, 0.01), 12, 4, 6
# Candidates of a round that are shown the whole fingerprint.
PROMOTED = 2
# Candidates besides the best that may turn out to have the same fingerprint.
RIVALS = 3
# Loss under which a candidate may be the structure sought, and is polished.
PROMISING = 0.05
# Losses, in tolerances, up to which Gauss-Newton steps may complete a structure, and under which
# it is complete.
NEAR, COMPLETE = 5.0, 0.01
# Rounds without progress, by the factor, after which a population is given up for a new one.
PATIENCE, PROGRESS = 10, 0.99
# Populations that end in the same best structure before the search believes it is the best of all.
REPEATS = 3
# Structures are one whose distances around each atom differ by less, Å. Atoms displaced by 0.05 Å
# (each coordinate) change them by 0.2, other structures with much the same fingerprint by 0.4 to 1.
SAME = 0.3


class Budget(NamedTuple):
    """Where a search ends if it does not reach its goal.

    Attributes:
        rounds: generations after the first.
        seconds: or time, whichever is used up first; None for no limit.
    """

    rounds: int
    seconds: float | None = None


class Found(NamedTuple):
    """What a search found.

    Attributes:
        positions: [candidates, atoms, 3], Å, distinct, best first; at least one.
        loss: [candidates], in float32.
        starts: random starts and moves that were followed downhill.
        steps: evaluations of the gradient.
        rounds: generations after the first.
        repeated: whether populations of their own ended in the same structure again and again.
        seconds: time spent.
    """

    positions: np.ndarray
    loss: np.ndarray
    starts: int
    steps: int
    rounds: int
    repeated: bool
    seconds: float


def search(
    fingerprint: Fingerprint,
    goal: Goal,
    budget: Budget,
    pool: Executor,
    each_round: Callable[[], None] = lambda: None,
) -> Found:
    """Searches for structures whose fingerprint is the goal's.

    The same goal and seed give the same result, however many threads `pool` has, unless time
    runs out.

    Args:
        fingerprint: of the structures.
        goal: what is sought.
        budget: where to stop.
        pool: threads that compute.
        each_round: called after each round.
    """
    return _Search(fingerprint, goal, pool).run(budget, each_round)


def separation(one: np.ndarray, others: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """How far structures are from one, by `sorted_neighbour_distances`.

    Args:
        one: [atoms, 3], Å.
        others: [n, atoms, 3], Å.
        numbers: [atoms].

    Returns:
        [n], the largest difference of two distances, Å. Mirror images are the same.
    """
    if len(others) == 0:
        return np.zeros(0)
    spectra = sorted_neighbour_distances(numbers, np.concatenate([one[None], others]))
    return np.abs(spectra[1:] - spectra[0]).max(axis=1, initial=0.0)


@dataclass
class _Population:
    positions: np.ndarray
    loss: np.ndarray
    seen: np.ndarray  # whether a candidate was handed on
    searched: np.ndarray  # whether its relocations were looked at; a better copy's will be, again

    @classmethod
    def of(cls, positions: np.ndarray, loss: np.ndarray) -> _Population:
        return cls(positions, loss, np.zeros(len(loss), bool), np.zeros(len(loss), bool))

    def joined(self, other: _Population) -> _Population:
        return _Population(
            np.concatenate([self.positions, other.positions]),
            np.concatenate([self.loss, other.loss]),
            np.concatenate([self.seen, other.seen]),
            np.concatenate([self.searched, other.searched]),
        )

    def rows(self, rows: np.ndarray) -> _Population:
        return _Population(
            *(x[rows] for x in (self.positions, self.loss, self.seen, self.searched))
        )


class _Search:
    def __init__(self, fingerprint: Fingerprint, goal: Goal, pool: Executor) -> None:
        self._fingerprint, self._goal = fingerprint, goal
        self._rng = np.random.default_rng(goal.seed)
        self._draws = Draws(goal, self._rng)
        self._whole = Loss(fingerprint, goal, slice(None), pool)
        coarse = fingerprint.cheap_part
        self._coarse = self._whole
        if coarse is not None:
            self._coarse = Loss(coarse[0], goal, coarse[1], pool)
        self._best: list[tuple[np.ndarray, float]] = []
        self._tried: list[tuple[np.ndarray, float]] = []
        self._rounds = self._starts = 0
        self._forgiving: Forgiving | None = None
        self._renewed = 0  # the round when that was made
        # Whether Gauss-Newton steps have to go by features with kinks, too.
        smooth = fingerprint.differentiable
        self._kinked = not smooth.all() and smooth.sum() < 3 * len(goal.numbers)

    def run(self, budget: Budget, each_round: Callable[[], None]) -> Found:
        began = time.perf_counter()

        def late() -> bool:
            spent = time.perf_counter() - began
            return budget.seconds is not None and spent >= budget.seconds

        ends: list[np.ndarray] = []
        given = self._goal.starts
        # As they are: a descent may lead away from a start that fits already.
        self._best = list(zip(given, self._whole.of(given).tolist(), strict=True))
        repeated = done = False
        while not done and not repeated:
            population = self._first(given)
            given = given[:0]
            finished = self._hand_on(population, late)
            best, idle = population.loss.min(initial=np.inf), 0
            while True:
                done = self._reached() or self._rounds >= budget.rounds or late()
                if done or idle >= PATIENCE:
                    break
                population = self._next(population)
                finished += self._hand_on(population, late)
                self._rounds += 1
                each_round()
                idle += 1
                if population.loss.min(initial=np.inf) < PROGRESS * best:
                    best, idle = population.loss.min(), 0
            if not done and finished:
                end = min(finished, key=_loss_of)
                if end[1] > self._goal.tolerance:
                    end = self._follow(end[0], POLISH)
                if np.isfinite(end[1]):
                    again = separation(end[0], np.array(ends), self._goal.numbers) < SAME
                    repeated = not self._goal.periodic and again.sum() >= REPEATS - 1
                    ends.append(end[0])
        if self._reached():
            # The first of the list: others may be as good but for float32.
            self._best.insert(0, self._ended(self._best[0], ENDINGS, late))
            self._tried.append(self._best[0])
            # Others in the population may have this fingerprint, too.
            self._hand_on(population, late)
            self._finish_rivals(late)
        positions, loss = self._result()
        return Found(
            positions=positions,
            loss=loss,
            starts=self._starts,
            steps=self._whole.steps + (0 if self._coarse is self._whole else self._coarse.steps),
            rounds=self._rounds,
            repeated=repeated,
            seconds=time.perf_counter() - began,
        )

    # --- Generations -----------------------------------------------------------------------

    def _first(self, given: np.ndarray) -> _Population:
        self._forgiving = None  # what it knows is of other structures
        wanted = max(0, STARTS - len(given))
        if wanted:
            count = min(int(PACKINGS * len(self._goal.numbers) ** 2), MOST_PACKINGS)
            free = not self._goal.periodic and not self._goal.fixed.any()
            few = min(PRESSED, wanted // 2) if free else 0
            drawn = self._nearest(self._draws.drawn(max(STARTS, count)), wanted - few)
            given = np.concatenate([given, drawn])
            if few:
                pressed = self._draws.pressed(self._draws.drawn(PRESSED_PACKINGS))
                given = np.concatenate([given, self._nearest(pressed, few)])
        return self._descended(given)

    def _next(self, old: _Population) -> _Population:
        if len(old.loss) == 0:  # not a single finite fingerprint to go on from
            return self._first(self._goal.starts[:0])
        if self._forgiving is None or self._rounds - self._renewed >= RENEWED:
            self._renew(old)
        relocated = self._relocated(old)
        wanted = CHILDREN - len(relocated)
        # Powers of the draw favour the best without forgetting the rest.
        rows = (self._rng.random(wanted * PROPOSALS) ** 1.5 * len(old.loss)).astype(int)
        moved = self._weeded(self._draws.moved(old.positions[rows]), wanted)
        new = self._descended(np.concatenate([relocated, moved]))
        return _distinct(old.joined(new), self._goal.numbers)

    def _relocated(self, old: _Population) -> np.ndarray:
        """The most promising structures [n, atoms, 3], Å, with one or two atoms elsewhere.

        Elsewhere than in the best candidate that was not treated so before, and is marked now.
        """
        news = np.flatnonzero(~old.searched)
        if self._goal.periodic or len(news) == 0:
            return old.positions[:0]
        old.searched[news[0]] = True
        parent = old.positions[news[0]]
        one = self._weeded(self._draws.relocated(parent), COMBINED)
        two = self._weeded(self._pairs(parent, one), TWO)
        return np.concatenate([one[:ONE], two])

    def _pairs(self, parent: np.ndarray, one: np.ndarray) -> np.ndarray:
        """Likely pairs [n, atoms, 3], Å, of relocations of single atoms.

        Args:
            parent: [atoms, 3], Å.
            one: [m, atoms, 3], Å, the parent but for one atom each.
        """
        numbers = self._goal.numbers
        atom = (one != parent).any(axis=2).argmax(axis=1)
        place = one[np.arange(len(one)), atom]
        radii = covalent_radii[numbers[atom]]
        together = cdist(place, place) > OVERLAP * (radii[:, None] + radii)
        together &= atom[:, None] != atom
        if not together.any():
            return one[:0]
        # Weeding kept nothing of the errors but their size: those of all would be too many.
        every = np.concatenate([parent[None], one])
        if self._forgiving is None:
            errors = self._coarse.errors(every)
        else:
            errors = self._coarse.errors(every, self._forgiving.unforgiven)
        i, j = best_pairs(errors[1:], errors[0], together, 2 * PAIRS)
        # Two like atoms may go to the same two places in two ways, which make one structure.
        known = np.unique(place, axis=0, return_inverse=True)[1].reshape(-1)
        ends = [np.sort(np.stack([x[i], x[j]], axis=1), axis=1) for x in (atom, known)]
        first = np.unique(np.concatenate(ends, axis=1), axis=0, return_index=True)[1]
        kept = np.sort(first)[:PAIRS]
        return one[i[kept]] + one[j[kept]] - parent

    def _nearest(self, drawn: np.ndarray, count: int) -> np.ndarray:
        return drawn[np.argsort(self._coarse.of(drawn), kind="stable")[:count]]

    def _weeded(self, moved: np.ndarray, count: int) -> np.ndarray:
        if self._forgiving is None or len(moved) == 0:
            return self._nearest(moved, count)
        loss = self._coarse.errors(moved, self._forgiving)
        return moved[np.argsort(loss, kind="stable")[:count]]

    def _renew(self, population: _Population) -> None:
        free = 3 * (~self._goal.fixed).sum()
        if self._goal.periodic or self._coarse.features < FORGIVING * free:
            return
        x = np.repeat(population.positions[:, None], RATTLES, axis=1)
        x = self._draws.held(x + RATTLE * self._rng.normal(size=x.shape))
        found = self._coarse.errors(x.reshape(-1, *self._goal.shape))
        found = found.reshape(*x.shape[:2], -1)
        sound = np.isfinite(found).all(axis=2, keepdims=True)
        found = np.where(sound, found, 0.0)
        middle = found.sum(axis=1, keepdims=True) / np.maximum(sound.sum(axis=1, keepdims=True), 1)
        changes = (found - middle)[sound[:, :, 0]]
        self._forgiving = Forgiving(changes) if len(changes) else None
        self._renewed = self._rounds

    def _descended(self, positions: np.ndarray) -> _Population:
        self._starts += len(positions)
        found, loss = self._coarse.descend(positions, *DESCENT)
        return _distinct(_Population.of(found, loss), self._goal.numbers)

    def _hand_on(
        self, population: _Population, late: Callable[[], bool]
    ) -> list[tuple[np.ndarray, float]]:
        """Shows the best candidates that are new the whole fingerprint; returns what became."""
        new = np.flatnonzero(~population.seen)[:PROMOTED]
        if len(new) == 0:
            return []
        population.seen[new] = True
        found, loss = self._whole.descend(population.positions[new], *WHOLE)
        order = np.argsort(loss, kind="stable")
        results = [(found[i], float(loss[i])) for i in order]
        if np.isfinite(results[0][1]) and results[0][1] < PROMISING:
            results[0] = self._follow(results[0][0], POLISH)
            if results[0][1] <= NEAR * self._goal.tolerance and self._worth_a_try(results[0]):
                results[0] = self._solved(results[0], late)
        self._best += results
        self._best = sorted(self._best, key=_loss_of)[: 2 * POPULATION]
        return results

    def _solved(
        self, candidate: tuple[np.ndarray, float], late: Callable[[], bool]
    ) -> tuple[np.ndarray, float]:
        """What Gauss-Newton steps, in turn with descents if there are kinks, make of one."""
        candidate = min(candidate, self._refined(candidate[0]), key=_loss_of)
        if self._kinked:
            candidate = self._ended(candidate, ATTEMPTS, late)
            self._tried.append(candidate)  # for those like it there is nothing more to gain
        return candidate

    def _ended(
        self, candidate: tuple[np.ndarray, float], turns: int, late: Callable[[], bool]
    ) -> tuple[np.ndarray, float]:
        """Brings one to the very point: neither way alone does if features have kinks.

        With kinks it goes on after turns in vain, now from the best, now from where the last turn
        got stuck.
        """
        best = last = candidate
        vain = 0
        for turn in range(turns):
            if late() or vain == (VAIN if self._kinked else 1) or self._exact(best[0]):
                break
            begin, rate = best, RATES[0]
            if self._kinked:
                begin, rate = last if turn % 2 else best, RATES[turn % len(RATES)]
            followed = self._follow(begin[0], (ENDING, rate))
            last, vain = best, vain + 1
            if np.isfinite(followed[1]):
                refined = self._refined(followed[0])
                if self._exact(refined[0]):
                    return refined
                last = min(followed, refined, key=_loss_of)
            if last[1] < best[1]:
                best, vain = last, 0
        return best

    def _exact(self, positions: np.ndarray) -> bool:
        # In float64: what is exact must not look otherwise.
        return self._error(positions) <= COMPLETE * self._goal.tolerance

    def _error(self, positions: np.ndarray) -> float:
        goal = self._goal
        atoms = Atoms(goal.numbers, positions=positions, cell=goal.cell, pbc=goal.pbc)
        error = errors(self._fingerprint, atoms, goal.target, goal.scale)
        return float(np.abs(error).mean())

    def _finish_rivals(self, late: Callable[[], bool]) -> None:
        """Polishes others that nearly fit: only then it shows whether they have the fingerprint."""
        others, loss = (found[1:] for found in self._result())
        near = np.flatnonzero(loss <= NEAR * self._goal.tolerance)[:RIVALS]
        if len(near) == 0:
            return
        found, loss = self._whole.descend(others[near], *POLISH)
        share = NEAR if self._kinked else 2.0
        reached = np.flatnonzero(loss <= share * self._goal.tolerance)
        self._best += [self._solved((found[i], float(loss[i])), late) for i in reached]
        self._best = sorted(self._best, key=_loss_of)

    def _follow(self, positions: np.ndarray, schedule: tuple[int, float]) -> tuple:
        found, loss = self._whole.descend(positions[None], *schedule)
        return found[0], float(loss[0])

    def _worth_a_try(self, candidate: tuple[np.ndarray, float]) -> bool:
        """Whether none like it was completed in vain before; costs as much as some rounds."""
        tried = [x for x, value in self._tried if candidate[1] > 0.8 * value]
        self._tried.append(candidate)
        apart = separation(candidate[0], np.array(tried), self._goal.numbers)
        return not (apart < SAME).any()

    def _refined(self, positions: np.ndarray) -> tuple[np.ndarray, float]:
        goal = self._goal
        held = self._draws.held(positions)
        atoms = Atoms(goal.numbers, positions=held, cell=goal.cell, pbc=goal.pbc)
        better = refine(self._fingerprint, atoms, goal.target, goal.scale, goal.fixed).positions
        return better, float(self._whole.of(better[None])[0])

    def _reached(self) -> bool:
        # The margin is for float32, which the search computes in and the verdict does not.
        return bool(self._best) and self._best[0][1] <= 0.9 * self._goal.tolerance

    def _result(self) -> tuple[np.ndarray, np.ndarray]:
        positions = np.array([x for x, _ in self._best]).reshape(-1, *self._goal.shape)
        loss = np.array([value for _, value in self._best])
        found = _distinct(_Population.of(positions, loss), self._goal.numbers)
        if len(found.loss) == 0:  # not a single finite fingerprint
            return self._draws.drawn(1), np.array([np.inf])
        return self._draws.held(found.positions), found.loss  # not as float32 has them


def _loss_of(candidate: tuple[np.ndarray, float]) -> float:
    return candidate[1]


def _distinct(
    found: _Population, numbers: np.ndarray, same: float = SAME, most: int = POPULATION
) -> _Population:
    """The best distinct candidates, best first.

    Diversity matters more than rank: a population of copies of one wrong structure finds nothing.
    """
    finite = np.isfinite(found.loss) & np.isfinite(found.positions).all(axis=(1, 2))
    order = np.argsort(np.where(finite, found.loss, np.inf), kind="stable")[: finite.sum()]
    order = order[: 4 * most]
    spectra = sorted_neighbour_distances(numbers, found.positions[order])
    kept: list[int] = []
    for place in range(len(order)):
        if (np.abs(spectra[kept] - spectra[place]).max(axis=1, initial=0.0) >= same).all():
            kept.append(place)
        if len(kept) == most:
            break
    return found.rows(order[kept])
