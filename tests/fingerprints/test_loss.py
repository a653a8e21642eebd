"""The loss of a fingerprint, against its definition."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from tfgen.fingerprints.loss import fingerprint_loss, fingerprint_loss_tensor, scaled_errors


def test_equals_the_definition():
    """L = 1/n Σ_f |F_f - t_f| / s_f, by a loop, in NumPy and in TensorFlow."""
    rng = np.random.default_rng(0)
    values, target, scale = rng.normal(size=[3, 5]), rng.normal(size=5), rng.uniform(1, 2, 5)
    wanted = [sum(abs(row[f] - target[f]) / scale[f] for f in range(5)) / 5 for row in values]
    np.testing.assert_allclose(fingerprint_loss(scaled_errors(values, target, scale)), wanted)
    tensors = scaled_errors(*(tf.constant(x) for x in (values, target, scale)))
    np.testing.assert_allclose(fingerprint_loss_tensor(tensors), wanted)


def test_of_one_structure():
    assert fingerprint_loss(np.array([1.0, -2.0, 3.0])) == pytest.approx(2.0)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_errors_that_are_not_finite_are_infinitely_far(value):
    errors = np.array([[1.0, value], [1.0, 2.0]])
    np.testing.assert_array_equal(fingerprint_loss(errors), [np.inf, 1.5])
    assert not np.isfinite(fingerprint_loss_tensor(tf.constant(errors))[0])
