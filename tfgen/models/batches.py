"""Feeds Keras with data that fits in memory, at the pace of small networks."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

__all__ = ["batches", "steps_per_call"]

# Steps in one call of the compiled graph. Between calls, Keras takes longer than a step of a small
# network does.
STEPS_PER_CALL = 64


def steps_per_call(steps: int) -> int:
    """Returns `steps_per_execution` for an epoch of so many steps.

    It is 1 where `tf.distribute` spreads the steps over several devices: there TensorFlow cannot
    join them.
    """
    alone = tf.distribute.get_strategy().num_replicas_in_sync == 1
    return min(steps, STEPS_PER_CALL) if alone else 1


def batches(data: Any, batch_size: int, seed: int) -> tuple[tf.data.Dataset, int]:
    """Endless batches, shuffled anew in each epoch, for `fit(feed, steps_per_epoch=steps)`.

    Rows are gathered a batch at a time: TensorFlow would take longer to handle them one by one than
    a small network takes to learn from them. Those beyond the last whole batch sit an epoch out.

    Args:
        data: arrays [n, ...] in any nesting of tuples and dicts.
        batch_size: rows in a batch; n if there are fewer.
        seed: of the order.

    Returns:
        The data set, and the number of steps that make an epoch.
    """
    tensors = tf.nest.map_structure(tf.constant, data)
    count = tf.nest.flatten(tensors)[0].shape[0]
    size = min(batch_size, count)
    steps = count // size

    def epoch(number: tf.Tensor) -> tf.data.Dataset:
        draw = tf.stack([tf.constant(seed, tf.int64), number])
        order = tf.random.experimental.stateless_shuffle(tf.range(count), seed=draw)
        return tf.data.Dataset.from_tensor_slices(tf.reshape(order[: steps * size], [steps, size]))

    def gathered(rows: tf.Tensor) -> Any:
        return tf.nest.map_structure(lambda values: tf.gather(values, rows), tensors)

    return tf.data.Dataset.counter().flat_map(epoch).map(gathered).prefetch(4), steps
