"""Formulas and elements become atomic numbers; what is neither is refused."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from tfgen.structures.formulas import atomic_numbers_of, formula_of, numbers_from_formula


def test_formulas_do_not_wait_for_tensorflow():
    code = "import sys, tfgen.structures.formulas; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("formula", "numbers"),
    [
        ("Pt13", [78] * 13),
        ("Pt", [78]),
        ("Cu2Au3", [29] * 2 + [79] * 3),
        ("AuCuAu", [29, 79, 79]),
        ("(CuAu)2", [29, 29, 79, 79]),
    ],
)
def test_numbers_from_formula(formula, numbers):
    np.testing.assert_array_equal(numbers_from_formula(formula), numbers)


@pytest.mark.parametrize(
    "formula",
    ["", "13", "pt13", "Zz3", "Pt-1", "Pt1.5", "X2", "Pt0", "Pt 3", "(" * 5000 + "Pt" + ")" * 5000],
)
def test_numbers_from_formula_refuses(formula):
    with pytest.raises(
        ValueError, match="wanted .* is not a formula; (write elements with counts|at most)"
    ):
        numbers_from_formula(formula, "wanted")


def test_numbers_from_formula_refuses_typing_errors():
    assert len(numbers_from_formula("Pt1000")) == 1000
    with pytest.raises(ValueError, match="'Pt999999999' has 999999999 atoms; at most 1000"):
        numbers_from_formula("Pt999999999")
    with pytest.raises(
        ValueError, match="formula of 1001 characters is not a formula; at most 1000"
    ):
        numbers_from_formula("H" * 1001)


def test_formula_of_ignores_padding():
    assert formula_of(np.array([79, 29, 79, 0, 0])) == "Au2Cu"
    np.testing.assert_array_equal(numbers_from_formula(formula_of(np.array([78] * 3))), [78] * 3)


def test_atomic_numbers_are_sorted():
    assert atomic_numbers_of(["Pt", 1, np.int64(29)]) == [1, 29, 78]
    assert atomic_numbers_of(np.array([79, 29])) == [29, 79]
    assert all(type(n) is int for n in atomic_numbers_of(np.array([79, 29])))


@pytest.mark.parametrize(
    ("species", "message"),
    [
        ([], "given is \\[\\]; at least one element"),
        ("Pt", "given is 'Pt'; a list of elements"),
        (None, "given is None; a list"),
        (["Pt", 78], "none twice"),
        (["Pl"], "given holds 'Pl', which is not a chemical element"),
        (["X"], "given holds 'X'"),
        ([0], "given holds 0"),
        ([500], "given holds 500"),
        ([1.0], "given holds 1.0"),
    ],
)
def test_atomic_numbers_refuse(species, message):
    with pytest.raises(ValueError, match=message):
        atomic_numbers_of(species, "given")
