"""Pairs out of n things and the sums over them, against loops."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from tfgen.descriptors import _pairs
from tfgen.descriptors._pairs import AngularPowers, Pairs, contract

RNG = np.random.default_rng(0)


def loops(n):
    return [(j, k) for k in range(n) for j in range(k)]


@pytest.mark.parametrize("n", [0, 1, 2, 3, 9, _pairs.LOOKED_UP, _pairs.LOOKED_UP + 1])
@pytest.mark.parametrize("known", [True, False])
def test_lookups_are_exact(n, known):
    x = RNG.normal(size=[2, 3, n])

    def look_up(x):
        pairs = Pairs(n if known else tf.shape(x)[-1])
        return pairs.first(x), pairs.second(x), pairs.both(x)

    spec = tf.TensorSpec([None, 3, n if known else None], tf.float64)
    first, second, both = tf.function(look_up, input_signature=[spec])(x)
    for j_k, of_first, of_second, of_both in zip(
        loops(n), *(tf.unstack(y, axis=-1) for y in (first, second, both)), strict=True
    ):
        np.testing.assert_array_equal(of_first, x[..., j_k[0]])
        np.testing.assert_array_equal(of_second, x[..., j_k[1]])
        np.testing.assert_array_equal(of_both, x[..., j_k[0]] + x[..., j_k[1]])


def test_pairs_of_many_are_numbered_as_those_of_few():
    """The numbers of the pairs come from a square root, which must not round to a neighbour."""
    n = 700
    pairs = Pairs(tf.constant(n))
    k, j = np.tril_indices(n, -1)
    np.testing.assert_array_equal(pairs.first(tf.range(n)), j)
    np.testing.assert_array_equal(pairs.second(tf.range(n)), k)


@pytest.mark.parametrize("zeta", [1, 2, 3, 7, 16, 64, 1.5, 64.25])
@pytest.mark.parametrize("lambda_", [-1, 1, 0.3])
def test_powers(zeta, lambda_):
    cosines = np.append(RNG.uniform(-1, 1, size=50), [-1, 1, 0])
    found = AngularPowers(tf.constant(cosines))(zeta, lambda_)
    np.testing.assert_allclose(found, ((1 + lambda_ * cosines) / 2) ** zeta, rtol=1e-13)


def test_contraction_is_in_the_order_of_the_parameters():
    params = np.array([[0.1, 4, 1], [0.3, 1, -1], [0.2, 4, 1], [0.1, 2, 1], [0.1, 1, -1]])
    cosines, squares = RNG.uniform(-1, 1, size=[2, 3, 6]), RNG.uniform(1, 9, size=[2, 3, 6])
    weights = RNG.uniform(size=[2, 3, 2, 6])
    found = contract(
        AngularPowers(tf.constant(cosines)), tf.constant(squares), tf.constant(weights), params
    )
    for i, (eta, zeta, lambda_) in enumerate(params):
        terms = ((1 + lambda_ * cosines) / 2) ** zeta * np.exp(-eta * squares)
        wanted = (terms[:, :, None] * weights).sum(axis=-1)
        np.testing.assert_allclose(found[:, :, i], wanted, rtol=1e-12)
