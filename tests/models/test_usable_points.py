"""Which single-point calculations an NNP learns from."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms

from tfgen.models.settings import NNPSettings
from tfgen.models.single_points import SinglePoints
from tfgen.models.usable_points import find_usable, measure_spread

NONE = {"failed": 0, "too_high": 0, "too_low": 0}


def found(originals, copies, *, kinds=None, forces=None):
    """The rows that are left out, and why; energies in eV/atom."""
    kinds = kinds or ["Pt2"] * len(originals)
    first = np.arange(len(originals))
    family = np.concatenate([first, np.repeat(first, np.size(copies) // len(first))])
    structures = [Atoms(kinds[i], positions=np.eye(3)[:2]) for i in family]
    energy = 2.0 * np.concatenate([originals, np.ravel(copies)])
    forces = forces or [np.zeros((2, 3)) for _ in energy]
    points = SinglePoints(structures, energy, forces, family, len(originals), len(energy), 0, 1.0)
    rows, left_out = find_usable(points, NNPSettings())
    return sorted(set(range(len(energy))) - {*rows.tolist()}), left_out


# Minima, and copies that are 0.1 and 0.3 eV/atom above them; places of copies: 6 to 17.
MINIMA = np.array([0.70, 0.71, 0.72, 0.73, 0.74, 0.76])
COPIES = MINIMA[:, None] + [0.1, 0.3]


def changed(array, place, value):
    array = np.array(array)
    array.flat[place] = value
    return array


def test_plausible_energies_are_all_used():
    assert found(MINIMA, COPIES) == ([], NONE)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (MINIMA[2] + 0.81, "too_high"),
        (MINIMA[2] - 0.21, "too_low"),
        (-4.2, "too_low"),
        (np.nan, "failed"),
        (np.inf, "failed"),
    ],
)
def test_a_copy(value, reason):
    assert found(MINIMA, changed(COPIES, 4, value)) == ([10], {**NONE, reason: 1})


@pytest.mark.parametrize(
    ("value", "reason"), [(-4.2, "too_low"), (3.0, "too_high"), (np.nan, "failed")]
)
def test_a_wrong_original_does_not_take_its_copies_with_it(value, reason):
    assert found(changed(MINIMA, 2, value), COPIES) == ([2], {**NONE, reason: 1})


def test_copies_of_a_wrong_original_are_judged_by_the_others():
    copies = changed(changed(COPIES, 4, 2.0), 5, 0.4)
    left_out = {"failed": 1, "too_high": 1, "too_low": 1}
    assert found(changed(MINIMA, 2, np.nan), copies) == ([2, 10, 11], left_out)


def test_forces_that_are_not_finite():
    forces = [np.zeros((2, 3)) for _ in range(18)]
    forces[7][1, 2] = np.nan
    assert found(MINIMA, COPIES, forces=forces) == ([7], {**NONE, "failed": 1})


def test_structures_that_are_no_minima():
    """Spread over eV/atom; a copy of a high one may fall, and some low ones are far below."""
    originals = np.array([0.7, 0.9, 1.3, 1.8, 2.4, 3.1])
    copies = originals[:, None] + [0.1, 0.3]
    copies[5, 0] -= 0.4
    assert found(originals, copies) == ([], NONE)


def test_compositions_are_apart():
    kinds = ["Pt2", "Au2"] * 3
    shift = np.array([0.0, 50.0] * 3)
    assert found(MINIMA + shift, COPIES + shift[:, None], kinds=kinds) == ([], NONE)
    wrong = changed(MINIMA + shift, 1, 0.7)
    assert found(wrong, COPIES + shift[:, None], kinds=kinds)[0] == [1]


def test_spread():
    """By hand: deviations 0.1, 0, 0.3 from the median of Pt2, 0.2 and 0.2 from that of Au2."""
    structures = [Atoms(kind) for kind in ("Pt2", "Au2", "Pt2", "Pt2", "Au2", "Cu2")]
    energy = 2.0 * np.array([1.0, 9.0, 1.1, 1.4, 9.4, 77.0])
    assert measure_spread(structures, energy, np.arange(6)) == pytest.approx(0.8 / 5)
    # Of compositions that occur once, the deviation from the median 9 of all.
    rows = np.array([0, 1, 5])
    assert measure_spread(structures, energy, rows) == pytest.approx((8 + 0 + 68) / 3)
    assert measure_spread(structures, energy, rows[:0]) == 0.0
