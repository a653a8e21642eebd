"""Which candidates of a search are one structure."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reference import spectrum
from scipy.spatial.distance import pdist
from scipy.spatial.transform import Rotation

from tfgen.inversion.population import Population, select_distinct, separation
from tfgen.inversion.settings import PopulationSettings
from tfgen.structures.similarity.neighbour_distances import sorted_neighbour_distances

PURE, ALLOY = np.full(5, 78), np.array([29, 29, 79, 79, 79])
seeds = st.integers(0, 2**32 - 1)


class TestSeparation:
    @pytest.mark.parametrize("numbers", [PURE, ALLOY, ALLOY[::-1]], ids=str)
    def test_equals_the_loop(self, numbers):
        x = 2.0 * np.random.default_rng(0).normal(size=[7, 5, 3])
        wanted = [
            max(
                abs(a - b)
                for a, b in zip(spectrum(x[0], numbers), spectrum(y, numbers), strict=True)
            )
            for y in x[1:]
        ]
        np.testing.assert_allclose(separation(x[0], x[1:], numbers), wanted, rtol=1e-12)

    @given(seeds)
    def test_does_not_see_motion_mirror_and_order(self, seed):
        rng = np.random.default_rng(seed)
        x, y = 2.0 * rng.normal(size=[2, 5, 3])
        # Like atoms change places: the first two, the others among themselves.
        order = np.concatenate([rng.permutation(2), 2 + rng.permutation(3)])
        turned = Rotation.random(random_state=int(seed)).apply(x)[order] * [1, 1, -1] + [3, -1, 2]
        there = separation(x, np.array([turned, y]), ALLOY)
        assert there[0] < 1e-12
        np.testing.assert_allclose(separation(turned, y[None], ALLOY), there[1], rtol=1e-9)

    def test_tells_two_elements_apart(self):
        x = 2.0 * np.random.default_rng(1).normal(size=[5, 3])
        exchanged = x[[2, 1, 0, 3, 4]]
        assert separation(x, exchanged[None], ALLOY)[0] > 0.1
        assert separation(x, exchanged[None], PURE)[0] < 1e-12

    def test_tells_structures_apart_whose_distances_are_the_same(self):
        """On a line: 0 1 4 10 12 17 and 0 1 8 11 13 17 (Bloom, 1977)."""
        one, other = (
            np.outer(x, [1.0, 0, 0]) for x in ([0, 1, 4, 10, 12, 17], [0, 1, 8, 11, 13, 17])
        )
        np.testing.assert_allclose(np.sort(pdist(one)), np.sort(pdist(other)))
        assert separation(one, other[None], np.full(6, 78))[0] >= 1.0

    def test_many_structures_are_as_many_single_ones(self):
        x = 2.0 * np.random.default_rng(2).normal(size=[7, 5, 3])
        wanted = np.concatenate([sorted_neighbour_distances(ALLOY, y[None]) for y in x])
        for held in (2 * 75, 10**6):  # two at a time, all at once
            found = sorted_neighbour_distances(ALLOY, x, held=held)
            np.testing.assert_array_equal(found, wanted)

    def test_of_none_and_of_lone_atoms(self):
        assert separation(np.zeros([5, 3]), np.zeros([0, 5, 3]), PURE).shape == (0,)
        np.testing.assert_array_equal(
            separation(np.zeros([1, 3]), np.ones([2, 1, 3]), PURE[:1]), [0.0, 0.0]
        )


@given(seeds, st.sampled_from([PURE, ALLOY]), st.integers(1, 6))
def test_distinct_is_a_loop_over_the_sorted_candidates(seed, numbers, most):
    rng = np.random.default_rng(seed)
    kinds = 2.0 * rng.normal(size=[4, 5, 3])
    positions = kinds[rng.integers(4, size=12)] + 0.02 * rng.normal(size=[12, 5, 3])
    positions[rng.integers(12), 0, 0] = np.nan
    loss = rng.choice([0.1, 0.2, 0.3, np.nan, np.inf], size=12)
    found = select_distinct(
        Population(positions, loss, np.arange(12) % 2 == 0, np.zeros(12, bool)),
        numbers,
        PopulationSettings(size=most, distinct_distance=0.15),
    )
    wanted: list[int] = []
    sound = [i for i in range(12) if np.isfinite(loss[i]) and np.isfinite(positions[i]).all()]
    for i in sorted(sound, key=lambda i: loss[i])[: 4 * most]:
        others = [spectrum(positions[j], numbers) for j in wanted]
        own = spectrum(positions[i], numbers)
        if all(np.abs(np.subtract(own, other)).max() >= 0.15 for other in others):
            wanted.append(i)
    wanted = wanted[:most]
    np.testing.assert_array_equal(found.positions, positions[wanted])
    np.testing.assert_array_equal(found.loss, loss[wanted])
    np.testing.assert_array_equal(found.promoted, np.array(wanted, int) % 2 == 0)
