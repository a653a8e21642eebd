"""The page docs/training.md: all that it shows is run, in its order, and does what it says."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
import small

from tfgen.fingerprints.fingerprint import Fingerprint
from tfgen.models.cvae import CVAE
from tfgen.models.training import train
from tfgen.models.training_arrays import estimate_tolerance

PAGE = (Path(__file__).parents[2] / "docs" / "training.md").read_text("utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)


def with_energies_only(dataset):
    names = ("energy_per_atom",)
    return dataclasses.replace(
        dataset,
        properties={name: dataset.properties[name] for name in names},
        units={name: dataset.units[name] for name in names},
        metadata={},
    )


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The names that the page defines, after a run of all of its code with few epochs."""
    folder = tmp_path_factory.mktemp("page")
    whole = with_energies_only(small.dataset())
    whole.save(folder / "pt13.h5")
    whole[::2].save(folder / "more.h5")
    names: dict = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        small.train_eagerly(patch)
        patch.setattr(Fingerprint, "preset", lambda *_, **__: small.fingerprint())
        starts = []
        fit = CVAE.fit

        def spy(self, *arguments, **options):
            starts.append((self.get_weights(), self.optimizer))
            return fit(self, *arguments, **options)

        patch.setattr(CVAE, "fit", spy)
        for block in BLOCKS:
            block = re.sub(r"epochs=\d+", "epochs=3", block)
            exec(compile(block, "docs/training.md", "exec"), names)
    return {**names, "starts": starts}


def test_settings_are_those_of_the_network(page):
    config = page["model"].cvae.get_config()
    assert (config["latent"], tuple(config["hidden"])) == (20, (128, 128))
    rate = page["starts"][0][1].get_config()["learning_rate"]
    assert rate["class_name"] == "PolynomialDecay"  # of the first degree: linear
    assert (rate["config"]["power"], rate["config"]["end_learning_rate"]) == (1.0, 0.0)
    assert np.isclose(rate["config"]["initial_learning_rate"], 2e-3)


def test_optimizer_and_callbacks_are_used(page):
    assert len(page["losses"]) == 3
    used = page["starts"][1][1]
    assert type(used) is type(page["optimizer"])
    assert used is not page["optimizer"]
    assert int(page["optimizer"].iterations.numpy()) == 0 < int(used.iterations.numpy())


def test_fine_tuning_begins_where_the_other_ended(page):
    known, tuned = page["known"], page["tuned"]
    for a, b in zip(page["starts"][2][0], known.cvae.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(tuned.scale, known.scale)
    changed = [
        np.abs(a - b).max()
        for a, b in zip(tuned.cvae.get_weights(), known.cvae.get_weights(), strict=True)
        if a.size
    ]
    assert max(changed) > 0


def test_a_tuned_model_speaks_of_its_own_data(page):
    known, tuned, more = page["known"], page["tuned"], page["more"]
    training = more.select("train")
    energies = training.properties["energy_per_atom"]
    assert tuned.conditions[0].low == energies.min()
    assert tuned.conditions[0].high == energies.max()
    assert len(tuned.training_structures) == len(training) < len(known.training_structures)
    vectors = tuned.fingerprint.create(training.structures)
    expected = estimate_tolerance(vectors, tuned.scale, 0, tuned.settings.tolerance_structures)
    assert np.isclose(tuned.tolerance, expected, rtol=1e-5)
    assert tuned.neural_potential is None
    said = tuned.provenance["initial_model"]
    assert said["training_structures"] == known.provenance["training_structures"]
    assert known.provenance["initial_model"] is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"settings": small.SETTINGS}, "latent is 3; that of initial_model is 20"),
        ({"fingerprint": Fingerprint.preset("fung2022")}, "initial_model has another fingerprint"),
        (
            {"properties": ["radius_of_gyration"]},
            r"conditioned on energy_per_atom \(eV/atom\), not",
        ),
    ],
)
def test_what_does_not_fit_is_refused(page, changes, message):
    with pytest.raises(ValueError, match=message):
        train(small.dataset(), initial_model=page["known"], epochs=1, **changes)


def test_patience_ends_a_training_also_a_resumed_one(monkeypatch, tmp_path):
    """The validation loss is told to rise from the second epoch on."""
    small.train_eagerly(monkeypatch)
    evaluate = CVAE.evaluate

    def rising(self, *arguments, **options):
        found = evaluate(self, *arguments, **options)
        taken = int(self.optimizer.iterations.numpy())
        return {**found, "loss": float(taken)} if isinstance(found, dict) else found

    monkeypatch.setattr(CVAE, "evaluate", rising)
    settings = dataclasses.replace(small.SETTINGS, kl_warm_up=0.0, patience=2)
    options = {"fingerprint": small.fingerprint(), "potential": None, "settings": settings}
    options |= {"epochs": 20, "checkpoint": tmp_path / "kept", "keep_checkpoint": True}
    model = train(small.dataset(), small.PROPERTIES, **options)
    assert (model.provenance["epochs"], model.provenance["best_epoch"]) == (3, 1)
    monkeypatch.setattr(CVAE, "fit", lambda *_, **__: pytest.fail("trained again"))
    assert train(small.dataset(), small.PROPERTIES, **options).provenance["epochs"] == 3
