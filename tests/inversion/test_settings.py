"""Settings of the inversion: they travel between processes, and refuse what has no meaning."""

from __future__ import annotations

import dataclasses
import pickle

import numpy as np
import pytest

import tfgen
from tfgen.inversion import settings
from tfgen.inversion.settings import (
    AlternationSettings,
    Descent,
    GaussNewtonSettings,
    GraphSearchSettings,
    MoveWeights,
    PopulationSettings,
    ProposalMoves,
    RefinementSettings,
    ScreeningSettings,
    SearchSettings,
)

CLASSES = [getattr(settings, name) for name in settings.__all__]


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_every_field_is_documented(kind):
    for field in dataclasses.fields(kind):
        assert f"\n        {field.name}: " in f"\n    {kind.__doc__}", field.name


def test_travel_between_processes():
    own = SearchSettings(refinement=RefinementSettings(rivals=1), jit_compile=False)
    assert pickle.loads(pickle.dumps(own)) == own != SearchSettings()
    assert hash(own) != hash(SearchSettings())


def test_are_public():
    assert tfgen.SearchSettings is SearchSettings
    assert tfgen.GraphSearchSettings is GraphSearchSettings


def test_weights_of_moves():
    weights = MoveWeights(relocate=2, splice=0, twist=1, rattle=1, exchange=3)
    assert weights.names(False) == ["relocate", "relocate", "twist", "rattle"]
    assert weights.names(True) == [*weights.names(False), *["exchange"] * 3]


@pytest.mark.parametrize(
    ("kind", "fields", "message"),
    [
        (Descent, {"steps": -1, "step_length": 0.1}, "steps is -1; a whole number >= 0 is needed"),
        (Descent, {"steps": 1.5, "step_length": 0.1}, "steps is 1.5; a whole number >= 0"),
        (Descent, {"steps": 5, "step_length": 0.0}, "step_length is 0.0; a number above 0 is"),
        (Descent, {"steps": 5, "step_length": np.nan}, "step_length is nan; a number above 0"),
        (MoveWeights, {"exchange": -1}, "exchange is -1; a whole number >= 0"),
        (
            MoveWeights,
            {"relocate": 0, "splice": 0, "twist": 0, "rattle": 0},
            "relocate, splice, twist and rattle are all 0; at least one must be above 0",
        ),
        (PopulationSettings, {"size": 0}, "size is 0; a whole number >= 1 is needed"),
        (PopulationSettings, {"initial": True}, "initial is True; a whole number >= 1"),
        (PopulationSettings, {"descent": (60, 0.1)}, r"descent is \(60, 0.1\); a Descent is"),
        (PopulationSettings, {"distinct_distance": -1.0}, "distinct_distance is -1.0; a number"),
        (
            ProposalMoves,
            {"children": 15},
            r"children is 15; more than single_relocations \+ pair_relocations = 15 are needed",
        ),
        (ProposalMoves, {"min_distance": np.inf}, "min_distance is inf; a number above 0"),
        (ProposalMoves, {"weights": None}, "weights is None; a MoveWeights is needed"),
        (ScreeningSettings, {"noise": 0}, "noise is 0; a number above 0"),
        (ScreeningSettings, {"rattles": 0}, "rattles is 0; a whole number >= 1"),
        (GaussNewtonSettings, {"max_trials": 0}, "max_trials is 0; a whole number >= 1"),
        (
            GaussNewtonSettings,
            {"sufficient_decrease": 1.1},
            "sufficient_decrease is 1.1; a number above 0 and up to 1 is needed",
        ),
        (AlternationSettings, {"step_lengths": ()}, r"step_lengths is \(\); a tuple of numbers"),
        (AlternationSettings, {"step_lengths": [0.1]}, r"step_lengths is \[0.1\]; a tuple of"),
        (AlternationSettings, {"step_lengths": (0.1, -1)}, "numbers above 0 are needed"),
        (RefinementSettings, {"promoted": 0}, "promoted is 0; a whole number >= 1"),
        (RefinementSettings, {"retry_gain": 2.0}, "retry_gain is 2.0; a number from 0 to 1"),
        (RefinementSettings, {"polish": None}, "polish is None; a Descent is needed"),
        (SearchSettings, {"patience": 0}, "patience is 0; a whole number >= 1"),
        (SearchSettings, {"moves": MoveWeights()}, "moves is MoveWeights.*; a ProposalMoves is"),
        (SearchSettings, {"ambiguous_ratio": 0.5}, "ambiguous_ratio is 0.5; a number >= 1"),
        (SearchSettings, {"jit_compile": 1}, "jit_compile is 1; True or False is needed"),
        (GraphSearchSettings, {"rounds": -1}, "rounds is -1; a whole number >= 0"),
        (GraphSearchSettings, {"filled": "x"}, "filled is 'x'; a number above 0"),
        (GraphSearchSettings, {"initial": 4}, "initial is 4; at least population = 8 are needed"),
    ],
    ids=lambda x: repr(x)[:30],
)
def test_values_that_are_refused(kind, fields, message):
    with pytest.raises(ValueError, match=message):
        kind(**fields)
