"""What `generate` refuses before any work begins."""

from __future__ import annotations

import dataclasses
import re
import warnings

import numpy as np
import pytest
import small
from ase.calculators.calculator import Calculator

from tfgen.fingerprints.fingerprint import Fingerprint
from tfgen.generation.request import (
    UnsupportedFormulaError,
    UnverifiableError,
    check_request,
    warn_of_doubts,
)
from tfgen.generation.settings import GenerationSettings, ProposalSettings
from tfgen.models.model import Condition
from tfgen.potentials.ase import AsePotential, adapt
from tfgen.targets import Target

ENERGY, SIZE = small.PROPERTIES


def check(formula="Pt6", targets=None, count=1, *, model=None, **options):
    options = {
        "seed": 0, "tolerance": None, "potential": small.potential(), "relax": True,
        "candidates": None, **options,
    }  # fmt: skip
    return check_request(
        model or small.model(), formula, targets or {ENERGY: 1.5}, count, **options
    )


class TestRequest:
    def test_targets_have_tolerances(self):
        condition = small.model().conditions[1]
        request = check(targets={SIZE: 2.0, ENERGY: (1.0, 2.0)})
        share = 0.05 * (condition.high - condition.low)
        assert request.targets == (
            Target(SIZE, 2.0, 2.0, share),
            Target(ENERGY, 1.0, 2.0, 0.01),
        )
        request = check(targets={SIZE: 2.0, ENERGY: 1.0}, tolerance={SIZE: 0.5})
        assert [t.tolerance for t in request.targets] == [0.5, 0.01]

    @pytest.mark.parametrize(
        ("options", "candidates"),
        [
            ({}, 10),
            ({"relax": False}, 10),
            ({"candidates": 3}, 3),
            ({"potential": None, "relax": False}, 1),
            ({"potential": None, "relax": False, "targets": {SIZE: 2.0}}, 1),
            ({"potential": None, "relax": small.potential(), "targets": {SIZE: 2.0}}, 10),
        ],
    )
    def test_how_many_candidates(self, options, candidates):
        assert check(**options).candidates == candidates

    def test_what_relaxes(self):
        assert check().relaxed_by is small.potential()
        assert check(relax=False).relaxed_by is None
        other = Calculator()
        request = check(relax=other)
        assert (request.relaxed_by, request.potential) == (adapt(other), small.potential())

    def test_minima_are_proposed_where_the_training_structures_are_some(self):
        slope = dataclasses.replace(small.model(), minima=False)
        assert check(relax=False).minima
        assert not check(relax=False, model=slope).minima
        assert check(model=slope).minima


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"count": 1.5}, "count is 1.5; a whole number of at least 1 is needed"),
        ({"count": True}, "count is True; a whole number"),
        ({"count": 100_001}, "count is 100001; at most 100000 structures are allowed"),
        ({"formula": "Pt201"}, "formula 'Pt201' has 201 atoms; at most 200 are allowed"),
        ({"seed": -1}, "seed is -1; a whole number of at least 0 is needed"),
        ({"seed": "one"}, "seed is 'one'; a whole number"),
        ({"potential": "dft"}, "potential is 'dft'; 'auto', None or an object is needed"),
        ({"potential": Calculator}, "potential is the class Calculator; an object of it is needed"),
        ({"relax": object()}, "relax is <object .*, neither a potential"),
        ({"relax": None}, "relax is None; 'auto', a bool or what relaxes"),
        ({"potential": None}, "relax is True, but there is no potential"),
        ({"tolerance": {"hue": 0.1}}, "tolerance names 'hue'; the targets are energy_per_atom"),
        ({"tolerance": {ENERGY: 0}}, "tolerance of energy_per_atom is 0; a number above 0"),
    ],
)
def test_what_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        check(**options)


class TestFormulasThatAPotentialDoesNotKnow:
    @pytest.fixture
    def model(self):
        """Of platinum and iron, which EMT does not know."""
        fingerprint = Fingerprint.preset("fung2022", ["Fe", "Pt"])
        return dataclasses.replace(small.model(), fingerprint=fingerprint)

    @pytest.mark.parametrize("relax", [True, False])
    def test_are_refused(self, model, relax):
        with pytest.raises(UnsupportedFormulaError) as caught:
            check("Fe2Pt4", model=model, relax=relax)
        words = "formula 'Fe2Pt4' holds Fe, which the potential 'emt' does not know"
        assert str(caught.value) == words

    def test_can_be_generated_without_it(self, model):
        request = check("Fe2Pt4", model=model, potential=None, relax=False)
        np.testing.assert_array_equal(request.numbers, [26, 26, 78, 78, 78, 78])


class TestWhatNothingComputes:
    def test_leaves_one_candidate(self):
        conditions = (Condition("gap", "eV", 1.0, 2.0), small.model().conditions[0])
        model = dataclasses.replace(small.model(), conditions=conditions)
        request = check(targets={"gap": 1.5}, model=model)
        assert request.evaluated_by == {"gap": "surrogate", ENERGY: "emt"}
        assert (request.unverifiable, request.candidates) == (["gap"], 1)
        with pytest.raises(UnverifiableError, match="candidates is 2, but nothing calculates gap"):
            check(targets={"gap": 1.5, ENERGY: 1.0}, model=model, candidates=2)


class TestWhatCannotBeCompared:
    def of_dipoles(self, unit):
        conditions = (Condition("dipole", unit, 1.0, 2.0), small.model().conditions[0])
        return dataclasses.replace(small.model(), conditions=conditions)

    @pytest.mark.parametrize(("unit", "allowed"), [("e Å", True), ("unknown", True), ("D", False)])
    def test_values_in_another_unit(self, unit, allowed):
        ask = {"targets": {"dipole": 1.5}, "potential": Dipoles(), "compute": {"dipole": None}}
        if allowed:
            assert check(model=self.of_dipoles(unit), **ask).evaluated_by["dipole"] != "surrogate"
            return
        words = "compute dipole: .*Dipoles gives it in e Å, but the model has it in D; a function"
        with pytest.raises(ValueError, match=words):
            check(model=self.of_dipoles(unit), **ask)

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            ({"sigma": 2.0}, None),
            ({}, r"with {'sigma': 2.0}, and it evaluates with none; .* may not"),
        ],
    )
    def test_energies_of_the_same_calculator_with_other_arguments(self, arguments, words):
        name = "ase.calculators.lj:LennardJones"
        trained = {"name": name, "arguments": {"sigma": 2.0}, "vacuum": 0.0}
        model = dataclasses.replace(
            small.model(), potential=name, provenance={"potential": trained}
        )
        request = check(model=model, potential=AsePotential.from_path(name, arguments))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            warn_of_doubts(model, request)
        assert [re.search(words or "x", str(w.message)) is not None for w in caught] == (
            [True] if words else []
        )


class Dipoles(Calculator):
    implemented_properties = ["energy", "forces", "dipole"]  # noqa: RUF012


class TestSettings:
    @pytest.mark.parametrize(
        ("kind", "name", "value", "message"),
        [
            (GenerationSettings, "candidates", 0, "candidates is 0; a whole number >= 1"),
            (GenerationSettings, "candidates", 2.5, "candidates is 2.5; a whole number"),
            (GenerationSettings, "fmax", 0.0, "fmax is 0.0; a number above 0 is needed"),
            (GenerationSettings, "max_rounds", -1, "max_rounds is -1; a whole number >= 0"),
            (GenerationSettings, "duplicate_tolerance", np.nan, "duplicate_tolerance is nan"),
            (ProposalSettings, "batch_size", 0, "batch_size is 0; a whole number >= 1"),
            (ProposalSettings, "descent_steps", True, "descent_steps is True; a whole number"),
            (ProposalSettings, "step_length", "far", "step_length is 'far'; a number above 0"),
            (ProposalSettings, "equal_tolerance", 0.2, "equal_tolerance is 0.2; at most alike_to"),
        ],
    )
    def test_are_checked(self, kind, name, value, message):
        with pytest.raises(ValueError, match=message):
            kind(**{name: value})

    def test_are_frozen(self):
        with pytest.raises(dataclasses.FrozenInstanceError):
            GenerationSettings().fmax = 1.0
