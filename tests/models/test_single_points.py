"""What an NNP is learned from: what a data set has comes before new calculations."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.lj import LennardJones
from ase.data import covalent_radii

from tfgen.models.settings import NNPSettings
from tfgen.models.single_points import (
    FewUsableError,
    OtherPotentialError,
    gather,
    rattle,
)

ALLOY = Atoms("CuAu", positions=[[0.0, 0.0, 0.0], [0.0, 0.0, 2.6]])
# The minimum of a pair is at 2^(1/6) σ.
PAIR = {"sigma": 2.0, "rc": 20.0}
MINIMUM = 2.0 * 2 ** (1 / 6)
MINIMA = [Atoms("Ar2", positions=[[x, 0, 0], [x, 0, MINIMUM]]) for x in range(5)]
STRETCHED = [Atoms("Ar2", positions=[[0, 0, 0], [0, 0, MINIMUM + 0.1 * i]]) for i in range(1, 13)]
BRIEF = NNPSettings(min_calculations=1)


class Calls:
    """Lennard-Jones, which notes what it was asked to calculate."""

    def __init__(self):
        self.structures = []

    def __call__(self, structures):
        self.structures += structures
        return calculated(structures)


def calculated(structures):
    found = [LennardJones(**PAIR).get_property for _ in structures]
    energy = [get("energy", atoms) for get, atoms in zip(found, structures, strict=True)]
    forces = [get("forces", atoms) for get, atoms in zip(found, structures, strict=True)]
    return np.array(energy), forces


def gathered(structures, known=None, calculate=None, settings=BRIEF):
    return gather(structures, calculate, known, settings, np.random.default_rng(0))


class TestRattle:
    def test_copies_differ_by_all_amounts(self):
        copies = rattle([ALLOY] * 2, 300, np.random.default_rng(0))
        assert len(copies) == 600
        moved = np.array([c.positions - ALLOY.positions for c in copies])
        spread = np.sqrt((moved**2).mean(axis=(1, 2)))
        assert 0.005 < spread.min() < 0.05
        assert 0.15 < spread.max() < 0.4
        assert np.abs(moved.mean()) < 0.01

    def test_amplitudes_are_in_covalent_radii(self):
        copies = rattle([ALLOY], 4000, np.random.default_rng(0), (0.1, 0.1))
        moved = np.array([c.positions - ALLOY.positions for c in copies])
        wanted = 0.1 * covalent_radii[ALLOY.numbers]
        np.testing.assert_allclose(moved.std(axis=(0, 2)), wanted, rtol=0.05)
        assert [str(c.symbols) for c in copies[:2]] == ["CuAu"] * 2


@pytest.mark.parametrize("known", [False, True])
def test_every_energy_belongs_to_its_structure(known):
    structures, calls = MINIMA + STRETCHED[:3], Calls()
    points = gathered(structures, calculated(structures) if known else None, calls)
    assert len(points.structures) == len(points.energy) == len(points.forces)
    energy, forces = calculated(points.structures)
    np.testing.assert_allclose(points.energy, energy)
    np.testing.assert_allclose(points.forces, forces)
    assert points.calculated == len(calls.structures)
    assert points.calculated + points.stored >= len(points.structures)
    assert points.minima == pytest.approx(5 / 8)
    for place, atoms in zip(points.family, points.structures, strict=True):
        moved = atoms.positions - points.structures[place].positions
        assert np.abs(moved).max() < 5 * 0.18 * covalent_radii[18]


def test_nothing_is_known():
    points = gathered(MINIMA + STRETCHED, None, Calls())
    assert (points.originals, points.calculated, points.stored) == (17, 4 * 17, 0)
    np.testing.assert_array_equal(np.bincount(points.family), 4)


def test_minima_are_not_calculated_again_but_have_copies():
    points = gathered(MINIMA, calculated(MINIMA), Calls())
    assert (points.originals, points.stored) == (5, 5)
    assert points.calculated == 3 * 5 + BRIEF.checked
    assert len(points.structures) == 20


def test_snapshots_take_the_place_of_copies():
    structures = MINIMA + STRETCHED
    points = gathered(structures, calculated(structures), Calls())
    # 20 are wanted and 17 are there; every minimum has a copy all the same.
    assert (points.stored, points.calculated) == (17, 5 + BRIEF.checked)
    copied = [points.structures[i] for i in points.family[points.originals :]]
    assert all(atoms.get_distance(0, 1) == pytest.approx(MINIMUM) for atoms in copied)
    points = gathered(structures, calculated(structures), Calls(), NNPSettings(min_calculations=40))
    assert points.calculated - BRIEF.checked == 25  # as many for each minimum, at least 23


def test_snapshots_alone():
    few, known = NNPSettings(min_calculations=12), calculated(STRETCHED)
    points = gathered(STRETCHED, known, Calls(), few)
    assert (len(points.structures), points.calculated) == (12, few.checked)
    points = gathered(STRETCHED, known, Calls(), NNPSettings(min_calculations=30))
    assert (len(points.structures), points.stored) == (36, 12)


def test_not_all_are_known():
    energy, forces = calculated(MINIMA + STRETCHED)
    energy[1], forces[7][0, 0] = np.nan, np.nan
    calls = Calls()
    points = gathered(MINIMA + STRETCHED, (energy, forces), calls)
    assert points.stored == 15
    assert np.isfinite(points.energy).all()
    asked = [atoms.get_distance(0, 1) for atoms in calls.structures]
    assert pytest.approx(STRETCHED[2].get_distance(0, 1)) in asked


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda e, f: (e + 0.01, f), r"its energy of a structure differs .* by 0\.005 eV/atom"),
        (lambda e, f: (e, [force + 0.1 for force in f]), r"a force differs .* by 0\.173 eV/Å"),
        (lambda e, f: (e, [2.0 * force for force in f]), r"a force differs"),
        (lambda e, f: (e + 0.01, unknown(f)), r"its energies differ .* by 0\.005 eV/atom on av"),
    ],
)
def test_of_another_potential(change, message):
    structures = MINIMA + STRETCHED
    with pytest.raises(OtherPotentialError, match=message):
        gathered(structures, change(*calculated(structures)), Calls())


def unknown(forces):
    return [np.full(force.shape, np.nan) for force in forces]


def test_energies_alone_are_compared_and_calculated():
    structures = MINIMA + STRETCHED
    energy, forces = calculated(structures)
    energy[:3] += 1.0  # as where the calculation of a few ended in another state
    points = gathered(structures, (energy, unknown(forces)), Calls())
    assert (points.stored, points.calculated) == (0, 4 * 17)
    np.testing.assert_allclose(points.energy, calculated(points.structures)[0])


def test_failed_calculations_confirm_nothing():
    structures = MINIMA + STRETCHED
    known = calculated(structures)

    def fail(structures):
        return np.full(len(structures), np.nan), unknown(calculated(structures)[1])

    with pytest.raises(OtherPotentialError, match="the 4 calculations that were to check .* fail"):
        gathered(structures, known, fail)


def test_failed_calculations_say_nothing_of_minima():
    def fail_at_times(structures):
        energy, forces = calculated(structures)
        energy[1:5], forces[1:5] = np.nan, unknown(forces[1:5])
        return energy, forces

    assert gathered(MINIMA * 2, None, fail_at_times).minima == 1.0


def test_without_a_potential():
    structures = MINIMA + STRETCHED
    energy, forces = calculated(structures)
    energy[0] = np.nan
    points = gathered(structures, (energy, forces))
    assert (len(points.structures), points.stored, points.calculated) == (16, 16, 0)
    with pytest.raises(FewUsableError, match="of the 5 structures with known forces 0 are no min"):
        gathered(MINIMA, calculated(MINIMA))


def test_no_more_than_there_may_be():
    structures = STRETCHED * 10 + MINIMA * 10
    settings = NNPSettings(min_calculations=1, max_calculations=40)
    points = gathered(structures, calculated(structures), Calls(), settings)
    assert len(points.structures) <= 40
    resting = sum(atoms.get_distance(0, 1) < MINIMUM + 0.01
                  for atoms in points.structures[: points.originals])  # fmt: skip
    assert resting == 10
