"""Building: real minima, honest counts, the same result after interruptions and by any workers."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
from ase import Atoms
from ase.calculators import emt
from ase.optimize import BFGS

from tfgen.datasets import building
from tfgen.datasets.building import build, partial_folder
from tfgen.datasets.recipe import Recipe, Relax, Sample, Select, Split
from tfgen.datasets.storage import Dataset
from tfgen.similarity import duplicates

RECIPE = Recipe("tiny", Sample(("Pt5", "AuCu3"), 30), text='name = "tiny"')


def assert_same(a: Dataset, b: Dataset) -> None:
    assert len(a) == len(b)
    for one, two in zip(a.structures, b.structures, strict=True):
        np.testing.assert_array_equal(one.numbers, two.numbers)
        np.testing.assert_array_equal(one.positions, two.positions)
    np.testing.assert_array_equal(a.split, b.split)
    for name in a.properties:
        np.testing.assert_array_equal(a.properties[name], b.properties[name])
    drop = {"created"}
    assert {k: v for k, v in a.metadata.items() if k not in drop} == {
        k: v for k, v in b.metadata.items() if k not in drop
    }


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A data set by way of three chunks a formula, and its file."""
    path = tmp_path_factory.mktemp("built") / "tiny.h5"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(building, "CHUNK", 10)
        return build(RECIPE, path, seed=1), path


@pytest.fixture
def chunks_of_10(monkeypatch):
    monkeypatch.setattr(building, "CHUNK", 10)


@pytest.fixture
def no_relaxation(monkeypatch):
    """Relaxation leaves structures as they are, and calls their radius of gyration energy."""
    state = SimpleNamespace(energy=None, converged=None, structures=None, calls=0)

    def relax(structures, potential, *, fmax, max_steps):
        state.calls += 1
        structures = state.structures or structures
        n = len(structures)
        energy = np.arange(n) * 1.0 if state.energy is None else state.energy
        converged = np.ones(n, bool) if state.converged is None else state.converged
        return SimpleNamespace(structures=structures, energy=energy, converged=converged)

    monkeypatch.setattr(building, "relax", relax)
    return state


def test_minima_are_minima_of_ase(built):
    dataset, _ = built
    for atoms, energy in zip(
        dataset.structures, dataset.properties["energy_per_atom"], strict=True
    ):
        atoms = atoms.copy()
        atoms.calc = emt.EMT()
        assert atoms.get_potential_energy() / len(atoms) == pytest.approx(energy, abs=1e-9)
        BFGS(atoms, logfile=None).run(fmax=0.01, steps=100)
        assert atoms.get_potential_energy() / len(atoms) == pytest.approx(energy, abs=1e-3)


def test_what_is_kept_is_unique_sorted_split_and_described(built):
    dataset, path = built
    n = len(dataset)
    np.testing.assert_array_equal(duplicates(dataset.structures, 0.05), np.arange(n))
    energy = dataset.properties["energy_per_atom"]
    sizes = np.array([len(s) for s in dataset.structures])
    for size in (5, 4):
        assert (np.diff(energy[sizes == size]) >= 0).all()
    assert (np.bincount(dataset.split, minlength=3) > 0).all()
    counts = dict(dataset.metadata["counts"])
    assert counts.pop("sampled") == 60
    assert sum(counts.values()) == 60
    assert counts["kept"] == n
    assert dataset.metadata["kind"] == "built"
    assert dataset.metadata["recipe"] == RECIPE.text
    assert dataset.metadata["seed"] == 1
    assert {"tfgen", "tensorflow", "ase"} <= set(dataset.metadata["versions"])
    assert dataset.units["energy_per_atom"] == "eV/atom"
    assert set(dataset.properties) > {"radius_of_gyration", "asphericity", "mean_coordination"}
    assert not partial_folder(path).exists()
    assert_same(Dataset.load(path), dataset)


def test_known_minima_are_found(built):
    dataset, _ = built
    lowest = dataset.structures[0]
    bipyramid = Atoms(
        "Pt5", [[0, 0, 2], [0, 0, -2], [1.5, 0, 0], [-0.75, 1.3, 0], [-0.75, -1.3, 0]]
    )
    bipyramid.calc = emt.EMT()
    BFGS(bipyramid, logfile=None).run(fmax=0.005)
    assert duplicates([bipyramid, lowest], 0.05)[1] == 0


def test_another_seed_gives_other_starts(no_relaxation, tmp_path):
    a, b = (build(RECIPE, tmp_path / f"{s}.h5", seed=s) for s in (0, 1))
    assert np.abs(a.structures[0].positions - b.structures[0].positions).max() > 0.1


@pytest.mark.parametrize("stop_after", [0, 1, 4])
def test_an_interrupted_build_goes_on_and_ends_the_same(
    built, chunks_of_10, monkeypatch, tmp_path, stop_after
):
    path = tmp_path / "tiny.h5"
    work, calls = building._work, []

    def interrupted(folder, recipe, seed, chunk):
        if len(calls) == stop_after:
            raise KeyboardInterrupt
        calls.append(chunk.place)
        return work(folder, recipe, seed, chunk)

    monkeypatch.setattr(building, "_work", interrupted)
    with pytest.raises(KeyboardInterrupt):
        build(RECIPE, path, seed=1)
    folder = partial_folder(path)
    assert len(list(folder.glob("chunk-*.npz"))) == stop_after
    assert not path.exists()
    if stop_after:  # as if the machine had gone down before all was on disk
        chunk = folder / "chunk-00001.npz"
        chunk.write_bytes(chunk.read_bytes()[:100])
    calls.clear()
    monkeypatch.setattr(building, "_work", lambda *a: calls.append(a[3].place) or work(*a))
    assert_same(build(RECIPE, path, seed=1), built[0])
    assert calls == ([0] if stop_after else []) + list(range(stop_after, 6))
    assert not folder.exists()


@pytest.mark.slow
def test_two_processes_give_the_same_data_set(built, tmp_path):
    # Spawned workers see the code as it is, so the chunks are the recipe's own.
    recipe = dataclasses.replace(RECIPE, relax=Relax(rattle=0.0))
    one = build(recipe, tmp_path / "one.h5", seed=1)
    two = build(recipe, tmp_path / "two.h5", seed=1, workers=2)
    assert_same(one, two)


def leave_unfinished(path, monkeypatch):
    def fail(*_):
        raise OSError("disk")

    with monkeypatch.context() as patch:
        patch.setattr(building, "_gather", fail)
        with pytest.raises(OSError, match="disk"):
            build(RECIPE, path, seed=1, overwrite=True)


def test_what_is_left_of_another_build_is_not_mixed_in(no_relaxation, tmp_path, monkeypatch):
    path = tmp_path / "x.h5"
    leave_unfinished(path, monkeypatch)
    no_relaxation.calls = 0
    bigger = dataclasses.replace(RECIPE, sample=Sample(("Pt5", "AuCu3"), 31))
    for recipe, seed, what in ((RECIPE, 2, "seed"), (bigger, 1, "sample")):
        with pytest.raises(ValueError, match=rf"interrupted build of something else .*{what}"):
            build(recipe, path, seed=seed)
    assert no_relaxation.calls == 0
    # Another selection or split is no reason to relax again; neither is --overwrite.
    build(dataclasses.replace(RECIPE, select=Select(max_count=5)), path, seed=1, overwrite=True)
    assert no_relaxation.calls == 0
    leave_unfinished(path, monkeypatch)
    build(bigger, path, seed=2, overwrite=True)
    assert Dataset.load(path).metadata["seed"] == 2


def test_a_damaged_record_of_an_interrupted_build(no_relaxation, tmp_path):
    path = tmp_path / "x.h5"
    folder = partial_folder(path)
    folder.mkdir()
    (folder / "chunk-00001.npz").write_bytes(b"?")
    (folder / "task.json").write_text("{")
    for name in ("chunk-00001.npz", "task.json"):
        with pytest.raises(ValueError, match="something else"):
            build(RECIPE, path)
        (folder / name).unlink()
    (folder / ".task-abc.json").write_text("")  # what a kill in the first moment leaves
    build(RECIPE, path)
    assert not folder.exists()


def line(n: int, spacing: float = 2.5) -> Atoms:
    return Atoms(f"Pt{n}", [[0, 0, spacing * i] for i in range(n)])


def test_each_filter_is_counted(no_relaxation, tmp_path):
    triangle = Atoms("Pt3", [[0, 0, 0], [2.5, 0, 0], [1.25, 2.2, 0]])
    bent = Atoms("Pt3", [[0, 0, 0], [2.5, 0, 0], [4, 2, 0]])
    no_relaxation.structures = [
        triangle, line(3, 9.0), line(3), line(3), bent, line(3, np.nan), line(3), triangle
    ]  # fmt: skip
    no_relaxation.energy = np.array([3.0, 3.0, 6.0, 5.9, 9.9, 1.0, np.inf, 3.3])
    no_relaxation.converged = np.array([True] * 8)
    no_relaxation.converged[7] = False
    sample, relax = Sample(("Pt3",), 8), Relax(rattle=0.0)
    recipe = Recipe("x", sample, relax=relax, select=Select(energy_window=1.0))
    dataset = build(recipe, tmp_path / "x.h5")
    assert dataset.metadata["counts"] == {
        "sampled": 8,
        "not converged": 3,
        "disconnected": 1,
        "duplicates": 1,
        "outside the energy window": 1,
        "kept": 2,
    }
    # Of equal structures the lowest stays.
    np.testing.assert_allclose(dataset.properties["energy_per_atom"], [1.0, 5.9 / 3])


def test_max_count_is_a_random_choice(no_relaxation, tmp_path):
    recipe = Recipe("x", Sample(("Pt6",), 50, packing=1.0), select=Select(max_count=7))
    datasets = [build(recipe, tmp_path / f"{s}.h5", seed=s) for s in (0, 1)]
    for dataset in datasets:
        counts = dataset.metadata["counts"]
        assert counts["kept"] == len(dataset) == 7
        assert counts["above the maximum count"] > 0
    assert (
        datasets[0].properties["energy_per_atom"] != datasets[1].properties["energy_per_atom"]
    ).any()


def test_nothing_left_says_which_filter_took_what(no_relaxation, tmp_path):
    no_relaxation.structures = [line(3, 9.0), line(3)]
    no_relaxation.energy = np.zeros(2)
    no_relaxation.converged = np.array([True, False])
    recipe = Recipe("x", Sample(("Pt3",), 2), relax=Relax(rattle=0.0))
    with pytest.raises(ValueError, match="leaves no structures: 2 sampled, 1 not .*1 disconnected"):
        build(recipe, tmp_path / "x.h5")
    assert not (tmp_path / "x.h5").exists()


def test_kicks_move_structures_off_saddle_points(tmp_path):
    # A flat square of Pt4 has no forces by symmetry, but is no minimum in EMT.
    numbers = np.full(4, 78)
    square = np.array([[[1, 1, 0], [1, -1, 0], [-1, -1, 0], [-1, 1, 0]]]) * 1.3
    kicked, still = (
        building._minima(Relax(rattle=r), numbers, square.copy(), np.random.default_rng(0))
        for r in (0.1, 0.0)
    )
    assert still[2].all()
    assert kicked[2].all()
    assert np.abs(still[0][0, :, 2]).max() < 1e-6
    assert kicked[1][0] < still[1][0] - 0.01


def test_existing_outputs_are_refused_before_the_work(no_relaxation, tmp_path):
    path = tmp_path / "x.h5"
    path.write_text("precious")
    with pytest.raises(FileExistsError, match="--overwrite"):
        build(RECIPE, path)
    with pytest.raises(IsADirectoryError):
        build(RECIPE, tmp_path, overwrite=True)
    with pytest.raises(FileNotFoundError, match="folder .*none"):
        build(RECIPE, tmp_path / "none" / "x.h5")
    assert (path.read_text(), no_relaxation.calls) == ("precious", 0)
    build(RECIPE, path, overwrite=True)
    assert len(Dataset.load(path)) > 0


@pytest.mark.parametrize(("argument", "value"), [("seed", -1), ("workers", 0)])
def test_bad_arguments(tmp_path, argument, value):
    with pytest.raises(ValueError, match=f"{argument} is {value}"):
        build(RECIPE, tmp_path / "x.h5", **{argument: value})


def test_split_shares_are_the_recipe_s(no_relaxation, tmp_path):
    recipe = Recipe("x", Sample(("Pt6",), 40), split=Split(0.5, 0.5, 0.0))
    split = build(recipe, tmp_path / "x.h5").split
    sizes = np.bincount(split, minlength=3)
    assert sizes[2] == 0
    assert abs(int(sizes[0]) - int(sizes[1])) <= 1


def test_chunks_cover_the_starts_and_shrink_for_large_structures():
    recipe = Recipe("x", Sample(("Pt5", "Pt147"), 1000))
    chunks = building._chunks(recipe)
    assert [c.place for c in chunks] == list(range(len(chunks)))
    for formula in ("Pt5", "Pt147"):
        own = [c for c in chunks if c.formula == formula]
        assert sum(c.size for c in own) == 1000
        assert [c.first for c in own] == list(np.cumsum([0] + [c.size for c in own])[:-1])
    assert chunks[-2].size < chunks[0].size
