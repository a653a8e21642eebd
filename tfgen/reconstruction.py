"""From fingerprints to structures."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf
from ase import Atoms
from ase.data import covalent_radii
from scipy.spatial.distance import pdist
from tqdm import tqdm

from tfgen.datasets.sampling import pack
from tfgen.fingerprint import Fingerprint
from tfgen.inversion import Inverter, Pool, Problem
from tfgen.structures import numbers_from_formula
from tfgen.validity import OVERLAP_FACTOR

__all__ = ["CONVERGED", "ReconstructionResult", "reconstruct", "status_of"]

CONVERGED = "converged"

# The search, as measured by `scripts/benchmark_inversion.py`: starts and Adam steps of the first
# descent, then moves and steps of each round, and how many distinct candidates live on.
STARTS, STEPS, RATE = 24, 300, 0.5
MOVES, MOVE_STEPS, MOVE_RATE, SURVIVORS = 24, 150, 0.3, 8
# Targets searched at once.
TARGETS_PER_BATCH = 8
# Loss under which the targets' own structures are found again; mean over features, each in units
# of its spread.
TOLERANCE = 0.002
# Packings whose fingerprints give the scale when the caller has none.
SCALE_SAMPLE = 256


@dataclass(frozen=True)
class ReconstructionResult:
    """What `reconstruct` returns, one entry per target in the order given.

    Attributes:
        structures: the best structure found for each target.
        loss: [targets], its loss (see `tfgen.inversion.Inverter`), in float64.
        status: "converged", or the reason it is not.
        rounds: [targets] int, rounds of the population search spent after the first descent.
        seconds: [targets], time spent on each.
    """

    structures: list[Atoms]
    loss: np.ndarray
    status: list[str]
    rounds: np.ndarray
    seconds: np.ndarray


def reconstruct(
    fingerprint: Fingerprint,
    targets: np.ndarray,
    formula: str | Sequence[str],
    *,
    seed: int = 0,
    scale: np.ndarray | None = None,
    tolerance: float = TOLERANCE,
    max_rounds: int = 12,
    progress: bool = False,
) -> ReconstructionResult:
    """Finds clusters whose fingerprints are the targets.

    Random starts follow the gradient of the loss by Adam; then rounds of moves (relocations,
    twists, cut-and-splice, ...) and descents improve a pool of distinct candidates, for as long
    as a target is not reached and rounds are left. Whatever the fingerprint, it only has to be
    differentiable.

    Args:
        fingerprint: of the structures wanted.
        targets: [targets, fingerprint.size].
        formula: of all structures, like "Pt13", or one for each target.
        seed: repeats the search.
        scale: [fingerprint.size], the spread of each feature, by which its error is divided; if
            None, the spread over random packings of the same formula.
        tolerance: loss at which a target counts as reached.
        max_rounds: bound on the rounds of the population search.
        progress: show a progress bar.

    Returns:
        The best structure of each target with its loss and status.

    Raises:
        ValueError: on targets of the wrong shape or with values that are not finite, a formula
            that makes no sense or has elements the fingerprint does not know, one atom only.
    """
    targets = np.asarray(targets, np.float64)
    if targets.ndim != 2 or targets.shape[1] != fingerprint.size or not len(targets):
        raise ValueError(
            f"targets has shape {targets.shape}; [n, {fingerprint.size}] is needed, n >= 1"
        )
    if not np.isfinite(targets).all():
        row = int(np.flatnonzero(~np.isfinite(targets).all(axis=1))[0])
        raise ValueError(f"targets[{row}] holds values that are not finite")
    formulas = [formula] * len(targets) if isinstance(formula, str) else list(formula)
    if len(formulas) != len(targets):
        raise ValueError(f"{len(formulas)} formulas were given for {len(targets)} targets")
    if max_rounds < 0 or not tolerance > 0:
        raise ValueError(
            f"max_rounds and tolerance are {max_rounds}, {tolerance}; >= 0 and > 0 are needed"
        )
    if scale is not None:
        scale = np.asarray(scale, np.float64)
        if scale.shape != (fingerprint.size,) or not ((scale > 0) & (scale < np.inf)).all():
            raise ValueError(f"scale must be {fingerprint.size} finite positive numbers")
    numbers = [_numbers(f, fingerprint) for f in formulas]

    structures: list[Atoms] = [Atoms()] * len(targets)
    rounds, seconds = np.zeros(len(targets), int), np.zeros(len(targets))
    loss = np.full(len(targets), np.inf)
    sizes = np.array([len(z) for z in numbers])
    total = len(targets) * (1 + max_rounds)
    with tqdm(total=total, desc="inverting", unit=" rounds", disable=not progress) as bar:
        for size in np.unique(sizes):
            members = np.flatnonzero(sizes == size)
            group = np.array([numbers[i] for i in members], np.int32)
            spread = _packing_scale(fingerprint, group, seed) if scale is None else scale
            problem = Problem(group, targets[members], np.asarray(spread, np.float64))
            # Sizes have streams of random numbers of their own, and do not disturb one another.
            own_seed = int(np.random.SeedSequence([seed, int(size)]).generate_state(1)[0])
            found = _search(fingerprint, problem, own_seed, tolerance, max_rounds, bar)
            exact = np.abs(fingerprint.create(found.structures) - targets[members]) / spread
            loss[members] = exact.mean(axis=1)
            rounds[members], seconds[members] = found.rounds, found.seconds
            for i, atoms in zip(members, found.structures, strict=True):
                structures[i] = atoms
    status = [status_of(a, x, tolerance) for a, x in zip(structures, loss, strict=True)]
    return ReconstructionResult(structures, loss, status, rounds, seconds)


def status_of(atoms: Atoms, loss: float, tolerance: float) -> str:
    """Says "converged", or why a reconstructed structure is not."""
    if not np.isfinite(loss):
        return "no finite fingerprint"
    if not loss <= tolerance:
        return "not converged: loss above tolerance"
    radii = covalent_radii[atoms.numbers]
    i, j = np.triu_indices(len(atoms), 1)
    if (pdist(atoms.positions) < OVERLAP_FACTOR * (radii[i] + radii[j])).any():
        return "overlapping atoms"
    return CONVERGED


def _numbers(formula: str, fingerprint: Fingerprint) -> np.ndarray:
    numbers = numbers_from_formula(formula)
    if len(numbers) < 2:
        raise ValueError(f"formula {formula!r} has a single atom; at least two are needed")
    unknown = sorted(set(Atoms(numbers).symbols) - set(fingerprint.species))
    if unknown:
        raise ValueError(
            f"formula {formula!r} holds {', '.join(unknown)}; the fingerprint's species are "
            f"{', '.join(fingerprint.species)}"
        )
    return numbers


def _packing_scale(fingerprint: Fingerprint, numbers: np.ndarray, seed: int) -> np.ndarray:
    """Spread of features over random packings, for callers without a library of structures."""
    rng = np.random.default_rng([seed, 1])
    compositions, counts = np.unique(numbers, axis=0, return_counts=True)
    sample = [
        Atoms(z, positions=x)
        for z, count in zip(compositions, counts, strict=True)
        for x in pack(z, -(-SCALE_SAMPLE * int(count) // len(numbers)), rng)
    ]
    spread = fingerprint.create(sample).std(axis=0)
    return np.maximum(spread, 1e-3 * spread.max())


@dataclass(frozen=True)
class _Found:
    structures: list[Atoms]
    rounds: np.ndarray
    seconds: np.ndarray


@functools.lru_cache(maxsize=8)
def _compiled(fingerprint: Fingerprint) -> tuple[Callable[..., Pool], Callable[..., Pool]]:
    """First descent and round of the search, compiled once per fingerprint and shape."""
    inverter = Inverter(fingerprint)
    first = functools.partial(
        inverter.first, candidates=STARTS, survivors=SURVIVORS, steps=STEPS, rate=RATE
    )
    improve = functools.partial(
        inverter.improve, candidates=MOVES, steps=MOVE_STEPS, rate=MOVE_RATE
    )
    return (
        tf.function(first, jit_compile=True, autograph=False),
        tf.function(improve, jit_compile=True, autograph=False),
    )


def _search(
    fingerprint: Fingerprint,
    problem: Problem,
    seed: int,
    tolerance: float,
    max_rounds: int,
    bar: tqdm,
) -> _Found:
    """Searches for targets of one number of atoms, a batch of targets at a time."""
    first, improve = _compiled(fingerprint)
    count, atoms = problem.numbers.shape
    positions = np.zeros([count, SURVIVORS, atoms, 3], np.float32)
    loss = np.full([count, SURVIVORS], np.inf, np.float32)
    rounds, seconds = np.full(count, -1), np.zeros(count)
    waiting = list(range(count))
    call = 0
    while waiting:
        # Those furthest behind go first: all targets get their first descent, then their first
        # round, ..., and the easy ones leave early.
        waiting.sort(key=lambda i: (rounds[i], i))
        stage = rounds[waiting[0]]
        now = [i for i in waiting if rounds[i] == stage][:TARGETS_PER_BATCH]
        # When few are left, each gets several places, with other random numbers in each.
        slots = np.resize(now, min(TARGETS_PER_BATCH, count))
        call += 1
        began = time.perf_counter()
        part = Problem(
            tf.constant(problem.numbers[slots], tf.int32),
            tf.constant(problem.targets[slots], tf.float32),
            tf.constant(problem.scale, tf.float32),
        )
        draw = tf.constant([seed % 2**31, call], tf.int32)
        if stage < 0:
            pool = first(part, draw)
        else:
            old = Pool(tf.constant(positions[slots]), tf.constant(loss[slots]))
            pool = improve(old, part, draw)
        found_positions, found_loss = pool.positions.numpy(), pool.loss.numpy()
        for i in now:
            places = np.flatnonzero(slots == i)
            best = places[np.argmin(found_loss[places, 0])]
            positions[i], loss[i] = found_positions[best], found_loss[best]
        rounds[now] += 1
        seconds[now] += (time.perf_counter() - began) / len(now)
        # The margin is for float32, which the search computes in and the verdict does not.
        done = [i for i in now if loss[i, 0] <= 0.9 * tolerance or rounds[i] >= max_rounds]
        waiting = [i for i in waiting if i not in done]
        # A target that is done needs none of the rounds that were left for it.
        bar.update(len(now) + int(sum(max_rounds - rounds[i] for i in done)))
    best_positions = positions[:, 0].astype(np.float64)
    best_positions -= best_positions.mean(axis=1, keepdims=True)
    structures = [
        Atoms(z, positions=np.nan_to_num(x))
        for z, x in zip(problem.numbers, best_positions, strict=True)
    ]
    return _Found(structures, rounds, seconds)
