"""Rounds: every structure is planned once, from the right parents, the same every time."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from ase import Atoms
from hypothesis import given
from hypothesis import strategies as st

from tfgen.datasets import exploring
from tfgen.datasets.exploring import Minima, make_empty_minima, make_generator, plan
from tfgen.datasets.recipe import Explore, Recipe, Relax, Sample
from tfgen.datasets.settings import BuildSettings
from tfgen.datasets.tasks import Results, Source
from tfgen.structures.batch import bucket
from tfgen.structures.formulas import numbers_from_formula
from tfgen.structures.similarity.equality import duplicates
from tfgen.structures.status import Status

EXPLORE = Explore(rounds=2, count=50, parents=4, grow=0.4)
RECIPE = Recipe("x", Sample(("Pt5", "Pt6", "AuCu4"), 30), explore=EXPLORE)


def results(positions: np.ndarray, status=None) -> Results:
    n, atoms, _ = positions.shape
    nothing = np.zeros(0)
    status = np.array([Status.CONVERGED] * n if status is None else status)
    energy = np.arange(n) * 1.0
    detail = np.full(n, "")
    shots = np.zeros([0, atoms, 3])
    owner = np.zeros(0, int)
    forces = 0.0 * positions
    return Results(
        positions, forces, energy, energy, status, detail, shots, shots, owner, nothing, nothing
    )


def rods(n_atoms: int, bends: np.ndarray) -> np.ndarray:
    """Connected chains, each with another angle at its first atom: [bends, N, 3]."""
    x = np.zeros([len(bends), n_atoms, 3])
    x[:, :, 2] = 2.5 * np.arange(n_atoms)
    x[:, 0, 0] = 2.5 * np.sin(bends)
    x[:, 0, 2] = 2.5 - 2.5 * np.cos(bends)
    return x


def some_known(recipe: Recipe = RECIPE, count: int = 6) -> dict[str, Minima]:
    known = make_empty_minima(recipe)
    for minima in known.values():
        x = rods(len(minima.numbers), np.linspace(0, 1, count))
        minima.structures = [Atoms(minima.numbers, positions=p) for p in x]
        minima.energy = np.arange(count) * 0.1
    return known


def test_the_first_round_makes_all_starts():
    tasks = plan(RECIPE, 0, 0, make_empty_minima(RECIPE))
    # All three are padded to 8 atoms, hence one task.
    assert [(t.round, t.place, t.size) for t in tasks] == [(0, 0, 90)]
    assert [(p.formula, p.size) for p in tasks[0].parts] == [(f, 30) for f in RECIPE.sample.formula]
    for part in tasks[0].parts:
        np.testing.assert_array_equal(part.numbers, numbers_from_formula(part.formula))
        assert [s.parents for s in part.sources] == [None]


@pytest.mark.parametrize("batched", [True, False])
def test_tasks_cover_the_starts_and_are_small_enough(batched):
    relax = Relax() if batched else Relax(potential="ase.calculators.emt:EMT")
    sample = Sample(("Pt5", "Pt147", "Pt6", "Pt38", "Pt146"), 1000)
    recipe, settings = Recipe("x", sample, relax=relax), BuildSettings()
    tasks = plan(recipe, 0, 0, make_empty_minima(recipe))
    assert [t.place for t in tasks] == list(range(len(tasks)))
    for formula in sample.formula:
        own = [p for t in tasks for p in t.parts if p.formula == formula]
        firsts = [s.first for p in own for s in p.sources]
        assert sum(p.size for p in own) == 1000
        assert firsts == list(np.cumsum([0] + [p.size for p in own])[:-1])
    for task in tasks:
        widths = {bucket(len(p.numbers)) for p in task.parts}
        assert len(widths) == 1
        assert task.size <= (settings.structures_per_task if batched else 1)
        assert task.size * widths.pop() ** 2 <= settings.pairs_per_task
    if batched:  # of equal size, as far as that goes
        sizes = [t.size for t in tasks if len(t.parts[0].numbers) < 10]
        assert sizes == [500, 500, 500, 500]


def test_rounds_of_moves_start_from_what_is_known():
    known = some_known()
    (task,) = plan(RECIPE, 0, 1, known)
    assert [p.size for p in task.parts] == [50] * 3
    own, grown = task.parts[0].sources
    assert (own.size, grown.size) == (30, 20)
    assert (own.numbers, grown.numbers.tolist()) == (None, [78] * 6)
    assert own.parents.shape == (4, 5, 3)
    # The lowest is always among the parents.
    distance = np.abs(own.parents - known["Pt5"].positions[0]).max(axis=(1, 2))
    assert distance.min() == 0.0
    # The alloy has no neighbour: all from its own.
    assert [s.size for s in task.parts[2].sources] == [50]


def test_plans_repeat_themselves_and_differ_by_round_and_seed():
    def parents(seed: int, round_: int) -> np.ndarray:
        (task,) = plan(RECIPE, seed, round_, known)
        return np.concatenate([p.sources[0].parents.ravel() for p in task.parts])

    known = some_known(count=40)
    np.testing.assert_array_equal(parents(0, 1), parents(0, 1))
    assert (parents(0, 1) != parents(0, 2)).any()
    assert (parents(0, 1) != parents(1, 1)).any()


def test_compositions_without_minima_get_more_initial_structures():
    known = some_known()
    known["AuCu4"] = Minima(known["AuCu4"].numbers)
    known["Pt6"] = Minima(known["Pt6"].numbers)
    (task,) = plan(RECIPE, 0, 2, known)
    assert [s.size for s in task.parts[0].sources] == [50]  # nothing to remove an atom from
    fresh, grown = task.parts[1].sources
    assert (fresh.size, fresh.parents, fresh.first) == (30, None, 30 + 50)
    assert grown.size == 20
    assert task.parts[2].sources == (Source(50, first=30 + 50),)


@pytest.mark.parametrize(
    ("a", "b", "near"),
    [
        ("Pt5", "Pt6", True),
        ("Pt6", "Pt5", True),
        ("Pt5", "Pt7", False),
        ("Pt5", "Pt5", False),
        ("Cu6Au7", "Cu7Au6", True),
        ("Cu6Au7", "Cu8Au5", False),
        ("Cu6Au7", "Cu6Au6", True),
        ("Cu6Au7", "Cu7Au5", False),
        ("Pt5", "Au5", False),
        ("Pt5", "Pt5Au", True),
    ],
)
def test_neighbours_are_one_atom_away(a, b, near):
    assert exploring._are_neighbours(numbers_from_formula(a), numbers_from_formula(b)) is near


@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(0, 40)), min_size=1, max_size=4),
    st.integers(1, 20),
)
def test_cutting_keeps_every_structure_and_its_parent(shapes, size):
    sources = [
        Source(n, first=10 * k, parents=np.arange(p)[:, None, None] * 1.0 if p else None)
        for k, (n, p) in enumerate(shapes)
    ]
    parts = exploring._cut([(f"Pt{k}", source) for k, source in enumerate(sources)], size, 16)
    sizes = [sum(s.size for _, s in part) for part in parts]
    assert max(sizes, default=0) <= size
    assert all(a == sizes[0] for a in sizes[:-1])
    assert len(sizes) == -(-sum(n for n, _ in shapes) // size)  # no more than needed
    made = [
        # Structure k of a source is made from its parent k modulo their number.
        (f, s.first + k if s.parents is None else s.parents[k % len(s.parents)].item())
        for part in parts
        for f, s in part
        for k in range(s.size)
    ]
    expected = [
        (f"Pt{place}", s.first + k if s.parents is None else float(k % len(s.parents)))
        for place, s in enumerate(sources)
        for k in range(s.size)
    ]
    assert made == expected


def test_minima_are_distinct_connected_and_converged():
    minima = Minima(np.full(4, 78))
    x = rods(4, np.array([0.0, 0.5, 0.5, 1.0, 0.3]))
    x[3, 0] += 9.0  # in two pieces
    minima.add([results(x, status=[*[Status.CONVERGED] * 4, Status.NOT_CONVERGED])])
    assert len(minima) == 2
    np.testing.assert_array_equal(minima.positions, x[:2])
    np.testing.assert_array_equal(minima.energy, [0, 1])
    minima.add([results(x[:2]), results(rods(4, np.array([0.8])))])
    assert len(minima) == 3
    assert (duplicates(minima.structures, minima.tolerance) == np.arange(3)).all()
    minima.add([])
    assert len(minima) == 3


def test_uses_and_places_share_no_random_numbers():
    sampled = {
        make_generator(seed, use, *place).random()
        for seed in (0, 1)
        for use in ("making", "parents", "choosing", "splitting")
        for place in ((), (0,), (1,), (0, 0), (0, 1), (1, 0))
    }
    # Python's SeedSequence takes (0,) and (0, 0) for different keys; so must we.
    assert len(sampled) == 2 * 4 * 6


def test_recipes_that_do_not_explore_have_no_rounds():
    with pytest.raises(ValueError, match="does not explore"):
        plan(dataclasses.replace(RECIPE, explore=None), 0, 1, some_known())
