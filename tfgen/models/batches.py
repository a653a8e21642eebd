"""Feeds Keras with data that fits in memory, as fast as small networks can learn from it."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

__all__ = ["choose_steps_per_execution", "make_batches"]

# Steps in one call of the compiled graph. Between calls, Keras takes longer than a step of a small
# network does.
STEPS_PER_CALL = 64


def choose_steps_per_execution(steps: int) -> int:
    """Returns Keras' `steps_per_execution` for an epoch of a number of steps.

    It is 1 where `tf.distribute` divides the steps among several devices: there TensorFlow cannot
    join them.
    """
    alone = tf.distribute.get_strategy().num_replicas_in_sync == 1
    return min(steps, STEPS_PER_CALL) if alone else 1


def make_batches(
    data: Any, batch_size: int, seed: int, done: int = 0
) -> tuple[tf.data.Dataset, int]:
    """Makes endless batches, shuffled in each epoch, for `fit(batches, steps_per_epoch=steps)`.

    Rows are gathered a batch at a time: TensorFlow would take longer to handle them one by one than
    a small network takes to learn from them. An epoch has whole batches only; the rows that are
    left over in one epoch are used in others.

    Args:
        data: arrays [n, ...] in any nesting of tuples and dicts.
        batch_size: rows in a batch; n if there are fewer.
        seed: of the order.
        done: batches that were taken before, which are left out.

    Returns:
        The data set, and the number of steps that make an epoch.
    """
    tensors = tf.nest.map_structure(tf.constant, data)
    count = tf.nest.flatten(tensors)[0].shape[0]
    size = min(batch_size, count)
    steps = count // size

    def make_epoch(number: tf.Tensor) -> tf.data.Dataset:
        seeds = tf.stack([tf.constant(seed, tf.int64), number])
        order = tf.random.experimental.stateless_shuffle(tf.range(count), seed=seeds)
        return tf.data.Dataset.from_tensor_slices(tf.reshape(order[: steps * size], [steps, size]))

    def gather(rows: tf.Tensor) -> Any:
        return tf.nest.map_structure(lambda values: tf.gather(values, rows), tensors)

    epochs = tf.data.Dataset.counter(done // steps)
    return epochs.flat_map(make_epoch).skip(done % steps).map(gather).prefetch(4), steps
