"""Gauss-Newton steps from a structure that nearly has a fingerprint to one that has it."""

from __future__ import annotations

import threading
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from ase import Atoms
from scipy.linalg import lstsq

from tfgen._tensorflow import compiled_for
from tfgen.fingerprints.fingerprint import Fingerprint
from tfgen.fingerprints.loss import fingerprint_loss, scaled_errors
from tfgen.inversion.settings import GaussNewtonSettings
from tfgen.structures.batch import StructureBatch

__all__ = ["Refined", "compute_errors", "refine"]

# Directional derivatives computed at once.
PIECE = 8
# TensorFlow keeps what forward mode traces in tables that only one thread at a time may use.
_TRACING = threading.Lock()


class Refined(NamedTuple):
    """A structure that was refined.

    Attributes:
        atoms: a copy with new positions.
        derivatives: directional derivatives of the fingerprint that were computed: one for each
            free coordinate and Jacobian. In forward mode each costs about as much as a gradient.
    """

    atoms: Atoms
    derivatives: int


def refine(
    fingerprint: Fingerprint,
    atoms: Atoms,
    target: np.ndarray,
    scale: np.ndarray,
    fixed: np.ndarray | None = None,
    settings: GaussNewtonSettings = GaussNewtonSettings(),
) -> Refined:
    """Moves atoms until the fingerprint fits exactly, or no longer converges fast.

    Solves F(x) = target by damped least squares in float64 (Levenberg 1944; Marquardt 1963,
    DOI 10.1137/0111030), which converges quadratically where an exact solution is near. Features
    that are maxima or minima over atoms are not differentiable everywhere; they are left out if
    the others are at least as many as the coordinates.

    Args:
        fingerprint: of the structure.
        atoms: where to begin; left unmodified.
        target: [features].
        scale: [features], units of the errors.
        fixed: [atoms] bool, atoms that stay.
        settings: of the iteration.

    Returns:
        The structure, which never fits worse in the features that are used, and the cost.
    """
    atoms = atoms.copy()
    free = np.ones(len(atoms), bool) if fixed is None else ~fixed
    rows = fingerprint.differentiable
    if rows.sum() < 3 * len(atoms):
        rows = np.ones(fingerprint.size, bool)
    damping, derivatives = settings.damping, 0
    error = compute_errors(fingerprint, atoms, target, scale)[rows]
    for _ in range(settings.max_iterations):
        if not settings.exact_loss <= fingerprint_loss(error) < np.inf:
            break
        jacobian = _jacobian(fingerprint, atoms, free)[rows] / scale[rows, None]
        derivatives += jacobian.shape[1]
        if not np.isfinite(jacobian).all() or not jacobian.any():
            break
        # The same damping for all directions: where there are hardly more features than
        # coordinates, many directions hardly change the fingerprint, and must not diverge.
        columns = jacobian.shape[1]
        unit = np.sqrt((jacobian**2).sum() / columns) * np.eye(columns)
        wanted = np.concatenate([-error, np.zeros(columns)])
        for _ in range(settings.max_trials):
            # By QR of [J; √damping unit]: normal equations would square the condition number.
            damped = np.concatenate([jacobian, np.sqrt(damping) * unit])
            step = lstsq(damped, wanted, check_finite=False, lapack_driver="gelsy")[0]
            step *= min(1.0, settings.max_step / max(np.abs(step).max(), 1e-300))
            trial = atoms.copy()
            trial.positions[free] += step.reshape(-1, 3)
            new = compute_errors(fingerprint, trial, target, scale)[rows]
            decrease = np.linalg.norm(new) / np.linalg.norm(error)
            if decrease < 1.0:
                atoms, error, damping = trial, new, max(0.2 * damping, 1e-12)
                break
            damping *= 5.0
        if not decrease < settings.sufficient_decrease:
            break
    return Refined(atoms, derivatives)


def compute_errors(
    fingerprint: Fingerprint, atoms: Atoms, target: np.ndarray, scale: np.ndarray
) -> np.ndarray:
    """Computes the errors [features] of a structure's fingerprint in float64, in `scale`."""
    return scaled_errors(fingerprint.create(atoms)[0], target, scale)


def _jacobian(fingerprint: Fingerprint, atoms: Atoms, free: np.ndarray) -> np.ndarray:
    """Computes the derivatives [features, 3 free atoms] of the fingerprint.

    In float32, which is exact enough for a direction; errors are in float64.
    """
    columns = np.flatnonzero(np.repeat(free, 3))
    tangents = np.zeros([-(-len(columns) // PIECE) * PIECE, 3 * len(atoms)])
    tangents[np.arange(len(columns)), columns] = 1.0
    reach = fingerprint.descriptor.r_cut
    batch = StructureBatch.from_ase([atoms] * PIECE, r_cut=reach, dtype="float32")
    # One graph for each number of atoms: with one for several, the order of sums, and so the last
    # digits, would depend on what was computed before.
    forward = compiled_for(
        fingerprint, ("Jacobian", len(atoms)), lambda: _forward_mode(fingerprint)
    )
    pieces = tangents.reshape(-1, PIECE, len(atoms), 3)
    with _TRACING:  # once for each shape; later calls find it
        forward.get_concrete_function(batch, tf.constant(pieces[0], tf.float32))
    slopes = [forward(batch, tf.constant(piece, tf.float32)).numpy() for piece in pieces]
    return np.concatenate(slopes)[: len(columns)].T.astype(np.float64)


def _forward_mode(fingerprint: Fingerprint) -> tf.types.experimental.PolymorphicFunction:
    """Wraps directional derivatives of the fingerprints of a batch."""

    def derivative(batch: StructureBatch, tangents: tf.Tensor) -> tf.Tensor:
        with tf.autodiff.ForwardAccumulator(batch.positions, tangents) as accumulator:
            values = fingerprint(batch)
        return accumulator.jvp(values, unconnected_gradients=tf.UnconnectedGradients.ZERO)

    return tf.function(derivative, reduce_retracing=True, autograph=False)
