"""The search for structures that have one fingerprint.

Populations of candidates (`tfgen.inversion.population`) evolve by the cheap part of the
fingerprint; their best candidates are refined by the whole (`tfgen.inversion.refinement`). A
population that makes no more progress is replaced by a new one.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Executor
from typing import NamedTuple

import numpy as np

from tfgen.fingerprints.fingerprint import Fingerprint
from tfgen.inversion.descent import Goal, Objective
from tfgen.inversion.population import Generations, separation
from tfgen.inversion.refinement import Candidate, Refinement
from tfgen.inversion.sampler import Sampler
from tfgen.inversion.settings import SearchSettings

__all__ = ["Budget", "Found", "search"]


class Budget(NamedTuple):
    """Where a search ends if it does not reach its goal.

    Attributes:
        rounds: generations after the first.
        seconds: time, None for no limit. The search ends when either is used up.
    """

    rounds: int
    seconds: float | None = None


class Found(NamedTuple):
    """What a search found.

    Attributes:
        positions: [candidates, atoms, 3], Å, distinct, best first; at least one.
        loss: [candidates], in float32.
        descents: structures that were followed downhill, random ones and moved ones.
        steps: gradients that were computed; a Jacobian counts as one for each free coordinate.
        rounds: generations after the first, of all populations.
        repeated: whether several populations ended in the same structure.
        seconds: time spent.
    """

    positions: np.ndarray
    loss: np.ndarray
    descents: int
    steps: int
    rounds: int
    repeated: bool
    seconds: float


def search(
    fingerprint: Fingerprint,
    goal: Goal,
    budget: Budget,
    executor: Executor,
    settings: SearchSettings = SearchSettings(),
    each_round: Callable[[], None] = lambda: None,
) -> Found:
    """Searches for structures whose fingerprint is the goal's.

    The same goal gives the same result, however many threads `executor` has, unless time runs out.

    Args:
        fingerprint: of the structures.
        goal: what is sought.
        budget: where to stop.
        executor: threads that compute.
        settings: of the search.
        each_round: called after each round.
    """
    began = time.perf_counter()

    def expired() -> bool:
        spent = time.perf_counter() - began
        return budget.seconds is not None and spent >= budget.seconds

    rng = np.random.default_rng(goal.seed)
    sampler = Sampler(goal, rng, settings.moves)
    whole = Objective(fingerprint, goal, slice(None), executor, settings, expired)
    cheap = whole
    if fingerprint.cheap_part is not None:
        part, columns = fingerprint.cheap_part
        cheap = Objective(part, goal, columns, executor, settings, expired)
    generations = Generations(goal, cheap, sampler, rng, settings)
    refinement = Refinement(fingerprint, goal, whole, sampler, settings, expired)

    ends: list[np.ndarray] = []  # the best structures of populations
    initial = goal.initial
    done = repeated = False
    while not done and not repeated:
        population = generations.begin(initial)
        initial = initial[:0]
        refined = refinement.promote(population)
        best, idle = population.best_loss(), 0
        while True:
            done = refinement.reached() or generations.rounds >= budget.rounds or expired()
            if done or idle >= settings.patience:
                break
            population = generations.advance(population)
            refined += refinement.promote(population)
            each_round()
            idle += 1
            if population.best_loss() < settings.progress * best:
                best, idle = population.best_loss(), 0
        if not done and refined:
            repeated = _end_population(goal, refinement, refined, ends, settings)
    if refinement.reached():
        refinement.finish(population)
    found = refinement.select()
    return Found(
        positions=found.positions,
        loss=found.loss,
        descents=generations.descents,
        steps=whole.steps + (0 if cheap is whole else cheap.steps) + refinement.derivatives,
        rounds=generations.rounds,
        repeated=repeated,
        seconds=time.perf_counter() - began,
    )


def _end_population(
    goal: Goal,
    refinement: Refinement,
    refined: list[Candidate],
    ends: list[np.ndarray],
    settings: SearchSettings,
) -> bool:
    """Adds the best structure of a population to `ends`; tells whether enough of them agree."""
    end = min(refined, key=lambda candidate: candidate.loss)
    if end.loss > goal.tolerance:
        end = refinement.polish(end)
    if not np.isfinite(end.loss):
        return False
    apart = separation(end.positions, np.array(ends), goal.numbers)
    again = apart < settings.population.distinct_distance
    ends.append(end.positions)
    return not goal.periodic and bool(again.sum() >= settings.repeats - 1)
