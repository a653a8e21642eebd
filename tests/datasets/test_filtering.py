"""Filters: each counted, the lowest of equals kept, the choice as the recipe wants it."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from hypothesis import given
from hypothesis import strategies as st

from tfgen.datasets import filtering
from tfgen.datasets.filtering import describe_failures, select
from tfgen.datasets.picking import farthest_points
from tfgen.datasets.recipe import Explore, Recipe, Relax, Sample, Select, Split
from tfgen.datasets.tasks import Results
from tfgen.structures.similarity.equality import sorted_distances
from tfgen.structures.status import Status

CONVERGED, UNCONVERGED, FAILED, LATE = (
    Status.CONVERGED, Status.NOT_CONVERGED, Status.CALCULATOR_FAILED, Status.TIME_LIMIT,
)  # fmt: skip


def results(
    positions, energy=None, status=None, detail=None, snapshots=(), shot_energy=(), owner=None
):
    x = np.array(positions, float)
    n, atoms, _ = x.shape
    shots = np.array(snapshots, float).reshape(-1, atoms, 3)
    return Results(
        positions=x,
        forces=0.001 * x,
        energy=np.arange(n) * 1.0 if energy is None else np.array(energy, float),
        fmax=np.full(n, 0.005),
        status=np.array([Status.CONVERGED] * n if status is None else status),
        detail=np.full(n, "") if detail is None else np.array(detail),
        snapshots=shots,
        snapshot_forces=0.1 * shots,
        owner=np.zeros(len(shots), int) if owner is None else np.array(owner),
        snapshot_energy=np.array(shot_energy, float),
        snapshot_fmax=np.full(len(shots), 0.7),
    )


def line(n: int, spacing: float = 2.5) -> list:
    return [[0, 0, spacing * i] for i in range(n)]


def random(count: int, n_atoms: int = 5, seed: int = 0) -> np.ndarray:
    """Random walks, hence connected."""
    step = np.random.default_rng(seed).normal(size=[count, n_atoms, 3])
    step *= 2.5 / np.linalg.norm(step, axis=-1, keepdims=True)
    return np.cumsum(step, axis=1)


TRIANGLE = [[0, 0, 0], [2.5, 0, 0], [1.25, 2.2, 0]]
BENT = [[0, 0, 0], [2.5, 0, 0], [4, 2, 0]]
NO_RELAXATION = Relax(rattle=0.0)


def test_each_filter_is_counted():
    parts = [
        results(
            [TRIANGLE, line(3, 9.0), line(3), line(3), BENT],
            energy=[3.0, 3.0, 6.0, 5.9, 9.9],
        ),
        results([line(3, np.nan), line(3), TRIANGLE], status=[FAILED, LATE, UNCONVERGED]),
    ]
    recipe = Recipe("x", Sample(("Pt3",), 8), select=Select(energy_window=1.0))
    dataset = select(recipe, 0, {"Pt3": parts}, [])
    assert dataset.metadata["counts"] == {
        "sampled": 8,
        "not converged": 1,
        "calculator failed": 1,
        "time limit": 1,
        "disconnected": 1,
        "duplicates": 1,
        "outside the energy window": 1,
        "kept": 2,
    }
    # Of equal structures the lowest stays.
    np.testing.assert_allclose(dataset.properties["energy_per_atom"], [1.0, 5.9 / 3])
    assert "rounds" not in dataset.metadata
    assert "fmax" not in dataset.properties


def test_compositions_stay_apart_and_in_order():
    recipe = Recipe("x", Sample(("Pt5", "Pt4"), 10), select=Select(energy_window=0.5))
    parts = {
        "Pt5": [results(random(10), energy=np.arange(10)[::-1] + 100.0)],
        "Pt4": [results(random(4, 4), energy=np.arange(4.0)), results(random(6, 4, seed=1))],
    }
    dataset = select(recipe, 0, parts, [])
    sizes = [len(s) for s in dataset.structures]
    assert sizes == sorted(sizes, reverse=True)
    assert set(sizes) == {4, 5}
    per_atom = dataset.properties["energy_per_atom"]
    for size in (4, 5):
        own = per_atom[np.array(sizes) == size]
        assert (np.diff(own) >= 0).all()
        assert own[-1] <= own[0] + 0.5  # each composition has its own window
    assert sum(dataset.metadata["counts"].values()) == 20 + 20


def test_snapshots_are_kept_with_their_forces():
    recipe = Recipe(
        "x",
        Sample(("Pt3",), 1),
        relax=Relax(snapshots=(0, 5)),
        explore=Explore(1, 1),
        select=Select(energy_window=5.0),
    )
    # One equals the minimum, one is out of the window, one failed to converge further on.
    shots = [TRIANGLE, BENT, line(3)]
    part = results(
        [TRIANGLE, BENT],
        [0.0, np.nan],
        [CONVERGED, UNCONVERGED],
        snapshots=shots,
        shot_energy=[1.0, 2.0, 99.0],
    )
    dataset = select(recipe, 0, {"Pt3": [part]}, [{"structures": 1, "minima": 1}])
    assert dataset.metadata["counts"] == {
        "sampled": 1,
        "explored": 1,
        "snapshots": 3,
        "not converged": 1,
        "disconnected": 0,
        "duplicates": 1,
        "outside the energy window": 1,
        "kept": 2,
    }
    np.testing.assert_array_equal(dataset.properties["fmax"], [0.005, 0.7])
    scale = [0.001, 0.1]
    for atoms, forces, factor in zip(dataset.structures, dataset.forces, scale, strict=True):
        np.testing.assert_allclose(forces, factor * atoms.positions)
    assert dataset.units["fmax"] == "eV/Å"
    assert dataset.metadata["rounds"] == [{"structures": 1, "minima": 1}]


def test_nothing_left_says_which_filter_took_what_and_why():
    recipe = Recipe("x", Sample(("Pt3",), 2))
    parts = [results([line(3, 9.0), line(3)], status=[CONVERGED, UNCONVERGED])]
    with pytest.raises(ValueError, match="leaves no structures: 2 sampled, 1 not .*1 disconnected"):
        select(recipe, 0, {"Pt3": parts}, [])
    parts = [results([TRIANGLE] * 3, status=[FAILED] * 3, detail=["a", "b", "b"])]
    with pytest.raises(ValueError, match="3 calculator failed.*; most often: b"):
        select(recipe, 0, {"Pt3": parts}, [])


def test_what_calculators_said_most_often():
    parts = [results([TRIANGLE] * 3, detail=["", "x", "y"]), results([BENT], detail=["y"])]
    assert describe_failures(parts) == "y"
    assert describe_failures([results([BENT])]) == ""


def test_max_count_is_a_random_choice():
    parts = {"Pt5": [results(random(30))], "Pt4": [results(random(20, 4))]}
    recipe = Recipe("x", Sample(("Pt5", "Pt4"), 30), select=Select(max_count=14))
    datasets = [select(recipe, seed, parts, []) for seed in (0, 0, 1)]
    kept = [sorted(d.properties["energy_per_atom"].tolist()) for d in datasets]
    assert kept[0] == kept[1] != kept[2]
    for dataset in datasets:
        assert len(dataset) == 14
        sizes = np.array([len(s) for s in dataset.structures])
        assert set(sizes) == {4, 5}
        for size in (4, 5):
            assert (np.diff(dataset.properties["energy_per_atom"][sizes == size]) > 0).all()
    few = Recipe("x", Sample(("Pt5", "Pt4"), 30), select=Select(max_count=500))
    counts = select(few, 0, parts, []).metadata["counts"]
    assert (counts["above the maximum count"], counts["kept"]) == (0, 50)


def test_farthest_choice_covers_energies_and_shapes():
    x = random(200)
    energy = np.sort(np.random.default_rng(0).normal(size=200))
    parts = {"Pt5": [results(x, energy=energy)]}
    select_ = Select(max_count=20, method="farthest")
    dataset = select(Recipe("x", Sample(("Pt5",), 200), select=select_), 0, parts, [])
    kept = dataset.properties["energy_per_atom"] * 5
    assert kept[0] == energy[0]
    assert kept[-1] - kept[0] > 0.9 * np.ptp(energy)
    # The choice is the greedy one in the features that are documented.
    distances = sorted_distances(np.full(5, 78), x)
    columns = [distances - distances.mean(0), (energy - energy.mean())[:, None]]
    features = np.hstack([c / np.sqrt(c.var(axis=0).sum()) for c in columns])
    chosen = [int(np.argmin(energy))]
    for _ in range(19):
        far = np.linalg.norm(features[:, None] - features[chosen], axis=-1).min(axis=1)
        chosen.append(int(far.argmax()))
    np.testing.assert_allclose(kept, np.sort(energy[chosen]), atol=1e-12)
    assert set(chosen) == set(farthest_points(features, 20).tolist())


def test_farthest_choice_shares_among_compositions():
    parts = {f"Pt{n}": [results(random(30, n))] for n in (4, 5, 6)}
    parts["Pt3"] = [results([TRIANGLE, BENT])]
    select_ = Select(max_count=50, method="farthest")
    dataset = select(Recipe("x", Sample(tuple(parts), 30), select=select_), 0, parts, [])
    sizes = [len(s) for s in dataset.structures]
    assert [sizes.count(n) for n in (4, 5, 6, 3)] == [16, 16, 16, 2]


@given(st.lists(st.integers(0, 30), min_size=1, max_size=6), st.integers(1, 100))
def test_shares_are_equal_as_far_as_they_can_be(sizes, most):
    shares = np.array(filtering._shares(np.array(sizes), most))
    assert shares.sum() == min(most, sum(sizes))
    assert (shares <= sizes).all()
    short = shares < np.array(sizes)
    if short.any():  # who does not get all has as much as anybody, up to the last one
        assert shares[short].min() >= shares.max() - 1


def test_equal_structures_have_features_too():
    pair = Atoms("Pt2", [[0, 0, 0], [2, 0, 0]])
    kept = filtering._Kept(
        [pair] * 2, [np.zeros((2, 3))] * 2, np.zeros(2), np.zeros(2), np.arange(2)
    )
    np.testing.assert_array_equal(filtering._compute_features(kept), np.zeros([2, 2]))


def test_split_shares_are_the_recipe_s():
    recipe = Recipe("x", Sample(("Pt5",), 40), split=Split(0.5, 0.5, 0.0))
    split = select(recipe, 0, {"Pt5": [results(random(40))]}, []).split
    assert np.bincount(split, minlength=3).tolist() == [20, 20, 0]


def test_snapshots_are_in_the_split_of_the_minimum_that_they_lead_to():
    rng = np.random.default_rng(5)
    minima = random(20)
    # Of each minimum three structures, from two parts of the work, and four snapshots on the way.
    lead, shot_owner = np.repeat(np.arange(20), 3), np.tile(np.arange(60), 4)
    order = rng.permutation(60)
    shots = minima[lead[order][shot_owner]] + rng.normal(scale=0.1, size=[240, 5, 3])
    basin_of = {}
    parts = []
    for rows in (np.arange(25), np.arange(25, 60)):
        own = np.flatnonzero(np.isin(shot_owner, rows))
        parts.append(
            results(
                minima[lead[order][rows]],
                energy=lead[order][rows] * 0.01,
                snapshots=shots[own],
                shot_energy=1.0 + rng.random(len(own)),
                owner=shot_owner[own] - rows[0],
            )
        )
    for x, basin in zip([*minima, *shots], [*range(20), *lead[order][shot_owner]], strict=True):
        basin_of[x.tobytes()] = basin
    recipe = Recipe("x", Sample(("Pt5",), 60), relax=Relax(snapshots=(0,)))
    dataset = select(recipe, 0, {"Pt5": parts}, [])
    assert len(dataset) > 200
    basins = np.array([basin_of[s.positions.tobytes()] for s in dataset.structures])
    for basin in range(20):
        assert len(set(dataset.split[basins == basin].tolist())) == 1
    sizes = np.bincount(dataset.split) / len(dataset)
    np.testing.assert_allclose(sizes, [0.8, 0.1, 0.1], atol=0.03)


def test_a_snapshot_that_leads_nowhere_is_a_basin_of_its_own():
    part = results(
        [TRIANGLE, BENT], [0.0, np.nan], [CONVERGED, UNCONVERGED],
        snapshots=[line(3), BENT], shot_energy=[1.0, 2.0], owner=[1, 1],
    )  # fmt: skip
    recipe = Recipe("x", Sample(("Pt3",), 2), relax=Relax(snapshots=(0,)), split=Split(0.5, 0.5, 0))
    split = select(recipe, 0, {"Pt3": [part]}, []).split
    assert split[1] == split[2] != split[0]
