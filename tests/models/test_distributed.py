"""Training on two devices: virtual ones, in a process of its own, where they can be made."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

SCRIPT = """
import json, sys
import tensorflow as tf

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)

import keras
import numpy as np
import small
from tfgen.models.cvae import CVAE
from tfgen.models.model import Model
from tfgen.models.training import train

data = np.random.default_rng(0)
inputs = {
    "fingerprint": data.normal(size=(64, 4)).astype("float32"),
    "condition": data.normal(size=(64, 2)).astype("float32"),
}


def surrogate_weights():
    cvae = CVAE(features=4, conditions=2, latent=2, hidden=(8,), seed=1)
    cvae.adapt(**{name + "s": values for name, values in inputs.items()})
    # Unlike Adam, this step is as long as the gradient.
    cvae.compile(keras.optimizers.SGD(0.1))
    cvae.fit(inputs, batch_size=32, epochs=3, shuffle=False, verbose=0)
    return [w.tolist() for w in cvae.surrogate.get_weights()]


def trained(checkpoint=None):
    settings = {**small.TRAINING, "epochs": 4}
    return train(
        small.dataset(), small.PROPERTIES, fingerprint=small.fingerprint(), seed=5, **settings,
        checkpoint=checkpoint, keep_checkpoint=True,
    )


result = {"alone": surrogate_weights()}
alone = trained()
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
with strategy.scope():
    result["together"] = surrogate_weights()
    model = trained(sys.argv[1] + ".partial")
    resumed = trained(sys.argv[1] + ".partial")
result["replicas"] = strategy.num_replicas_in_sync
result["resumed"] = resumed.digest == model.digest
result["devices"] = len(strategy.experimental_local_results(model.cvae.raw_sigma.value))
model.save(sys.argv[1])
conditions = np.array([[1.0, 2.0, 5.0], [1.2, 2.2, 6.0]])
result["sample"] = model.sample(conditions, 0).tolist()
result["loaded"] = Model.load(sys.argv[1]).sample(conditions, 0).tolist()
result["error"] = [m.provenance["history"]["property_error"] for m in (alone, model)]
result["loss"] = [m.provenance["best_val_loss"] for m in (alone, model)]
print(json.dumps(result))
"""


@pytest.mark.slow
def test_two_devices_learn_what_one_learns(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path / "model")],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["replicas"] == result["devices"] == 2
    assert result["resumed"]
    # The surrogate's gradient has no noise: the steps are the same.
    for one, two in zip(result["alone"], result["together"], strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-6)
    assert result["error"][0] == pytest.approx(result["error"][1], rel=1e-3)
    # The rest differs by the noise that each device samples.
    assert result["loss"][0] == pytest.approx(result["loss"][1], rel=0.2)
    # What came of it needs no devices.
    np.testing.assert_allclose(result["sample"], result["loaded"], rtol=1e-5)
