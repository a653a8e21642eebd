"""Random structures and moves for one goal: what they change, and what they leave."""

from __future__ import annotations

import numpy as np
import pytest
import small
from ase.data import covalent_radii

from tfgen.inversion.sampler import Sampler
from tfgen.inversion.settings import MoveWeights, ProposalMoves

RNG = np.random.default_rng


def test_cells_with_open_directions_are_filled_where_the_initial_structure_lies():
    slab = np.array([[0, 0, 30.0], [2, 2, 30], [0, 2, 32], [2, 0, 32], [1, 1, 34]])
    goal = small.goal(
        cell=np.diag([4.0, 4.0, 0.0]), pbc=np.array([True, True, False]), initial=slab[None]
    )
    sampled = Sampler(goal, RNG(0)).sample(200)
    assert sampled.shape == (200, 5, 3)
    assert (sampled[..., :2] >= 0).all()
    assert (sampled[..., :2] <= 4).all()
    assert sampled[..., 2].min() == pytest.approx(30, abs=0.1)
    assert sampled[..., 2].max() == pytest.approx(34, abs=0.1)


def test_moves_leave_fixed_atoms():
    """They stay; the others go, and come to lie at distances of bonds."""
    start = np.array([s.positions for s in small.structures()[:1]])
    fixed = np.array([True, False, True, False, False])
    sampler = Sampler(small.goal(initial=start, fixed=fixed), RNG(0))
    moved = sampler.move(np.repeat(start, 300, axis=0))
    np.testing.assert_array_equal(moved[:, fixed], np.repeat(start, 300, 0)[:, fixed])
    changed = (moved != start).any(axis=2)
    assert changed[:, ~fixed].any(axis=0).all()
    alone = np.flatnonzero(changed.sum(axis=1) == 1)
    assert len(alone) > 50  # relocated; rattles move all
    for row in alone[:20]:
        (one,) = np.flatnonzero(changed[row])
        hosts = np.concatenate([np.delete(moved[row], one, axis=0), start[0][[one]]])
        distances = np.linalg.norm(hosts - moved[row, one], axis=1)
        assert np.abs(distances - 2 * covalent_radii[78]).min() < 1e-9


def test_moves_are_chosen_by_their_weights():
    """With relocations of one to three of ten atoms alone, most distances stay; not so with all."""
    rng = RNG(1)
    start = rng.normal(size=[1, 10, 3]) * 4.0
    goal = small.goal(
        numbers=np.full(10, 78), initial=np.zeros([0, 10, 3]), fixed=np.zeros(10, bool)
    )
    kept = {}
    for name, weights in (
        ("relocate", MoveWeights(splice=0, twist=0, rattle=0)),
        ("rattle", MoveWeights(relocate=0, splice=0, twist=0)),
    ):
        settings = ProposalMoves(weights=weights, min_distance=1e-6)
        moved = Sampler(goal, RNG(0), settings).move(np.repeat(start, 50, axis=0))
        i, j = np.triu_indices(10, 1)
        before, after = (np.linalg.norm(x[:, i] - x[:, j], axis=2) for x in (start, moved))
        kept[name] = np.isclose(before, after, atol=1e-9).mean(axis=1)
    assert (kept["relocate"] > 0.4).all()
    assert (kept["rattle"] < 0.1).all()


@pytest.mark.parametrize("places", [3, 12])
def test_each_free_atom_is_offered_so_many_places(places):
    x = small.structures()[0].positions
    goal = small.goal()
    for most, wanted in ((3000, 5 * places), (20, min(5 * places, 20))):
        settings = ProposalMoves(places=places, max_relocations=most)
        assert len(Sampler(goal, RNG(0), settings).relocate(x)) == wanted
