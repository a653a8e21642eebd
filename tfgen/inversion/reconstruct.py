"""From fingerprints to structures."""

from __future__ import annotations

import json
import threading
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import covalent_radii
from scipy.spatial.distance import pdist
from tqdm import tqdm

from tfgen._tensorflow import threads
from tfgen.descriptors.base import check_structures
from tfgen.execution.blas import one_blas_thread
from tfgen.fingerprints.fingerprint import Fingerprint
from tfgen.inversion.descent import Goal
from tfgen.inversion.search import Budget, Found, search
from tfgen.sampling.initial import random_structures
from tfgen.status import Status
from tfgen.structures.checks import as_structures
from tfgen.structures.formulas import numbers_from_formula
from tfgen.structures.similarity import duplicates
from tfgen.structures.validity import OVERLAP_FACTOR

__all__ = ["CONVERGED", "MAX_ROUNDS", "ReconstructionResult", "reconstruct", "status_of"]

CONVERGED = "converged"
NOT_CONVERGED = "not converged: loss above tolerance"

# Loss under which the targets' own structures are found again; mean over features, each in units
# of its spread.
TOLERANCE = 0.002
# Rounds of search that a target may cost.
MAX_ROUNDS = 100
# A best loss above this is further off than structures are from one another.
FAR = 0.5
# In a process of an executor's: fingerprints, by descriptor and configuration.
_FIRST: dict[tuple[type, str], Fingerprint] = {}
# Packings whose fingerprints give the scale when the caller has none.
SCALE_SAMPLE = 256
# Targets and scales beyond this (or its inverse) are slips, and out of range of float32.
LARGEST = 1e30
# Structures in cells whose sorted distances differ by less, Å, are one.
SAME = 0.15
# Structures returned for each target, at most.
CANDIDATES = 4


@dataclass(frozen=True)
class ReconstructionResult:
    """What `reconstruct` returns, one entry per target in the order given.

    Attributes:
        structures: the best structure found for each target.
        loss: [targets], its loss (see `tfgen.inversion.graph_search.Inverter`), in float64.
        status: "converged", or what is wrong: "ambiguous: ..." (different structures have this
            fingerprint; all found are among the candidates), "unreachable: ..." (no structure
            seems to have it), "not converged: ..." (the budget is used up), "overlapping atoms",
            "no finite fingerprint".
        candidates: the best distinct structures of each target, best first.
        candidate_losses: their losses.
        starts: [targets] int, random starts and moves that were followed downhill.
        steps: [targets] int, gradients evaluated on the way.
        rounds: [targets] int, generations of the search after the first.
        seconds: [targets], time spent on each; those searched at the same time share processors.
    """

    structures: list[Atoms]
    loss: np.ndarray
    status: list[str]
    candidates: list[list[Atoms]]
    candidate_losses: list[np.ndarray]
    starts: np.ndarray
    steps: np.ndarray
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
    starts: Sequence[Atoms] = (),
    fixed: Sequence[int] = (),
    cell: np.ndarray | None = None,
    pbc: bool | Sequence[bool] = True,
    max_rounds: int = MAX_ROUNDS,
    time_limit: float | None = None,
    executor: Executor | None = None,
    progress: bool = False,
) -> ReconstructionResult:
    """Finds structures whose fingerprints are the targets.

    A genetic search on the fingerprint (see `tfgen.inversion.search`): random packings and moves
    of the best candidates follow the gradient of the loss by Adam; what nearly fits is completed by
    Gauss-Newton steps in float64. Whatever the fingerprint, it only has to be differentiable.
    While it runs, BLAS computes in one thread, in the whole process.

    Args:
        fingerprint: of the structures wanted.
        targets: [targets, fingerprint.size].
        formula: of all structures, like "Pt13", or one for each target.
        seed: repeats the search (a `time_limit` that is met does not).
        scale: [fingerprint.size], the spread of each feature, by which its error is divided; if
            None, `fingerprint.scale` over random packings of the same formula.
        tolerance: loss at which a target counts as reached.
        starts: structures to begin with, besides random ones; each serves all targets of its
            composition. Results keep the order of the atoms of the first.
        fixed: atoms (places in `starts[0]`) that stay where `starts[0]` has them.
        cell: [3, 3] or anything ASE takes for a cell, Å: makes the structures periodic, in this
            very cell. The fingerprint's descriptor must be made for that.
        pbc: which directions of `cell` are periodic.
        max_rounds: bound on the rounds of the search for each target.
        time_limit: bound on the time for each target, s.
        executor: where to search, if not in threads of this process: processes, or a Dask
            client's `get_executor()`. The results are the same.
        progress: show a progress bar.

    Returns:
        The best structures of each target with losses, status, and what they cost.

    Raises:
        ValueError: on targets of the wrong shape or with values that are not finite, text that is
            not a formula, a formula with elements the fingerprint does not know, a cluster of one
            atom, starts of another composition, and options out of range.
    """
    if not isinstance(fingerprint, Fingerprint):
        raise ValueError(f"fingerprint is {fingerprint!r}; a tfgen.Fingerprint is needed")
    targets = _real("targets", targets)
    if targets.ndim != 2 or targets.shape[1] != fingerprint.size or not len(targets):
        raise ValueError(
            f"targets has shape {targets.shape}; [n, {fingerprint.size}] is needed, n >= 1"
        )
    if not np.isfinite(targets).all():
        row = int(np.flatnonzero(~np.isfinite(targets).all(axis=1))[0])
        raise ValueError(f"targets[{row}] holds values that are not finite")
    if not (np.abs(targets) < LARGEST).all():
        row = int(np.abs(targets).max(axis=1).argmax())
        raise ValueError(f"targets[{row}] holds values beyond {LARGEST:g}")
    several = isinstance(formula, Iterable) and not isinstance(formula, str)
    formulas = list(formula) if several else [formula] * len(targets)
    if not all(isinstance(f, str) for f in formulas):
        raise ValueError(
            f"formula is {formula!r}; one like 'Pt13', or a list of one for each target, is needed"
        )
    if len(formulas) != len(targets):
        raise ValueError(f"{len(formulas)} formulas were given for {len(targets)} targets")
    for name, whole in (("seed", seed), ("max_rounds", max_rounds)):
        if not isinstance(whole, Integral) or whole < 0:
            raise ValueError(f"{name} is {whole!r}; a whole number >= 0 is needed")
    if not isinstance(tolerance, Real) or not tolerance > 0:
        raise ValueError(f"tolerance is {tolerance!r}; a number above 0 is needed")
    if time_limit is not None and (not isinstance(time_limit, Real) or not time_limit > 0):
        raise ValueError(f"time_limit is {time_limit!r}; a number of seconds above 0 is needed")
    if executor is not None and not callable(getattr(executor, "submit", None)):
        raise ValueError(f"executor is {executor!r}; a concurrent.futures.Executor is needed")
    if scale is not None:
        scale = _real("scale", scale)
        in_range = (scale > 1.0 / LARGEST) & (scale < LARGEST)
        if scale.shape != (fingerprint.size,) or not in_range.all():
            raise ValueError(f"scale must be {fingerprint.size} finite positive numbers")
    frame = _frame(fingerprint, cell, pbc)
    numbers = [_numbers(f, fingerprint, frame) for f in formulas]
    given = _Starts(starts, fixed, frame, numbers)

    scales = {} if scale is None else {z.tobytes(): scale for z in numbers}
    goals = []
    equals: Counter[int] = Counter()
    for i, z in enumerate(numbers):
        if z.tobytes() not in scales:
            scales[z.tobytes()] = _packing_scale(fingerprint, z, frame, seed)
        # Of a target, whatever its place among others; equal ones get different seeds.
        own = zlib.crc32(z.astype(np.int64).tobytes() + targets[i].tobytes())
        equals[own] += 1
        goals.append(
            Goal(
                numbers=z,
                target=targets[i],
                scale=scales[z.tobytes()],
                tolerance=tolerance,
                starts=given.positions(z),
                fixed=given.fixed(z),
                cell=frame.cell.array,
                pbc=frame.pbc,
                seed=(seed, own, equals[own]),
            )
        )
    budget = Budget(max_rounds, time_limit)
    found = _everywhere(fingerprint, goals, budget, executor, progress)
    return _result(fingerprint, goals, found, given)


def status_of(atoms: Atoms, loss: float, tolerance: float) -> Status:
    """Says whether a reconstructed structure has converged, or why it has not."""
    if not np.isfinite(loss):
        return Status.NO_FINGERPRINT
    if not loss <= tolerance:
        return Status.NOT_CONVERGED
    radii = covalent_radii[atoms.numbers]
    i, j = np.triu_indices(len(atoms), 1)
    if (pdist(atoms.positions) < OVERLAP_FACTOR * (radii[i] + radii[j])).any():
        return Status.OVERLAPPING_ATOMS
    return Status.CONVERGED


def _real(name: str, values: Any) -> np.ndarray:
    try:
        array = np.asarray(values)
        if array.dtype.kind in "biufO":
            return array.astype(np.float64)
    except (TypeError, ValueError):
        pass
    raise ValueError(f"{name} must be an array of real numbers, not {type(values).__name__}")


def _frame(fingerprint: Fingerprint, cell: np.ndarray | None, pbc: bool | Sequence[bool]) -> Atoms:
    """The cell, as a structure of one atom that the usual checks understand."""
    if cell is None:
        return Atoms("H")
    try:
        frame = Atoms(fingerprint.species[:1], positions=[[0, 0, 0]], cell=cell, pbc=pbc)
    except (ValueError, TypeError) as error:
        raise ValueError(f"cell is {cell!r}, pbc is {pbc!r}: {error}") from None
    try:
        as_structures(frame)
        check_structures(fingerprint.descriptor, [frame])
    except ValueError as error:
        reason = str(error).removeprefix("structures[0] ")
        raise ValueError(f"cell: a structure in it {reason}") from None
    return frame


def _numbers(formula: str, fingerprint: Fingerprint, frame: Atoms) -> np.ndarray:
    numbers = numbers_from_formula(formula)
    if len(numbers) < 2 and not frame.pbc.any():
        raise ValueError(f"formula {formula!r} has a single atom; at least two are needed")
    unknown = sorted(set(Atoms(numbers).symbols) - set(fingerprint.species))
    if unknown:
        raise ValueError(
            f"formula {formula!r} holds {', '.join(unknown)}; the fingerprint's species are "
            f"{', '.join(fingerprint.species)}"
        )
    return numbers


class _Starts:
    """Structures to begin with; by composition, with their atoms in sorted order."""

    def __init__(
        self,
        starts: Sequence[Atoms],
        fixed: Sequence[int],
        frame: Atoms,
        numbers: Sequence[np.ndarray],
    ) -> None:
        wanted = {z.tobytes() for z in numbers}
        self._orders: dict[bytes, np.ndarray] = {}
        self._positions: dict[bytes, list[np.ndarray]] = {}
        # None at all are fine, which `as_structures` refuses.
        none = isinstance(starts, Sequence) and len(starts) == 0
        listed = [] if none else as_structures(starts, "starts")
        for i, atoms in enumerate(listed):
            order = np.argsort(atoms.numbers, kind="stable")
            key = np.asarray(atoms.numbers[order], numbers[0].dtype).tobytes()
            if key not in wanted:
                shown = sorted({Atoms(z).get_chemical_formula("metal") for z in numbers})
                raise ValueError(
                    f"starts[{i}] is {atoms.get_chemical_formula('metal')}; wanted is "
                    f"{', '.join(shown)}"
                )
            if atoms.pbc.any() and not (
                (atoms.pbc == frame.pbc).all() and np.allclose(atoms.cell, frame.cell)
            ):
                raise ValueError(f"starts[{i}] is periodic in another cell than the one given")
            # Results come in the order of the first.
            self._orders.setdefault(key, order)
            self._positions.setdefault(key, []).append(atoms.positions[order])
        self._fixed = np.asarray(fixed)
        if self._fixed.ndim != 1 or (len(self._fixed) and self._fixed.dtype.kind not in "iu"):
            raise ValueError(f"fixed is {fixed!r}; a list of places, whole numbers, is needed")
        if len(self._fixed):
            if not listed:
                raise ValueError("fixed needs starts: the first says where the atoms stay")
            if len(wanted) > 1:
                raise ValueError("fixed needs targets of one composition")
            atoms_ = len(listed[0])
            if self._fixed.min() < 0 or self._fixed.max() >= atoms_:
                raise ValueError(f"fixed is {list(fixed)}; places 0 to {atoms_ - 1} are there")
            if len(np.unique(self._fixed)) == atoms_:
                raise ValueError("fixed holds all atoms; nothing is left to find")

    def positions(self, numbers: np.ndarray) -> np.ndarray:
        return np.array(self._positions.get(numbers.tobytes(), [])).reshape(-1, len(numbers), 3)

    def fixed(self, numbers: np.ndarray) -> np.ndarray:
        if not len(self._fixed):
            return np.zeros(len(numbers), bool)
        return np.isin(self._orders[numbers.tobytes()], self._fixed)

    def in_order(self, atoms: Atoms) -> Atoms:
        """The atoms in the order of the start, if there is one."""
        order = self._orders.get(np.sort(atoms.numbers).astype(atoms.numbers.dtype).tobytes())
        return atoms if order is None else atoms[np.argsort(order)]


def _packing_scale(
    fingerprint: Fingerprint, numbers: np.ndarray, frame: Atoms, seed: int
) -> np.ndarray:
    """Spread of features over random structures, for callers without a library of structures."""
    rng = np.random.default_rng([seed, 1])
    if frame.pbc.any():
        box = frame.cell.complete().array
        positions = rng.random([SCALE_SAMPLE, len(numbers), 3]) @ box
    else:
        positions = np.asarray(random_structures(numbers, SCALE_SAMPLE, rng))
    sample = [Atoms(numbers, positions=x, cell=frame.cell, pbc=frame.pbc) for x in positions]
    return fingerprint.scale(fingerprint.create(sample))


def _everywhere(
    fingerprint: Fingerprint,
    goals: list[Goal],
    budget: Budget,
    executor: Executor | None,
    progress: bool,
) -> list[Found]:
    """Searches for all goals, in threads or where `executor` runs."""
    rounds_each = 1 + budget.rounds
    found: dict[int, Found] = {}
    total = len(goals) * rounds_each
    with tqdm(total=total, desc="inverting", unit=" rounds", disable=not progress) as bar:
        lock = threading.Lock()

        def count(rounds: int) -> None:
            with lock:
                bar.update(rounds)

        if executor is not None:
            futures = {
                executor.submit(_alone, fingerprint, goal, budget): i
                for i, goal in enumerate(goals)
            }
            try:
                for future in as_completed(futures):
                    found[futures[future]] = future.result()
                    count(rounds_each)
            finally:
                for future in futures:
                    future.cancel()
            return [found[i] for i in range(len(goals))]

        def one(i: int) -> None:
            found[i] = search(fingerprint, goals[i], budget, pool, after_round)
            # A target that is done needs none of the rounds that were left for it.
            count(rounds_each - found[i].rounds)

        def after_round() -> None:
            if stop.is_set():
                raise InterruptedError
            count(1)

        stop = threading.Event()
        # Few targets at once share the threads that compute: none of these stands idle.
        with (
            one_blas_thread(),
            ThreadPoolExecutor(threads()) as pool,
            ThreadPoolExecutor(threads()) as drivers,
        ):
            futures_ = [drivers.submit(one, i) for i in range(len(goals))]
            try:
                for future_ in futures_:
                    future_.result()
            except BaseException:
                stop.set()
                drivers.shutdown(wait=False, cancel_futures=True)
                raise
    return [found[i] for i in range(len(goals))]


def _alone(fingerprint: Fingerprint, goal: Goal, budget: Budget) -> Found:
    """One goal, in a process of an executor's."""
    # Each task brings a copy: what is compiled for the first serves all that are like it.
    config = json.dumps(fingerprint.get_config(), sort_keys=True)
    fingerprint = _FIRST.setdefault((type(fingerprint.descriptor), config), fingerprint)
    with one_blas_thread(), ThreadPoolExecutor(threads()) as pool:
        return search(fingerprint, goal, budget, pool)


def _result(
    fingerprint: Fingerprint, goals: list[Goal], found: list[Found], given: _Starts
) -> ReconstructionResult:
    candidates, losses, status = [], [], []
    for goal, one in zip(goals, found, strict=True):
        structures = [_structure(goal, x) for x in one.positions]
        error = np.abs(fingerprint.create(structures) - goal.target) / goal.scale
        loss = np.where(np.isfinite(one.loss), error.mean(axis=1), np.inf)
        order = np.argsort(loss, kind="stable")
        if goal.pbc.any():  # the search does not know that images are the same
            first = duplicates([structures[i] for i in order], SAME)
            order = order[first == np.arange(len(order))]
        order = order[:CANDIDATES]
        structures, loss = [structures[i] for i in order], loss[order]
        candidates.append([given.in_order(atoms) for atoms in structures])
        losses.append(loss)
        status.append(_status(structures, loss, goal.tolerance, one.repeated))
    return ReconstructionResult(
        structures=[c[0] for c in candidates],
        loss=np.array([values[0] for values in losses]),
        status=status,
        candidates=candidates,
        candidate_losses=losses,
        starts=np.array([f.starts for f in found]),
        steps=np.array([f.steps for f in found]),
        rounds=np.array([f.rounds for f in found]),
        seconds=np.array([f.seconds for f in found]),
    )


def _structure(goal: Goal, positions: np.ndarray) -> Atoms:
    positions = np.nan_to_num(positions)
    if not goal.pbc.any() and not goal.fixed.any():
        positions = positions - positions.mean(axis=0)
    atoms = Atoms(goal.numbers, positions=positions, cell=goal.cell, pbc=goal.pbc)
    if goal.pbc.any() and not goal.fixed.any():
        atoms.wrap()
    return atoms


def _status(structures: list[Atoms], loss: np.ndarray, tolerance: float, repeated: bool) -> str:
    plain = status_of(structures[0], loss[0], tolerance)
    if plain == CONVERGED:
        # Others that fit as well; the search returns distinct ones only.
        equal = [
            i
            for i, atoms in enumerate(structures)
            if loss[i] <= max(10.0 * loss[0], 0.05 * tolerance)
            and status_of(atoms, loss[i], tolerance) == CONVERGED
        ]
        if len(equal) > 1:
            return f"ambiguous: {len(equal)} different structures found with this fingerprint"
    elif plain == Status.NOT_CONVERGED and (repeated or loss[0] > FAR):
        why = "found again and again" if repeated else "far off"
        return f"unreachable: the best structure, {why}, has loss {loss[0]:.2g}"
    return NOT_CONVERGED if plain == Status.NOT_CONVERGED else str(plain)
