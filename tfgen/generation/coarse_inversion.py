"""Coarse inversion of fingerprints, and the step to a target energy, for many structures at once.

Both are far cheaper than `tfgen.reconstruct`, and good enough for structures that relax on a
neural-network potential (NNP) afterwards, or are ranked by it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import tensorflow as tf
from ase import Atoms

from tfgen._tensorflow import compiled_for
from tfgen.fingerprints.fingerprint import Fingerprint
from tfgen.generation.settings import ProposalSettings
from tfgen.inversion.graph_population import Candidates
from tfgen.inversion.graph_search import GraphSearch, Problem
from tfgen.models.neural_potential import NeuralPotential
from tfgen.sampling.initial import random_structures
from tfgen.structures.batch import StructureBatch

__all__ = ["centred_structures", "invert_coarsely", "move_to_energies"]


def invert_coarsely(
    fingerprint: Fingerprint,
    targets: np.ndarray,
    numbers: np.ndarray,
    scale: np.ndarray,
    *,
    seed: int,
    settings: ProposalSettings | None = None,
    advance: Callable[[int], object] = lambda _: None,
) -> np.ndarray:
    """Finds structures whose fingerprints are near the targets.

    A few short descents start from random structures; the best of them is kept for each target.

    Args:
        fingerprint: of the structures.
        targets: [n, fingerprint.size].
        numbers: [atoms], atomic numbers of all structures.
        scale: [fingerprint.size], the spread of each feature.
        seed: of the random structures.
        settings: `initial_structures`, `descent_steps`, `step_length`, `batch_size`,
            `triples_per_batch` and `jit_compile` are used.
        advance: called with the number of targets done since the last call.

    Returns:
        [n, atoms, 3], Å, float32, finite.
    """
    settings = settings or ProposalSettings()
    rng = np.random.default_rng(seed)
    descend = _descent(fingerprint, settings)
    size, starts = settings.inverted_at_once(len(numbers)), settings.initial_structures
    result = np.empty([len(targets), len(numbers), 3], np.float32)
    for begin in range(0, len(targets), size):
        part = targets[begin : begin + size]
        # The last batch is filled up, so that one shape only is compiled.
        problem = Problem(
            tf.constant(np.tile(numbers, [size, 1]), tf.int32),
            tf.constant(np.resize(part, [size, targets.shape[1]]), tf.float32),
            tf.constant(scale, tf.float32),
        )
        initial = random_structures(numbers, size * starts, rng).reshape(size, starts, -1, 3)
        found = descend(tf.constant(initial, tf.float32), problem)
        best = found.loss.numpy().argmin(axis=1)
        positions = found.positions.numpy()[np.arange(size), best]
        result[begin : begin + len(part)] = _finite_or(positions, initial[:, 0])[: len(part)]
        advance(len(part))
    return result


def move_to_energies(
    potential: NeuralPotential,
    positions: np.ndarray,
    numbers: np.ndarray,
    energies: np.ndarray,
    settings: ProposalSettings | None = None,
) -> np.ndarray:
    """Moves structures along the gradient of the energy until they have a given energy.

    By Newton's steps for one equation, in which no atom moves further than a bound:

    x <- x - (E - E_target) ∇E / |∇E|²

    Args:
        potential: gives energies.
        positions: [n, atoms, 3], Å.
        numbers: [atoms], atomic numbers of all structures.
        energies: [n], eV/atom; a structure stays where it is NaN.
        settings: `energy_steps`, `energy_step_length`, `batch_size` and `jit_compile` are used.

    Returns:
        [n, atoms, 3], Å, float32; a structure that would get lost is left as it was.
    """
    settings = settings or ProposalSettings()
    move = _energy_step(potential, settings)
    size = settings.batch_size
    result = np.empty(positions.shape, np.float32)
    for begin in range(0, len(positions), size):
        part = positions[begin : begin + size]
        moved = move(
            tf.constant(np.resize(part, [size, *part.shape[1:]]), tf.float32),
            tf.constant(np.tile(numbers, [size, 1]), tf.int32),
            tf.constant(np.resize(energies[begin : begin + size], size), tf.float32),
        ).numpy()
        result[begin : begin + len(part)] = _finite_or(moved[: len(part)], part)
    return result


def centred_structures(numbers: np.ndarray, positions: np.ndarray) -> list[Atoms]:
    """Returns structures with their centre at the origin; positions [n, atoms, 3], Å."""
    return [Atoms(numbers, positions=x - x.mean(axis=0)) for x in positions]


def _finite_or(positions: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Replaces structures whose positions are not all finite."""
    finite = np.isfinite(positions).all(axis=(1, 2), keepdims=True)
    return np.where(finite, positions, others)


def _descent(
    fingerprint: Fingerprint, settings: ProposalSettings
) -> Callable[[tf.Tensor, Problem], Candidates]:
    """Short descents from [targets, initial structures, atoms, 3], Å; compiled."""
    steps, rate = settings.descent_steps, settings.step_length
    compile_it = settings.jit_compile

    def make() -> Callable[[tf.Tensor, Problem], Candidates]:
        graph_search = GraphSearch(fingerprint)

        @tf.function(jit_compile=compile_it, autograph=False)
        def descend(positions: tf.Tensor, problem: Problem) -> Candidates:
            return graph_search.descend(positions, problem, steps, rate)

        return descend

    return compiled_for(fingerprint, ("coarse inversion", steps, rate, compile_it), make)


def _energy_step(
    potential: NeuralPotential, settings: ProposalSettings
) -> Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]:
    """The steps of `move_to_energies` for a batch; compiled."""
    steps, reach = settings.energy_steps, settings.energy_step_length
    compile_it = settings.jit_compile

    def make() -> Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]:
        @tf.function(jit_compile=compile_it, autograph=False)
        def move(x: tf.Tensor, numbers: tf.Tensor, wanted: tf.Tensor) -> tf.Tensor:
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
                share = reach / tf.maximum(longest, reach)
                return t + 1, x - share[:, None, None] * step

            return tf.while_loop(lambda t, _: t < steps, body, (0, x))[1]

        return move

    return compiled_for(potential, ("step to energy", steps, reach, compile_it), make)
