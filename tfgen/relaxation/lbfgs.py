"""L-BFGS for many structures at once, compiled into one loop."""

from __future__ import annotations

from collections.abc import Hashable
from typing import NamedTuple, cast

import numpy as np
import tensorflow as tf

from tfgen._tensorflow import compiled_for
from tfgen.potentials.base import Potential, energy_and_forces
from tfgen.structures.batch import StructureBatch

__all__ = ["DRIFT", "SKIN", "Lbfgs", "Motion", "lbfgs"]

# The longest move of an atom in one step, Å.
MAX_STEP = 0.2
# How far atoms go before their neighbour lists are renewed, and how far those reach beyond the
# potential, Å: of two atoms moving towards each other both may take one step more.
DRIFT = 0.3
SKIN = 2.0 * (DRIFT + MAX_STEP)
# Steps remembered. Twenty would save few steps, and their memory would cost more than it saves.
MEMORY = 5
# First guess of the inverse curvature, Å²/eV, as in ASE, and the largest where there is none.
SCALE, MAX_SCALE = 1 / 70, 10.0
# Armijo's share of the promised descent, and what passes for rounding of an energy, eV.
DESCENT, ROUNDING = 1e-4, 1e-9
# A move cut to this share is made even uphill: something is rough, or the memory is misleading.
SHORTEST_SHARE = 0.01


class Motion(NamedTuple):
    """Where structures are on their way down, packed: every tensor more costs time in every call.

    The batch comes last, which XLA computes fastest.

    Attributes:
        vectors: [3 + 2 * MEMORY, 3, atoms, batch]: positions, forces, moves and the rest of
            `_State`.
        scalars: [5 + MEMORY, batch].
    """

    vectors: tf.Tensor
    scalars: tf.Tensor

    @classmethod
    def idle(cls, atoms: int, batch: int) -> Motion:
        """Returns places without structures, where nothing moves."""
        return cls(
            tf.zeros([3 + 2 * MEMORY, 3, atoms, batch], tf.float64),
            tf.zeros([5 + MEMORY, batch], tf.float64),
        )

    def read(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Returns positions, energies, steps and largest forces.

        Returns:
            [batch, atoms, 3], Å; [batch], eV; [batch], steps tried; [batch], eV/Å, NaN where
            energy or forces were not finite.
        """
        energy, steps, largest = self.scalars.numpy()[:3]
        return self.vectors[0].numpy().transpose(2, 1, 0), energy, steps, largest

    def read_forces(self) -> np.ndarray:
        """Returns the forces [batch, atoms, 3], eV/Å, 0 on atoms that may not move."""
        return self.vectors[1].numpy().transpose(2, 1, 0)


class _State(NamedTuple):
    positions: tf.Tensor  # [3, atoms, batch], Å
    forces: tf.Tensor  # eV/Å, there
    move: tf.Tensor  # Å, the next to try
    moves: tf.Tensor  # [memory, 3, atoms, batch], Å, of the last steps, oldest first
    changes: tf.Tensor  # eV/Å, what those took from the forces
    energy: tf.Tensor  # [batch], eV, at positions; infinite before the first evaluation
    steps: tf.Tensor  # tried; -1 before the first evaluation
    largest: tf.Tensor  # eV/Å, force on an atom; infinite before; NaN where something is not finite
    share: tf.Tensor  # of the move that is tried; less than 1 after it led up
    scale: tf.Tensor  # Å²/eV, inverse curvature
    weights: tf.Tensor  # [memory, batch], 1 / (move · change), 0 where nothing is remembered

    @classmethod
    def unpack(cls, motion: Motion) -> _State:
        positions, forces, move = tf.unstack(motion.vectors[:3])
        moves, changes = motion.vectors[3 : 3 + MEMORY], motion.vectors[3 + MEMORY :]
        energy, steps, largest, share, scale = tf.unstack(motion.scalars[:5])
        return cls(
            positions=positions,
            forces=forces,
            move=move,
            moves=moves,
            changes=changes,
            energy=energy,
            steps=steps,
            largest=largest,
            share=share,
            scale=scale,
            weights=motion.scalars[5:],
        )

    def pack(self) -> Motion:
        return Motion(
            tf.concat([tf.stack(self[:3]), self.moves, self.changes], axis=0),
            tf.concat([tf.stack(self[5:10]), self.weights], axis=0),
        )

    @classmethod
    def at_rest(cls, positions: tf.Tensor) -> _State:
        """The state of structures [3, atoms, batch] that have not been evaluated."""
        zero, flat = tf.zeros_like(positions), tf.zeros_like(positions[0, 0])
        memory = tf.tile(zero[None], [MEMORY, 1, 1, 1])
        return cls(
            positions=positions,
            forces=zero,
            move=zero,
            moves=memory,
            changes=memory,
            energy=flat + np.inf,
            steps=flat - 1.0,
            largest=flat + np.inf,
            share=flat + 1.0,
            scale=flat + SCALE,
            weights=memory[:, 0, 0],
        )


class Lbfgs:
    """L-BFGS with moves of limited length and backtracking, each structure on its own.

    Structures do not influence each other, not even in rounding: every place of the batch goes
    through the same compiled code.

    References:
        D. C. Liu, J. Nocedal, Math. Program. 45, 503 (1989). DOI 10.1007/BF01589116
    """

    def __init__(self, potential: Potential) -> None:
        self._potential = potential

    @tf.function(jit_compile=True, reduce_retracing=True, autograph=False)
    def run(
        self,
        batch: StructureBatch,
        motion: Motion,
        fresh: tf.Tensor,
        free: tf.Tensor,
        fmax: tf.Tensor,
        budget: tf.Tensor,
        enough: tf.Tensor,
    ) -> Motion:
        """Moves structures until no more than `enough` of them are going.

        A structure stops where no force exceeds `fmax`, where it has taken its steps, where its
        energy or forces are not finite, or (periodic ones) where an atom is further than `DRIFT`
        from where the neighbour lists were made.

        Args:
            batch: the structures where their neighbour lists were made; fresh ones begin there.
            motion: of the others.
            fresh: [batch] bool.
            free: [batch, atoms] bool, atoms that may move.
            fmax: eV/Å.
            budget: [batch], most steps.
            enough: int32.

        Returns:
            The motion of all.
        """
        origin = tf.transpose(batch.positions, [2, 1, 0])
        loose = tf.cast(tf.transpose(free), origin.dtype)

        def evaluate(positions: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            moved = batch._replace(positions=tf.transpose(positions, [2, 1, 0]))
            energy, forces = energy_and_forces(self._potential, moved)
            forces = tf.transpose(forces, [2, 1, 0]) * loose
            return energy, forces, _largest(forces)

        def going(state: _State) -> tf.Tensor:
            going = (state.largest > fmax) & (state.steps < budget)
            if batch.neighbours is None:
                return going
            return going & (_largest(state.positions - origin) <= DRIFT)

        def body(state: _State) -> tuple[_State]:
            trial = state.positions + state.share * state.move
            return (_judge(state, going(state), trial, *evaluate(trial)),)

        states = zip(_State.at_rest(origin), _State.unpack(motion), strict=True)
        state = _State(*(tf.where(fresh, new, old) for new, old in states))
        (state,) = tf.while_loop(
            lambda s: tf.math.count_nonzero(going(s), dtype=tf.int32) > enough, body, (state,)
        )
        return state.pack()


def lbfgs(potential: Potential) -> Lbfgs:
    """Returns the optimiser that equal potentials share: it is compiled once."""
    return compiled_for(cast(Hashable, potential), "lbfgs", lambda: Lbfgs(potential))


def _judge(
    state: _State,
    active: tf.Tensor,
    positions: tf.Tensor,
    energy: tf.Tensor,
    forces: tf.Tensor,
    largest: tf.Tensor,
) -> _State:
    """Accepts or rejects the trial of every active structure, and plans its next."""
    share, slope = state.share, -_dot(state.forces, state.move)
    one, zero = tf.ones_like(share), tf.zeros_like(share)
    known, last = tf.math.is_finite(state.energy), share <= SHORTEST_SHARE
    finite = tf.math.is_finite(energy) & tf.math.is_finite(largest)
    down = energy <= state.energy + DESCENT * share * slope + ROUNDING
    accepted = active & finite & (down | last)
    failed = active & ~finite & (last | ~known)

    # The minimum of the parabola through energy, slope and trial energy, but for wild guesses.
    shorter = -0.5 * slope * share**2 / (energy - state.energy - slope * share)
    shorter = tf.where(tf.math.is_finite(shorter), shorter, zero)
    shorter = tf.clip_by_value(shorter, 0.1 * share, 0.5 * share)

    move, change = positions - state.positions, state.forces - forces
    curvature, squared = _dot(move, change), _dot(change, change)
    convex = accepted & known & (curvature > 1e-10 * squared)
    weight = tf.where(convex, 1.0 / tf.where(convex, curvature, one), zero)
    moves, changes, weights = (
        tf.where(convex, tf.concat([old[1:], new[None]], axis=0), old)
        for old, new in [
            (state.moves, move),
            (state.changes, change),
            (state.weights, weight),
        ]
    )
    # Where the energy curves down, bolder steps lead out.
    bolder = tf.minimum(2.0 * state.scale, MAX_SCALE)
    scale = tf.where(accepted & known, bolder, state.scale)
    scale = tf.where(convex, curvature / tf.where(convex, squared, one), scale)
    forget = accepted & last
    weights = tf.where(forget, tf.zeros_like(weights), weights)
    scale = tf.where(forget, SCALE * one, scale)

    forces = tf.where(accepted, forces, state.forces)
    planned = _direction(forces, moves, changes, weights, scale)
    planned *= MAX_STEP / tf.maximum(_largest(planned), MAX_STEP)
    return _State(
        positions=tf.where(accepted, positions, state.positions),
        forces=forces,
        move=tf.where(accepted, planned, state.move),
        moves=moves,
        changes=changes,
        energy=tf.where(accepted | (failed & ~known), energy, state.energy),
        steps=state.steps + tf.cast(active, share.dtype),
        largest=tf.where(accepted, largest, tf.where(failed, np.nan * one, state.largest)),
        share=tf.where(accepted, one, tf.where(active, shorter, share)),
        scale=scale,
        weights=weights,
    )


def _direction(
    forces: tf.Tensor, moves: tf.Tensor, changes: tf.Tensor, weights: tf.Tensor, scale: tf.Tensor
) -> tf.Tensor:
    """The two-loop recursion: inverse Hessian times forces, [3, atoms, batch], Å."""

    # Loops for XLA, too: unrolled, it fuses them such that each turn repeats all before it.
    def newest_first(i: tf.Tensor, q: tf.Tensor, alphas: tf.Tensor) -> tuple:
        alpha = weights[i] * _dot(moves[i], q)
        return i - 1, q - alpha * changes[i], tf.concat([alpha[None], alphas[:-1]], axis=0)

    def oldest_first(i: tf.Tensor, q: tf.Tensor) -> tuple:
        return i + 1, q + moves[i] * (alphas[i] - weights[i] * _dot(changes[i], q))

    _, q, alphas = tf.while_loop(
        lambda i, *_: i >= 0, newest_first, (MEMORY - 1, forces, tf.zeros_like(weights))
    )
    _, q = tf.while_loop(lambda i, _: i < MEMORY, oldest_first, (0, scale * q))
    return q


def _dot(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(a * b, axis=[0, 1])


def _largest(vectors: tf.Tensor) -> tf.Tensor:
    """Length of the longest of [3, atoms, batch] vectors: [batch]."""
    return tf.sqrt(tf.reduce_max(tf.reduce_sum(vectors**2, axis=0), axis=0))
