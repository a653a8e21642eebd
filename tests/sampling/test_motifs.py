"""Motifs and crystals: ASE's clusters among them, lattices, elements in patterns."""

from __future__ import annotations

import numpy as np
import pytest
from ase.cluster import Decahedron, Icosahedron, Octahedron
from ase.data import covalent_radii
from hypothesis import given
from hypothesis import strategies as st

from tfgen.sampling.motifs import bulk_cuts, motifs

PT = covalent_radii[78]


def distances(positions: np.ndarray) -> np.ndarray:
    i, j = np.triu_indices(positions.shape[-2], 1)
    return np.sort(np.linalg.norm(positions[..., i, :] - positions[..., j, :], axis=-1), axis=-1)


@given(
    st.lists(st.sampled_from([13, 29, 78, 79, 6]), min_size=1, max_size=30),
    st.sampled_from([motifs, bulk_cuts]),
    st.floats(0.4, 1.0),
    st.integers(0, 2**32 - 1),
)
def test_any_composition_without_overlaps(numbers, make, min_distance, seed):
    numbers = np.array(numbers)
    one, same = (
        make(numbers, 6, np.random.default_rng(seed), min_distance=min_distance) for _ in range(2)
    )
    assert one.shape == (6, len(numbers), 3)
    np.testing.assert_array_equal(one, same)
    np.testing.assert_allclose(one.mean(axis=1), 0.0, atol=1e-9)
    radii = covalent_radii[numbers]
    i, j = np.triu_indices(len(numbers), 1)
    apart = np.linalg.norm(one[:, i] - one[:, j], axis=2) / (radii[i] + radii[j])
    assert (apart >= min_distance * (1 - 1e-9)).all()


def test_whole_motifs_are_those_of_ase():
    made = motifs(np.full(13, 78), 400, np.random.default_rng(0), displacement=0.0)
    found = distances(made) / (2 * PT)
    for whole in (Icosahedron("Cu", 2), Decahedron("Cu", 2, 2, 0), Octahedron("Cu", 3, 1)):
        wanted = distances(whole.positions)
        same = np.abs(found - wanted / wanted[0]).max(axis=1) < 1e-9
        assert same.mean() > 0.05


def test_motifs_lose_and_gain_atoms():
    """Most atoms of a cluster one atom off stay on the sites of the motif."""
    icosahedron = Icosahedron("Cu", 2).positions
    known = np.unique(np.round(distances(icosahedron) / distances(icosahedron)[0], 6))
    for size, least in ((12, 66), (14, 78)):
        found = distances(
            motifs(np.full(size, 78), 300, np.random.default_rng(0), displacement=0.0)
        ) / (2 * PT)
        on_sites = (np.abs(found[..., None] - known).min(axis=-1) < 1e-5).sum(axis=1)
        assert (on_sites >= least).any()


def test_cuts_are_pieces_of_crystals():
    found = distances(
        bulk_cuts(np.full(19, 78), 300, np.random.default_rng(0), displacement=0.0)
    ) / (2 * PT)
    squared = found**2
    np.testing.assert_allclose(squared.min(axis=1), 1.0)
    # Squared distances, in those of nearest neighbours: all whole in fcc, multiples of 1/3 in hcp,
    # of 4/3 or 1 more than such in bcc, where 2 never comes.
    fcc = np.isclose(squared, np.round(squared)).all(axis=1)
    thirds = np.isclose(3 * squared, np.round(3 * squared)).all(axis=1)
    bcc = thirds & ~np.isclose(squared, 2.0).any(axis=1) & np.isclose(squared, 4 / 3).any(axis=1)
    assert thirds.all()
    assert 60 < fcc.sum() < 140
    assert 60 < bcc.sum() < 140
    assert 60 < (~fcc & ~bcc).sum() < 140


def test_cuts_are_compact():
    made = bulk_cuts(np.full(60, 78), 100, np.random.default_rng(0), displacement=0.0)
    spread = np.linalg.eigvalsh(np.einsum("nai,naj->nij", made, made) / 60)
    assert (spread[:, 2] / spread[:, 0]).max() < 12
    # A ball of so many atoms at fcc's density of 0.74.
    ball = np.cbrt(60 / 0.74) * PT * np.sqrt(3 / 5)
    assert np.median(np.sqrt(spread.sum(axis=1))) == pytest.approx(ball, rel=0.1)


def test_elements_come_mixed_as_shells_and_as_halves():
    numbers = np.array([29] * 27 + [79] * 28)
    for make in (motifs, bulk_cuts):
        made = make(numbers, 300, np.random.default_rng(0), displacement=0.0)
        copper, gold = made[:, :27], made[:, 27:]
        radius = np.linalg.norm(made, axis=2)
        core = radius[:, :27].max(axis=1) <= radius[:, 27:].min(axis=1) + 0.3
        shell = radius[:, 27:].max(axis=1) <= radius[:, :27].min(axis=1) + 0.3
        assert 0.05 < core.mean() < 0.25
        assert 0.05 < shell.mean() < 0.25
        # Halves: a plane between the elements' centres parts them.
        axis = copper.mean(axis=1) - gold.mean(axis=1)
        apart = np.linalg.norm(axis, axis=1)
        axis /= apart[:, None]
        low = np.einsum("nai,ni->na", copper, axis).min(axis=1)
        high = np.einsum("nai,ni->na", gold, axis).max(axis=1)
        assert 0.1 < (low > high - 1.5).mean() < 0.4
        assert (apart < 1.0).mean() > 0.35


@pytest.mark.parametrize("make", [motifs, bulk_cuts])
def test_bad_input(make):
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="numbers has shape"):
        make(np.array([], int), 1, rng)
    with pytest.raises(ValueError, match="count is 0"):
        make(np.array([78]), 0, rng)
    with pytest.raises(ValueError, match="min_distance is 0"):
        make(np.array([78]), 1, rng, min_distance=0.0)
    with pytest.raises(ValueError, match="displacement is -0.1; a finite number >= 0 Å"):
        make(np.array([78]), 1, rng, displacement=-0.1)
