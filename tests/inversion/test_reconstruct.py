"""From fingerprints to structures: what is found, what is said about it, what is refused."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
import multiprocessing
import os
import pickle
import re
import signal
import threading
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import numpy as np
import pytest
import shapes
import small
from ase import Atoms

from tfgen.descriptors.acsf import ACSF
from tfgen.fingerprints.fingerprint import Fingerprint
from tfgen.inversion import reconstruct as reconstruction
from tfgen.inversion.population import Generations
from tfgen.inversion.reconstruct import reconstruct
from tfgen.inversion.result import ReconstructionResult, status_of
from tfgen.inversion.search import Found
from tfgen.inversion.settings import Descent, SearchSettings
from tfgen.structures.similarity.equality import deviations
from tfgen.structures.status import Status

SAME = 0.05  # Å, of every sorted distance


# The real search, where compilation would take longer.
UNCOMPILED = {"settings": small.UNCOMPILED}
QUICK = {"settings": small.QUICK}


def quick(**groups: dict) -> SearchSettings:
    """The quick settings, but for some fields of their groups."""
    return vary(small.QUICK, **groups)


def vary(settings: SearchSettings, **groups: dict) -> SearchSettings:
    return dataclasses.replace(
        settings,
        **{
            name: dataclasses.replace(getattr(settings, name), **fields)
            for name, fields in groups.items()
        },
    )


def gold_and_copper() -> Atoms:
    """An octahedron of atoms in no order of elements."""
    atoms = shapes.octahedron()
    atoms.symbols[:] = ["Au", "Cu", "Au", "Au", "Cu", "Au"]
    return atoms


@functools.cache
def of_alloys() -> Fingerprint:
    acsf = ACSF(
        ["Cu", "Au"],
        7.0,
        g2_params=[[2.0, r_s] for r_s in (2.0, 2.5, 3.0, 3.5, 4.0)],
        g5_params=[[0.05, 2, 1], [0.05, 2, -1]],
        g1=False,
    )
    return Fingerprint(acsf, ("mean", "std", "moment3"), per_species=True)


class TestInitialStructures:
    def test_one_that_is_near_leads_there(self):
        """And gives its order of atoms to the result."""
        atoms = gold_and_copper()
        target = of_alloys().create([atoms])
        start = atoms.copy()
        start.positions += 0.1 * np.random.default_rng(0).normal(size=[6, 3])
        result = reconstruct(
            of_alloys(), target, "Au4Cu2", initial_structures=[start], max_rounds=0, **UNCOMPILED
        )
        assert result.status == [Status.CONVERGED]
        np.testing.assert_array_equal(result.rounds, 0)
        (found,) = result.structures
        assert found.get_chemical_symbols() == atoms.get_chemical_symbols()
        assert deviations([found], [atoms])[0] < SAME
        for other in result.candidates[0]:
            assert other.get_chemical_symbols() == atoms.get_chemical_symbols()
        # Atom by atom, not only as a whole: the start was near.
        near = np.abs(found.get_all_distances() - atoms.get_all_distances()).max()
        assert near < SAME

    def test_one_that_fits_is_found_at_once(self):
        """However long the first steps are; one structure needs no list."""
        long = Descent(steps=3, step_length=0.5)
        settings = vary(
            small.UNCOMPILED,
            population={"initial": 2, "descent": long},
            refinement={"descent": long},
        )
        atoms = small.structures()[0]
        target = small.fingerprint().create([atoms])
        result = reconstruct(
            small.fingerprint(),
            target,
            "Pt5",
            initial_structures=atoms,
            max_rounds=0,
            settings=settings,
        )
        assert result.status == [Status.CONVERGED]
        assert deviations(result.structures, [atoms])[0] < 1e-3

    def test_fixed_atoms_stay_where_they_are(self):
        atoms = gold_and_copper()
        atoms.positions += [1 / 3, -10.0, 7.1]
        target = of_alloys().create([atoms])
        start = atoms.copy()
        fixed, free = [0, 1, 2], [3, 4, 5]
        start.positions[free] = atoms.positions.mean(axis=0) + 5.0 * np.eye(3)
        result = reconstruct(
            of_alloys(), target, "Au4Cu2", initial_structures=[start], fixed=fixed, **UNCOMPILED
        )
        assert result.status == [Status.CONVERGED]
        (found,) = result.structures
        assert found.get_chemical_symbols() == atoms.get_chemical_symbols()
        np.testing.assert_array_equal(found.positions[fixed], atoms.positions[fixed])
        assert deviations([found], [atoms])[0] < SAME
        loss = np.abs(of_alloys().create([found]) - target).mean()
        assert loss < 0.01


class TestAmbiguous:
    def test_a_weak_fingerprint_is_ambiguous(self):
        """Mean numbers of neighbours, those too near among them, say little about the shape."""
        acsf = ACSF(["Pt"], 3.5, g2_params=[[2.0, 1.2], [2.0, 2.6]], g1=False)
        fingerprint = Fingerprint(acsf, ("mean",))
        target = fingerprint.create([small.structures()[0]])
        result = reconstruct(fingerprint, target, "Pt5", max_rounds=20, **UNCOMPILED)
        (candidates,), (losses,) = result.candidates, result.candidate_losses
        assert result.status == [Status.AMBIGUOUS]
        said = re.fullmatch(
            r"(\d) different structures found with this fingerprint", result.detail[0]
        )
        assert said
        assert 1 < int(said[1]) <= len(candidates)
        assert losses[0] == result.loss[0]
        assert (losses[: int(said[1])] <= 0.002).all()
        for one, other in itertools.combinations(candidates, 2):
            assert deviations([one], [other])[0] > SAME


class TestPeriodic:
    @pytest.mark.parametrize(
        ("n", "open_"),
        [
            pytest.param(4, False, marks=pytest.mark.slow, id="crystal"),
            pytest.param(2, True, id="slab"),
        ],
    )
    def test_finds_what_has_the_fingerprint(self, n, open_):
        settings = vary(small.UNCOMPILED, population={"initial": 12})
        cell = [[4.1, 0.0, 0.0], [0.3, 3.9, 0.0], [0.0, 0.2, 4.2]]
        fcc = np.array([[0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]])
        shifts = 0.05 * np.random.default_rng(3).normal(size=[4, 3])
        pbc = [True, True, not open_]
        atoms = Atoms("Pt4", positions=(fcc + shifts) @ cell, cell=cell, pbc=pbc)[:n]
        target = small.of_crystals().create([atoms])
        result = reconstruct(
            small.of_crystals(), target, f"Pt{n}", cell=cell, pbc=pbc, settings=settings
        )
        assert result.status[0] == Status.CONVERGED
        assert result.loss[0] <= 0.002
        for found in result.candidates[0]:
            np.testing.assert_array_equal(found.cell.array, cell)
            np.testing.assert_array_equal(found.pbc, pbc)
            inside = found.get_scaled_positions(wrap=False)[:, np.array(pbc)]
            assert (inside > -1e-6).all()
            assert (inside < 1 + 1e-6).all()
        scale = reconstruction._sample_scale(small.of_crystals(), atoms.numbers, atoms, 256, 0)
        error = np.abs(small.of_crystals().create(result.structures) - target) / scale
        np.testing.assert_allclose(result.loss, error.mean(axis=1), rtol=1e-9)

    def test_a_lone_atom(self):
        """Wherever it is, its fingerprint is the same but for rounding."""
        atoms = Atoms("Pt", cell=[4.0, 4.1, 4.2], pbc=True)
        target = small.of_crystals().create([atoms])
        result = reconstruct(
            small.of_crystals(), target, "Pt", cell=atoms.cell.array, max_rounds=1, **UNCOMPILED
        )
        assert result.status == [Status.CONVERGED]
        assert result.rounds[0] == 0

    def test_images_are_not_different_structures(self, monkeypatch):
        """Two atoms in a cell, the second once in its place, once in the next cell."""
        cell = np.diag([4.0, 4.0, 5.0])
        one = np.array([[0, 0, 0], [2.0, 1.9, 2.2]])
        other = one + np.array([[0, 0, 0], [4.0, 0, 5.0]])
        atoms = Atoms("Pt2", positions=one, cell=cell, pbc=True)

        def found(*_):
            return [Found(np.array([one, other]), np.zeros(2), 1, 1, 0, False, 0.1)]

        monkeypatch.setattr(reconstruction, "_search_all", found)
        result = reconstruct(
            small.of_crystals(), small.of_crystals().create([atoms]), "Pt2", cell=cell
        )
        assert result.status == [Status.CONVERGED]
        assert len(result.candidates[0]) == 1


@pytest.fixture
def targets():
    """Fingerprints of two Pt5 and two Pt6 clusters, in turns."""
    return small.fingerprint().create([small.structures()[i] for i in (0, 40, 1, 41)])


FORMULAS = ["Pt5", "Pt6", "Pt5", "Pt6"]


def same_results(one: ReconstructionResult, other: ReconstructionResult) -> None:
    np.testing.assert_array_equal(one.loss, other.loss)
    assert one.status == other.status
    assert one.detail == other.detail
    for name in ("descents", "steps", "rounds"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    for a, b in zip(one.candidates, other.candidates, strict=True):
        for x, y in zip(a, b, strict=True):
            np.testing.assert_array_equal(x.positions, y.positions)


@pytest.mark.slow
def test_processes_give_the_same(targets):
    """The settings go to the processes, too."""
    options = {"max_rounds": 1, **QUICK}
    own = reconstruct(small.fingerprint(), targets[::2], "Pt5", **options)
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, spawn) as executor:
        other = reconstruct(small.fingerprint(), targets[::2], "Pt5", executor=executor, **options)
    assert own.status == other.status
    np.testing.assert_array_equal(own.steps, other.steps)
    # Up to what float64 leaves when it ends its last steps.
    np.testing.assert_allclose(own.loss, other.loss, atol=1e-6)
    assert deviations(own.structures, other.structures).max() < 1e-4


def test_tasks_of_an_executor_share_what_is_compiled(targets, monkeypatch):
    """Each brings a copy of the fingerprint, equal to the others."""
    traces = []
    call = ACSF.__call__
    monkeypatch.setattr(
        ACSF, "__call__", lambda self, batch: traces.append(id(self)) or call(self, batch)
    )

    class Pickles(ThreadPoolExecutor):
        def submit(self, function, *arguments):
            return super().submit(function, *pickle.loads(pickle.dumps(arguments)))

    # A configuration of its own: nothing of it is compiled yet.
    acsf = ACSF(["Pt"], 6.5, g2_params=[[1.0, 2.5], [1.0, 3.0]], g5_params=[[0.1, 1, 1]], g1=False)
    fingerprint = Fingerprint(acsf, ("mean", "std"))
    values, counts = fingerprint.create([small.structures()[i] for i in (0, 1)]), []
    with Pickles(1) as executor:
        for row in (0, 1):
            options = {"max_rounds": 0, "scale": np.ones(fingerprint.size), "executor": executor}
            reconstruct(fingerprint, values[row : row + 1], "Pt5", **options, **QUICK)
            counts.append(len(traces))
    assert 0 < counts[0] == counts[1]


class TestResult:
    def test_keeps_the_order_of_the_targets(self, targets):
        result = reconstruct(small.fingerprint(), targets, FORMULAS, max_rounds=2, **QUICK)
        assert [len(s) for s in result.structures] == [5, 6, 5, 6]
        for values in (result.loss, result.status, result.rounds, result.seconds):
            assert len(values) == 4
        swapped = [1, 0, 3, 2]
        again = reconstruct(
            small.fingerprint(),
            targets[swapped],
            ["Pt6", "Pt5", "Pt6", "Pt5"],
            max_rounds=2,
            **QUICK,
        )
        np.testing.assert_array_equal(again.loss[swapped], result.loss)
        for a, b in zip(again.structures, [result.structures[i] for i in swapped], strict=True):
            np.testing.assert_array_equal(a.positions, b.positions)

    def test_the_seed_is_that_of_the_search(self, targets):
        """And not only of the random structures that give the scale."""
        losses = [
            reconstruct(
                small.fingerprint(),
                targets,
                FORMULAS,
                max_rounds=0,
                scale=np.ones(12),
                seed=seed,
                **QUICK,
            ).loss
            for seed in (0, 0, 1)
        ]
        np.testing.assert_array_equal(losses[0], losses[1])
        assert (losses[0] != losses[2]).all()

    def test_sizes_do_not_disturb_one_another(self, targets):
        both = reconstruct(small.fingerprint(), targets, FORMULAS, max_rounds=0, **QUICK)
        alone = reconstruct(small.fingerprint(), targets[[0, 2]], "Pt5", max_rounds=0, **QUICK)
        np.testing.assert_array_equal(both.loss[[0, 2]], alone.loss)

    def test_loss_is_that_of_the_structures_in_double_precision(self, targets):
        scale = np.linspace(0.5, 2.0, targets.shape[1])
        result = reconstruct(
            small.fingerprint(), targets, FORMULAS, max_rounds=0, scale=scale, **QUICK
        )
        error = np.abs(small.fingerprint().create(result.structures) - targets)
        np.testing.assert_allclose(result.loss, (error / scale).mean(axis=1), rtol=1e-12)

    def test_rounds_make_it_better_and_are_bounded(self, targets):
        losses = []
        for max_rounds in (0, 5):
            result = reconstruct(
                small.fingerprint(),
                targets,
                FORMULAS,
                max_rounds=max_rounds,
                tolerance=1e-9,
                **QUICK,
            )
            np.testing.assert_array_equal(result.rounds, max_rounds)
            losses.append(result.loss)
        assert (losses[1] <= losses[0] * (1 + 1e-4)).all()
        assert losses[1].mean() < losses[0].mean()

    def test_targets_that_are_reached_get_no_more_rounds(self, targets):
        result = reconstruct(small.fingerprint(), targets, FORMULAS, tolerance=1e3, **QUICK)
        np.testing.assert_array_equal(result.rounds, 0)
        reached = reconstruct(small.fingerprint(), targets, FORMULAS, max_rounds=0, **QUICK).loss
        between = np.sort(reached)[1:3].mean() / 0.9
        result = reconstruct(
            small.fingerprint(), targets, FORMULAS, max_rounds=1, tolerance=between, **QUICK
        )
        np.testing.assert_array_equal(result.rounds, np.where(reached < between * 0.9, 0, 1))

    def test_more_targets_than_are_searched_at_once(self):
        targets = small.fingerprint().create(small.structures()[:5])
        result = reconstruct(
            small.fingerprint(), targets, "Pt5", max_rounds=2, tolerance=1e-9, **QUICK
        )
        np.testing.assert_array_equal(result.rounds, 2)
        error = np.abs(small.fingerprint().create(result.structures) - targets).mean(axis=1)
        own = np.array([
            np.abs(small.fingerprint().create([s]) - targets).mean(axis=1).argmin()
            for s in result.structures
        ])  # fmt: skip
        assert (own == np.arange(5)).mean() >= 0.8  # each has its own target, not a neighbour's
        assert np.isfinite(error).all()

    def test_targets_out_of_reach_are_said_to_be(self, targets):
        result = reconstruct(small.fingerprint(), 10 * targets, FORMULAS, max_rounds=1, **QUICK)
        for status, detail, loss in zip(result.status, result.detail, result.loss, strict=True):
            assert status == Status.UNREACHABLE
            assert detail == f"the best structure is far off, with a loss of {loss:.2g}"
        assert np.isfinite(result.loss).all()
        assert all(np.isfinite(s.positions).all() for s in result.structures)

    def test_shows_progress_only_if_asked(self, targets, capfd):
        reconstruct(small.fingerprint(), targets, FORMULAS, max_rounds=2, tolerance=0.5, **QUICK)
        assert capfd.readouterr().err == ""
        reconstruct(
            small.fingerprint(),
            targets,
            FORMULAS,
            max_rounds=2,
            tolerance=0.5,
            progress=True,
            **QUICK,
        )
        assert "inverting: 100%" in capfd.readouterr().err

    def test_a_descriptor_of_ones_own(self):
        """Twenty lines of a user's are all it takes."""
        settings = quick(
            population={"initial": 12},
            refinement={"polish": Descent(steps=150, step_length=0.05)},
        )
        fingerprint = Fingerprint(small.PairHistogram(["Pt"], 5.0, 1.0), ("mean", "std"))
        target = fingerprint.create([shapes.tetrahedron()])
        result = reconstruct(
            fingerprint, target, "Pt4", max_rounds=2, tolerance=0.01, settings=settings
        )
        assert result.status == [Status.CONVERGED]
        assert deviations(result.structures, [shapes.tetrahedron()])[0] < 0.1

    def test_a_target_given_twice(self, targets):
        """Is searched for twice, with other random numbers."""
        twice = np.concatenate([targets[:1], targets[:1]])
        result = reconstruct(small.fingerprint(), twice, "Pt5", max_rounds=0, **QUICK)
        alone = reconstruct(small.fingerprint(), targets[:1], "Pt5", max_rounds=0, **QUICK)
        assert result.loss[0] == alone.loss[0] != result.loss[1]

    @pytest.mark.parametrize("dtype", [np.float32, object, list], ids=str)
    def test_targets_of_any_type(self, targets, dtype):
        exact = targets[:1].astype(np.float32).astype(float)
        given = exact.tolist() if dtype is list else exact.astype(dtype)
        losses = [
            reconstruct(small.fingerprint(), t, np.array(["Pt5"]), max_rounds=0, **QUICK).loss
            for t in (exact, given)
        ]
        np.testing.assert_array_equal(*losses)

    def test_time_runs_out(self, targets):
        began = time.perf_counter()
        result = reconstruct(
            small.fingerprint(),
            targets,
            FORMULAS,
            max_rounds=10**9,
            tolerance=1e-12,
            time_limit=1e-3,
            **QUICK,
        )
        assert time.perf_counter() - began < 30
        assert result.status == [Status.NOT_CONVERGED] * 4
        np.testing.assert_array_equal(result.rounds, 0)

    def test_an_executor_gives_the_same(self, targets):
        own = reconstruct(small.fingerprint(), targets, FORMULAS, max_rounds=2, **QUICK)
        with ThreadPoolExecutor(2) as executor:
            other = reconstruct(
                small.fingerprint(), targets, FORMULAS, max_rounds=2, executor=executor, **QUICK
            )
        same_results(own, other)

    def test_what_fails_elsewhere_fails_here(self, targets, monkeypatch):
        def fail(*_):
            raise OSError("the disk is full")

        monkeypatch.setattr(reconstruction, "search", fail)
        with pytest.raises(OSError, match="the disk is full"):
            reconstruct(small.fingerprint(), targets, FORMULAS, **QUICK)
        with ThreadPoolExecutor(2) as executor, pytest.raises(OSError, match="the disk is full"):
            reconstruct(small.fingerprint(), targets, FORMULAS, executor=executor, **QUICK)

    def test_an_interruption_leaves_no_threads(self, targets, monkeypatch):
        """Ctrl-C, while searches without end are running."""
        before = threading.active_count()
        proceed = Generations.advance

        def interrupted(self, old):
            os.kill(os.getpid(), signal.SIGINT)
            monkeypatch.setattr(Generations, "advance", proceed)
            return proceed(self, old)

        monkeypatch.setattr(Generations, "advance", interrupted)
        with pytest.raises(KeyboardInterrupt):
            reconstruct(
                small.fingerprint(), targets, FORMULAS, max_rounds=10**9, tolerance=1e-12, **QUICK
            )
        assert threading.active_count() == before

    def test_between_two_structures_there_is_nothing(self):
        """Half of one fingerprint and half of another is no structure's."""
        settings = quick(
            population={"initial": 12},
            moves={"per_child": 3},
            refinement={"descent": Descent(steps=60, step_length=0.1)},
        )
        settings = dataclasses.replace(settings, patience=3)
        triangles = [
            Atoms("Pt3", positions=edge * np.array([[0, 0, 0], [1, 0, 0], [0.5, np.sqrt(0.75), 0]]))
            for edge in (2.5, 2.9)
        ]
        target = small.fingerprint().create(triangles).mean(axis=0, keepdims=True)
        result = reconstruct(small.fingerprint(), target, "Pt3", max_rounds=200, settings=settings)
        assert result.status == [Status.UNREACHABLE]
        assert result.detail == [
            f"several populations ended in the same structure, whose loss is {result.loss[0]:.2g}"
        ]
        assert result.rounds[0] < 200
        # The best compromise is a triangle between the two.
        edges = result.structures[0].get_all_distances()[np.triu_indices(3, 1)]
        assert (edges > 2.5).all()
        assert (edges < 2.9).all()

    def test_two_atoms(self):
        pair = Atoms("Pt2", positions=[[0, 0, 0], [0, 0, 2.5]])
        target = small.fingerprint().create([pair])
        result = reconstruct(
            small.fingerprint(), target, "Pt2", max_rounds=1, tolerance=0.05, **QUICK
        )
        assert result.structures[0].get_distance(0, 1) == pytest.approx(2.5, abs=0.1)


class TestStatus:
    def test_converged(self):
        assert status_of(shapes.octahedron(), 0.004, 0.004) is Status.CONVERGED

    def test_not_converged(self):
        assert status_of(shapes.octahedron(), 0.0041, 0.004) is Status.NOT_CONVERGED

    @pytest.mark.parametrize("loss", [np.nan, np.inf])
    def test_no_fingerprint(self, loss):
        assert status_of(shapes.octahedron(), loss, 0.004) is Status.NO_FINGERPRINT

    def test_overlap(self):
        """Nearer than 0.7 times the sum of the covalent radii, 2 x 1.36 Å."""
        near, apart = (
            Atoms("Pt2", positions=[[0, 0, 0], [0, 0, x * 2 * 1.36 * 0.7]]) for x in (0.99, 1.01)
        )
        assert status_of(near, 0.0, 0.004) is Status.OVERLAPPING_ATOMS
        assert status_of(apart, 0.0, 0.004) is Status.CONVERGED

    def test_overlap_through_the_boundary_of_a_cell(self):
        """Two atoms 9 Å apart in a cell of 10 Å are 1 Å apart in the next."""
        atoms = Atoms("Pt2", positions=[[0, 0, 0.5], [0, 0, 9.5]], cell=[10, 10, 10])
        assert status_of(atoms, 0.0, 0.004) is Status.CONVERGED
        atoms.pbc = [False, False, True]
        assert status_of(atoms, 0.0, 0.004) is Status.OVERLAPPING_ATOMS
        atoms.pbc = [True, True, False]
        assert status_of(atoms, 0.0, 0.004) is Status.CONVERGED

    def test_a_lone_atom_overlaps_its_own_images(self):
        for edge, wanted in ((1.8, Status.OVERLAPPING_ATOMS), (2.0, Status.CONVERGED)):
            atoms = Atoms("Pt", cell=[edge, 9, 9], pbc=True)
            assert status_of(atoms, 0.0, 0.004) is wanted


class TestRecords:
    def test_are_json(self):
        result = ReconstructionResult(
            structures=[Atoms("Pt2")] * 2,
            loss=np.array([0.25, np.inf]),
            status=[Status.UNREACHABLE, Status.NO_FINGERPRINT],
            detail=["far", ""],
            candidates=[[], []],
            candidate_losses=[np.zeros(0)] * 2,
            descents=np.array([4, 5]),
            steps=np.array([6, 7]),
            rounds=np.array([1, 0]),
            seconds=np.array([0.5, 1.5]),
        )
        assert json.loads(json.dumps(result.to_json(), allow_nan=False)) == [
            {
                "fingerprint_loss": 0.25, "status": "unreachable", "status_detail": "far",
                "seconds": 0.5, "rounds": 1,
            },
            {
                "fingerprint_loss": None, "status": "no finite fingerprint",
                "seconds": 1.5, "rounds": 0,
            },
        ]  # fmt: skip
