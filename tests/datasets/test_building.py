"""Building: real minima, the same data set after interruptions and by any workers."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import build_it
import numpy as np
import pytest
from ase import Atoms
from ase.calculators import emt
from ase.optimize import BFGS

from tfgen.datasets import building, exploring, tasks
from tfgen.datasets.building import build, partial_folder
from tfgen.datasets.minima import Relaxed
from tfgen.datasets.recipe import Explore, Recipe, Relax, Sample, Select
from tfgen.datasets.settings import BuildSettings
from tfgen.datasets.storage import Dataset
from tfgen.structures.similarity.equality import duplicates
from tfgen.structures.status import Status
from tfgen.warnings import TfgenWarning

EXPLORE = Explore(rounds=2, count=12, parents=6, grow=0.5)
RECIPE = Recipe("tiny", Sample(("Pt5", "AuCu3", "Pt4"), 25), explore=EXPLORE, text='name = "tiny"')
TASKS_OF_10 = BuildSettings(structures_per_task=10)


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
    """A data set by way of eight tasks in the first round, and its file."""
    path = tmp_path_factory.mktemp("built") / "tiny.h5"
    return build(RECIPE, path, seed=1, settings=TASKS_OF_10), path


@pytest.fixture
def no_relaxation(monkeypatch):
    """Relaxation leaves structures as they are, with made-up energies."""
    state = SimpleNamespace(calls=0)

    def make(*_):
        def same(structures, steps):
            state.calls += 1
            n = len(structures)
            energy = np.array([np.linalg.norm(s.positions, axis=1).sum() for s in structures])
            status, detail = np.full(n, Status.CONVERGED), np.full(n, "")
            forces = [0.0 * s.positions for s in structures]
            return Relaxed(structures, forces, energy, np.zeros(n), status, detail)

        return same

    monkeypatch.setattr(tasks, "make_relaxer", make)
    return state


def test_minima_are_minima_of_ase(built):
    dataset, _ = built
    for atoms, energy, forces in zip(
        dataset.structures, dataset.properties["energy_per_atom"], dataset.forces, strict=True
    ):
        atoms = atoms.copy()
        atoms.calc = emt.EMT()
        assert atoms.get_potential_energy() / len(atoms) == pytest.approx(energy, abs=1e-9)
        np.testing.assert_allclose(atoms.get_forces(), forces, atol=1e-9)
        BFGS(atoms, logfile=None).run(fmax=0.01, steps=100)
        assert atoms.get_potential_energy() / len(atoms) == pytest.approx(energy, abs=1e-3)


def test_what_is_kept_is_unique_sorted_split_and_described(built):
    dataset, path = built
    n = len(dataset)
    np.testing.assert_array_equal(duplicates(dataset.structures, 0.05), np.arange(n))
    energy = dataset.properties["energy_per_atom"]
    formulas = np.array([s.get_chemical_formula() for s in dataset.structures])
    assert list(dict.fromkeys(formulas)) == ["Pt5", "AuCu3", "Pt4"]
    for formula in set(formulas):
        assert (np.diff(energy[formulas == formula]) >= 0).all()
    assert (np.bincount(dataset.split, minlength=3) > 0).all()
    counts = dict(dataset.metadata["counts"])
    assert (counts.pop("sampled"), counts.pop("explored")) == (75, 72)
    assert sum(counts.values()) == 75 + 72
    assert counts["kept"] == n
    rounds = dataset.metadata["rounds"]
    assert [r["structures"] for r in rounds] == [75, 36, 36]
    assert rounds[0]["minima"] <= rounds[1]["minima"] <= rounds[2]["minima"]
    # Which of nearly equal ones stay depends on their order.
    assert rounds[2]["minima"] == pytest.approx(n, abs=2)
    assert dataset.metadata["kind"] == "built"
    assert dataset.metadata["recipe"] == RECIPE.text
    assert dataset.metadata["seed"] == 1
    assert {"tfgen", "tensorflow", "ase"} <= set(dataset.metadata["versions"])
    assert dataset.units["energy_per_atom"] == "eV/atom"
    assert set(dataset.properties) > {"radius_of_gyration", "asphericity", "mean_coordination"}
    assert not partial_folder(path).exists()
    assert list(path.parent.iterdir()) == [path]
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


@pytest.mark.parametrize("stop_after", [0, 1, 10, 14])
def test_an_interrupted_build_goes_on_and_ends_the_same(built, monkeypatch, tmp_path, stop_after):
    path = tmp_path / "tiny.h5"
    work, calls = building.run, []

    def interrupted(task):
        if len(calls) == stop_after:
            raise KeyboardInterrupt
        calls.append(task)
        return work(task)

    monkeypatch.setattr(building, "run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        build(RECIPE, path, seed=1, settings=TASKS_OF_10)
    folder = partial_folder(path)
    assert len(list(folder.glob("chunk-*.npz"))) == stop_after
    assert not path.exists()
    if stop_after:  # as if the machine had gone down before all was on disk
        chunk = folder / "chunk-000-000001.npz"
        chunk.write_bytes(chunk.read_bytes()[:100])
    calls.clear()
    monkeypatch.setattr(building, "run", lambda task: calls.append(task) or work(task))
    assert_same(build(RECIPE, path, seed=1, settings=TASKS_OF_10), built[0])
    # 75 starts, then 36 structures in each round; compositions of up to 4 and up to 8 atoms apart.
    assert len(calls) == 8 + 5 + 5 - stop_after + (1 if stop_after else 0)
    assert not folder.exists()


def test_results_of_another_task_are_not_taken_for_its_own(no_relaxation, tmp_path):
    nothing, settings = exploring.make_empty_minima(RECIPE), BuildSettings(structures_per_task=25)
    one, other, _ = exploring.plan(RECIPE, 0, 0, nothing, settings)
    assert one.size == other.size
    tasks.save_results(tmp_path, one, tasks.run(one))
    for part, same in zip(tasks.load_results(tmp_path, one), tasks.run(one), strict=True):
        for mine, theirs in zip(part, same, strict=True):
            np.testing.assert_array_equal(mine, theirs)
    tasks._path_of(tmp_path, one).rename(tasks._path_of(tmp_path, other))
    assert tasks.load_results(tmp_path, other) is None
    assert tasks.load_results(tmp_path, one) is None


def leave_unfinished(path, monkeypatch):
    def fail(*_):
        raise OSError("disk")

    with monkeypatch.context() as patch:
        patch.setattr(building, "select", fail)
        with pytest.raises(OSError, match="disk"):
            build(RECIPE, path, seed=1, overwrite=True)


def test_what_is_left_of_another_build_is_not_mixed_in(no_relaxation, tmp_path, monkeypatch):
    path = tmp_path / "x.h5"
    leave_unfinished(path, monkeypatch)
    no_relaxation.calls = 0
    bigger = dataclasses.replace(RECIPE, sample=Sample(("Pt5", "AuCu3"), 31))
    further = dataclasses.replace(RECIPE, explore=dataclasses.replace(EXPLORE, rounds=3))
    for recipe, seed, what in ((RECIPE, 2, "seed"), (bigger, 1, "sample"), (further, 1, "explore")):
        with pytest.raises(FileExistsError, match=rf"interrupted build of something else .*{what}"):
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
    (folder / "chunk-000-000001.npz").write_bytes(b"?")
    (folder / "task.json").write_text("{")
    for name in ("chunk-000-000001.npz", "task.json"):
        with pytest.raises(FileExistsError, match="something else"):
            build(RECIPE, path)
        (folder / name).unlink()
    (folder / ".task-abc.json").write_text("")  # what a kill in the first moment leaves
    build(RECIPE, path)
    assert not folder.exists()


def test_only_its_own_files_are_removed(no_relaxation, tmp_path, monkeypatch):
    path = tmp_path / "x.h5"
    leave_unfinished(path, monkeypatch)
    foreign = partial_folder(path) / "notes.txt"
    foreign.write_text("mine")
    with pytest.raises(FileExistsError, match="'notes.txt', which tfgen has not put there"):
        build(RECIPE, path, seed=2, overwrite=True)
    build(RECIPE, path, seed=1)
    assert [p.name for p in partial_folder(path).iterdir()] == ["notes.txt"]


def test_a_build_that_did_nothing_leaves_nothing(no_relaxation, tmp_path, monkeypatch):
    path = tmp_path / "x.h5"
    with monkeypatch.context() as patch:
        patch.setattr(building, "run", lambda _: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            build(RECIPE, path)
        assert list(tmp_path.iterdir()) == []
        # Killed before it did anything: another build may take its place.
        patch.setattr(building, "_remove", lambda _: None)
        with pytest.raises(ZeroDivisionError):
            build(RECIPE, path)
    assert [p.name for p in partial_folder(path).iterdir()] == ["task.json"]
    build(RECIPE, path, seed=5)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("left", ["everything", "record", "nothing"])
def test_a_build_killed_in_its_last_moment_is_finished(no_relaxation, tmp_path, monkeypatch, left):
    # Killed when the data set stood in its place, and its folder was being removed.
    path = tmp_path / "x.h5"
    leave_unfinished(path, monkeypatch)
    folder, copy = partial_folder(path), tmp_path / "copy"
    shutil.copytree(folder, copy)
    whole = build(RECIPE, path, seed=1)
    shutil.move(copy, folder)
    for file in folder.iterdir():
        if left == "nothing" or (left == "record" and file.name != "task.json"):
            file.unlink()
    no_relaxation.calls = 0
    # Another build is not taken for this one.
    with pytest.raises(FileExistsError, match="pass overwrite=True"):
        build(RECIPE, path, seed=2)
    assert folder.exists()
    before = path.read_bytes()
    assert_same(build(RECIPE, path, seed=1), whole)
    assert (path.read_bytes(), folder.exists(), no_relaxation.calls) == (before, False, 0)
    with pytest.raises(FileExistsError, match="pass overwrite=True"):
        build(RECIPE, path, seed=1)


def test_a_link_is_followed(no_relaxation, tmp_path):
    target, link = tmp_path / "target.h5", tmp_path / "link.h5"
    build(RECIPE, target)
    link.symlink_to(target)
    build(RECIPE, link, seed=1, overwrite=True)
    assert link.is_symlink()
    assert Dataset.load(target).metadata["seed"] == 1


def test_existing_outputs_are_refused_before_the_work(no_relaxation, tmp_path):
    path = tmp_path / "x.h5"
    path.write_text("precious")
    with pytest.raises(FileExistsError, match="pass overwrite=True"):
        build(RECIPE, path)
    with pytest.raises(IsADirectoryError):
        build(RECIPE, tmp_path, overwrite=True)
    with pytest.raises(FileNotFoundError, match="folder .*none"):
        build(RECIPE, tmp_path / "none" / "x.h5")
    assert (path.read_text(), no_relaxation.calls) == ("precious", 0)
    build(RECIPE, path, overwrite=True)
    assert len(Dataset.load(path)) > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seed": -1}, "seed is -1"),
        ({"workers": 0}, "workers is 0"),
        ({"executor": "slurm"}, "executor is 'slurm'; one of local, dask"),
        ({"executor": "dask"}, "executor is 'dask' and scheduler None"),
        ({"scheduler": "tcp://x:1"}, "executor is 'local' and scheduler 'tcp://x:1'"),
    ],
)
def test_bad_arguments(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        build(RECIPE, tmp_path / "x.h5", **arguments)
    assert list(tmp_path.iterdir()) == []


FAULTY = Relax(
    potential="faulty:Faulty",
    arguments={"ways": ["exit", "hang", "raise", "nan"], "among": 6},
    time_limit=1.0,
    fmax=0.05,
    rattle=0.0,
    max_steps=60,
)


def ways_of(recipe: Recipe, seed: int) -> np.ndarray:
    """How many of the initial structures `Faulty` treats in each of its ways: [6]."""
    sound = Relax(potential="ase.calculators.emt:EMT", snapshots=(0,), max_steps=1)
    recipe = dataclasses.replace(recipe, relax=sound)
    planned = exploring.plan(recipe, seed, 0, exploring.make_empty_minima(recipe))
    starts = np.concatenate([tasks.run(t)[0].snapshots for t in planned])
    return np.bincount((np.abs(starts[:, 0, 0]) * 1e6).astype(int) % 6, minlength=6)


def test_a_calculator_that_fails_in_every_way(tmp_path):
    recipe = Recipe("faulty", Sample(("Pt4",), 10), relax=FAULTY)
    seed = next(seed for seed in range(100) if min(ways_of(recipe, seed)) > 0)
    once = BuildSettings(tries=1)
    with pytest.warns(TfgenWarning, match="the calculator failed for some, most often: "):
        dataset = build(recipe, tmp_path / "x.h5", seed=seed, workers=2, settings=once)
    counts, way = dict(dataset.metadata["counts"]), ways_of(recipe, seed)
    assert counts["crashed"] == way[0]
    assert counts["time limit"] == way[1]
    assert counts["calculator failed"] == way[2] + way[3]
    assert counts.pop("sampled") == sum(counts.values()) == 10
    assert counts["kept"] >= 1


def test_what_a_calculator_prints_is_beside_the_output(tmp_path, capfd):
    talking = Relax(potential="faulty:Talking", rattle=0.0)
    recipe = Recipe("talks", Sample(("Pt4",), 1), relax=talking)
    build(recipe, tmp_path / "x.h5")
    assert capfd.readouterr() == ("", "")
    assert "calculators talk" in (tmp_path / "x.h5.calculator.log").read_text()
    silent = dataclasses.replace(
        recipe, relax=Relax(potential="ase.calculators.emt:EMT", rattle=0.0)
    )
    build(silent, tmp_path / "y.h5")
    assert {p.name for p in tmp_path.iterdir()} == {"x.h5", "x.h5.calculator.log", "y.h5"}


def test_a_calculator_that_cannot_be_made(tmp_path):
    recipe = dataclasses.replace(RECIPE, relax=Relax(potential="faulty:Unmakeable"))
    with pytest.raises(ValueError, match="'faulty:Unmakeable' cannot be made: no licence"):
        build(recipe, tmp_path / "x.h5")
    assert not (tmp_path / "x.h5").exists()


def test_a_calculator_that_never_works(tmp_path):
    relax = dataclasses.replace(FAULTY, arguments={"ways": ["raise"], "among": 1}, time_limit=60.0)
    recipe = Recipe("x", Sample(("Pt4",), 3), relax=relax, explore=Explore(1, 2))
    with pytest.raises(
        ValueError,
        match="no structures: 3 sampled, 2 explored, .* 5 calculator failed, .*no self-consistency",
    ):
        build(recipe, tmp_path / "x.h5")


# ---- The same data set, whatever makes it and whatever happens meanwhile.

SAME = dataclasses.replace(RECIPE, sample=Sample(("Pt5", "Pt6"), 12), relax=Relax(snapshots=(2,)))
SAME_ASE = dataclasses.replace(build_it.RECIPE, name="same")


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """What comes out with one process."""
    folder = tmp_path_factory.mktemp("here")
    return [build(r, folder / f"{i}.h5", seed=3) for i, r in enumerate((SAME, SAME_ASE))]


def kill_a_worker(pids, after: float) -> threading.Timer:
    """Kills one of the processes that `pids` lists, some seconds after there are any."""

    def kill():
        while not (found := pids()):
            time.sleep(0.01)
        time.sleep(after)
        with contextlib.suppress(ProcessLookupError):
            os.kill(min(found), signal.SIGKILL)

    return threading.Timer(0.0, kill)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [0, 1])
def test_two_processes_of_which_one_is_killed(here, tmp_path, monkeypatch, kind):
    children: set[int] = set()
    start = subprocess.Popen.__init__

    def noted(self, *args, **kwargs):
        start(self, *args, **kwargs)
        children.add(self.pid)

    monkeypatch.setattr(subprocess.Popen, "__init__", noted)
    killer = kill_a_worker(lambda: children, after=1.5)
    killer.start()
    two = build((SAME, SAME_ASE)[kind], tmp_path / "two.h5", seed=3, workers=2)
    killer.join()
    assert_same(two, here[kind])
    assert len(children) >= 2


@pytest.mark.slow
def test_a_dask_cluster_of_which_a_worker_is_killed(here, tmp_path):
    pytest.importorskip("distributed")
    command = [sys.executable, str(Path(__file__).with_name("cluster.py"))]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "DASK_DISTRIBUTED__LOGGING__DISTRIBUTED": "critical",
    }
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as cluster:
        address = cluster.stdout.readline().strip()
        from distributed import Client

        with Client(address) as client:
            pids = list(client.run(os.getpid).values())
        killer = kill_a_worker(lambda: pids, after=3.0)
        killer.start()
        arguments = {"seed": 3, "executor": "dask", "scheduler": address}
        try:
            for recipe, expected in zip((SAME_ASE, SAME), here[::-1], strict=True):
                made = build(recipe, tmp_path / f"{recipe.name}.h5", **arguments)
                assert_same(made, expected)
            killer.join()
            bad = dataclasses.replace(SAME_ASE, relax=Relax(potential="faulty:Unmakeable"))
            with pytest.raises(ValueError, match="no licence"):
                build(bad, tmp_path / "bad.h5", **arguments)
        finally:
            cluster.stdin.close()


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_at_random_moments_the_same_command_goes_on(here, tmp_path):
    script = str(Path(__file__).with_name("build_it.py"))

    moments = np.random.default_rng(0).uniform(0.0, 0.9, size=6)
    whole, output = tmp_path / "whole.h5", tmp_path / "killed.h5"
    command = [sys.executable, script, *map(str, (whole, output, *moments))]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    ends = done.stdout.split()
    # exists: the last one killed had its data set in place already.
    assert ends[:-1] == ["killed"] * len(moments)
    assert ends[-1] in ("finished", "exists")
    expected = Dataset.load(whole)
    assert_same(
        expected, dataclasses.replace(here[1], metadata=here[1].metadata | {"name": "killed"})
    )
    assert_same(Dataset.load(output), expected)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["killed.h5", "whole.h5"]


@pytest.mark.slow
def test_the_command_itself_killed(here, tmp_path):
    recipe = tmp_path / "recipe.toml"
    sample, explore = SAME.sample, SAME.explore
    recipe.write_text(
        f'name = "tiny"\n[sample]\nformula = {json.dumps(sample.formula)}\n'
        f"count = {sample.count}\n[relax]\nsnapshots = [2]\n[explore]\nrounds = {explore.rounds}\n"
        f"count = {explore.count}\nparents = {explore.parents}\ngrow = {explore.grow}\n"
    )
    output = tmp_path / "x.h5"
    command = [sys.executable, "-m", "tfgen", "dataset", "build", str(recipe), "-o", str(output)]
    command += ["--seed", "3"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        while not list(partial_folder(output).glob("chunk-*")) and process.poll() is None:
            time.sleep(0.01)
        assert process.poll() is None, process.stderr.read()
        process.kill()
    assert not output.exists()
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    assert "24  sampled" in done.stdout
    made = Dataset.load(output)
    assert_same(made, dataclasses.replace(here[0], metadata=made.metadata))
    assert made.metadata["counts"] == here[0].metadata["counts"]
