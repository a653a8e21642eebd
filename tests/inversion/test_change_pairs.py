"""Pairs of changes, against a loop over all of them."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfgen.inversion.change_pairs import best_pairs


@given(st.integers(0, 2**32 - 1), st.integers(0, 9), st.integers(1, 40))
def test_equals_the_loop(seed, n, count):
    rng = np.random.default_rng(seed)
    unchanged = rng.normal(size=5)
    errors = unchanged + rng.normal(size=[n, 5])
    together = rng.random([n, n]) < 0.7
    wanted = sorted(
        (np.sum((unchanged + (errors[i] - unchanged) + (errors[j] - unchanged)) ** 2), i, j)
        for i, j in itertools.combinations(range(n), 2)
        if together[i, j]
    )
    i, j = best_pairs(errors, unchanged, together, count)
    assert list(zip(i, j, strict=True)) == [(i, j) for _, i, j in wanted[:count]]


def test_two_changes_that_mend_the_same_overshoot():
    """The two that are best alone are not the best pair."""
    errors = np.array([[0.0, 2.0], [0.2, 2.0], [2.0, 1.0]])
    i, j = best_pairs(errors, np.array([2.0, 2.0]), np.ones([3, 3], bool), 3)
    assert list(zip(i, j, strict=True)) == [(0, 2), (1, 2), (0, 1)]


@pytest.mark.filterwarnings("error")
def test_what_is_not_finite_is_in_no_pair():
    errors = np.ones([4, 3])
    errors[1, 0], errors[2, 2] = np.nan, np.inf
    i, j = best_pairs(errors, np.ones(3), np.ones([4, 4], bool), 9)
    assert (i.tolist(), j.tolist()) == ([0], [3])
    i, j = best_pairs(np.ones([4, 3]), np.array([0.0, np.nan, 0.0]), np.ones([4, 4], bool), 9)
    assert len(i) == len(j) == 0


@pytest.mark.filterwarnings("error")
def test_errors_of_any_size():
    errors = np.random.default_rng(0).normal(size=[6, 4]).astype(np.float32)
    wanted = best_pairs(errors, errors[0], np.ones([6, 6], bool), 5)
    for size in (1e-30, 1e30):
        scaled = np.float32(size) * errors
        found = best_pairs(scaled, scaled[0], np.ones([6, 6], bool), 5)
        np.testing.assert_array_equal(found, wanted)
