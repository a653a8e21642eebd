"""Pairs of changes, against a loop over all of them."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfgen._additive import best_pairs


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


def test_two_changes_that_mend_what_is_wrong_come_first():
    """Even if each makes the other's error look no better."""
    rng = np.random.default_rng(0)
    right = rng.normal(size=[2, 300])
    unchanged = right.sum(axis=0)
    errors = unchanged - np.concatenate([rng.normal(size=[50, 300]), right])
    i, j = best_pairs(errors, unchanged, np.ones([52, 52], bool), 3)
    assert (i[0], j[0]) == (50, 51)


@pytest.mark.filterwarnings("error")
def test_what_is_not_finite_is_in_no_pair():
    errors = np.ones([4, 3])
    errors[1, 0], errors[2, 2] = np.nan, np.inf
    i, j = best_pairs(errors, np.ones(3), np.ones([4, 4], bool), 9)
    assert (i.tolist(), j.tolist()) == ([0], [3])
