"""Moves: what each leaves as it was, what it changes, and that compositions come out right."""

from __future__ import annotations

import numpy as np
import pytest
from ase.cluster import Icosahedron
from ase.data import covalent_radii
from hypothesis import given
from hypothesis import strategies as st

from tfgen.sampling import moves
from tfgen.sampling.initial import random_structures
from tfgen.sampling.moves import MOVES, MoveSettings, grow, propose, relocations

# So small that no move is followed by a push that separates atoms.
TOUCH = 1e-6
ELEMENTS = st.lists(st.sampled_from([13, 29, 78, 79, 6]), min_size=1, max_size=16)


def distances(positions: np.ndarray) -> np.ndarray:
    return np.linalg.norm(positions[..., :, None, :] - positions[..., None, :, :], axis=-1)


def no_overlaps(positions: np.ndarray, numbers: np.ndarray, min_distance: float) -> None:
    least = min_distance * (covalent_radii[numbers][:, None] + covalent_radii[numbers])
    np.fill_diagonal(least, 0.0)
    assert (distances(positions) >= least * (1 - 1e-9)).all()
    np.testing.assert_allclose(positions.mean(axis=1), 0.0, atol=1e-9)


def moved(
    move: str, numbers: np.ndarray, count: int = 60, parents: int = 1
) -> tuple[np.ndarray, ...]:
    """Parents, and structures made from them by one move, without separating atoms afterwards."""
    x = random_structures(numbers, parents, np.random.default_rng(0))
    rng = np.random.default_rng(1)
    return x, propose(x, numbers, count, rng, moves=[move], min_distance=TOUCH)


@given(ELEMENTS, st.integers(1, 4), st.floats(0.4, 1.0), st.integers(0, 2**32 - 1))
def test_proposals_do_not_overlap_and_repeat_themselves(numbers, parents, min_distance, seed):
    numbers = np.array(numbers)
    x = random_structures(numbers, parents, np.random.default_rng(seed))
    before = x.copy()
    one, same = (
        propose(x, numbers, 9, np.random.default_rng(seed), min_distance=min_distance)
        for _ in range(2)
    )
    assert one.shape == (9, len(numbers), 3)
    no_overlaps(one, numbers, min_distance)
    np.testing.assert_array_equal(one, same)
    np.testing.assert_array_equal(x, before)


def test_rattle_moves_every_atom_a_little():
    parent, children = moved("rattle", np.full(20, 78))
    change = np.abs(distances(children) - distances(parent))
    # Differences of two coordinates along the line between the atoms: √2 times the amplitude.
    amplitude = np.sqrt((change**2).sum(axis=(1, 2)) / (20 * 19) / 2)
    assert 0.07 < amplitude.min() < 0.2
    assert 0.45 < amplitude.max() < 0.8


def test_relocate_takes_one_to_three_atoms_elsewhere():
    parent, children = moved("relocate", np.array([29] * 8 + [79] * 8))
    same = np.isclose(distances(children), distances(parent), atol=1e-9)
    # An atom that stayed keeps its distances to the 12 or more others that did.
    gone = (same.sum(axis=2) < 12).sum(axis=1)
    assert set(gone.tolist()) == {1, 2, 3}


def test_relocations_offer_every_place_to_every_atom():
    numbers = np.array([29] * 4 + [79] * 6)
    parent = random_structures(numbers, 1, np.random.default_rng(5))[0]
    leaving = np.array([1, 3, 7])
    children = relocations(parent, numbers, leaving, 25, np.random.default_rng(6))
    assert len(children) == 3 * 25
    changed = (children != parent).any(axis=2)
    assert (changed.sum(axis=1) == 1).all()
    own = changed.argmax(axis=1)
    assert {a: (own == a).sum() for a in leaving.tolist()} == {1: 25, 3: 25, 7: 25}
    ends = [{tuple(x) for x in children[own == a, a]} for a in leaving]
    assert ends[0] == ends[1] != ends[2]  # of one element, and of another
    radii = covalent_radii[numbers]
    for child, atom in zip(children, own, strict=True):
        assert np.linalg.norm(child[atom] - parent[atom]) > 0.8 * 2 * radii[atom]
        # It touches an atom, at times the one that it was itself.
        near = np.linalg.norm(parent - child[atom], axis=1) / (radii + radii[atom])
        assert np.isclose(near, 1.0).any()


def test_no_atom_that_may_leave_makes_no_relocations():
    none = np.zeros(0, int)
    parent = random_structures(np.full(4, 78), 1, np.random.default_rng(0))[0]
    found = relocations(parent, np.full(4, 78), none, 5, np.random.default_rng(1))
    assert found.shape == (0, 4, 3)


def test_relocate_prefers_loose_atoms():
    core = Icosahedron("Pt", 2).positions
    loose = np.concatenate([core, core[[5]] * 1.95])[None]
    children = propose(
        loose,
        np.full(14, 78),
        200,
        np.random.default_rng(0),
        moves=["relocate"],
        min_distance=TOUCH,
    )
    same = np.isclose(distances(children), distances(loose), atol=1e-9)
    gone = same.sum(axis=2) < 10
    assert gone[:, 13].mean() > 0.6
    assert gone[:, 0].mean() < 0.3  # the centre


def test_twist_turns_one_half_against_the_other():
    parent, children = moved("twist", np.full(12, 78))
    same = np.isclose(distances(children), distances(parent), atol=1e-9)
    halves = same.sum(axis=2)
    for pairs, sizes in zip(same, halves, strict=True):
        # "Keeps its distance to" holds within each half and not across: two blocks.
        np.testing.assert_array_equal((pairs.astype(int) @ pairs) > 0, pairs)
        assert (1.0 / sizes).sum() == pytest.approx(2.0)


def test_splice_joins_parts_of_two_parents():
    numbers = np.array([29] * 7 + [79] * 9)
    rng = np.random.default_rng(0)
    parents = random_structures(numbers, 2, rng)
    children = propose(parents, numbers, 60, rng, moves=["splice"], min_distance=TOUCH)
    i, j = np.triu_indices(16, 1)
    of_parents = [np.sort(distances(p)[i, j]) for p in parents]
    shares = []
    for k, child in enumerate(distances(children)[:, i, j]):
        # The distances of a rigid part of m atoms are m (m - 1) / 2 of its parent's.
        found = [
            np.sum(np.abs(known[:, None] - child).min(axis=0) < 1e-9)
            for known in (of_parents[k % 2], of_parents[1 - k % 2])
        ]
        sizes = (1.0 + np.sqrt(1.0 + 8.0 * np.array(found))) / 2.0
        assert sizes.sum() == pytest.approx(16.0)
        shares.append(sizes[0] / 16.0)
    assert 0.15 < min(shares) < 0.4
    assert 0.6 < max(shares) < 0.85


def test_splice_lays_cut_on_cut():
    """The upper part stands on the lower one: neither in it, nor far from it."""
    rng, numbers = np.random.default_rng(0), np.full(16, 78)
    x, mates = (random_structures(numbers, 50, rng) * s for s in (1.0, 2.0))
    children = moves._splice(x, mates + 30.0, numbers, (0.25, 0.75), rng)
    of_x = (np.abs(children[:, :, None] - x[:, None]).max(axis=3) < 1e-12).any(axis=2)
    height = children[:, :, 2]
    gap = np.where(of_x, height, np.inf).min(axis=1) - np.where(of_x, -np.inf, height).max(axis=1)
    assert (gap > 0.0).all()
    assert gap.max() < 6.0


def test_exchange_leaves_the_sites():
    numbers = np.array([29] * 6 + [79] * 6 + [13])
    parent, children = moved("exchange", numbers)
    sites = np.sort(distances(parent)[0], axis=None)
    for child in distances(children):
        np.testing.assert_allclose(np.sort(child, axis=None), sites, atol=1e-9)
        # Each site, known by its distances, has got another element in at least two places.
        rows = np.abs(np.sort(child, 1)[:, None] - np.sort(distances(parent)[0], 1)).max(axis=2)
        element = numbers[rows.argmin(axis=1)]
        assert 2 <= (element != numbers).sum() <= 2 * (13 // 4)


def test_exchange_is_left_out_for_one_element():
    parent, children = random_structures(np.full(8, 78), 1, np.random.default_rng(0)), None
    children = propose(
        parent, np.full(8, 78), 50, np.random.default_rng(0), moves=["twist", "exchange"]
    )
    sites = np.sort(distances(parent)[0], axis=None)
    assert all(np.abs(np.sort(c, axis=None) - sites).max() > 0.05 for c in distances(children))
    with pytest.raises(ValueError, match="holds only 'exchange'"):
        propose(parent, np.full(8, 78), 5, np.random.default_rng(0), moves=["exchange"])


def test_all_moves_are_made_and_parents_take_turns():
    numbers = np.array([29] * 5 + [79] * 5)
    parents = (
        random_structures(numbers, 3, np.random.default_rng(0))
        * np.array([1.0, 3.0, 9.0])[:, None, None]
    )
    children = propose(
        parents, numbers, 300, np.random.default_rng(1), moves=MOVES, min_distance=TOUCH
    )
    # Sizes tell whose child it is (splices, a fifth, mix two); same distances what was done.
    size = np.median(distances(children).reshape(300, -1), axis=1)
    nearest = np.abs(np.log(size[:, None] / np.median(distances(parents).reshape(3, -1), axis=1)))
    assert (nearest.argmin(axis=1) == np.arange(300) % 3).mean() > 0.85
    own = distances(parents)[np.arange(300) % 3]
    same = np.isclose(distances(children), own, atol=1e-9).sum(axis=(1, 2)) - 10
    assert 30 < (same == 0).sum() < 130  # rattles, and splices
    assert (same > 0).sum() > 90


# --- Growth -------------------------------------------------------------------------------------


@given(ELEMENTS, ELEMENTS, st.floats(0.4, 1.0), st.integers(0, 2**32 - 1))
def test_growth_leads_from_any_composition_to_any(old, new, min_distance, seed):
    old, new = np.array(old), np.array(new)
    parents = random_structures(old, 2, np.random.default_rng(seed))
    before = parents.copy()
    one, same = (
        grow(parents, old, new, 5, np.random.default_rng(seed), min_distance=min_distance)
        for _ in range(2)
    )
    assert one.shape == (5, len(new), 3)
    no_overlaps(one, new, min_distance)
    np.testing.assert_array_equal(one, same)
    np.testing.assert_array_equal(parents, before)


@given(ELEMENTS, ELEMENTS, st.integers(0, 2**32 - 1))
def test_growth_keeps_atoms_where_it_can(old, new, seed):
    """As many atoms as two compositions share stay in place, with their elements."""
    old, new = np.array(old), np.array(new)
    parent = random_structures(old, 1, np.random.default_rng(seed), min_distance=0.9)
    children = grow(parent, old, new, 3, np.random.default_rng(seed), min_distance=TOUCH)
    shared = sum(min((old == e).sum(), (new == e).sum()) for e in set(old.tolist()))
    for child in children:
        # Sites are the parent's, up to a shift that any one of the kept atoms tells.
        shifts = (parent[0][:, None] - child[None]).reshape(-1, 3)
        site = np.linalg.norm(parent[0][:, None, None] - child[:, None] - shifts, axis=-1) < 1e-6
        kept = (site & (old[:, None] == new)[..., None]).sum(axis=(0, 1)).max()
        assert kept >= shared


def test_growth_adds_at_the_surface_and_takes_loose_atoms():
    core = Icosahedron("Pt", 2).positions
    grown = grow(core[None], np.full(13, 78), np.full(14, 78), 100, np.random.default_rng(0))
    assert (np.sort(distances(grown), axis=2)[:, :, 1].max(axis=1) < 3.0).all()
    loose = np.concatenate([core, core[[5]] * 1.95])[None]
    shrunk = grow(loose, np.full(14, 78), np.full(13, 78), 100, np.random.default_rng(0))
    icosahedron = np.sort(distances(core), axis=None)
    whole = [np.allclose(np.sort(d, axis=None), icosahedron, atol=1e-6) for d in distances(shrunk)]
    assert 0.6 < np.mean(whole) < 0.95


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"parents": np.zeros([2, 3])}, r"parents has shape \(2, 3\); \[p, 2, 3\]"),
        ({"parents": np.zeros([0, 2, 3])}, "parents has shape"),
        ({"parents": np.zeros([1, 3, 3])}, "parents has shape"),
        ({"parents": np.full([1, 2, 3], np.nan)}, "parents holds positions that are not finite"),
        ({"numbers": np.array([], int)}, "numbers has shape"),
        ({"count": 0}, "count is 0"),
        ({"min_distance": -1.0}, "min_distance is -1.0"),
        ({"moves": ["jump"]}, "moves is .'jump'.; one or more of rattle, relocate"),
        ({"moves": []}, "moves is "),
    ],
)
def test_bad_input(arguments, message):
    parents = np.array([[[0.0, 0, 0], [2.6, 0, 0]]])
    given_ = {"parents": parents, "numbers": np.full(2, 78), "count": 2} | arguments
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match=message):
        propose(**given_, rng=rng)
    if "moves" not in arguments:
        own = given_["numbers"] if len(given_["numbers"]) else np.full(2, 78)
        with pytest.raises(ValueError, match=message):
            grow(**given_ | {"parent_numbers": own}, rng=rng)


def test_settings_say_how_far_moves_go():
    numbers = np.array([29] * 10 + [79] * 10)
    parent = random_structures(numbers, 1, np.random.default_rng(0))
    settings = MoveSettings(rattle=(0.0, 0.0), relocated=1, spliced=(0.0, 0.0), exchanged=0.01)

    def made(move: str) -> np.ndarray:
        rng = np.random.default_rng(1)
        arguments = {"moves": [move], "min_distance": TOUCH, "settings": settings}
        return distances(propose(parent, numbers, 40, rng, **arguments))

    before = distances(parent)
    np.testing.assert_allclose(made("rattle"), np.repeat(before, 40, axis=0), atol=1e-9)
    # All atoms come from the only parent's lower part, in another order.
    for child in made("splice"):
        np.testing.assert_allclose(np.sort(child, axis=None), np.sort(before, axis=None), atol=1e-9)
    # One atom is elsewhere: without it, all distances are as before.
    for change in np.abs(made("relocate") - before):
        gone = change.sum(axis=1).argmax()
        np.testing.assert_allclose(np.delete(np.delete(change, gone, 0), gone, 1), 0.0, atol=1e-9)
        assert change[gone].max() > 0.1
    # Two atoms have swapped places, which changes the distances of these two alone.
    for change in np.abs(made("exchange") - before):
        assert (change > 1e-9).any(axis=1).sum() == 20
        assert ((change > 1e-9).sum(axis=1) > 2).sum() == 2


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rattle": (0.3, 0.2)}, r"rattle is \(0.3, 0.2\); two numbers are needed"),
        ({"rattle": (0.1, np.inf)}, "rattle is .*inf"),
        ({"rattle": (-0.1, 0.2)}, "rattle is"),
        ({"spliced": (0.5, 1.2)}, "spliced is .* 0 <= smallest <= largest <= 1"),
        ({"relocated": 0}, "relocated is 0; a whole number >= 1"),
        ({"exchanged": 0.0}, "exchanged is 0.0; a number above 0"),
        ({"exchanged": np.nan}, "exchanged is nan"),
    ],
)
def test_settings_out_of_range(values, message):
    with pytest.raises(ValueError, match=message):
        MoveSettings(**values)
