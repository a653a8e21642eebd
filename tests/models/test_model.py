"""The model folder: exact round trips, refusals, and what conditions mean."""

from __future__ import annotations

import dataclasses
import json

import h5py
import numpy as np
import pytest
import small
from ase.data import atomic_numbers
from disks import files_limited_to
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kstest

from tfgen.datasets.messages import InvalidValuesError
from tfgen.fingerprints.fingerprint import Fingerprint
from tfgen.models.artefact import MODEL_FILES, write_checksums
from tfgen.models.cvae import CVAE
from tfgen.models.model import Condition, Model
from tfgen.models.neural_potential import EnergyNetwork
from tfgen.models.settings import NNPSettings


@pytest.fixture
def folder(tmp_path):
    small.model().save(tmp_path / "model")
    return tmp_path / "model"


def config_of(model) -> dict:
    """The configuration without the name that Keras gives, which counts a process's models."""
    config = model.config()
    return {**config, "cvae": {k: v for k, v in config["cvae"].items() if k != "name"}}


def edit(folder, **changes):
    """Changes entries of the configuration, and its check sum; None removes one."""
    path = folder / "config.json"
    config = {**json.loads(path.read_text("utf-8")), **changes}
    for name in [name for name, value in changes.items() if value is None]:
        del config[name]
    path.write_text(json.dumps(config), "utf-8")
    write_checksums(folder)


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
        assert (config["schema"], config["schema_version"]) == ("tfgen-model", 4)
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


# What provenance can hold: whatever JSON can.
TEXT = st.text(max_size=8)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


class TestRoundTrip:
    @settings(max_examples=10)
    @given(
        provenance=st.dictionaries(TEXT, JSON, max_size=4),
        potential=st.none() | TEXT | st.just("ase.calculators.lj:LennardJones"),
        unit=TEXT,
        name=TEXT,
        formulas=st.dictionaries(TEXT, st.integers(0, 2**63), max_size=3),
        minima=st.booleans(),
    )
    def test_of_whatever_provenance_can_hold(
        self, tmp_path_factory, provenance, potential, unit, name, formulas, minima
    ):
        first, second = small.model().conditions
        model = dataclasses.replace(
            small.model(),
            conditions=(dataclasses.replace(first, name=name, unit=unit), second),
            provenance=provenance,
            potential=potential,
            formulas=formulas,
            minima=minima,
        )
        folder = tmp_path_factory.mktemp("any") / "model"
        model.save(folder)
        again = Model.load(folder)
        for field in ("provenance", "potential", "conditions", "formulas", "minima"):
            assert getattr(again, field) == getattr(model, field)
        assert config_of(again) == config_of(model)
        assert repr(again) == repr(model)
        again.summary(print_fn=lambda text: text.encode("utf-8"))

    def test_of_settings_and_an_nnp(self, tmp_path):
        descriptor = small.fingerprint().descriptor
        network = EnergyNetwork(descriptor.size, 1, (5,), step=0.03, slope_weight=0.2, seed=3)
        network.build()
        model = dataclasses.replace(
            small.model(),
            nnp=network,
            nnp_settings=NNPSettings(hidden=(5,), step=0.03, slope_weight=0.2),
        )
        model.save(tmp_path / "model")
        again = Model.load(tmp_path / "model")
        assert again.settings == small.SETTINGS
        assert again.nnp_settings == model.nnp_settings
        assert (again.nnp.step, again.nnp.slope_weight) == (0.03, 0.2)
        for a, b in zip(again.nnp.weights, network.weights, strict=True):
            np.testing.assert_array_equal(a, b)
        (tmp_path / "model" / "nnp.weights.h5").unlink()
        with pytest.raises(FileNotFoundError, match="lacks nnp.weights.h5"):
            Model.load(tmp_path / "model")

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"provenance": {"loss": float("nan")}}, "configuration of the model cannot be JSON"),
            ({"provenance": {"seed": np.int64(3)}}, "configuration of the model cannot be JSON"),
            ({"provenance": {"name": "\udce9"}}, "configuration of the model cannot be JSON"),
            ({"tolerance": 0.0}, "tolerance is 0.0; it must be above 0"),
            ({"potential": 3}, "potential is 3; a name is needed"),
            ({"mean": np.array([1.0, np.nan])}, "mean or covariance is not finite"),
        ],
    )
    def test_what_could_not_be_loaded_is_not_saved(self, tmp_path, changes, message):
        with pytest.raises(ValueError, match=message):
            dataclasses.replace(small.model(), **changes).save(tmp_path / "model")
        assert not list(tmp_path.iterdir())


class TestSummary:
    def test_repr_is_one_line(self):
        assert repr(small.model()) == (
            "Model(energy_per_atom, radius_of_gyration; 40 structures of "
            f"{', '.join(sorted(small.model().formulas, key=lambda f: -small.model().formulas[f]))}"
            "; 12 features; latent vector of 3; no NNP)"
        )

    def test_says_what_the_model_is(self, capsys):
        model, texts = small.model(), []
        model.summary(print_fn=texts.append)
        model.summary()
        (text,) = texts
        assert capsys.readouterr().out == text + "\n"
        low, high = model.conditions[0].low, model.conditions[0].high
        parameters = sum(int(np.prod(w.shape)) for w in model.cvae.weights)
        for words in (
            f"energy_per_atom     {low:.4f} to {high:.4f} eV/atom, predicted within ",
            "40 structures of Pt",
            "12 features: ACSF for Pt (r_cut 7 Å), pooled over the atoms by mean, std",
            f"{parameters} parameters, hidden layers 16, latent vector of 3",
            "epochs 8, best epoch ",
            "name small, kind built, seed 0",
            "tfgen ",
        ):
            assert words in text
        assert max(map(len, text.splitlines())) < 200

    def test_of_a_model_with_an_nnp_and_no_record(self):
        network = EnergyNetwork(small.fingerprint().descriptor.size, 1)
        network.build()
        model = dataclasses.replace(
            small.model(),
            nnp=network,
            provenance={"nnp": {
                "single_points": 3522, "minima": 1.0, "usable": 3400, "energy_error": 0.00196,
                "force_error": 0.0712,
            }},
        )  # fmt: skip
        assert repr(model).endswith("; with an NNP)")
        texts = []
        model.summary(print_fn=texts.append)
        assert (
            "from 3522 single-point calculations, energies within 0.0020 eV/atom, forces within "
            "0.071 eV/Å on average"
        ) in texts[0]
        dataclasses.replace(model, provenance={}).summary(print_fn=texts.append)
        assert "hidden layers 64 and 64" in texts[1]
        assert "single-point" not in texts[1]


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
        write_checksums(folder)
        with pytest.raises(ValueError, match="model' is damaged: "):
            Model.load(folder)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"schema": "tfgen-dataset"}, "config.json is not a tfgen model's"),
            (
                {"schema_version": 1},
                "schema version 1; this version of tfgen reads 4, so train it again",
            ),
            ({"schema_version": None}, "schema version None"),
            ({"tolerance": None}, "config.json: tolerance is missing"),
            ({"cvae": None}, r"config.json: section \[cvae\] is missing"),
            ({"fingerprint": None}, r"section \[fingerprint\] is missing"),
            ({"tolerance": "small"}, "small"),
            ({"tolerance": -1.0}, "tolerance is -1.0; a number > 0 is needed"),
            ({"tolerance": float("nan")}, "config.json is no JSON: NaN is no finite number"),
            ({"mean": []}, "mean or covariance is of the wrong shape"),
            ({"covariance": 5}, "covariance is 5; a list of lists of numbers is needed"),
            ({"covariance": [[1.0]]}, "mean or covariance is of the wrong shape"),
            ({"conditions": []}, "it names 0 properties"),
            ({"potential": 3}, "potential is 3; text in quotes is needed"),
            (
                {
                    "conditions": [
                        {"name": "a", "unit": "1", "low": 2.0, "high": 1.0},
                        {"name": "b", "unit": "1", "low": 0.0, "high": 1.0},
                    ]
                },
                "its values of 'a' are from 2.0 to 1.0",
            ),
            ({"formulas": {"Pt6": "x"}}, "formulas.Pt6 is 'x'; a table is needed"),
            ({"conditions": [{"name": "x"}]}, "missing"),
            ({"mean": ["a", "b"]}, "'a'"),
            ({"settings": {}}, "TrainingSettings has the fields"),
            ({"settings": {**small.SETTINGS.to_json(), "latent": 0}}, "latent is 0"),
            ({"nnp_settings": [1]}, r"nnp_settings is \[1\]; a table is needed"),
            ({"minima": 1}, "minima is 1; true or false is needed"),
            ({"more": 1}, "unknown key 'more'"),
        ],
    )
    def test_an_entry_that_is_not_what_it_should_be(self, folder, changes, message):
        edit(folder, **changes)
        with pytest.raises(ValueError, match=f"model' is damaged: .*{message}"):
            Model.load(folder)

    def test_a_line_for_each_wrong_value(self, folder):
        cvae = {**small.model().cvae.get_config(), "features": "x", "hidden": [0], "seed": -1}
        edit(folder, cvae=cvae, tolerance=0, provenance=None)
        with pytest.raises(InvalidValuesError) as caught:
            Model.load(folder)
        begin = f"model folder {str(folder)!r} is damaged: config.json: "
        assert [line.removeprefix(begin) for line in caught.value.problems] == [
            "cvae.features is 'x'; a whole number >= 1 and <= 1000000000 is needed",
            "cvae.hidden is 0; a list of whole numbers is needed",
            "cvae.seed is -1; a whole number >= 0 and <= 9223372036854775807 is needed",
            "tolerance is 0; a number > 0 is needed",
            "provenance is missing",
        ]

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

    def test_any_byte_of_any_file(self, folder):
        """Found by size or check sum, before anything is made of what the files hold."""
        model, rng = small.model(), np.random.default_rng(0)
        for name in MODEL_FILES:
            path = folder / name
            whole = path.read_bytes()
            for kind in range(12):
                data, place = bytearray(whole), int(rng.integers(len(whole)))
                if kind % 4 == 0:
                    data[place] ^= 1 << int(rng.integers(8))
                elif kind % 4 == 1:
                    del data[place:]
                elif kind % 4 == 2:
                    data[place : place + 50] = b"\xff" * len(data[place : place + 50])
                else:
                    data[place:place] = b"\x00" * 8
                path.write_bytes(data)
                with pytest.raises((ValueError, FileNotFoundError), match="model folder .*model'"):
                    Model.load(folder)
            path.write_bytes(whole)
        assert Model.load(folder).digest == model.digest

    def test_what_the_files_are_not_is_said(self, folder):
        for name, data, words in (
            ("weights.weights.h5", b"hello", r"weights.weights.h5 has 5 bytes, \d+ were written"),
            ("checksums.json", b"[1]", "checksums.json holds no check sums"),
            ("checksums.json", b"{}", "checksums.json holds no check sums of these files: '"),
            ("checksums.json", b"[" * 100_000, "checksums.json holds no check sums"),
        ):
            whole = (folder / name).read_bytes()
            (folder / name).write_bytes(data)
            with pytest.raises(ValueError, match=f"model' is damaged: {words}"):
                Model.load(folder)
            (folder / name).write_bytes(whole)
        sums = json.loads((folder / "checksums.json").read_text("utf-8"))
        sums["../secret"] = sums["config.json"]
        (folder / "checksums.json").write_text(json.dumps(sums), "utf-8")
        with pytest.raises(ValueError, match=r"no check sums of these files: '\.\./secret'"):
            Model.load(folder)
        path = folder / "training_structures.npz"
        data = bytearray(path.read_bytes())
        data[100] ^= 1
        path.write_bytes(data)
        write_checksums(folder)
        data[100] ^= 2
        path.write_bytes(data)
        with pytest.raises(ValueError, match="structures.npz is not what was written: its check"):
            Model.load(folder)


class TestForged:
    """Files whose check sums are right, though no training has made them."""

    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_weights_that_are_not_finite(self, folder, value):
        with h5py.File(folder / "weights.weights.h5", "r+") as file:
            file["encoder/layers/dense/vars/0"][0, 0] = value
        write_checksums(folder)
        with pytest.raises(ValueError, match="damaged: weights of its CVAE are not finite"):
            Model.load(folder)

    def test_weights_in_another_file(self, folder):
        with h5py.File(folder / "weights.weights.h5", "r+") as file:
            file["secret"] = h5py.ExternalLink("/etc/passwd", "/")
        write_checksums(folder)
        with pytest.raises(ValueError, match=r"weights.weights.h5: .*link"):
            Model.load(folder)

    @pytest.mark.parametrize(
        "changes",
        [{"hidden": [10**6, 10**6]}, {"latent": 10**9}, {"features": 10**9}, {"hidden": [10**30]}],
    )
    def test_networks_that_no_memory_holds(self, folder, changes):
        edit(folder, cvae={**small.model().cvae.get_config(), **changes})
        message = r"the network has \d+ weights, the file at most|cvae.hidden is 10+; a list"
        with pytest.raises(ValueError, match=message):
            Model.load(folder)

    @pytest.mark.parametrize(
        ("numbers", "position", "words"),
        [
            ([78, 79], 0.0, "training structure 0 has elements that its fingerprint .* numbers 79"),
            ([78, 0], 0.0, "training structure 0 has elements that its fingerprint .* numbers 0"),
            ([78, -5], 0.0, "training structure 0 has elements that its fingerprint .* -5"),
            ([78, 78], np.nan, "positions of its training structure 0 are not finite"),
            ([78, 78, 78], 0.0, "its arrays do not fit together"),
            ([78.0, 78.0], 0.0, "does not hold sizes, numbers and positions"),
        ],
    )
    def test_training_structures(self, folder, numbers, position, words):
        np.savez(
            folder / "training_structures.npz",
            sizes=np.array([2], np.int32),
            numbers=np.array(numbers),
            positions=np.array([[0.0, 0.0, 0.0], [2.5, position, 0.0]], np.float32),
        )
        write_checksums(folder)
        with pytest.raises(ValueError, match=f"model' is damaged: .*{words}"):
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

        monkeypatch.setattr(CVAE, "save", interrupt)
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


def test_samples_of_fingerprints_repeat_with_the_seed_only():
    model = small.model()
    conditions = model.condition_vectors(np.full([4, 2], [1.5, 2.2]), np.full(6, 78))
    samples = model.sample(conditions, 3)
    assert (samples.shape, samples.dtype) == ((4, 12), np.float64)
    np.testing.assert_array_equal(model.sample(conditions, 3), samples)
    assert np.abs(model.sample(conditions, 4) - samples).max() > 0
    assert (np.ptp(samples, axis=0) > 0).all()


class TestSamplingProperties:
    MEAN = np.array([0.7, 2.0, -1.0])
    ROOT = np.array([[0.3, 0.0, 0.0], [0.2, 0.5, 0.0], [-0.1, 0.4, 0.8]])

    def model(self, mean=MEAN, covariance=ROOT @ ROOT.T) -> Model:
        conditions = tuple(Condition(name, "1", 0.0, 1.0) for name in "abc")
        return dataclasses.replace(
            small.model(), conditions=conditions, mean=mean, covariance=covariance
        )

    def sampled(self, targets, count=20_000, seed=0, **model):
        return self.model(**model).sample_properties(targets, count, np.random.default_rng(seed))

    def test_takes_values_as_they_are(self):
        found = self.sampled({"c": 3.0, "a": -1.0, "b": (0.5, 0.5)}, count=4)
        np.testing.assert_array_equal(found, [[-1.0, 0.5, 3.0]] * 4)

    def test_samples_ranges_uniformly(self):
        found = self.sampled({"a": (0.0, 2.0), "b": 1.0, "c": (5.0, 5.5)}, count=2000)
        assert kstest(found[:, 0], "uniform", args=(0, 2)).pvalue > 0.01
        assert kstest(found[:, 2], "uniform", args=(5, 0.5)).pvalue > 0.01
        assert abs(np.corrcoef(found[:, 0], found[:, 2])[0, 1]) < 0.1
        assert len(np.unique(found[:, 0])) == 2000

    @pytest.mark.parametrize("given", [{"a": 1.1}, {"c": -2.0}, {"b": 2.5, "c": 0.0}])
    def test_samples_the_rest_from_the_conditional_normal_distribution(self, given):
        """In terms of the precision matrix Λ: mean μ_r - Λ_rr⁻¹ Λ_rg (x - μ_g), variance Λ_rr⁻¹."""
        precision = np.linalg.inv(self.ROOT @ self.ROOT.T)
        g = [i for i, name in enumerate("abc") if name in given]
        r = [i for i in range(3) if i not in g]
        variance = np.linalg.inv(precision[np.ix_(r, r)])
        offset = np.array([given["abc"[i]] for i in g]) - self.MEAN[g]
        mean = self.MEAN[r] - variance @ precision[np.ix_(r, g)] @ offset
        found = self.sampled(given)
        np.testing.assert_array_equal(found[:, g], np.tile(offset + self.MEAN[g], [20_000, 1]))
        np.testing.assert_allclose(found[:, r].mean(axis=0), mean, atol=0.02)
        np.testing.assert_allclose(np.atleast_2d(np.cov(found[:, r].T)), variance, atol=0.02)

    def test_follows_a_range_sample_by_sample(self):
        found = self.sampled({"a": (0.0, 1.4)})
        slope = np.polyfit(found[:, 0], found[:, 1], 1)
        gain = (self.ROOT @ self.ROOT.T)[1, 0] / 0.09
        np.testing.assert_allclose(slope, [gain, 2.0 - 0.7 * gain], atol=0.05)

    def test_of_constant_and_collinear_properties(self):
        covariance = np.array([[0.0, 0.0, 0.0], [0.0, 0.25, 0.5], [0.0, 0.5, 1.0]])
        found = self.sampled({"a": 0.9, "b": 2.5}, count=50, covariance=covariance)
        np.testing.assert_allclose(found[:, 2], -1.0 + 2 * 0.5, atol=1e-6)
        found = self.sampled({"a": 0.9}, covariance=covariance)
        assert np.isfinite(found).all()
        np.testing.assert_allclose(found[:, 1:].mean(axis=0), self.MEAN[1:], atol=0.03)
        np.testing.assert_allclose(np.cov(found[:, 1:].T), covariance[1:, 1:], atol=0.03)

    def test_checks_the_targets(self):
        with pytest.raises(ValueError, match="property 'd' is unknown; the model knows a, b, c"):
            self.sampled({"d": 1.0})
        with pytest.raises(ValueError, match="target b is .*; low is above high"):
            self.sampled({"b": (1.0, 0.5)})

    def test_repeats_with_the_seed_only(self):
        given = {"b": (0.0, 1.0)}
        first = self.sampled(given, count=5)
        np.testing.assert_array_equal(self.sampled(given, count=5), first)
        assert (self.sampled(given, count=5, seed=1) != first).all()


@pytest.mark.parametrize("size", [1000, 6000, 20000])
def test_a_full_disk_leaves_no_half_model(tmp_path, size):
    with files_limited_to(size), pytest.raises(OSError, match="too large: '.*model'"):
        small.model().save(tmp_path / "model")
    assert list(tmp_path.iterdir()) == []
