"""Settings of the training: what they refuse, and that JSON brings them back."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfgen import NNPSettings, TrainingSettings

COUNTS = st.integers(1, 10_000)
POSITIVE = st.floats(1e-9, 1e9)
TRAINING = st.builds(
    TrainingSettings,
    batch_size=COUNTS,
    learning_rate=POSITIVE,
    clip_norm=POSITIVE,
    latent=COUNTS,
    hidden=st.lists(COUNTS, max_size=4),
    likelihood_family=st.sampled_from(["normal", "laplace", "unit_normal"]),
    kl_weight=st.floats(0, 1e9),
    kl_warm_up=st.floats(0, 1),
    surrogate_weight=st.floats(0, 1e9),
    max_validations=COUNTS,
    backup_interval=COUNTS,
    tolerance_structures=COUNTS,
)
NNP = st.builds(
    NNPSettings,
    copies=COUNTS,
    amplitudes=st.tuples(st.floats(0, 1), st.floats(1, 2)),
    min_calculations=st.integers(1, 1000),
    max_calculations=st.integers(1000, 9000),
    max_excess_energy=POSITIVE,
    max_deficit_energy=POSITIVE,
    max_deviations=st.floats(0, 1e9),
    max_force=POSITIVE,
    max_relative_error=POSITIVE,
    hidden=st.lists(COUNTS, max_size=4).map(tuple),
    step=POSITIVE,
    slope_weight=st.floats(0, 1e9),
    epochs=COUNTS,
    batch_size=COUNTS,
    learning_rate=POSITIVE,
    held_out=st.floats(0, 0.9),
    minimum_fmax=POSITIVE,
    minima_share=st.floats(0, 1),
)


@given(settings=TRAINING | NNP)
def test_come_back_from_json(settings):
    again = type(settings).from_json(json.loads(json.dumps(settings.to_json(), allow_nan=False)))
    assert again == settings
    assert hash(again) == hash(settings)
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.batch_size = 1


@pytest.mark.parametrize("kind", [TrainingSettings, NNPSettings])
def test_every_field_is_documented(kind):
    for field in dataclasses.fields(kind):
        assert f"\n        {field.name}: " in kind.__doc__


def test_numbers_of_numpy_are_as_good_as_others():
    settings = TrainingSettings(
        latent=np.int64(3), learning_rate=np.float32(0.5), hidden=[np.int32(4)]
    )
    assert json.dumps(settings.to_json())
    assert settings == TrainingSettings(latent=3, learning_rate=0.5, hidden=(4,))


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        (TrainingSettings, {"batch_size": 0}, "batch_size is 0; a whole number >= 1 is needed"),
        (TrainingSettings, {"latent": 2.5}, "latent is 2.5; a whole number"),
        (TrainingSettings, {"latent": True}, "latent is True; a whole number"),
        (TrainingSettings, {"backup_interval": "10"}, "backup_interval is '10'; a whole"),
        (TrainingSettings, {"max_validations": 0}, "max_validations is 0"),
        (TrainingSettings, {"tolerance_structures": -1}, "tolerance_structures is -1"),
        (TrainingSettings, {"hidden": 256}, "hidden is 256; widths of layers"),
        (TrainingSettings, {"hidden": (16, 0)}, r"hidden is \(16, 0\); widths of layers"),
        (TrainingSettings, {"learning_rate": 0}, "learning_rate is 0; a number above 0"),
        (TrainingSettings, {"learning_rate": float("inf")}, "learning_rate is inf; a number"),
        (TrainingSettings, {"clip_norm": None}, "clip_norm is None; a number above 0"),
        (TrainingSettings, {"kl_weight": -1}, "kl_weight is -1; a number >= 0"),
        (TrainingSettings, {"kl_weight": float("nan")}, "kl_weight is nan"),
        (TrainingSettings, {"surrogate_weight": "1"}, "surrogate_weight is '1'"),
        (TrainingSettings, {"kl_warm_up": 1.5}, "kl_warm_up is 1.5; a number from 0 to 1"),
        (TrainingSettings, {"likelihood_family": "cauchy"}, "'cauchy'; one of normal, laplace"),
        (NNPSettings, {"copies": 0}, "copies is 0"),
        (NNPSettings, {"epochs": 0}, "epochs is 0"),
        (NNPSettings, {"batch_size": 0}, "batch_size is 0"),
        (NNPSettings, {"min_calculations": 9000}, "is 9000; it must not be above max_calculations"),
        (NNPSettings, {"amplitudes": (0.2, 0.1)}, "0 <= smallest <= largest"),
        (NNPSettings, {"amplitudes": 0.1}, "amplitudes is 0.1; two numbers"),
        (NNPSettings, {"amplitudes": (-0.1, 0.1)}, "amplitudes is"),
        (NNPSettings, {"step": 0.0}, "step is 0.0"),
        (NNPSettings, {"max_excess_energy": 0.0}, "max_excess_energy is 0.0"),
        (NNPSettings, {"slope_weight": -0.1}, "slope_weight is -0.1"),
        (NNPSettings, {"held_out": 1.0}, "held_out is 1.0; a number from 0 to 0.9"),
        (NNPSettings, {"minima_share": 80}, "minima_share is 80; a number from 0 to 1"),
        (NNPSettings, {"minimum_fmax": 0}, "minimum_fmax is 0"),
        (NNPSettings, {"learning_rate": -1}, "learning_rate is -1"),
        (NNPSettings, {"hidden": (1.5,)}, "hidden is"),
    ],
)
def test_what_is_not_allowed(kind, changes, message):
    with pytest.raises(ValueError, match=message):
        kind(**changes)


@pytest.mark.parametrize("values", [None, [], {}, {"latent": 3}, "settings"])
def test_json_that_is_no_settings(values):
    with pytest.raises(ValueError, match="TrainingSettings has the fields"):
        TrainingSettings.from_json(values)
    with pytest.raises(ValueError, match="NNPSettings has the fields"):
        NNPSettings.from_json({**NNPSettings().to_json(), "more": 1})
