"""Initial structures: no overlaps, the outlines promised, alternating kinds, repeatable."""

from __future__ import annotations

import numpy as np
import pytest
from ase.data import covalent_radii
from hypothesis import given
from hypothesis import strategies as st

from tfgen.sampling.initial import KINDS, SHAPES, initial_structures, random_structures


def gyration(positions: np.ndarray) -> np.ndarray:
    tensor = np.einsum("nai,naj->nij", positions, positions) / positions.shape[1]
    return np.linalg.eigvalsh(tensor)


@given(
    st.lists(st.sampled_from([13, 29, 78, 79, 6]), min_size=1, max_size=25),
    st.sampled_from(SHAPES),
    st.floats(0.5, 1.2),
    st.floats(0.1, 1.0),
    st.integers(0, 2**32 - 1),
)
def test_no_atoms_overlap(numbers, shape, min_distance, packing, seed):
    rng = np.random.default_rng(seed)
    positions = random_structures(
        np.array(numbers), 4, rng, shape=shape, min_distance=min_distance, packing=packing
    )
    assert positions.shape == (4, len(numbers), 3)
    assert np.isfinite(positions).all()
    np.testing.assert_allclose(positions.mean(axis=1), 0.0, atol=1e-9)
    for structure in positions:
        for i in range(len(numbers)):
            for j in range(i):
                least = min_distance * (covalent_radii[numbers[i]] + covalent_radii[numbers[j]])
                assert np.linalg.norm(structure[i] - structure[j]) >= least * (1 - 1e-12)


def test_shapes_are_what_they_are_called():
    numbers = np.full(40, 78)

    def median(shape):
        made = random_structures(numbers, 60, np.random.default_rng(1), shape=shape)
        return np.median(gyration(made), axis=0)

    low, middle, high = np.array([median(shape) for shape in SHAPES]).T
    compact, oblate, prolate, planar = range(4)
    assert high[compact] < 2.5 * low[compact]
    assert middle[oblate] > 2 * low[oblate]
    assert high[oblate] < 2 * middle[oblate]
    assert high[prolate] > 2.5 * middle[prolate]
    assert low[planar] < 0.1 * middle[planar]


def test_random_structures_are_repeatable_and_differ_within():
    numbers = np.full(13, 78)
    one, same, other = (random_structures(numbers, 5, np.random.default_rng(s)) for s in (0, 0, 1))
    np.testing.assert_array_equal(one, same)
    assert np.abs(one - other).max() > 1.0
    assert np.abs(one[0] - one[1]).max() > 1.0


def test_density_follows_packing():
    numbers = np.full(30, 78)
    sizes = [
        np.sqrt(
            gyration(random_structures(numbers, 50, np.random.default_rng(0), packing=p)).sum(
                axis=1
            )
        ).mean()
        for p in (0.5, 0.1)
    ]
    # An atom's share of space is 5 times larger, lengths those of a uniform ball.
    radius = covalent_radii[78] * np.cbrt(30 / 0.1)
    assert sizes[1] == pytest.approx(radius * np.sqrt(3 / 5), rel=0.05)
    assert sizes[0] < sizes[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"numbers": np.array([], int)}, "numbers has shape"),
        ({"count": 0}, "count is 0"),
        ({"shape": "round"}, "shape is 'round'; one of compact"),
        ({"min_distance": 0.0}, "min_distance is 0.0"),
        ({"min_distance": np.nan}, "min_distance is nan"),
        ({"packing": 0.0}, "packing is 0.0"),
        ({"packing": 1.5}, "packing is 1.5"),
    ],
)
def test_bad_input(arguments, message):
    given_ = {"numbers": np.full(3, 78), "count": 2, "rng": np.random.default_rng(0)} | arguments
    with pytest.raises(ValueError, match=message):
        random_structures(**given_)


def test_kinds_and_shapes_take_turns():
    numbers, rng = np.full(19, 78), np.random.default_rng(0)
    made = initial_structures(
        numbers,
        25,
        rng,
        kinds=["bulk", "packing"],
        shapes=["planar", "compact"],
        displacement=0.0,
        first=3,
    )
    low, _, high = gyration(made).T
    i, j = np.triu_indices(19, 1)
    squared = (np.linalg.norm(made[:, i] - made[:, j], axis=2) / (2 * covalent_radii[78])) ** 2
    crystal = np.isclose(3 * squared, np.round(3 * squared)).all(axis=1)
    turn = 3 + np.arange(25)
    np.testing.assert_array_equal(crystal, turn % 2 == 0)
    np.testing.assert_array_equal(low < 0.1 * high, (turn % 2 == 1) & (turn // 2 % 2 == 0))


@given(
    st.lists(st.sampled_from([29, 78, 79]), min_size=1, max_size=15),
    st.lists(st.sampled_from(KINDS), min_size=1, max_size=3, unique=True),
    st.integers(1, 9),
    st.integers(0, 99),
)
def test_initial_structures_of_all_kinds(numbers, kinds, count, first):
    one, same = (
        initial_structures(
            np.array(numbers), count, np.random.default_rng(0), kinds=kinds, first=first
        )
        for _ in range(2)
    )
    assert one.shape == (count, len(numbers), 3)
    assert np.isfinite(one).all()
    np.testing.assert_array_equal(one, same)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kinds": []}, "kinds is .*; one or more of packing, motif, bulk"),
        ({"kinds": ["packing", "ball"]}, "kinds is .'packing', 'ball'"),
        ({"shapes": ["round"]}, "shapes is .'round'.; one or more of compact"),
        ({"first": -1}, "first is -1"),
        ({"count": 0}, "count is 0"),
        ({"packing": 2.0}, "packing is 2.0"),
    ],
)
def test_bad_input_for_initial_structures(arguments, message):
    given_ = {"numbers": np.full(3, 78), "count": 2, "rng": np.random.default_rng(0)} | arguments
    with pytest.raises(ValueError, match=message):
        initial_structures(**given_)
