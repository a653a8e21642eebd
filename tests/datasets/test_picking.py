"""Farthest points against the slow, obvious loop; parents that are low, but distinct."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfgen.datasets.picking import choose_parents, farthest_points


def slowly(features: np.ndarray, count: int, first: list[int]) -> list[int]:
    picked = list(first)
    while len(picked) < min(count, len(features)):
        best, far = -1, -1.0
        for i in range(len(features)):
            if i not in picked:
                nearest = min(float(np.linalg.norm(features[i] - features[j])) for j in picked)
                if nearest > far:
                    best, far = i, nearest
        picked.append(best)
    return picked


@given(st.integers(1, 30), st.integers(1, 6), st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_farthest_points_are_those_of_the_slow_loop(n, f, count, seed):
    rng = np.random.default_rng(seed)
    features = rng.normal(size=[n, f])
    first = rng.permutation(n)[: min(count, int(rng.integers(1, 4)))]
    picked = farthest_points(features, count, first)
    np.testing.assert_array_equal(picked, slowly(features, count, first.tolist()))


def test_farthest_points_cover_what_they_do_not_pick():
    features = np.random.default_rng(0).normal(size=[500, 3])
    picked = farthest_points(features, 51)
    gaps = np.linalg.norm(features[picked][:, None] - features[picked][None, :50], axis=2)
    to_nearest = np.linalg.norm(features[:, None] - features[picked[:50]][None], axis=2).min(axis=1)
    # The 51st is the farthest of all from the first 50, and these are at least as far apart.
    assert to_nearest.max() == pytest.approx(gaps[50].min())
    apart = gaps[:50] + np.where(np.eye(50), np.inf, 0.0)
    assert apart.min() >= to_nearest.max() - 1e-9


def test_copies_are_picked_last_and_none_twice():
    features = np.repeat(np.random.default_rng(0).normal(size=[5, 4]) + 1e3, 4, axis=0)
    picked = farthest_points(features, 20, first=7)
    assert picked[0] == 7
    assert sorted(picked[:5] // 4) == [0, 1, 2, 3, 4]
    assert sorted(picked) == list(range(20))
    assert len(farthest_points(np.zeros([0, 3]), 4)) == 0


def test_parents_are_low_and_distinct():
    rng = np.random.default_rng(0)
    energy = np.sort(rng.random(400))
    features = rng.normal(size=[400, 6])
    features[1:10] = features[0]  # copies of the lowest
    chosen = choose_parents(energy, features, 40, rng, higher=0.25)
    assert len(set(chosen.tolist())) == 40
    assert (np.diff(energy[chosen]) > 0).all()
    assert chosen[0] == 0
    assert (chosen < 90).sum() >= 30
    # The others come from everywhere above.
    assert chosen[-1] > 250
    low = choose_parents(energy, features, 40, rng, higher=0.0)
    assert (low < 120).all()
    assert not set(range(1, 10)) & set(low.tolist())


def test_parents_are_repeatable_and_all_if_there_are_few():
    rng = np.random.default_rng(1)
    energy, features = rng.random(30), rng.normal(size=[30, 2])
    one, same, other = (
        choose_parents(energy, features, 10, np.random.default_rng(s)) for s in (0, 0, 1)
    )
    np.testing.assert_array_equal(one, same)
    assert set(one.tolist()) != set(other.tolist())
    everything = choose_parents(energy, features, 99, rng)
    np.testing.assert_array_equal(everything, np.argsort(energy))
    assert len(choose_parents(np.zeros(0), np.zeros([0, 2]), 3, rng)) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"features": np.zeros(3)}, r"features has shape \(3,\)"),
        ({"features": np.full([3, 1], np.nan)}, "finite numbers"),
        ({"count": 0}, "count is 0"),
        ({"first": 3}, "first is 3; 1 to 2 different indices from 0 to 2"),
        ({"first": -1}, "first is -1"),
        ({"first": [0, 0]}, "first is .0, 0."),
        ({"first": []}, "first is .."),
        ({"first": [0, 1, 2]}, "1 to 2 different"),
    ],
)
def test_farthest_points_refuse(arguments, message):
    with pytest.raises(ValueError, match=message):
        farthest_points(**{"features": np.zeros([3, 1]), "count": 2} | arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"energy": np.zeros(4)}, r"energy has shape \(4,\); \[3\] finite"),
        ({"energy": np.array([0.0, np.inf, 1.0])}, "energy has shape"),
        ({"features": np.zeros([3, 1, 1])}, "features has shape"),
        ({"count": 0}, "count is 0"),
        ({"higher": 1.5}, "higher is 1.5"),
        ({"higher": np.nan}, "higher is nan"),
    ],
)
def test_parents_refuse(arguments, message):
    given_ = {"energy": np.zeros(3), "features": np.zeros([3, 1]), "count": 2}
    with pytest.raises(ValueError, match=message):
        choose_parents(**given_ | {"rng": np.random.default_rng(0)} | arguments)
