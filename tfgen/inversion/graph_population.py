"""The candidates of the search inside a TensorFlow graph: selection and moves."""

from __future__ import annotations

import math
from typing import NamedTuple

import tensorflow as tf
from ase.data import covalent_radii

__all__ = ["Candidates", "propose", "select_distinct", "unit_vectors"]


class Candidates(NamedTuple):
    """Candidates of each target, with their losses.

    Attributes:
        positions: [targets, candidates, atoms, 3], Å.
        loss: [targets, candidates]; infinite where a structure is not finite, and, after
            `select_distinct`, where there are fewer distinct candidates.
    """

    positions: tf.Tensor
    loss: tf.Tensor


def select_distinct(found: Candidates, count: int | tf.Tensor, distinct_loss: float) -> Candidates:
    """Selects the best distinct candidates of each target.

    Diversity matters more than rank: copies of one wrong structure find nothing.

    Args:
        found: the candidates, in any order.
        count: candidates to select for each target.
        distinct_loss: candidates whose losses differ by less than this share are one structure.

    Returns:
        `count` candidates of each target, best first; the loss is infinite where there are fewer.
    """
    order = tf.argsort(found.loss, axis=1)
    loss = tf.gather(found.loss, order, batch_dims=1)
    ahead = tf.concat([tf.fill([tf.shape(loss)[0], 1], -math.inf), loss[:, :-1]], axis=1)
    copy = loss - ahead < distinct_loss * loss
    loss = tf.where(copy, tf.constant(math.inf), loss)
    place = tf.argsort(loss, axis=1, stable=True)[:, :count]
    return Candidates(
        positions=tf.gather(found.positions, tf.gather(order, place, batch_dims=1), batch_dims=1),
        loss=tf.gather(loss, place, batch_dims=1),
    )


def propose(found: Candidates, numbers: tf.Tensor, count: int, seed: tf.Tensor) -> tf.Tensor:
    """Makes new structures of candidates by moves that cross barriers.

    Each is one of: rattle (all atoms, 0.1-0.6 Å), relocate (one to three atoms to the side of
    others), twist (one half against the other), cut-and-splice (halves of two candidates), and
    exchange of two atoms (for alloys; where both are of one element, a rattle).

    Args:
        found: the candidates, best first.
        numbers: [targets, atoms], sorted.
        count: structures to make for each target.
        seed: [2] int32.

    Returns:
        [targets, count, atoms, 3], Å.
    """
    targets, atoms = tf.shape(numbers)[0], tf.shape(numbers)[1]
    shape = [targets, count]
    seeds = iter(tf.unstack(tf.random.split(seed, 16)))

    def uniform(tail: list, low: float = 0.0, high: float = 1.0) -> tf.Tensor:
        return tf.random.stateless_uniform([*shape, *tail], next(seeds), low, high)

    def parents() -> tf.Tensor:
        filled = tf.reduce_sum(tf.cast(tf.math.is_finite(found.loss), tf.float32), axis=1)
        filled = tf.maximum(filled, 1.0)[:, None]
        # The power 1.5 of a uniform number favours the best without leaving out the rest.
        index = tf.cast(uniform([]) ** 1.5 * filled, tf.int32)
        x = tf.gather(found.positions, index, batch_dims=1)
        x -= tf.reduce_mean(x, axis=2, keepdims=True)
        return tf.matmul(x, _rotations(tf.random.stateless_normal([*shape, 4], next(seeds))))

    x, mate = parents(), parents()
    spacing = 2.0 * tf.gather(tf.constant(covalent_radii, tf.float32), numbers)[:, None, :, None]

    rattled = x + uniform([1, 1], 0.1, 0.6) * tf.random.stateless_normal(
        [*shape, atoms, 3], next(seeds)
    )

    ranks = tf.argsort(tf.argsort(uniform([atoms]), axis=-1), axis=-1)
    chosen = ranks < tf.cast(uniform([1], 1.0, 4.0), tf.int32)
    hosts = tf.cast(uniform([atoms]) * tf.cast(atoms, tf.float32), tf.int32)
    outward = unit_vectors(tf.random.stateless_normal([*shape, atoms, 3], next(seeds)))
    beside = tf.gather(x, hosts, batch_dims=2) + outward * spacing
    relocated = tf.where(chosen[..., None], beside, x)

    angle = uniform([1], 0.2, 2.0 * math.pi - 0.2)
    c, s = tf.cos(angle), tf.sin(angle)
    turned = tf.stack(
        [c * x[..., 0] - s * x[..., 1], s * x[..., 0] + c * x[..., 1], x[..., 2]], axis=-1
    )
    twisted = tf.where(x[..., 2:] > 0, turned, x)

    # Elements are blocks of the sorted `numbers`; in each, atoms sorted by height, the top share
    # from one parent and the rest from the other: the composition stays.
    block = tf.cast(tf.broadcast_to(numbers[:, None, :], [*shape, atoms]), tf.float32) * 1e4
    spliced = tf.where(
        _rank_in_element(numbers)[:, None, :, None] >= uniform([1, 1], 0.25, 0.75),
        tf.gather(x, tf.argsort(block + x[..., 2], axis=-1), batch_dims=2),
        tf.gather(mate, tf.argsort(block + mate[..., 2], axis=-1), batch_dims=2),
    )

    first = tf.cast(uniform([]) * tf.cast(atoms, tf.float32), tf.int32)
    second = tf.cast(uniform([]) * tf.cast(atoms, tf.float32), tf.int32)
    place = tf.range(atoms)[None, None, :]
    swapped_place = tf.where(
        place == first[..., None],
        second[..., None],
        tf.where(place == second[..., None], first[..., None], place),
    )
    differ = tf.gather(numbers, first, batch_dims=1) != tf.gather(numbers, second, batch_dims=1)
    exchanged = tf.where(
        differ[..., None, None], tf.gather(x, swapped_place, batch_dims=2), rattled
    )

    alloy = tf.cast(tf.reduce_any(numbers != numbers[:, :1], axis=1), tf.float32)[:, None]
    kind = tf.cast(uniform([]) * (4.0 + alloy), tf.int32)[..., None, None]
    moved = rattled
    for place_, candidate in enumerate((relocated, twisted, spliced, exchanged), start=1):
        moved = tf.where(kind == place_, candidate, moved)
    return moved


def unit_vectors(x: tf.Tensor) -> tf.Tensor:
    """Scales vectors [..., n] to length 1."""
    return x / tf.sqrt(tf.reduce_sum(x**2, axis=-1, keepdims=True) + 1e-12)


def _rotations(quaternions: tf.Tensor) -> tf.Tensor:
    """Makes rotation matrices [..., 3, 3] of quaternions [..., 4] of any length."""
    w, x, y, z = tf.unstack(unit_vectors(quaternions), axis=-1)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    return tf.stack([tf.stack(row, axis=-1) for row in rows], axis=-2)


def _rank_in_element(numbers: tf.Tensor) -> tf.Tensor:
    """Computes each atom's place among those of its element, [targets, atoms], from 0 to 1."""
    same = tf.cast(numbers[:, :, None] == numbers[:, None, :], tf.float32)
    before = tf.linalg.band_part(same, -1, 0)
    return (tf.reduce_sum(before, axis=-1) - 0.5) / tf.reduce_sum(same, axis=-1)
