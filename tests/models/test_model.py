"""The model folder: exact round trips, refusals, and what conditions mean."""

from __future__ import annotations

import dataclasses
import json

import h5py
import numpy as np
import pytest
import small
from ase.data import atomic_numbers
from scipy.stats import kstest

from tfgen.fingerprints.fingerprint import Fingerprint
from tfgen.models.artefact import MODEL_FILES
from tfgen.models.cvae import CVAE
from tfgen.models.model import Condition, Model


@pytest.fixture
def folder(tmp_path):
    small.model().save(tmp_path / "model")
    return tmp_path / "model"


def config_of(model) -> dict:
    """The configuration without the name that Keras gives, which counts a process's models."""
    config = model.config()
    return {**config, "cvae": {k: v for k, v in config["cvae"].items() if k != "name"}}


def edit(folder, **changes):
    """Changes entries of the configuration; None removes one."""
    path = folder / "config.json"
    config = {**json.loads(path.read_text("utf-8")), **changes}
    for name in [name for name, value in changes.items() if value is None]:
        del config[name]
    path.write_text(json.dumps(config), "utf-8")


class TestFolder:
    def test_gives_the_same_model(self, folder):
        model = small.model()
        again = Model.load(folder)
        assert config_of(again) == config_of(model)
        for field in dataclasses.fields(Model):
            if field.name not in ("fingerprint", "cvae", "nnp", "training_structures"):
                ours, theirs = getattr(model, field.name), getattr(again, field.name)
                np.testing.assert_array_equal(theirs, ours)
        for a, b in zip(again.cvae.weights, model.cvae.weights, strict=True):
            np.testing.assert_array_equal(a, b)
        assert len(again.training_structures) == len(model.training_structures) == 40
        for a, b in zip(again.training_structures, model.training_structures, strict=True):
            np.testing.assert_array_equal(a.numbers, b.numbers)
            np.testing.assert_allclose(a.positions, b.positions, atol=1e-5)
        fingerprints = model.fingerprint.create(small.structures())
        np.testing.assert_array_equal(again.fingerprint.create(small.structures()), fingerprints)
        np.testing.assert_array_equal(
            again.predict_properties(fingerprints), model.predict_properties(fingerprints)
        )
        conditions = again.condition_vectors([[1.5, 2.0], [1.2, 2.4]], np.full([2, 6], 78))
        np.testing.assert_array_equal(again.sample(conditions, 7), model.sample(conditions, 7))
        np.testing.assert_array_equal(again.scale, model.scale)
        z = np.ones([2, 3], np.float32)
        np.testing.assert_array_equal(
            again.cvae.decode(z, conditions), model.cvae.decode(z, conditions)
        )

    def test_holds_only_json_hdf5_and_plain_arrays(self, folder):
        assert {path.name for path in folder.iterdir()} == set(MODEL_FILES)
        config = json.loads((folder / "config.json").read_text("utf-8"))
        assert (config["schema"], config["schema_version"]) == ("tfgen-model", 3)
        assert config["conditions"][0]["unit"] == "eV/atom"
        with h5py.File(folder / "weights.weights.h5") as file:
            assert len(file) > 0
        with small.no_unpickling():
            Model.load(folder)

    def test_names_no_code(self, folder):
        config = json.loads((folder / "config.json").read_text("utf-8"))["fingerprint"]
        edit(folder, fingerprint={**config, "descriptor": "os.system"})
        with pytest.raises(ValueError, match="damaged: descriptor is 'os.system'; known are ACSF"):
            Model.load(folder)

    def test_with_a_descriptor_of_ones_own(self, tmp_path):
        fingerprint = Fingerprint(small.PairHistogram(["Pt"], 4.0, 0.5), ("mean", "std"))
        cvae = CVAE(fingerprint.size, 2, latent=2, hidden=(4,))
        cvae.build()
        model = dataclasses.replace(
            small.model(),
            fingerprint=fingerprint,
            cvae=cvae,
            conditions=small.model().conditions[:1],
            mean=small.model().mean[:1],
            covariance=small.model().covariance[:1, :1],
        )
        model.save(tmp_path / "own")
        again = Model.load(tmp_path / "own", descriptors=[small.PairHistogram])
        assert isinstance(again.fingerprint.descriptor, small.PairHistogram)
        np.testing.assert_array_equal(
            again.fingerprint.create(small.structures()), fingerprint.create(small.structures())
        )
        with pytest.raises(ValueError, match="damaged: descriptor is 'PairHistogram'"):
            Model.load(tmp_path / "own")


class TestDamage:
    def test_a_folder_that_is_missing(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="none' does not exist"):
            Model.load(tmp_path / "none")
        (tmp_path / "file").touch()
        with pytest.raises(FileNotFoundError, match="file' is a file"):
            Model.load(tmp_path / "file")

    @pytest.mark.parametrize("name", MODEL_FILES)
    def test_a_file_that_is_missing(self, folder, name):
        (folder / name).unlink()
        with pytest.raises(FileNotFoundError, match=f"model' lacks {name}"):
            Model.load(folder)

    @pytest.mark.parametrize(
        "text", ["", "{", '{"schema": "tfgen-model"', "\x00\xff", "[]", "3", "{}", "null"]
    )
    def test_a_configuration_that_is_damaged(self, folder, text):
        (folder / "config.json").write_text(text, "latin-1")
        with pytest.raises(ValueError, match="model' is damaged: "):
            Model.load(folder)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"schema": "tfgen-dataset"}, "config.json is not a tfgen model's"),
            (
                {"schema_version": 1},
                "schema version 1; this version of tfgen reads 3, so train it again",
            ),
            ({"schema_version": None}, "schema version None"),
            ({"tolerance": None}, "'tolerance' is missing"),
            ({"cvae": None}, "'cvae' is missing"),
            ({"fingerprint": None}, "'fingerprint' is missing"),
            ({"tolerance": "small"}, "small"),
            ({"tolerance": -1.0}, "tolerance is -1.0; it must be above 0"),
            ({"tolerance": float("nan")}, "tolerance is nan"),
            ({"mean": []}, "mean or covariance is of the wrong shape"),
            ({"covariance": 5}, "mean or covariance is of the wrong shape"),
            ({"conditions": []}, "it names 0 properties"),
            ({"potential": 3}, "potential is 3; a name is needed, or None"),
            ({"formulas": {"Pt6": "x"}}, "invalid literal"),
            ({"conditions": [{"name": "x"}]}, "missing"),
            ({"mean": ["a", "b"]}, "'a'"),
        ],
    )
    def test_an_entry_that_is_not_what_it_should_be(self, folder, changes, message):
        edit(folder, **changes)
        with pytest.raises(ValueError, match=f"model' is damaged: .*{message}"):
            Model.load(folder)

    @pytest.mark.parametrize("change", [{"latent": 4}, {"hidden": [8]}, {"hidden": [16, 16]}])
    def test_weights_of_another_shape(self, folder, change):
        edit(folder, cvae={**small.model().cvae.get_config(), **change})
        with pytest.raises(ValueError, match="model' is damaged: "):
            Model.load(folder)

    def test_a_network_for_another_fingerprint(self, folder):
        config = small.fingerprint().get_config()
        edit(folder, fingerprint={**config, "pooling": ["mean"]})
        with pytest.raises(ValueError, match="network takes 12 features, its fingerprint has 6"):
            Model.load(folder)

    @pytest.mark.parametrize("name", ["weights.weights.h5", "training_structures.npz"])
    def test_arrays_that_are_truncated(self, folder, name):
        path = folder / name
        path.write_bytes(path.read_bytes()[:3000])
        with pytest.raises(ValueError, match="model' is damaged: "):
            Model.load(folder)
        path.write_bytes(b"hello")
        with pytest.raises(ValueError, match="model' is damaged: "):
            Model.load(folder)


class TestWriting:
    def test_replaces_a_model_only_when_told(self, folder):
        edit(folder, tolerance=123.0)
        with pytest.raises(FileExistsError, match="exists; pass overwrite=True"):
            small.model().save(folder)
        assert Model.load(folder).tolerance == 123.0
        small.model().save(folder, overwrite=True)
        assert Model.load(folder).tolerance == small.model().tolerance
        assert [path.name for path in folder.parent.iterdir()] == ["model"]

    def test_replaces_nothing_but_models(self, folder):
        (folder / "thesis.tex").write_text("...")
        with pytest.raises(FileExistsError, match="holds 'thesis.tex'"):
            small.model().save(folder, overwrite=True)
        assert (folder / "thesis.tex").exists()
        file = folder.parent / "file"
        file.write_text("...")
        with pytest.raises(NotADirectoryError, match="is a file"):
            small.model().save(file, overwrite=True)
        with pytest.raises(FileNotFoundError, match="no' does not exist"):
            small.model().save(folder.parent / "no" / "model")

    def test_interrupted_leaves_the_old_one_whole(self, folder, monkeypatch):
        def interrupt(*_, **__):
            raise KeyboardInterrupt

        monkeypatch.setattr(CVAE, "save_weights", interrupt)
        with pytest.raises(KeyboardInterrupt):
            small.model().save(folder, overwrite=True)
        with pytest.raises(KeyboardInterrupt):
            small.model().save(folder.parent / "new")
        assert [path.name for path in folder.parent.iterdir()] == ["model"]
        assert config_of(Model.load(folder)) == config_of(small.model())


def test_condition_vectors_are_properties_then_counts_of_elements():
    fingerprint = Fingerprint.preset("fung2022", ["Pt", "Au", "Cu"])
    assert fingerprint.species == ["Cu", "Pt", "Au"]
    model = dataclasses.replace(small.model(), fingerprint=fingerprint)
    cu, pt, au = (atomic_numbers[symbol] for symbol in ("Cu", "Pt", "Au"))
    found = model.condition_vectors(
        np.array([[0.5, 2.0], [0.75, 3.0]]), np.array([[au, cu, au, pt, au], [pt, pt, 0, 0, 0]])
    )
    np.testing.assert_array_equal(found, [[0.5, 2.0, 1, 1, 3], [0.75, 3.0, 0, 2, 0]])
    assert found.dtype == np.float64
    shared = model.condition_vectors(np.zeros([2, 2]), np.array([cu, cu, au]))
    np.testing.assert_array_equal(shared[:, 2:], [[2, 0, 1]] * 2)


def test_draws_of_fingerprints_repeat_with_the_seed_only():
    model = small.model()
    conditions = model.condition_vectors(np.full([4, 2], [1.5, 2.2]), np.full(6, 78))
    drawn = model.sample(conditions, 3)
    assert (drawn.shape, drawn.dtype) == ((4, 12), np.float64)
    np.testing.assert_array_equal(model.sample(conditions, 3), drawn)
    assert np.abs(model.sample(conditions, 4) - drawn).max() > 0
    assert (np.ptp(drawn, axis=0) > 0).all()


class TestDrawingProperties:
    MEAN = np.array([0.7, 2.0, -1.0])
    ROOT = np.array([[0.3, 0.0, 0.0], [0.2, 0.5, 0.0], [-0.1, 0.4, 0.8]])

    def model(self, mean=MEAN, covariance=ROOT @ ROOT.T) -> Model:
        conditions = tuple(Condition(name, "1", 0.0, 1.0) for name in "abc")
        return dataclasses.replace(
            small.model(), conditions=conditions, mean=mean, covariance=covariance
        )

    def draw(self, targets, count=20_000, seed=0, **model):
        return self.model(**model).sample_properties(targets, count, np.random.default_rng(seed))

    def test_takes_values_as_they_are(self):
        found = self.draw({"c": 3.0, "a": -1.0, "b": (0.5, 0.5)}, count=4)
        np.testing.assert_array_equal(found, [[-1.0, 0.5, 3.0]] * 4)

    def test_draws_ranges_uniformly(self):
        found = self.draw({"a": (0.0, 2.0), "b": 1.0, "c": (5.0, 5.5)}, count=2000)
        assert kstest(found[:, 0], "uniform", args=(0, 2)).pvalue > 0.01
        assert kstest(found[:, 2], "uniform", args=(5, 0.5)).pvalue > 0.01
        assert abs(np.corrcoef(found[:, 0], found[:, 2])[0, 1]) < 0.1
        assert len(np.unique(found[:, 0])) == 2000

    @pytest.mark.parametrize("given", [{"a": 1.1}, {"c": -2.0}, {"b": 2.5, "c": 0.0}])
    def test_draws_the_rest_from_the_conditional_normal_distribution(self, given):
        """In terms of the precision matrix Λ: mean μ_r - Λ_rr⁻¹ Λ_rg (x - μ_g), variance Λ_rr⁻¹."""
        precision = np.linalg.inv(self.ROOT @ self.ROOT.T)
        g = [i for i, name in enumerate("abc") if name in given]
        r = [i for i in range(3) if i not in g]
        variance = np.linalg.inv(precision[np.ix_(r, r)])
        offset = np.array([given["abc"[i]] for i in g]) - self.MEAN[g]
        mean = self.MEAN[r] - variance @ precision[np.ix_(r, g)] @ offset
        found = self.draw(given)
        np.testing.assert_array_equal(found[:, g], np.tile(offset + self.MEAN[g], [20_000, 1]))
        np.testing.assert_allclose(found[:, r].mean(axis=0), mean, atol=0.02)
        np.testing.assert_allclose(np.atleast_2d(np.cov(found[:, r].T)), variance, atol=0.02)

    def test_follows_a_range_draw_by_draw(self):
        found = self.draw({"a": (0.0, 1.4)})
        slope = np.polyfit(found[:, 0], found[:, 1], 1)
        gain = (self.ROOT @ self.ROOT.T)[1, 0] / 0.09
        np.testing.assert_allclose(slope, [gain, 2.0 - 0.7 * gain], atol=0.05)

    def test_of_constant_and_collinear_properties(self):
        covariance = np.array([[0.0, 0.0, 0.0], [0.0, 0.25, 0.5], [0.0, 0.5, 1.0]])
        found = self.draw({"a": 0.9, "b": 2.5}, count=50, covariance=covariance)
        np.testing.assert_allclose(found[:, 2], -1.0 + 2 * 0.5, atol=1e-6)
        found = self.draw({"a": 0.9}, covariance=covariance)
        assert np.isfinite(found).all()
        np.testing.assert_allclose(found[:, 1:].mean(axis=0), self.MEAN[1:], atol=0.03)
        np.testing.assert_allclose(np.cov(found[:, 1:].T), covariance[1:, 1:], atol=0.03)

    def test_checks_the_targets(self):
        with pytest.raises(ValueError, match="property 'd' is unknown; the model knows a, b, c"):
            self.draw({"d": 1.0})
        with pytest.raises(ValueError, match="target b is .*; low is above high"):
            self.draw({"b": (1.0, 0.5)})

    def test_repeats_with_the_seed_only(self):
        given = {"b": (0.0, 1.0)}
        first = self.draw(given, count=5)
        np.testing.assert_array_equal(self.draw(given, count=5), first)
        assert (self.draw(given, count=5, seed=1) != first).all()
