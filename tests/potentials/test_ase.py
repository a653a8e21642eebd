"""Calculators by import path: made with their arguments, or one line that says why not."""

from __future__ import annotations

import pytest
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones

from tfgen.potentials.ase import is_import_path, make_calculator


def test_classes_functions_and_arguments():
    assert isinstance(make_calculator("ase.calculators.emt:EMT"), EMT)
    made = make_calculator("ase.calculators.lj:LennardJones", {"sigma": 2.5, "epsilon": 0.1})
    assert isinstance(made, LennardJones)
    assert (made.parameters.sigma, made.parameters.epsilon) == (2.5, 0.1)
    # A function, and a calculator that does not derive from ASE's base class.
    assert isinstance(make_calculator("test_calculators:stranger"), Stranger)


@pytest.mark.parametrize(
    ("path", "good"),
    [
        ("a:b", True),
        ("a.b_c:D.from_file", True),
        ("a", False),
        ("a:", False),
        (":b", False),
        ("a:b:c", False),
        ("a b:c", False),
        ("a/b.py:c", False),
        ("1a:b", False),
        ("..a:b", False),
        ("a:b()", False),
        ("", False),
    ],
)
def test_import_paths(path, good):
    assert is_import_path(path) is good
    if not good:
        with pytest.raises(ValueError, match="is not of the form MODULE:NAME"):
            make_calculator(path)


@pytest.mark.parametrize(
    ("path", "arguments", "message"),
    [
        ("no_such_module:EMT", {}, "'no_such_module:EMT' cannot be made: No module named"),
        ("ase.calculators.emt:DFT", {}, "cannot be made: .* has no attribute 'DFT'"),
        ("ase.calculators.emt:EMT.DFT", {}, "has no attribute 'DFT'"),
        ("ase.calculators.emt:parameters", {}, "cannot be made: .*not callable"),
        ("math:sqrt", {"x": 1}, "cannot be made"),
        ("collections:Counter", {}, "is Counter, not an ASE calculator"),
        ("ase.calculators.checkpoint:CheckpointCalculator", {}, "missing 1 required"),
        ("builtins:int", {"base": 2}, "cannot be made"),
    ],
)
def test_what_is_no_calculator(path, arguments, message):
    with pytest.raises(ValueError, match=message):
        make_calculator(path, arguments)


def test_errors_without_words_are_named():
    with pytest.raises(ValueError, match="cannot be made: StopIteration"):
        make_calculator("test_calculators:wordless")


def wordless():
    raise StopIteration


class Stranger:
    def get_potential_energy(self, atoms=None, force_consistent=False):
        return 0.0

    def get_forces(self, atoms=None):
        return None


def stranger():
    return Stranger()
