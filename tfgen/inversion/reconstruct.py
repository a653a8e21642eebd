"""From fingerprints to structures."""

from __future__ import annotations

import threading
import zlib
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Executor, ThreadPoolExecutor, as_completed
from dataclasses import replace
from numbers import Integral, Real
from typing import Any

import numpy as np
from ase import Atoms
from tqdm import tqdm

from tfgen._tensorflow import threads
from tfgen.execution.blas import one_blas_thread
from tfgen.fingerprints.fingerprint import Fingerprint
from tfgen.inversion.checks import (
    InitialStructures,
    check_cell,
    check_formulas,
    check_scale,
    check_targets,
)
from tfgen.inversion.descent import Goal
from tfgen.inversion.result import ReconstructionResult, judge
from tfgen.inversion.search import Budget, Found, search
from tfgen.inversion.settings import SearchSettings
from tfgen.sampling.initial import random_structures

__all__ = ["reconstruct"]


def reconstruct(
    fingerprint: Fingerprint,
    targets: np.ndarray,
    formula: str | Sequence[str],
    *,
    seed: int = 0,
    scale: np.ndarray | None = None,
    tolerance: float = 0.002,
    initial_structures: Sequence[Atoms] = (),
    fixed: Sequence[int] = (),
    cell: np.ndarray | None = None,
    pbc: bool | Sequence[bool] = True,
    max_rounds: int = 100,
    time_limit: float | None = None,
    settings: SearchSettings | None = None,
    executor: Executor | None = None,
    progress: bool = False,
) -> ReconstructionResult:
    """Finds structures whose fingerprints are the targets.

    A genetic search on the fingerprint (`tfgen.inversion.search`): random structures and moves of
    the best candidates follow the gradient of the loss by Adam; what nearly fits is completed by
    Gauss-Newton steps in float64. Any differentiable fingerprint will do. While the search runs,
    BLAS computes in one thread, in the whole process.

    Args:
        fingerprint: of the structures sought.
        targets: [targets, fingerprint.size].
        formula: of all structures, like "Pt13", or one for each target.
        seed: of the random numbers. The same seed gives the same result, unless the time limit
            ends the search.
        scale: [fingerprint.size], the unit of each feature's error; if None, `fingerprint.scale`
            of random structures of the same formula.
        tolerance: loss (`tfgen.fingerprints.loss`) up to which a target counts as reached. At the
            default, the structures that the targets were computed from are found again.
        initial_structures: structures to begin with, besides random ones; each serves all targets
            of its composition. Results keep the order of the atoms of the first.
        fixed: atoms (places in `initial_structures[0]`) that stay where this structure has them.
        cell: [3, 3] or anything ASE takes for a cell, Å: makes the structures periodic, in this
            very cell. The fingerprint's descriptor must be made for that.
        pbc: which directions of `cell` are periodic.
        max_rounds: bound on the rounds of the search for each target.
        time_limit: bound on the time for each target, s. It is kept within a fifth or five seconds,
            tracing and compilation included: for less than `settings.compile_from` nothing is
            compiled by XLA.
        settings: of the search; the defaults if None.
        executor: where to search instead of in threads of this process: processes, or a Dask
            client's `get_executor()`. The results are the same.
        progress: whether to show a progress bar.

    Returns:
        The best structures of each target with losses, status, and what they cost.

    Raises:
        ValueError: if a target has the wrong shape or is not finite, text is not a formula, a
            formula has elements that the fingerprint does not know, a cluster has only one atom,
            an initial structure has another composition, or another argument is out of range.
    """
    if not isinstance(fingerprint, Fingerprint):
        raise ValueError(f"fingerprint is {fingerprint!r}; a tfgen.Fingerprint is needed")
    targets = check_targets(targets, fingerprint)
    frame = check_cell(fingerprint, cell, pbc)
    numbers = check_formulas(formula, len(targets), fingerprint, bool(frame.pbc.any()))
    for name, whole in (("seed", seed), ("max_rounds", max_rounds)):
        if not isinstance(whole, Integral) or whole < 0:
            raise ValueError(f"{name} is {whole!r}; a whole number >= 0 is needed")
    if not isinstance(tolerance, Real) or not tolerance > 0:
        raise ValueError(f"tolerance is {tolerance!r}; a number above 0 is needed")
    if time_limit is not None and (not isinstance(time_limit, Real) or not time_limit > 0):
        raise ValueError(f"time_limit is {time_limit!r}; a number of seconds above 0 is needed")
    if executor is not None and not callable(getattr(executor, "submit", None)):
        raise ValueError(f"executor is {executor!r}; a concurrent.futures.Executor is needed")
    settings = SearchSettings() if settings is None else settings
    if not isinstance(settings, SearchSettings):
        raise ValueError(f"settings is {settings!r}; a tfgen.SearchSettings is needed")
    if time_limit is not None and time_limit < settings.compile_from:
        settings = replace(settings, jit_compile=False)
    if scale is not None:
        scale = check_scale(scale, fingerprint)
    initial = InitialStructures(initial_structures, fixed, frame, numbers)

    scales = {} if scale is None else {z.tobytes(): scale for z in numbers}
    goals = []
    equals: Counter[int] = Counter()
    for i, z in enumerate(numbers):
        if z.tobytes() not in scales:
            count = settings.scale_structures
            scales[z.tobytes()] = _sample_scale(fingerprint, z, frame, count, seed)
        # A seed of the target's own, whatever its place; equal targets get different ones.
        own = zlib.crc32(z.astype(np.int64).tobytes() + targets[i].tobytes())
        equals[own] += 1
        goals.append(
            Goal(
                numbers=z,
                target=targets[i],
                scale=scales[z.tobytes()],
                tolerance=tolerance,
                initial=initial.positions(z),
                fixed=initial.fixed(z),
                cell=frame.cell.array,
                pbc=frame.pbc,
                seed=(seed, own, equals[own]),
            )
        )
    budget = Budget(max_rounds, time_limit)
    found = _search_all(fingerprint, goals, budget, settings, executor, progress)
    return judge(fingerprint, goals, found, initial, settings)


def _sample_scale(
    fingerprint: Fingerprint, numbers: np.ndarray, frame: Atoms, count: int, seed: int
) -> np.ndarray:
    """Computes the scale of random structures, for callers who have no structures of their own."""
    rng = np.random.default_rng([seed, 1])
    if frame.pbc.any():
        box = frame.cell.complete().array
        positions = rng.random([count, len(numbers), 3]) @ box
    else:
        positions = np.asarray(random_structures(numbers, count, rng))
    sample = [Atoms(numbers, positions=x, cell=frame.cell, pbc=frame.pbc) for x in positions]
    return fingerprint.scale(fingerprint.create(sample))


def _search_all(
    fingerprint: Fingerprint,
    goals: list[Goal],
    budget: Budget,
    settings: SearchSettings,
    executor: Executor | None,
    progress: bool,
) -> list[Found]:
    """Searches for all goals, in threads or where `executor` runs."""
    total = len(goals) * (1 + budget.rounds)
    with tqdm(total=total, desc="inverting", unit=" rounds", disable=not progress) as bar:
        if executor is not None:
            return _search_elsewhere(fingerprint, goals, budget, settings, executor, bar)
        return _search_here(fingerprint, goals, budget, settings, bar)


def _search_elsewhere(
    fingerprint: Fingerprint,
    goals: list[Goal],
    budget: Budget,
    settings: SearchSettings,
    executor: Executor,
    bar: Any,
) -> list[Found]:
    futures = {
        executor.submit(_search_alone, fingerprint, goal, budget, settings): i
        for i, goal in enumerate(goals)
    }
    found: dict[int, Found] = {}
    try:
        for future in as_completed(futures):
            found[futures[future]] = future.result()
            bar.update(1 + budget.rounds)
    finally:
        for future in futures:
            future.cancel()
    return [found[i] for i in range(len(goals))]


def _search_alone(
    fingerprint: Fingerprint, goal: Goal, budget: Budget, settings: SearchSettings
) -> Found:
    """Searches for one goal, in a process of an executor's."""
    with one_blas_thread(), ThreadPoolExecutor(threads()) as workers:
        return search(fingerprint, goal, budget, workers, settings)


def _search_here(
    fingerprint: Fingerprint,
    goals: list[Goal],
    budget: Budget,
    settings: SearchSettings,
    bar: Any,
) -> list[Found]:
    lock, stop = threading.Lock(), threading.Event()

    def count(rounds: int) -> None:
        with lock:
            bar.update(rounds)

    def after_round() -> None:
        if stop.is_set():
            raise InterruptedError
        count(1)

    def search_one(goal: Goal) -> Found:
        found = search(fingerprint, goal, budget, workers, settings, after_round)
        # A target that is done needs none of the rounds that were left for it.
        count(1 + budget.rounds - found.rounds)
        return found

    # The searches that run at the same time share the threads that compute, so that none is idle
    # while there are few targets.
    with (
        one_blas_thread(),
        ThreadPoolExecutor(threads()) as workers,
        ThreadPoolExecutor(threads()) as searches,
    ):
        futures = [searches.submit(search_one, goal) for goal in goals]
        try:
            return [future.result() for future in futures]
        except BaseException:
            stop.set()
            searches.shutdown(wait=False, cancel_futures=True)
            raise
