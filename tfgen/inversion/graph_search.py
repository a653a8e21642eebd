"""Losses, descents and a simple search for structures, all inside a TensorFlow graph.

An exported SavedModel holds the search of this module. The far better search of
`tfgen.reconstruct` runs in Python, and takes its losses and descents from here
(`tfgen.inversion.descent`).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import tensorflow as tf
from ase.data import covalent_radii

from tfgen.fingerprints.fingerprint import Fingerprint
from tfgen.fingerprints.loss import fingerprint_loss_tensor, scaled_errors
from tfgen.inversion.graph_population import (
    Candidates,
    propose,
    select_distinct,
    unit_vectors,
)
from tfgen.inversion.settings import GraphSearchSettings
from tfgen.structures.batch import Neighbours, StructureBatch

__all__ = ["GraphSearch", "Lattice", "Moments", "Problem", "sphere_radius"]

# Adam's constants (Kingma & Ba, arXiv:1412.6980).
BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8


class Problem(NamedTuple):
    """What is sought, for targets of one number of atoms.

    Attributes:
        numbers: [targets, atoms] int32, sorted, without padding.
        targets: [targets, features] float32.
        scale: [features] float32, the unit of each feature's error.
    """

    numbers: tf.Tensor
    targets: tf.Tensor
    scale: tf.Tensor


class Lattice(NamedTuple):
    """Cells and neighbours of periodic structures, as in `StructureBatch`."""

    cell: tf.Tensor
    pbc: tf.Tensor
    neighbours: Neighbours | None


class Moments(NamedTuple):
    """Adam's running averages of the gradient and its square, of the positions' shape."""

    first: tf.Tensor
    second: tf.Tensor

    @classmethod
    def zeros(cls, positions: tf.Tensor) -> Moments:
        """Returns the averages before the first step."""
        return cls(tf.zeros_like(positions), tf.zeros_like(positions))


def sphere_radius(numbers: tf.Tensor, filled: float, dtype: tf.DType) -> tf.Tensor:
    """Computes the radius of the sphere that random structures fill.

    Args:
        numbers: [targets, atoms].
        filled: share of the sphere's volume that spheres of the covalent radii take.
        dtype: of the result.

    Returns:
        [targets], Å.
    """
    radii = tf.gather(tf.constant(covalent_radii, dtype), numbers)
    return (tf.reduce_sum(radii**3, axis=-1) / filled) ** (1.0 / 3.0)


class GraphSearch:
    """Finds positions whose fingerprint is a target, by Adam from many structures and by moves.

    The loss is that of `tfgen.fingerprints.loss`.

    Args:
        fingerprint: maps batches of structures to vectors, differentiably.
        settings: of `search` and its parts.
    """

    def __init__(
        self, fingerprint: Fingerprint, settings: GraphSearchSettings = GraphSearchSettings()
    ) -> None:
        self.fingerprint, self.settings = fingerprint, settings

    def search(self, problem: Problem, seed: tf.Tensor) -> Candidates:
        """Samples random structures, and improves the best of them in rounds.

        Args:
            problem: what is sought.
            seed: [2] int32.

        Returns:
            The best distinct candidates of each target, best first.
        """
        rounds = self.settings.rounds
        seeds = tf.random.split(seed, rounds + 1)
        first = self.begin(problem, seeds[0])
        if rounds == 0:
            return first

        def body(i: tf.Tensor, found: Candidates) -> tuple[tf.Tensor, Candidates]:
            return i + 1, self.improve(found, problem, seeds[i + 1])

        return tf.while_loop(lambda i, _: i < rounds, body, (tf.constant(0), first))[1]

    def begin(self, problem: Problem, seed: tf.Tensor) -> Candidates:
        """Samples random structures, descends, and selects the first population."""
        settings = self.settings
        positions = self.sample(problem.numbers, settings.initial, seed)
        descent = settings.initial_descent
        found = self.descend(positions, problem, descent.steps, descent.step_length)
        return select_distinct(found, settings.population, settings.distinct_loss)

    def improve(self, found: Candidates, problem: Problem, seed: tf.Tensor) -> Candidates:
        """Does one round: moves candidates, descends, and selects among old and new ones."""
        settings, descent = self.settings, self.settings.descent
        moved = propose(found, problem.numbers, settings.children, seed)
        new = self.descend(moved, problem, descent.steps, descent.step_length)
        union = Candidates(*(tf.concat(pair, axis=1) for pair in zip(found, new, strict=True)))
        return select_distinct(union, tf.shape(found.loss)[1], settings.distinct_loss)

    def sample(self, numbers: tf.Tensor, count: int, seed: tf.Tensor) -> tf.Tensor:
        """Samples atoms uniformly in a ball of the density `settings.filled`.

        Args:
            numbers: [targets, atoms].
            count: structures for each target.
            seed: [2] int32.

        Returns:
            [targets, count, atoms, 3], Å.
        """
        shape = [tf.shape(numbers)[0], count, tf.shape(numbers)[1]]
        seeds = tf.random.split(seed, 2)
        direction = unit_vectors(tf.random.stateless_normal([*shape, 3], seeds[0]))
        reach = tf.random.stateless_uniform([*shape, 1], seeds[1]) ** (1.0 / 3.0)
        radius = sphere_radius(numbers, self.settings.filled, tf.float32)
        return direction * reach * radius[:, None, None, None]

    def loss(
        self, positions: tf.Tensor, problem: Problem, lattice: Lattice | None = None
    ) -> tf.Tensor:
        """Computes the loss of one structure for each target.

        Args:
            positions: [targets, atoms, 3], Å.
            problem: what is sought.
            lattice: of periodic structures.

        Returns:
            [targets].
        """
        return fingerprint_loss_tensor(self._errors(positions, problem, lattice))

    def _errors(self, positions: tf.Tensor, problem: Problem, lattice: Lattice | None) -> tf.Tensor:
        batch = StructureBatch.of_clusters(positions, problem.numbers)
        if lattice is not None:
            batch = batch._replace(**lattice._asdict())
        return scaled_errors(self.fingerprint(batch), problem.targets, problem.scale)

    def descend(
        self,
        positions: tf.Tensor,
        problem: Problem,
        steps: int | tf.Tensor,
        step_length: float,
    ) -> Candidates:
        """Follows the gradient by Adam.

        Args:
            positions: [targets, candidates, atoms, 3], Å.
            problem: what is sought.
            steps: number of steps.
            step_length: of the first step, Å; falls to 0 as a parabola (`Descent`).

        Returns:
            The candidates after the descent, in the order given.
        """
        shape = tf.shape(positions)
        count = shape[1]
        x = tf.reshape(positions, [-1, shape[2], 3])
        each = problem._replace(
            numbers=tf.repeat(problem.numbers, count, axis=0),
            targets=tf.repeat(problem.targets, count, axis=0),
        )
        total = tf.cast(steps, tf.float32)
        schedule = tf.stack([tf.zeros([]), total, total, step_length])
        x, _ = self._adam(x, each, Moments.zeros(x), schedule, tf.ones([]), None)
        loss = _finite(x, self.loss(x, each))
        return Candidates(tf.reshape(x, shape), tf.reshape(loss, shape[:2]))

    def follow(
        self,
        positions: tf.Tensor,
        problem: Problem,
        moments: Moments,
        schedule: tf.Tensor,
        free: tf.Tensor,
        lattice: Lattice | None = None,
    ) -> tuple[tf.Tensor, Moments, tf.Tensor]:
        """Does a part of a descent of many structures towards one target.

        Args:
            positions: [n, atoms, 3], Å.
            problem: with one target.
            moments: as the part before returned them.
            schedule: [4], the first step, the step to stop before, the steps of the whole descent,
                and its first step length, Å.
            free: [atoms, 1], 1 for atoms that move, 0 for those that stay.
            lattice: of periodic structures.

        Returns:
            Positions and moments after that part, and the losses [n] there.
        """
        each = _spread(problem, positions)
        positions, moments = self._adam(positions, each, moments, schedule, free, lattice)
        return positions, moments, _finite(positions, self.loss(positions, each, lattice))

    def errors(self, positions: tf.Tensor, problem: Problem) -> tf.Tensor:
        """Computes the errors of many clusters against one target.

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
        first, stop, total, step_length = tf.unstack(schedule)

        def body(t: tf.Tensor, x: tf.Tensor, m: tf.Tensor, v: tf.Tensor) -> tuple:
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(x)
                loss = self.loss(x, problem, lattice)
            gradient = tape.gradient(loss, x) * free
            m = BETA1 * m + (1.0 - BETA1) * gradient
            v = BETA2 * v + (1.0 - BETA2) * gradient**2
            m_hat, v_hat = m / (1.0 - BETA1 ** (t + 1.0)), v / (1.0 - BETA2 ** (t + 1.0))
            # A parabola ends in many short steps; cosine, cubic and exponential schedules reach
            # fewer targets.
            step = step_length * (1.0 - t / total) ** 2
            return t + 1.0, x - step * m_hat / (tf.sqrt(v_hat) + EPSILON), m, v

        _, x, m, v = tf.while_loop(lambda t, *_: t < stop, body, (first, x, *moments))
        return x, Moments(m, v)


def _spread(problem: Problem, positions: tf.Tensor) -> Problem:
    """Repeats the problem of one target for each structure."""
    count = tf.shape(positions)[0]
    return problem._replace(
        numbers=tf.repeat(problem.numbers, count, axis=0),
        targets=tf.repeat(problem.targets, count, axis=0),
    )


def _finite(positions: tf.Tensor, loss: tf.Tensor) -> tf.Tensor:
    """Makes losses infinite where a structure is not finite.

    An atom at NaN has no neighbours, so that the loss alone would not show it.
    """
    finite = tf.math.is_finite(loss) & tf.reduce_all(tf.math.is_finite(positions), axis=[1, 2])
    return tf.where(finite, loss, tf.constant(math.inf))
