"""Losses, descents and a simple search that turn fingerprints back into positions.

TensorFlow graph code throughout: an exported SavedModel holds the whole search of this module.
`tfgen.inversion.descent`, for `tfgen.reconstruct`, takes its losses and descents from here.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import tensorflow as tf
from ase.data import covalent_radii

from tfgen.fingerprints.fingerprint import Fingerprint
from tfgen.structures.batch import Neighbours, StructureBatch

__all__ = ["Inverter", "Lattice", "Moments", "Pool", "Problem", "packing_radius"]

# A search as the exported model does it: starts and Adam steps of the first descent, then moves and
# steps of each round, and how many distinct candidates live on.
STARTS, STEPS, RATE = 24, 300, 0.5
MOVES, MOVE_STEPS, MOVE_RATE, SURVIVORS = 24, 150, 0.3, 8
# Adam's constants (Kingma & Ba, arXiv:1412.6980).
BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8
# Share of space that touching spheres of covalent radius fill in a random start; a bit loose.
PACKING_FRACTION = 0.55
# Candidates whose losses agree this closely are taken for the same structure.
SAME_LOSS = 1e-3


class Problem(NamedTuple):
    """What is sought, for targets of one number of atoms.

    Attributes:
        numbers: [targets, atoms] int32, sorted, no padding.
        targets: [targets, features] float32.
        scale: [features] float32, the spread that makes features comparable.
    """

    numbers: tf.Tensor
    targets: tf.Tensor
    scale: tf.Tensor


class Pool(NamedTuple):
    """The best distinct candidates of each target, best first.

    Attributes:
        positions: [targets, candidates, atoms, 3], Å.
        loss: [targets, candidates]; infinite where there are fewer distinct candidates.
    """

    positions: tf.Tensor
    loss: tf.Tensor


class Lattice(NamedTuple):
    """Surroundings of periodic structures: as the attributes of `StructureBatch` of these names."""

    cell: tf.Tensor
    pbc: tf.Tensor
    neighbours: Neighbours | None


class Moments(NamedTuple):
    """Adam's running averages of the gradient and its square, of the positions' shape."""

    first: tf.Tensor
    second: tf.Tensor

    @classmethod
    def at_start(cls, positions: tf.Tensor) -> Moments:
        """Nothing averaged yet."""
        return cls(tf.zeros_like(positions), tf.zeros_like(positions))


def packing_radius(numbers: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
    """Radius (Å) of the sphere that random starts fill, [targets], from covalent radii."""
    radii = tf.gather(tf.constant(covalent_radii, dtype), numbers)
    return (tf.reduce_sum(radii**3, axis=-1) / PACKING_FRACTION) ** (1.0 / 3.0)


class Inverter:
    """Finds positions whose fingerprint is a target: multi-start Adam, then a population search.

    The loss of a candidate is L1 on scaled features,

    L = 1/F Σ_f |F_f(positions) - target_f| / scale_f

    which holds its gradient when most features already fit (the squared loss is far worse).

    Args:
        fingerprint: whatever maps batches of structures to vectors, differentiably.
    """

    def __init__(self, fingerprint: Fingerprint) -> None:
        self.fingerprint = fingerprint

    def loss(
        self, positions: tf.Tensor, problem: Problem, lattice: Lattice | None = None
    ) -> tf.Tensor:
        """Loss of one structure per target: positions [targets, atoms, 3], Å -> [targets]."""
        return tf.reduce_mean(tf.abs(self._errors(positions, problem, lattice)), axis=-1)

    def _errors(self, positions: tf.Tensor, problem: Problem, lattice: Lattice | None) -> tf.Tensor:
        batch = StructureBatch.of_clusters(positions, problem.numbers)
        if lattice is not None:
            batch = batch._replace(**lattice._asdict())
        return (self.fingerprint(batch) - problem.targets) / problem.scale

    def starts(self, numbers: tf.Tensor, candidates: int, seed: tf.Tensor) -> tf.Tensor:
        """Draws atoms uniformly in a ball of the right density.

        Args:
            numbers: [targets, atoms].
            candidates: starts per target.
            seed: [2] int32.

        Returns:
            [targets, candidates, atoms, 3], Å.
        """
        shape = [tf.shape(numbers)[0], candidates, tf.shape(numbers)[1]]
        seeds = tf.random.split(seed, 2)
        direction = _unit(tf.random.stateless_normal([*shape, 3], seeds[0]))
        reach = tf.random.stateless_uniform([*shape, 1], seeds[1]) ** (1.0 / 3.0)
        return direction * reach * packing_radius(numbers, tf.float32)[:, None, None, None]

    def descend(
        self,
        positions: tf.Tensor,
        problem: Problem,
        steps: int | tf.Tensor,
        rate: float,
    ) -> Pool:
        """Follows the gradient by Adam, its rate falling from `rate` (Å) to 0 as a parabola.

        Args:
            positions: [targets, candidates, atoms, 3], Å.
            problem: what is sought.
            steps: number of steps.
            rate: first step length, Å.

        Returns:
            The candidates after descent, in the order given.
        """
        shape = tf.shape(positions)
        count = shape[1]
        x = tf.reshape(positions, [-1, shape[2], 3])
        each = problem._replace(
            numbers=tf.repeat(problem.numbers, count, axis=0),
            targets=tf.repeat(problem.targets, count, axis=0),
        )
        total = tf.cast(steps, tf.float32)
        schedule = tf.stack([tf.zeros([]), total, total, rate])
        x, _ = self._adam(x, each, Moments.at_start(x), schedule, tf.ones([]), None)
        loss = _finite(x, self.loss(x, each))
        return Pool(tf.reshape(x, shape), tf.reshape(loss, shape[:2]))

    def follow(
        self,
        positions: tf.Tensor,
        problem: Problem,
        moments: Moments,
        schedule: tf.Tensor,
        free: tf.Tensor,
        lattice: Lattice | None = None,
    ) -> tuple[tf.Tensor, Moments, tf.Tensor]:
        """Part of a descent of many structures towards one target.

        Args:
            positions: [n, atoms, 3], Å.
            problem: with one target.
            moments: as the part before has left them.
            schedule: [4]: first step, step to stop before, steps of the whole descent, and its
                first step length, Å.
            free: [atoms, 1], 1 for atoms that move, 0 for those that stay.
            lattice: of periodic structures.

        Returns:
            Positions and moments after that part, and the losses [n] there.
        """
        each = _spread(problem, positions)
        positions, moments = self._adam(positions, each, moments, schedule, free, lattice)
        return positions, moments, _finite(positions, self.loss(positions, each, lattice))

    def errors(self, positions: tf.Tensor, problem: Problem) -> tf.Tensor:
        """Errors of many clusters' features against one target.

        Args:
            positions: [n, atoms, 3], Å.
            problem: with one target.

        Returns:
            [n, features], in units of the scale.
        """
        return self._errors(positions, _spread(problem, positions), None)

    def _adam(
        self,
        x: tf.Tensor,
        problem: Problem,
        moments: Moments,
        schedule: tf.Tensor,
        free: tf.Tensor,
        lattice: Lattice | None,
    ) -> tuple[tf.Tensor, Moments]:
        first, stop, total, rate = tf.unstack(schedule)

        def body(t: tf.Tensor, x: tf.Tensor, m: tf.Tensor, v: tf.Tensor) -> tuple:
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(x)
                loss = self.loss(x, problem, lattice)
            gradient = tape.gradient(loss, x) * free
            m = BETA1 * m + (1.0 - BETA1) * gradient
            v = BETA2 * v + (1.0 - BETA2) * gradient**2
            m_hat, v_hat = m / (1.0 - BETA1 ** (t + 1.0)), v / (1.0 - BETA2 ** (t + 1.0))
            # A parabola's long flat end polishes; measured best of cosine, cubic, exponential.
            step = rate * (1.0 - t / total) ** 2
            return t + 1.0, x - step * m_hat / (tf.sqrt(v_hat) + EPSILON), m, v

        _, x, m, v = tf.while_loop(lambda t, *_: t < stop, body, (first, x, *moments))
        return x, Moments(m, v)

    def first(
        self,
        problem: Problem,
        seed: tf.Tensor,
        *,
        candidates: int,
        survivors: int,
        steps: int | tf.Tensor,
        rate: float,
    ) -> Pool:
        """Random starts, descent, selection: the first pool of `survivors` per target."""
        positions = self.starts(problem.numbers, candidates, seed)
        return select(self.descend(positions, problem, steps, rate), survivors)

    def improve(
        self,
        pool: Pool,
        problem: Problem,
        seed: tf.Tensor,
        *,
        candidates: int,
        steps: int | tf.Tensor,
        rate: float,
    ) -> Pool:
        """One round of the population search: moves, descent, selection among old and new."""
        moved = propose(pool, problem.numbers, candidates, seed)
        found = self.descend(moved, problem, steps, rate)
        union = Pool(*(tf.concat(pair, axis=1) for pair in zip(pool, found, strict=True)))
        return select(union, tf.shape(pool.loss)[1])


def _spread(problem: Problem, positions: tf.Tensor) -> Problem:
    """The problem of one target, once for each structure."""
    count = tf.shape(positions)[0]
    return problem._replace(
        numbers=tf.repeat(problem.numbers, count, axis=0),
        targets=tf.repeat(problem.targets, count, axis=0),
    )


def _finite(positions: tf.Tensor, loss: tf.Tensor) -> tf.Tensor:
    """Losses, infinite where a structure is not whole.

    An atom that is nowhere (NaN) is nobody's neighbour: its loss alone would not show it.
    """
    whole = tf.math.is_finite(loss) & tf.reduce_all(tf.math.is_finite(positions), axis=[1, 2])
    return tf.where(whole, loss, tf.constant(math.inf))


def select(pool: Pool, survivors: int | tf.Tensor) -> Pool:
    """Keeps the best `survivors` distinct candidates of each target.

    Diversity matters more than rank: a pool full of copies of one wrong structure finds nothing.
    """
    order = tf.argsort(pool.loss, axis=1)
    loss = tf.gather(pool.loss, order, batch_dims=1)
    ahead = tf.concat([tf.fill([tf.shape(loss)[0], 1], -math.inf), loss[:, :-1]], axis=1)
    copy = loss - ahead < SAME_LOSS * loss
    loss = tf.where(copy, tf.constant(math.inf), loss)
    place = tf.argsort(loss, axis=1, stable=True)[:, :survivors]
    return Pool(
        positions=tf.gather(pool.positions, tf.gather(order, place, batch_dims=1), batch_dims=1),
        loss=tf.gather(loss, place, batch_dims=1),
    )


def propose(pool: Pool, numbers: tf.Tensor, candidates: int, seed: tf.Tensor) -> tf.Tensor:
    """Makes new candidates from a pool by moves that cross barriers.

    Each is one of: rattle (all atoms, 0.1-0.6 Å), relocate (one to three atoms to the side of
    others), twist (one half against the other), cut-and-splice (halves of two candidates), and
    exchange of two atoms (for alloys; where both are of one element, a rattle).

    Args:
        pool: the candidates.
        numbers: [targets, atoms], sorted.
        candidates: how many to make per target.
        seed: [2] int32.

    Returns:
        [targets, candidates, atoms, 3], Å.
    """
    targets, atoms = tf.shape(numbers)[0], tf.shape(numbers)[1]
    shape = [targets, candidates]
    seeds = iter(tf.unstack(tf.random.split(seed, 16)))

    def uniform(tail: list, low: float = 0.0, high: float = 1.0) -> tf.Tensor:
        return tf.random.stateless_uniform([*shape, *tail], next(seeds), low, high)

    def parents() -> tf.Tensor:
        filled = tf.reduce_sum(tf.cast(tf.math.is_finite(pool.loss), tf.float32), axis=1)
        filled = tf.maximum(filled, 1.0)[:, None]
        # Squaring the draw favours the best without forgetting the rest.
        index = tf.cast(uniform([]) ** 1.5 * filled, tf.int32)
        x = tf.gather(pool.positions, index, batch_dims=1)
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
    outward = _unit(tf.random.stateless_normal([*shape, atoms, 3], next(seeds)))
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


def _unit(x: tf.Tensor) -> tf.Tensor:
    return x / tf.sqrt(tf.reduce_sum(x**2, axis=-1, keepdims=True) + 1e-12)


def _rotations(quaternions: tf.Tensor) -> tf.Tensor:
    """Rotation matrices [..., 3, 3] of quaternions [..., 4] of any length."""
    w, x, y, z = tf.unstack(_unit(quaternions), axis=-1)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    return tf.stack([tf.stack(row, axis=-1) for row in rows], axis=-2)


def _rank_in_element(numbers: tf.Tensor) -> tf.Tensor:
    """[targets, atoms], each atom's place among those of its element, from 0 to below 1."""
    same = tf.cast(numbers[:, :, None] == numbers[:, None, :], tf.float32)
    before = tf.linalg.band_part(same, -1, 0)
    return (tf.reduce_sum(before, axis=-1) - 0.5) / tf.reduce_sum(same, axis=-1)
