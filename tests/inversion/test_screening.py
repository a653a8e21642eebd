"""Errors whitened by what small displacements change, against their definition."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.linalg import inv, sqrtm

from tfgen.inversion.screening import WhitenedError
from tfgen.inversion.settings import ScreeningSettings

NOISE = ScreeningSettings().noise


@given(st.integers(0, 2**32 - 1), st.integers(1, 12))
def test_equals_the_definition(seed, count):
    """Also with fewer changes than features."""
    rng = np.random.default_rng(seed)
    changes, errors = (
        rng.normal(size=[count, 6]) * np.geomspace(0.01, 2, 6),
        rng.normal(size=[4, 6]),
    )
    covariance = sum(np.outer(c, c) for c in changes) / count
    weights = NOISE * inv(sqrtm(covariance + NOISE**2 * np.eye(6)).real)
    wanted = [np.mean([abs(row @ r) for row in weights]) for r in errors]
    # Directions of next to no change are left out: each may matter by 1 - 1 / (1 + 0.1²)^½, and
    # the sum of six by six to the half as much.
    np.testing.assert_allclose(WhitenedError(changes)(errors), wanted, rtol=0.0125)
    left = WhitenedError(changes).whiten(errors)
    np.testing.assert_allclose(
        left, errors @ weights, atol=0.005 * np.abs(errors).sum(axis=1).max()
    )


@pytest.mark.parametrize("noise", [0.02, 0.3])
def test_the_noise_is_a_setting(noise):
    """Without small changes to leave out: d = 1/F Σ |[s (C + s²)^(-1/2) r]|, C diagonal."""
    changes, errors = np.diag([1.0, 2.0]), np.array([[1.0, 3.0]])
    variances = np.array([1.0, 4.0]) / 2
    wanted = np.mean(noise / np.sqrt(variances + noise**2) * [1.0, 3.0])
    found = WhitenedError(changes, ScreeningSettings(noise=noise))(errors)
    np.testing.assert_allclose(found, [wanted], rtol=1e-5)


def test_what_displacements_change_counts_little():
    along, across = np.array([3.0, 4.0, 0.0]), np.array([4.0, -3.0, 0.0])
    measure = WhitenedError(np.array([along, -2.0 * along]))
    easy, hard, none = measure(np.array([along, across, np.zeros(3)]))
    assert none == 0
    assert easy < 0.02 * hard
    assert hard == pytest.approx(7.0 / 3.0)


@pytest.mark.filterwarnings("error")
def test_errors_that_are_not_finite_are_infinitely_far():
    errors = np.array([[1.0, 1.0], [np.nan, 1.0], [1.0, -np.inf]])
    assert np.isfinite(WhitenedError(np.eye(2))(errors)).tolist() == [True, False, False]
