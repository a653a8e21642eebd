"""Batches for Keras: every row comes up, shuffled, by the seed."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from tfgen.models.batches import make_batches

DATA = ({"a": np.arange(10), "b": 2.0 * np.arange(10)}, {"c": np.arange(10)[:, None]})


def rows(size: int, seed: int, epochs: int) -> list[list[int]]:
    feed, steps = make_batches(DATA, size, seed)
    result = []
    for inputs, labels in itertools.islice(feed, epochs * steps):
        a = inputs["a"].numpy()
        np.testing.assert_array_equal(inputs["b"], 2.0 * a)
        np.testing.assert_array_equal(labels["c"][:, 0], a)
        result.append(a.tolist())
    return result


@pytest.mark.parametrize(("size", "steps"), [(5, 2), (4, 2), (10, 1), (99, 1), (1, 10)])
def test_an_epoch_has_each_row_once(size, steps):
    assert make_batches(DATA, size, 0)[1] == steps
    batches = rows(size, 0, 3)
    for epoch in range(3):
        flat = list(itertools.chain(*batches[epoch * steps : (epoch + 1) * steps]))
        assert len(flat) == len(set(flat)) == min(size, 10) * steps
        assert set(flat) <= set(range(10))
    assert batches[:steps] != batches[steps : 2 * steps] or size == 10


def test_rows_that_one_epoch_leaves_out_come_up_in_others():
    assert {i for batch in rows(4, 0, 10) for i in batch} == set(range(10))


def test_repeats_with_the_seed_only():
    assert rows(3, 1, 2) == rows(3, 1, 2)
    assert rows(3, 1, 2) != rows(3, 2, 2)
