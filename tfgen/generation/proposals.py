"""Candidates for generation: structures whose properties are known before anything is calculated.

With a neural-network potential (NNP, see `tfgen.models.neural_potential`) a request can look at
many more structures than it lets an expensive method relax: fingerprints are sampled and inverted
only coarsely, the structures relax on the NNP, and those on target come first. Without one, a
candidate is an inverted fingerprint, and nothing can be said of it in advance.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import tensorflow as tf
from ase import Atoms
from tqdm import tqdm

from tfgen.fingerprints.fingerprint import Fingerprint
from tfgen.inversion.graph_search import Inverter, Pool, Problem
from tfgen.inversion.reconstruct import CONVERGED, reconstruct, status_of
from tfgen.models.model import Model
from tfgen.models.neural_potential import NeuralPotential
from tfgen.relaxation.relax import relax
from tfgen.sampling.initial import random_structures
from tfgen.structures import similarity
from tfgen.structures.batch import StructureBatch
from tfgen.structures.properties import ENERGY_PER_ATOM, GEOMETRIC, compute
from tfgen.structures.validity import valid
from tfgen.targets import Target, largest_miss

__all__ = ["Candidate", "Candidates", "sketch"]

# Proposals in a round for each promising candidate that is missing; and at most for each structure
# asked for, so that a target with nothing new near it does not take for ever.
PROPOSALS, MOST = 8, 64
# Starts and steps of a rough inversion, and the first step length, Å.
STARTS, STEPS, RATE = 4, 100, 0.5
# Fingerprints inverted at once.
AT_ONCE = 16
# Whether XLA compiles rough inversions, which takes seconds for each number of atoms.
COMPILE = True
# Steps along the slope to the energy asked for, for structures that are to stay on it, and how far
# an atom goes in one, Å.
LEVEL_STEPS, LEVEL_REACH = 40, 0.1
# Of the relaxation on the neural-network potential, eV/Å. At 0.05 one structure in ten still sits
# on a flat saddle, and the potential takes it elsewhere.
FMAX, MAX_STEPS = 0.005, 250
# Predicted this close to the target, in hit tolerances, a candidate is taken to be on it: what is
# left of the tolerance is for the NNP's own error.
MARGIN = 0.6
# Two structures are taken for the same minimum if all sorted distances agree within this, Å. Wider
# than for relaxed structures, as the NNP's minima are not exactly the potential's.
SAME = 0.12
# Within this they certainly are. Between the two it takes a relaxation to tell.
COPY = 0.05


@dataclass
class Candidate:
    """A structure proposed for a target.

    Attributes:
        structure: as reconstructed, on the NNP's minimum if there is an NNP.
        drawn: the fingerprint it was inverted from.
        predicted: property -> value expected after relaxation; empty without an NNP.
        loss: distance of its fingerprint to the drawn one, as the inversion measures.
        status: "converged", or the reason it is not.
        known: whether it is taken for one of the training structures.
        copy: whether it certainly is one.
        miss: how far the prediction is off, up to 1 a hit (see `Target.miss`); 0 without an NNP.
    """

    structure: Atoms
    drawn: np.ndarray
    predicted: dict[str, float]
    loss: float
    status: str
    known: bool = False
    copy: bool = False
    miss: float = 0.0


@dataclass
class Candidates:
    """A pool of candidates for one composition and one set of targets.

    Args:
        model: draws and judges.
        numbers: [atoms], the composition, sorted.
        targets: with tolerances.
        count: structures asked for.
        seed: of all that is drawn.
        slide: whether structures go to the NNP's minima; else they stay on its slopes, where
            their energy is that of the target.
        max_rounds: of the inversion's search, without an NNP.
        progress: show progress bars.
    """

    model: Model
    numbers: np.ndarray
    targets: Sequence[Target]
    count: int
    seed: int
    slide: bool = True
    max_rounds: int = 3
    progress: bool = False
    proposed: int = 0
    _waiting: list[Candidate] = field(default_factory=list)
    _taken: list[Atoms] = field(default_factory=list)
    _rounds: int = 0
    _shift: float = 0.0

    def take(self, count: int) -> list[Candidate]:
        """Returns the `count` most promising candidates, each once, proposing more as needed."""
        if self.model.nnp is None:
            return self._inverted(count)
        order = self._enough(count)[0]
        while len(order) < count:
            self._propose(PROPOSALS * count)
            order = self._ranked()[0]
        return self._remove(order[:count])

    def take_promising(self, count: int) -> list[Candidate]:
        """Returns up to `count` candidates, only such as may be on target and new."""
        if self.model.nnp is None:
            return self._inverted(count) if count else []
        order, _, possible = self._enough(count)
        return self._remove(order[: min(count, possible)])

    def _enough(self, count: int) -> tuple[list[int], int, int]:
        """Proposes until so many are promising, or it is in vain; returns what `_ranked` does."""
        found = self._ranked()
        while found[1] < count and self.proposed < MOST * self.count:
            self._propose(PROPOSALS * (count - found[1]))
            found = self._ranked()
        return found

    def _remove(self, places: list[int]) -> list[Candidate]:
        picked = [self._waiting[i] for i in places]
        gone = set(places)
        self._waiting = [c for i, c in enumerate(self._waiting) if i not in gone]
        self._taken += [c.structure for c in picked]
        return picked

    def _ranked(self) -> tuple[list[int], int, int]:
        """Places of those waiting, the best first; how many are promising, and may be new."""
        pool = self._waiting
        if not pool:
            return [], 0, 0

        def faults(i: int) -> tuple[bool, bool]:
            return pool[i].status != CONVERGED, pool[i].miss > MARGIN

        # Ties go to the one proposed first.
        order = sorted(range(len(pool)), key=lambda i: (*faults(i), pool[i].known, pool[i].miss))
        everyone = [*self._taken, *(pool[i].structure for i in order)]
        # 0: like no other; 1: perhaps one of those before or known; 2: certainly.
        seen = np.array([pool[i].known + pool[i].copy for i in order])
        for tolerance, degree in ((SAME, 1), (COPY, 2)):
            own = similarity.duplicates(everyone, tolerance) == np.arange(len(everyone))
            seen = np.maximum(seen, np.where(own[len(self._taken) :], 0, degree))
        stale = dict(zip(order, seen.tolist(), strict=True))
        # A copy that is on target is better than something new that is not.
        order.sort(key=lambda i: (*faults(i), stale[i]))
        sound = [stale[i] for i in order if not any(faults(i))]
        return order, sound.count(0), sound.count(0) + sound.count(1)

    def _draw(self, count: int) -> tuple[np.ndarray, np.ndarray, int]:
        """Draws [count, features] for the targets; energies asked for; a seed for what follows."""
        seeds = np.random.SeedSequence([self.seed, self._rounds]).generate_state(3) // 2
        self._rounds += 1
        self.proposed += count
        rng = np.random.default_rng(seeds[0])
        wanted = self.model.sample_properties(
            {target.name: target.value for target in self.targets}, count, rng
        )
        names = [c.name for c in self.model.conditions]
        energies = np.full(count, np.nan)
        if ENERGY_PER_ATOM in names:
            energies = wanted[:, names.index(ENERGY_PER_ATOM)].copy()
            # Structures slide down: half of the draws ask for as much more as the last ones lost.
            wanted[::2, names.index(ENERGY_PER_ATOM)] += self._shift
        conditions = self.model.condition_vectors(wanted, self.numbers)
        return self.model.sample(conditions, int(seeds[1])), energies, int(seeds[2])

    def _inverted(self, count: int) -> list[Candidate]:
        drawn, _, seed = self._draw(count)
        found = reconstruct(
            self.model.fingerprint,
            drawn,
            Atoms(self.numbers).get_chemical_formula(),
            seed=seed,
            scale=self.model.scale,
            max_rounds=self.max_rounds,
            progress=self.progress,
        )
        return [
            Candidate(atoms, f, {}, float(loss), status_of(atoms, loss, self.model.tolerance))
            for atoms, f, loss in zip(found.structures, drawn, found.loss, strict=True)
        ]

    def _propose(self, count: int) -> None:
        model = self.model
        drawn, energies, seed = self._draw(count)
        potential = _potential(model)
        aim = None if self.slide else (potential, energies)
        with tqdm(total=count, desc="proposing", unit="", disable=not self.progress) as bar:
            rough = sketch(
                model.fingerprint, drawn, self.numbers, model.scale, seed, bar.update, aim=aim
            )
        slid = relax(rough, potential, fmax=FMAX, max_steps=MAX_STEPS if self.slide else 0)
        structures = [
            a if np.isfinite(a.positions).all() else b
            for a, b in zip(slid.structures, rough, strict=True)
        ]
        converged = slid.converged if self.slide else np.isfinite(slid.energy)
        fine = converged & valid(structures)
        names = [c.name for c in model.conditions]
        values = {ENERGY_PER_ATOM: slid.energy / len(self.numbers)}
        geometric = [name for name in names if name in GEOMETRIC]
        values.update(compute(structures, geometric))
        fingerprints = np.zeros_like(drawn)
        if fine.any():
            kept = np.flatnonzero(fine)
            fingerprints[kept] = model.fingerprint.create([structures[i] for i in kept])
            if len(values) < len({*names, ENERGY_PER_ATOM}):
                predicted = model.predict_properties(fingerprints)
                for i, name in enumerate(names):
                    values.setdefault(name, predicted[:, i])
        loss = np.where(fine, np.abs((fingerprints - drawn) / model.scale).mean(axis=1), np.inf)
        known = similarity.match(structures, self.library, SAME) >= 0
        copy = similarity.match(structures, self.library, COPY) >= 0
        for i, atoms in enumerate(structures):
            predicted_i = {name: float(values[name][i]) for name in names}
            self._waiting.append(
                Candidate(
                    structure=atoms,
                    drawn=drawn[i],
                    predicted=predicted_i,
                    loss=float(loss[i]),
                    status=CONVERGED if fine[i] else "no valid structure on the NNP",
                    known=bool(known[i]),
                    copy=bool(copy[i]),
                    miss=largest_miss(self.targets, predicted_i),
                )
            )
        target = next((t for t in self.targets if t.name == ENERGY_PER_ATOM), None)
        if self.slide and target is not None and fine.any():
            lost = 0.5 * (target.low + target.high) - np.median(values[ENERGY_PER_ATOM][fine])
            spread = np.sqrt(model.covariance[(names.index(ENERGY_PER_ATOM),) * 2])
            self._shift = float(np.clip(self._shift + 0.5 * lost, -2.0 * spread, 2.0 * spread))

    @functools.cached_property
    def library(self) -> list[Atoms]:
        """Training structures of this composition."""
        numbers = np.sort(self.numbers)
        return [
            atoms
            for atoms in self.model.library
            if len(atoms) == len(numbers) and (np.sort(atoms.numbers) == numbers).all()
        ]


def sketch(
    fingerprint: Fingerprint,
    targets: np.ndarray,
    numbers: np.ndarray,
    scale: np.ndarray,
    seed: int,
    advance: Callable[[int], object] = lambda _: None,
    *,
    aim: tuple[NeuralPotential, np.ndarray] | None = None,
) -> list[Atoms]:
    """Inverts fingerprints roughly: the best of a few short descents from random packings.

    Far cheaper than `reconstruct`, and enough for structures that an NNP will move anyway.

    Args:
        fingerprint: of the structures.
        targets: [n, fingerprint.size].
        numbers: [atoms], of all structures.
        scale: [fingerprint.size], the spread of each feature.
        seed: of the packings.
        advance: is told how many are done.
        aim: a potential, and the energies per atom [n] to which structures move in it, along its
            slope, in the end; NaN where any will do.

    Returns:
        One structure for each target.
    """
    rng = np.random.default_rng(seed)
    descend = _descent(fingerprint)
    result = []
    for start in range(0, len(targets), AT_ONCE):
        part = targets[start : start + AT_ONCE]
        # One shape only is compiled.
        full = np.resize(part, [AT_ONCE, targets.shape[1]])
        positions = random_structures(numbers, AT_ONCE * STARTS, rng)
        problem = Problem(
            tf.constant(np.tile(numbers, [AT_ONCE, 1]), tf.int32),
            tf.constant(full, tf.float32),
            tf.constant(scale, tf.float32),
        )
        starts = positions.reshape(AT_ONCE, STARTS, -1, 3)
        pool = descend(tf.constant(starts, tf.float32), problem)
        best = pool.loss.numpy().argmin(axis=1)
        chosen = pool.positions.numpy()[np.arange(AT_ONCE), best]
        if aim is not None:
            potential, energies = aim
            chosen = _levelling(potential)(
                tf.constant(chosen),
                problem.numbers,
                tf.constant(np.resize(energies[start : start + AT_ONCE], AT_ONCE), tf.float32),
            ).numpy()
        for x, origin in zip(chosen[: len(part)], starts[: len(part), 0], strict=True):
            # A descent that lost its way leaves the packing it started from.
            whole = x if np.isfinite(x).all() else origin
            result.append(Atoms(numbers, positions=whole - whole.mean(axis=0)))
        advance(len(part))
    return result


@functools.lru_cache(maxsize=8)
def _descent(fingerprint: Fingerprint) -> Callable[[tf.Tensor, Problem], Pool]:
    """Short descents from [targets, starts, atoms, 3], Å; compiled."""
    inverter = Inverter(fingerprint)

    @tf.function(jit_compile=COMPILE, autograph=False)
    def descend(positions: tf.Tensor, problem: Problem) -> Pool:
        return inverter.descend(positions, problem, STEPS, RATE)

    return descend


@functools.lru_cache(maxsize=8)
def _levelling(potential: NeuralPotential) -> Callable[..., tf.Tensor]:
    """Newton's steps along the slope to a given energy per atom, none too long; compiled.

    x <- x - (E - E_wanted) ∇E / |∇E|²
    """

    @tf.function(jit_compile=True, autograph=False)
    def level(x: tf.Tensor, numbers: tf.Tensor, wanted: tf.Tensor) -> tf.Tensor:
        def body(t: tf.Tensor, x: tf.Tensor) -> tuple:
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(x)
                energy = potential.energies(StructureBatch.of_clusters(x, numbers))
            slope = tape.gradient(energy, x)
            off = energy - wanted * tf.cast(tf.shape(x)[1], x.dtype)
            off = tf.where(tf.math.is_finite(off), off, 0.0)
            squared = tf.reduce_sum(slope**2, axis=[1, 2])
            step = (off / tf.maximum(squared, 1e-6))[:, None, None] * slope
            longest = tf.sqrt(tf.reduce_max(tf.reduce_sum(step**2, axis=2), axis=1))
            share = LEVEL_REACH / tf.maximum(longest, LEVEL_REACH)
            return t + 1, x - share[:, None, None] * step

        return tf.while_loop(lambda t, _: t < LEVEL_STEPS, body, (0, x))[1]

    return level


@functools.lru_cache(maxsize=8)
def _potential_of(fingerprint: Fingerprint, nnp: object) -> NeuralPotential:
    return NeuralPotential(fingerprint.descriptor, nnp)  # type: ignore[arg-type]


def _potential(model: Model) -> NeuralPotential:
    # The same object each time: what is compiled for it is found again.
    return _potential_of(model.fingerprint, model.nnp)
