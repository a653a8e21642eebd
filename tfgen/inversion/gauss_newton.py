"""Gauss-Newton steps from a structure that nearly has a fingerprint to one that has it."""

from __future__ import annotations

import functools
import threading

import numpy as np
import tensorflow as tf
from ase import Atoms

from tfgen.fingerprints.fingerprint import Fingerprint
from tfgen.structures.batch import StructureBatch

__all__ = ["errors", "refine"]

ITERATIONS, TRIALS = 20, 6
# First damping, as a share of the mean diagonal; longest step of an atom's coordinate, Å.
DAMPING, LONGEST = 1e-3, 0.15
# Factor by which an iteration has to lower the error, or the rest would be in vain.
GAIN = 0.97
# Mean error (in units of `scale`) below which nothing is left to gain.
EXACT = 1e-7
# Derivatives computed at once.
PIECE = 8
# TensorFlow keeps what forward mode traces in tables that bear one thread at a time.
_TRACING = threading.Lock()


def refine(
    fingerprint: Fingerprint,
    atoms: Atoms,
    target: np.ndarray,
    scale: np.ndarray,
    fixed: np.ndarray | None = None,
) -> Atoms:
    """Moves atoms until the fingerprint fits exactly, or does not get there fast.

    Solves F(x) = target by damped least squares in float64 (Levenberg 1944, Marquardt 1963,
    DOI 10.1137/0111030), which converges quadratically where an exact solution is near. Features
    that are largest or smallest values over atoms have kinks; the others are enough to lead.

    Args:
        fingerprint: of the structure.
        atoms: where to begin; left unmodified.
        target: [features].
        scale: [features], units of the errors.
        fixed: [atoms] bool, atoms that stay.

    Returns:
        A copy with new positions; never a worse fit of the features that are used.
    """
    atoms = atoms.copy()
    free = np.ones(len(atoms), bool) if fixed is None else ~fixed
    rows = fingerprint.differentiable
    if rows.sum() < 3 * len(atoms):
        rows = np.ones(fingerprint.size, bool)
    damping = DAMPING
    error = errors(fingerprint, atoms, target, scale)[rows]
    for _ in range(ITERATIONS):
        if not np.isfinite(error).all() or np.abs(error).mean() < EXACT:
            break
        slope = _jacobian(fingerprint, atoms, free)[rows] / scale[rows, None]
        if not np.isfinite(slope).all() or not slope.any():
            break
        normal, downhill = slope.T @ slope, -slope.T @ error
        # The same for all directions: where there are hardly more features than coordinates, many
        # directions hardly matter, and must not run away.
        unit = np.eye(len(normal)) * np.trace(normal) / len(normal)
        for _ in range(TRIALS):
            step = np.linalg.solve(normal + damping * unit, downhill)
            step *= min(1.0, LONGEST / max(np.abs(step).max(), 1e-300))
            moved = atoms.copy()
            moved.positions[free] += step.reshape(-1, 3)
            new = errors(fingerprint, moved, target, scale)[rows]
            gain = np.linalg.norm(new) / np.linalg.norm(error)
            if gain < 1.0:
                atoms, error, damping = moved, new, max(0.2 * damping, 1e-12)
                break
            damping *= 5.0
        if not gain < GAIN:
            break
    return atoms


def errors(
    fingerprint: Fingerprint, atoms: Atoms, target: np.ndarray, scale: np.ndarray
) -> np.ndarray:
    """Differences [features] of a structure's fingerprint to a target, in `scale`, in float64."""
    return (fingerprint.create(atoms)[0] - target) / scale


def _jacobian(fingerprint: Fingerprint, atoms: Atoms, free: np.ndarray) -> np.ndarray:
    """Derivatives [features, 3 free atoms] of the fingerprint.

    In float32, which is exact enough for a direction; errors are in float64.
    """
    columns = np.flatnonzero(np.repeat(free, 3))
    tangents = np.zeros([-(-len(columns) // PIECE) * PIECE, 3 * len(atoms)])
    tangents[np.arange(len(columns)), columns] = 1.0
    reach = fingerprint.descriptor.r_cut
    batch = StructureBatch.from_ase([atoms] * PIECE, r_cut=reach, dtype="float32")
    forward = _forward(fingerprint, len(atoms))
    pieces = tangents.reshape(-1, PIECE, len(atoms), 3)
    with _TRACING:  # once for each shape; then it is at hand
        forward.get_concrete_function(batch, tf.constant(pieces[0], tf.float32))
    slopes = [forward(batch, tf.constant(piece, tf.float32)).numpy() for piece in pieces]
    return np.concatenate(slopes)[: len(columns)].T.astype(np.float64)


@functools.lru_cache(maxsize=32)
def _forward(fingerprint: Fingerprint, _atoms: int) -> tf.types.experimental.PolymorphicFunction:
    """One graph for each number of atoms: what was computed before must not change the sums."""

    def derivative(batch: StructureBatch, tangents: tf.Tensor) -> tf.Tensor:
        with tf.autodiff.ForwardAccumulator(batch.positions, tangents) as accumulator:
            values = fingerprint(batch)
        return accumulator.jvp(values, unconnected_gradients=tf.UnconnectedGradients.ZERO)

    return tf.function(derivative, reduce_retracing=True, autograph=False)
