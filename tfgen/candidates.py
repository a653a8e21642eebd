"""Candidates for generation: structures whose properties are known before anything is calculated.

With a learned landscape (see `tfgen.landscape`) a request can look at many more structures than
it lets an expensive method relax: fingerprints are drawn and inverted only roughly, the structures
slide down the landscape to its minima, and those on target come first. Without one, a candidate is
an inverted fingerprint, and nothing can be said of it in advance.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import tensorflow as tf
from ase import Atoms
from tqdm import tqdm

from tfgen import similarity
from tfgen.datasets.sampling import pack
from tfgen.fingerprint import Fingerprint
from tfgen.landscape import LearnedPotential
from tfgen.model import Model, Target
from tfgen.properties import ENERGY_PER_ATOM, GEOMETRIC, compute
from tfgen.reconstruction import CONVERGED, reconstruct, status_of
from tfgen.relaxation import relax
from tfgen.structures import StructureBatch
from tfgen.validity import valid

__all__ = ["Candidate", "Candidates", "miss", "sketch"]

# Proposals in a round for each promising candidate that is missing; and at most for each structure
# asked for, so that a target with nothing new near it does not take for ever.
PROPOSALS, MOST = 8, 64
# Starts and steps of a rough inversion, and the first step length, Å.
STARTS, STEPS, RATE = 4, 100, 0.5
# Fingerprints inverted at once.
AT_ONCE = 16
# Weight of an energy off target, per eV/atom, next to the loss of the inversion; for structures
# that are to stay where they are, on a slope.
ENERGY_WEIGHT = 5.0
# Of the way down the learned landscape, eV/Å. At 0.05 one structure in ten still sits on a flat
# saddle, and the potential takes it elsewhere.
FMAX, MAX_STEPS = 0.005, 1000
# Predicted this close to the target, in hit tolerances, a candidate is taken to be on it: what is
# left of the tolerance is for the landscape's own error.
MARGIN = 0.6
# Two structures are taken for the same minimum if all sorted distances agree within this, Å. Wider
# than for relaxed structures, as the landscape's minima are not exactly the potential's.
SAME = 0.12


@dataclass
class Candidate:
    """A structure proposed for a target.

    Attributes:
        structure: as reconstructed, on the landscape's minimum if there is a landscape.
        drawn: the fingerprint it was inverted from.
        predicted: property -> value expected after relaxation; empty without a landscape.
        loss: distance of its fingerprint to the drawn one, as the inversion measures.
        status: "converged", or the reason it is not.
        known: whether it is one of the training structures.
        miss: distance of the prediction to the target, in hit tolerances; 0 without a landscape.
    """

    structure: Atoms
    drawn: np.ndarray
    predicted: dict[str, float]
    loss: float
    status: str
    known: bool = False
    miss: float = 0.0


def miss(
    targets: Mapping[str, Target], values: Mapping[str, float], tolerance: Mapping[str, float]
) -> float:
    """How far values are off their targets, in tolerances; the worst property counts.

    Values in a range are not off at all; values beyond it are judged by the nearer end.
    """
    worst = 0.0
    for name, target in targets.items():
        low, high = target if isinstance(target, tuple) else (target, target)
        off = max(low - values[name], values[name] - high, 0.0)
        worst = max(worst, off / tolerance[name] if np.isfinite(off) else np.inf)
    return worst


@dataclass
class Candidates:
    """A pool of candidates for one composition and one set of targets.

    Args:
        model: draws and judges.
        numbers: [atoms], the composition, sorted.
        targets: property -> value or (low, high).
        tolerance: property -> half width of a hit.
        count: structures asked for.
        seed: of all that is drawn.
        slide: whether structures go to the landscape's minima; else they stay on its slopes, where
            their energy is that of the target.
        max_rounds: of the inversion's search, without a landscape.
        progress: show progress bars.
    """

    model: Model
    numbers: np.ndarray
    targets: Mapping[str, Target]
    tolerance: Mapping[str, float]
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
        if self.model.landscape is None:
            return self._inverted(count)
        order, _ = self._enough(count)
        while len(order) < count:
            self._propose(PROPOSALS * count)
            order, _ = self._ranked()
        return self._remove(order[:count])

    def take_promising(self, count: int) -> list[Candidate]:
        """Returns up to `count` candidates, only such as are expected to be on target and new."""
        if self.model.landscape is None:
            return self._inverted(count) if count else []
        order, promising = self._enough(count)
        return self._remove(order[: min(count, promising)])

    def _enough(self, count: int) -> tuple[list[int], int]:
        """Proposes until so many are promising, or it is in vain; returns what `_ranked` does."""
        order, promising = self._ranked()
        while promising < count and self.proposed < MOST * self.count:
            self._propose(PROPOSALS * (count - promising))
            order, promising = self._ranked()
        return order, promising

    def _remove(self, places: list[int]) -> list[Candidate]:
        picked = [self._waiting[i] for i in places]
        gone = set(places)
        self._waiting = [c for i, c in enumerate(self._waiting) if i not in gone]
        self._taken += [c.structure for c in picked]
        return picked

    def _ranked(self) -> tuple[list[int], int]:
        """Places of those waiting, the most promising first, and how many are worth a try."""
        pool = self._waiting
        if not pool:
            return [], 0

        def faults(i: int) -> tuple[bool, bool]:
            return pool[i].status != CONVERGED, pool[i].miss > MARGIN

        # Ties go to the one proposed first.
        order = sorted(range(len(pool)), key=lambda i: (*faults(i), pool[i].known, pool[i].miss))
        everyone = [*self._taken, *(pool[i].structure for i in order)]
        first = similarity.duplicates(everyone, SAME) == np.arange(len(everyone))
        stale = {
            i: pool[i].known or not new
            for i, new in zip(order, first[len(self._taken) :], strict=True)
        }
        # A copy that is on target is better than something new that is not.
        order.sort(key=lambda i: (*faults(i), stale[i]))
        return order, sum(not (any(faults(i)) or stale[i]) for i in order)

    def _draw(self, count: int) -> tuple[np.ndarray, np.ndarray, int]:
        """Draws [count, features] for the targets; energies asked for; a seed for what follows."""
        seeds = np.random.SeedSequence([self.seed, self._rounds]).generate_state(3) // 2
        self._rounds += 1
        self.proposed += count
        rng = np.random.default_rng(seeds[0])
        wanted = self.model.draw_properties(self.targets, count, rng)
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
        for i, atoms in enumerate(structures):
            predicted_i = {name: float(values[name][i]) for name in names}
            self._waiting.append(
                Candidate(
                    structure=atoms,
                    drawn=drawn[i],
                    predicted=predicted_i,
                    loss=float(loss[i]),
                    status=CONVERGED if fine[i] else "no valid structure on the landscape",
                    known=bool(known[i]),
                    miss=miss(self.targets, predicted_i, self.tolerance),
                )
            )
        target = self.targets.get(ENERGY_PER_ATOM)
        if self.slide and target is not None and fine.any():
            lost = float(np.mean(target)) - np.median(values[ENERGY_PER_ATOM][fine])
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
    aim: tuple[LearnedPotential, np.ndarray] | None = None,
) -> list[Atoms]:
    """Inverts fingerprints roughly: the best of a few short descents from random packings.

    Far cheaper than `reconstruct`, and enough for structures that a landscape will move anyway.

    Args:
        fingerprint: of the structures.
        targets: [n, fingerprint.size].
        numbers: [atoms], of all structures.
        scale: [fingerprint.size], the spread of each feature.
        seed: of the packings.
        advance: is told how many are done.
        aim: a potential, and the energies per atom [n] that structures should have in it; NaN
            where any will do.

    Returns:
        One structure for each target.
    """
    rng = np.random.default_rng(seed)
    potential, energies = (None, np.full(len(targets), np.nan)) if aim is None else aim
    descend = _descent(fingerprint, potential)
    result = []
    for start in range(0, len(targets), AT_ONCE):
        part = targets[start : start + AT_ONCE]
        # One shape only is compiled.
        full = np.resize(part, [AT_ONCE, targets.shape[1]])
        asked = np.resize(energies[start : start + AT_ONCE], AT_ONCE)
        positions = pack(numbers, AT_ONCE * STARTS, rng)
        moved, loss = descend(
            tf.constant(positions, tf.float32),
            tf.constant(np.tile(numbers, [len(positions), 1]), tf.int32),
            tf.constant(np.repeat(full, STARTS, axis=0), tf.float32),
            tf.constant(scale, tf.float32),
            tf.constant(np.repeat(asked, STARTS), tf.float32),
        )
        best = np.nan_to_num(loss.numpy(), nan=np.inf).reshape(AT_ONCE, STARTS).argmin(axis=1)
        chosen = moved.numpy().reshape(AT_ONCE, STARTS, -1, 3)[np.arange(AT_ONCE), best]
        for x, origin in zip(chosen[: len(part)], positions[::STARTS], strict=False):
            # A descent that lost its way leaves the packing it started from.
            whole = x if np.isfinite(x).all() else origin
            result.append(Atoms(numbers, positions=whole - whole.mean(axis=0)))
        advance(len(part))
    return result


@functools.lru_cache(maxsize=8)
def _descent(
    fingerprint: Fingerprint, potential: LearnedPotential | None
) -> Callable[..., tuple[tf.Tensor, tf.Tensor]]:
    """Adam on the L1 loss of scaled features, its rate falling as a parabola; compiled."""
    steps = float(STEPS if potential is None else 2 * STEPS)

    def losses(
        x: tf.Tensor,
        numbers: tf.Tensor,
        targets: tf.Tensor,
        scale: tf.Tensor,
        asked: tf.Tensor,
        weight: tf.Tensor | float,
    ) -> tf.Tensor:
        batch = StructureBatch.of_clusters(x, numbers)
        loss = weight * tf.reduce_mean(tf.abs(fingerprint(batch) - targets) / scale, axis=1)
        if potential is None:
            return loss
        energy = potential.energies(batch) / tf.cast(tf.shape(x)[1], x.dtype)
        wanted = tf.where(tf.math.is_finite(asked), asked, energy)
        return loss + ENERGY_WEIGHT * tf.abs(energy - wanted)

    @tf.function(jit_compile=True, autograph=False)
    def descend(
        x: tf.Tensor, numbers: tf.Tensor, targets: tf.Tensor, scale: tf.Tensor, asked: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        def body(t: tf.Tensor, x: tf.Tensor, m: tf.Tensor, v: tf.Tensor) -> tuple:
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(x)
                # With an energy to aim at, the second half leads there from wherever it is.
                share = 1.0 if potential is None else tf.maximum(0.0, 1.0 - 2.0 * t / steps)
                loss = losses(x, numbers, targets, scale, asked, share)
            gradient = tape.gradient(loss, x)
            m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
            unbiased = (m / (1.0 - 0.9 ** (t + 1.0)), v / (1.0 - 0.999 ** (t + 1.0)))
            rate = RATE * (1.0 - t / steps) ** 2
            return t + 1.0, x - rate * unbiased[0] / (tf.sqrt(unbiased[1]) + 1e-8), m, v

        start = (tf.constant(0.0), x, tf.zeros_like(x), tf.zeros_like(x))
        _, x, _, _ = tf.while_loop(lambda t, *_: t < steps, body, start)
        return x, losses(x, numbers, targets, scale, asked, 1.0)

    return descend


@functools.lru_cache(maxsize=8)
def _potential_of(fingerprint: Fingerprint, landscape: object) -> LearnedPotential:
    return LearnedPotential(fingerprint.descriptor, landscape)  # type: ignore[arg-type]


def _potential(model: Model) -> LearnedPotential:
    # The same object each time: what is compiled for it is found again.
    return _potential_of(model.fingerprint, model.landscape)
