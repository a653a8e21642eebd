"""Whatever Keras is set to in a process, the networks compute what they compute."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import small

import tfgen
from tfgen.models.model import Model
from tfgen.models.neural_potential import EnergyNetwork

ROOT = Path(__file__).parents[2]


@pytest.fixture(params=["mixed_float16", "float64", "bfloat16"])
def policy(request):
    policy, floatx = keras.config.dtype_policy(), keras.config.floatx()
    keras.config.set_dtype_policy(request.param)
    keras.config.set_floatx("float16" if request.param == "bfloat16" else "float64")
    yield keras.config.dtype_policy().name, keras.config.floatx()
    keras.config.set_dtype_policy(policy)
    keras.config.set_floatx(floatx)


def test_models_compute_the_same(policy, tmp_path):
    model = small.model()
    model.save(tmp_path / "model")
    loaded = Model.load(tmp_path / "model")
    fingerprints = model.fingerprint.create(small.structures()[:3])
    assert fingerprints.dtype == np.float64
    np.testing.assert_array_equal(
        loaded.predict_properties(fingerprints), model.predict_properties(fingerprints)
    )
    conditions = model.condition_vectors(np.array([[1.5, 2.0]]), np.full(5, 78))
    np.testing.assert_array_equal(loaded.sample(conditions, 3), model.sample(conditions, 3))
    # And the process keeps its settings.
    assert (keras.config.dtype_policy().name, keras.config.floatx()) == policy


def test_models_train_the_same(monkeypatch):
    small.train_eagerly(monkeypatch)

    def train():
        model = tfgen.train(
            small.dataset(), fingerprint=small.fingerprint(), epochs=2, seed=5,
            settings=small.SETTINGS, potential=None,
        )  # fmt: skip
        return model.cvae.get_weights()

    expected = train()
    before = keras.config.dtype_policy(), keras.config.floatx()
    keras.config.set_dtype_policy("mixed_float16")
    keras.config.set_floatx("float16")
    try:
        found = train()
    finally:
        keras.config.set_dtype_policy(before[0])
        keras.config.set_floatx(before[1])
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_networks_of_other_numbers_are_refused():
    with pytest.raises(ValueError, match="dtype is mixed_float16; a CVAE computes in float32 only"):
        tfgen.CVAE(features=3, conditions=2, dtype="mixed_float16")
    with pytest.raises(ValueError, match="dtype is float64; an NNP computes in float32 only"):
        EnergyNetwork(features=3, elements=1, dtype="float64")
    config = tfgen.CVAE(features=3, conditions=2).get_config()
    assert tfgen.CVAE.from_config(config).dtype == "float32"


def python(code: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True, text=True, check=False, timeout=300,
        env={**os.environ, "PYTHONPATH": str(ROOT), "KERAS_HOME": str(folder), **environment},
    )  # fmt: skip


def test_another_backend_is_named_in_one_line(tmp_path):
    """The library refuses it; the command line sets its own."""
    done = python("import tfgen; tfgen.CVAE", tmp_path, KERAS_BACKEND="jax")
    assert done.returncode == 1
    (line,) = (x for x in done.stderr.splitlines() if x.startswith("ImportError: "))
    assert "tfgen needs " in line
    assert "KERAS_BACKEND" in line
    settings = {"backend": "torch", "floatx": "float16", "epsilon": 1e-7}
    (tmp_path / "keras.json").write_text(json.dumps(settings))
    code = (
        "import sys; from tfgen.cli import main; sys.argv[1:] = ['export', 'no_model', '-o', 'x'];"
    )
    done = python(f"{code} main()", tmp_path, KERAS_BACKEND="jax")
    assert done.stderr.splitlines()[-1] == "Error: model folder 'no_model' does not exist"
