"""What a task does: minima that are minima, snapshots on the way, and honest failures."""

from __future__ import annotations

import contextlib
import dataclasses
import re

import numpy as np
import pytest
from ase import Atoms
from ase.calculators import emt
from ase.optimize import BFGS

from tfgen.datasets import tasks
from tfgen.datasets.minima import Relaxed, find_minima, make_relaxer
from tfgen.datasets.recipe import Relax, Sample
from tfgen.datasets.settings import BuildSettings
from tfgen.datasets.tasks import Part, Results, Source, Task, check_apart, run_apart
from tfgen.execution.processes import Processes
from tfgen.structures.similarity.equality import deviations
from tfgen.structures.status import Status

PT5 = np.full(5, 78)
ASE = Relax(potential="ase.calculators.emt:EMT", rattle=0.0, fmax=0.01)


def task(relax: Relax, size: int = 4, sources=None, **changes) -> Task:
    parts = (Part("Pt5", PT5, (Source(size),) if sources is None else sources),)
    made = Task(0, 0, parts, 0, 0, Sample(("Pt5",), size), relax, ("rattle",))
    return dataclasses.replace(made, **changes)


def run(of: Task) -> Results:
    """The results of a task of one part."""
    (results,) = tasks.run(of)
    return results


def energy_and_fmax(numbers, positions) -> tuple[float, float]:
    atoms = Atoms(numbers, positions=positions, calculator=emt.EMT())
    return atoms.get_potential_energy(), np.linalg.norm(atoms.get_forces(), axis=1).max()


@pytest.mark.parametrize(
    "relax", [Relax(rattle=0.0, fmax=0.01), ASE, dataclasses.replace(ASE, rattle=0.1)]
)
def test_results_are_minima_of_ase(relax):
    result = run(task(relax))
    assert result.status.tolist() == ["converged"] * 4
    for positions, energy, fmax in zip(result.positions, result.energy, result.fmax, strict=True):
        expected = energy_and_fmax(PT5, positions)
        assert expected == (pytest.approx(energy, abs=1e-8), pytest.approx(fmax, abs=1e-6))
        assert fmax <= 0.01


def test_batches_and_ase_start_from_the_same_structures():
    ours, theirs = (
        run(task(dataclasses.replace(r, max_steps=1, snapshots=(0,)))) for r in (Relax(), ASE)
    )
    np.testing.assert_array_equal(ours.snapshots, theirs.snapshots)
    np.testing.assert_allclose(ours.snapshot_energy, theirs.snapshot_energy, atol=1e-8)
    np.testing.assert_allclose(ours.snapshot_fmax, theirs.snapshot_fmax, atol=1e-6)
    assert ours.status.tolist() == ["not converged"] * 4


def test_a_task_is_a_function_of_its_arguments():
    one, same = (run(task(Relax())) for _ in range(2))
    for a, b in zip(one, same, strict=True):
        np.testing.assert_array_equal(a, b)
    for change in ({"seed": 1}, {"round": 1}, {"place": 1}, {"use": 1}):
        other = run(task(dataclasses.replace(ASE, max_steps=1), 1, **change))
        assert np.abs(other.positions - run(
            task(dataclasses.replace(ASE, max_steps=1), 1)).positions).max() > 0.01  # fmt: skip


def test_sources_follow_one_another():
    positions = run(task(Relax())).positions
    sources = (
        Source(2, parents=positions),
        Source(1, parents=np.delete(positions, 4, axis=1), numbers=PT5[:4]),
        Source(2, first=7),
    )
    result = run(task(dataclasses.replace(ASE, max_steps=1, snapshots=(0,)), sources=sources))
    assert result.snapshots.shape == (5, 5, 3)
    # The first two are rattled parents: every atom is still where it was, but for the orientation.
    parents = [Atoms(PT5, positions=x) for x in positions[:2]]
    moved = [Atoms(PT5, positions=x) for x in result.snapshots]
    near, far = deviations(moved[:2], parents), deviations(moved[3:], parents)
    assert (near > 0).all()
    assert near.max() < 2.0
    assert np.isfinite(far).all()


def test_parts_of_a_task_get_their_own_results():
    relax = Relax(snapshots=(0, 3), max_steps=40)
    parts = (
        Part("Pt5", PT5, (Source(3), Source(1, first=5))),
        Part("AuCu2", np.array([29, 29, 79]), (Source(2),)),
        Part("Pt6", np.full(6, 78), (Source(2),)),
    )
    results = tasks.run(task(relax, parts=parts))
    for part, result in zip(parts, results, strict=True):
        shape = (part.size, len(part.numbers), 3)
        assert (result.positions.shape, result.snapshots.shape[1:]) == (shape, shape[1:])
        assert part.size <= len(result.snapshots) <= 2 * part.size
        for positions, energy, fmax in (
            *zip(result.positions, result.energy, result.fmax, strict=True),
            *zip(result.snapshots, result.snapshot_energy, result.snapshot_fmax, strict=True),
        ):
            expected = energy_and_fmax(part.numbers, positions)
            assert expected == (pytest.approx(energy, abs=1e-8), pytest.approx(fmax, abs=1e-6))


@pytest.mark.parametrize("relax", [Relax(), ASE])
def test_snapshots_are_taken_on_the_way_and_have_their_own_energies(relax):
    relax = dataclasses.replace(relax, snapshots=(0, 3, 6), rattle=0.0)
    result = run(task(relax))
    assert len(result.snapshots) == 12
    for positions, energy, fmax in zip(
        result.snapshots, result.snapshot_energy, result.snapshot_fmax, strict=True
    ):
        expected = energy_and_fmax(PT5, positions)
        assert expected == (pytest.approx(energy, abs=1e-8), pytest.approx(fmax, abs=1e-6))
        assert fmax > 0.01
    by_step = result.snapshot_energy.reshape(3, 4)
    assert (by_step[0] > by_step[2]).all()
    assert (by_step[2] > result.energy - 1e-9).all()
    # What has converged is a minimum, no snapshot.
    late = run(task(dataclasses.replace(relax, snapshots=(1500,))))
    assert len(late.snapshots) == 0
    assert (late.status == Status.CONVERGED).all()


SQUARE = np.array([[1, 1, 0], [1, -1, 0], [-1, -1, 0], [-1, 1, 0]]) * 1.3


def minima(relax: Relax, *positions: np.ndarray) -> Relaxed:
    structures = [Atoms(f"Pt{len(x)}", positions=x) for x in positions]
    rng = np.random.default_rng(0)
    return find_minima(make_relaxer(relax), relax, structures, rng, BuildSettings()).minima


@pytest.mark.parametrize("relax", [Relax(), ASE])
def test_rattling_moves_structures_off_saddle_points(relax):
    # A flat square of Pt4 has no forces by symmetry, but is no minimum in EMT.
    rattled, still = (minima(dataclasses.replace(relax, rattle=r), SQUARE) for r in (0.1, 0.0))
    assert still.status.tolist() == rattled.status.tolist() == ["converged"]
    assert np.abs(still.structures[0].positions[:, 2]).max() < 1e-6
    assert rattled.energy[0] < still.energy[0] - 0.01
    expected = energy_and_fmax(np.full(4, 78), rattled.structures[0].positions)[0]
    assert rattled.energy[0] == pytest.approx(expected)


def test_equal_minima_share_one_fate():
    # Both squares are the same saddle: one is rattled, and the other must not stay behind.
    state = minima(Relax(), SQUARE, SQUARE[::-1] + 5.0)
    one, other = (s.positions for s in state.structures)
    np.testing.assert_array_equal(one, other)
    assert state.energy[0] == state.energy[1]
    assert np.abs(one[:, 2]).max() > 0.1


def test_a_minimum_is_not_given_up_for_a_rattle_that_leads_nowhere():
    relax = Relax(potential="faulty:Late", rattle=0.3, fmax=0.01)
    result = run(task(relax, 1))
    assert result.status.tolist() == ["converged"]
    assert result.detail.tolist() == [""]
    assert energy_and_fmax(PT5, result.positions[0])[0] == pytest.approx(result.energy[0])


def of_way(*ways: str, **changes) -> Task:
    """A task of one structure that is treated the first of these ways."""
    relax = Relax(potential="faulty:Faulty", arguments={"ways": list(ways), "among": 1})
    return task(dataclasses.replace(relax, **changes), 1, settings=BuildSettings(tries=1))


@pytest.mark.parametrize(
    ("way", "status", "detail"),
    [
        ("", "converged", ""),
        ("raise", "calculator failed", "RuntimeError: no self-consistency after 100 steps"),
        ("nan", "calculator failed", "energy or forces are not finite"),
    ],
)
def test_failures_that_a_process_survives(way, status, detail):
    result = run(of_way(way))
    assert (result.status.tolist(), result.detail.tolist()) == ([status], [detail])


def test_failures_that_it_does_not_survive():
    with contextlib.closing(Processes()) as processes:
        (hanging,) = run_apart(of_way("hang", time_limit=0.5), processes)
        (crashed,) = run_apart(of_way("crash"), processes)
        # The good ones among them come out as they do without a process of their own.
        (good,) = run_apart(of_way(""), processes)
        for a, b in zip(good, run(of_way("")), strict=True):
            np.testing.assert_array_equal(a, b)
    assert hanging.status.tolist() == [Status.TIME_LIMIT]
    assert hanging.detail[0] == "stopped after 0.5 s"
    assert crashed.status.tolist() == [Status.CRASHED]
    assert crashed.detail[0] == "the worker process was ended by SIGSEGV"
    for result in (hanging, crashed):
        assert result.positions.shape == (1, 5, 3)
        assert np.isnan(result.energy).all()
        assert result.snapshots.shape == (0, 5, 3)


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("ase.calculators.emt:EMT", "^$"),
        ("no_such:EMT", "'no_such:EMT' cannot be made: No module named"),
        ("faulty:Unmakeable", "'faulty:Unmakeable' cannot be made: no licence"),
        ("faulty:crash", "'faulty:crash' cannot be made: the worker process .* SIGSEGV"),
    ],
)
def test_calculators_are_checked_before_the_work(path, problem):
    with contextlib.closing(Processes()) as processes:
        assert re.search(problem, check_apart(Relax(potential=path), processes, tries=1))


def test_calculators_that_need_a_box_get_one():
    relax = Relax(potential="faulty:Boxed", arguments={"vacuum": 4.0}, rattle=0.05)
    assert run(task(relax, 1)).status.tolist() == [Status.CALCULATOR_FAILED]
    boxed = run(task(dataclasses.replace(relax, vacuum=4.0), 1))
    assert boxed.status.tolist() == [Status.CONVERGED]
    assert energy_and_fmax(PT5, boxed.positions[0])[0] == pytest.approx(boxed.energy[0])


def test_a_calculator_that_bfgs_agrees_with():
    # The oracle of the whole route: ASE alone, from the same start.
    start = run(task(dataclasses.replace(ASE, snapshots=(0,), max_steps=1), 1)).snapshots[0]
    atoms = Atoms(PT5, positions=start, calculator=emt.EMT())
    BFGS(atoms, logfile=None).run(fmax=0.01, steps=2000)
    ours = run(task(ASE, 1))
    np.testing.assert_allclose(ours.positions[0], atoms.positions, atol=1e-6)
