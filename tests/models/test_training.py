"""Training: bad input is refused, seeds repeat, the best weights stay, records tell the truth."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import shutil

import ase.calculators.emt
import keras
import numpy as np
import pytest
import small
import tensorflow as tf
from ase import Atoms
from scipy.spatial.distance import cdist

from tfgen.datasets.storage import Dataset
from tfgen.fingerprints.fingerprint import Fingerprint
from tfgen.models import nnp_learning
from tfgen.models.callbacks import ShowProgress
from tfgen.models.checkpoints import remove_checkpoint
from tfgen.models.cvae import CVAE
from tfgen.models.model import Model
from tfgen.models.settings import NNPSettings, TrainingSettings
from tfgen.models.training import train
from tfgen.models.training_arrays import estimate_tolerance
from tfgen.potentials.ase import AsePotential
from tfgen.potentials.emt import EMT
from tfgen.relaxation.relax import relax
from tfgen.structures.neighbours.displacements import neighbourhood
from tfgen.warnings import TfgenWarning


def with_splits(train: int, validation: int, test: int) -> Dataset:
    return dataclasses.replace(
        small.dataset(), split=np.repeat([0, 1, 2], [train, validation, test])
    )


class Silent(small.EMT):
    """Computes nothing."""

    def compute(self, structures):
        empty = [np.full(s.positions.shape, np.nan) for s in structures]
        return {"energy": np.full(len(structures), np.nan), "forces": empty}


def interrupted(*_, **__):
    raise KeyboardInterrupt


class Steep(small.PairHistogram):
    """Its one feature, of close pairs, is as large as its cutoff: beyond all bounds if that is."""

    size = 1

    def __call__(self, batch):
        near = neighbourhood(batch, min(self.r_cut, 4.0))
        count = tf.reduce_sum(tf.where(near.mask, self.r_cut - near.distances, 0.0), axis=2)
        return count[..., None]


def of_pairs(species, r_cut):
    return Fingerprint(Steep(species, r_cut, 1.0), ("mean",))


FIELDS = {field.name for field in dataclasses.fields(TrainingSettings)}


def trained(dataset=None, properties=small.PROPERTIES, **changes):
    """A short training; `changes` are arguments of `train`, or fields of its settings."""
    settings = {name: changes.pop(name) for name in FIELDS & changes.keys()}
    arguments = {
        "epochs": 2, "seed": 5, "fingerprint": small.fingerprint(), "potential": None,
        "settings": dataclasses.replace(small.SETTINGS, **settings),
    }  # fmt: skip
    return train(dataset or small.dataset(), properties, **{**arguments, **changes})


def loss_of(model, dataset) -> float:
    """The loss of validation, by Keras."""
    model.cvae.compile()
    inputs = inputs_of(model, dataset)
    whole = len(dataset)  # Keras weighs batches alike, whatever their size
    return model.cvae.evaluate(inputs, batch_size=whole, verbose=0, return_dict=True)["loss"]


def inputs_of(model, dataset):
    """What the network saw, by another way."""
    counts = np.array([[len(s)] for s in dataset.structures], np.float32)
    columns = [dataset.properties[c.name][:, None] for c in model.conditions]
    return {
        "fingerprint": np.float32(model.fingerprint.create(dataset.structures)),
        "condition": np.float32(np.hstack([*columns, counts])),
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"properties": ["hue"]}, "'hue': the data set has energy_per_atom, radius_of_gyration"),
        ({"properties": ["energy_per_atom", "hue", "gap"]}, "property 'hue', 'gap': the data"),
        ({"properties": []}, "property list is empty: the data set has energy_per_atom"),
        ({"epochs": 0}, "epochs is 0; at least 1 is needed"),
        ({"potential": EMT}, "potential is the class EMT; an object of it is"),
        ({"initial_model": "model"}, "initial_model is 'model'; a tfgen.Model is needed"),
        ({"potential": "emt"}, "potential is 'emt', neither a potential like tfgen"),
        ({"dataset": with_splits(0, 50, 10)}, "the training split has 0 structures; at least 2"),
        ({"dataset": with_splits(1, 49, 10)}, "the training split has 1 structures; at least 2"),
        ({"fingerprint": Fingerprint.preset("fung2022", ["Cu"])}, "holds Pt; .* species are Cu"),
        # The user's descriptors check nothing themselves.
        ({"fingerprint": of_pairs(["Cu"], 4.0)}, "holds Pt; .* species are Cu"),
        ({"fingerprint": of_pairs(["Pt"], 0.5)}, "same for all training structures; it must"),
        ({"fingerprint": of_pairs(["Pt"], 1e39)}, "of a structure is not finite in float32"),
    ],
)
def test_bad_input(changes, message, monkeypatch):
    monkeypatch.setattr(keras.Model, "fit", lambda *_, **__: pytest.fail("work has begun"))
    with pytest.raises(ValueError, match=message):
        trained(**changes)


def test_training_that_diverges_is_an_error():
    with pytest.raises(ArithmeticError, match="training diverged"):
        trained(learning_rate=1e30)


class TestModel:
    def test_knows_its_conditions_from_the_training_split(self):
        model, part = small.model(), small.dataset().select("train")
        table = np.stack([part.properties[name] for name in small.PROPERTIES])
        for condition, name, unit, values in zip(
            model.conditions, small.PROPERTIES, ("eV/atom", "Å"), table, strict=True
        ):
            assert dataclasses.astuple(condition) == (name, unit, values.min(), values.max())
        np.testing.assert_allclose(model.mean, table.mean(axis=1))
        centred = table - table.mean(axis=1, keepdims=True)
        np.testing.assert_allclose(model.covariance, centred @ centred.T / 39)
        sizes = [len(s) for s in part.structures]
        assert model.formulas == {"Pt5": sizes.count(5), "Pt6": sizes.count(6)}
        assert model.potential == "emt"
        features = model.fingerprint.create(part.structures)
        np.testing.assert_allclose(model.scale, features.std(axis=0), rtol=1e-4)

    def test_tolerance_is_the_median_distance_of_nearest_neighbours(self):
        model = small.model()
        scaled = model.fingerprint.create(small.dataset().select("train").structures) / model.scale
        distances = cdist(scaled, scaled, "cityblock") / scaled.shape[1]
        np.fill_diagonal(distances, np.inf)
        assert model.tolerance == pytest.approx(np.median(distances.min(axis=1)), rel=1e-4)

    def test_tolerance_of_many_is_that_of_a_sample(self):
        features = np.random.default_rng(0).normal(size=(600, 5)).astype(np.float32)
        scale = np.linspace(1, 2, 5)
        distances = cdist(features / scale, features / scale, "cityblock") / 5
        np.fill_diagonal(distances, np.inf)
        wanted = np.median(distances.min(axis=1))
        assert estimate_tolerance(features, scale, 0) == pytest.approx(wanted, rel=0.1)
        assert estimate_tolerance(features, scale, 0) == estimate_tolerance(features, scale, 0)

    def test_tolerance_does_not_count_copies(self):
        features = np.random.default_rng(0).normal(size=(20, 5)).astype(np.float32)
        scale = np.ones(5)
        copies = np.concatenate([features, features, features + np.float32(1e-7)])
        assert estimate_tolerance(copies, scale, 0) == pytest.approx(
            estimate_tolerance(features, scale, 0)
        )
        with pytest.raises(ValueError, match="same for all training structures"):
            estimate_tolerance(np.ones([4, 5], np.float32), scale, 0)

    def test_provenance(self):
        model = small.model()
        record = json.loads(json.dumps(model.provenance, allow_nan=False))
        assert record["training_structures"] == 40
        assert record["validation_structures"] == 10
        assert (record["seed"], record["epochs"]) == (5, 8)
        assert record["dataset"] == {"name": "small", "kind": "built", "seed": 0, "created": None}
        assert {"tfgen", "tensorflow", "python"} <= set(record["versions"])
        assert "val_kl" in record["history"]
        held = inputs_of(model, small.dataset().select("validation"))
        found = model.predict_properties(held["fingerprint"])
        wanted = np.abs(found - held["condition"][:, :2]).mean(axis=0)
        np.testing.assert_allclose(record["surrogate_mae"], wanted, rtol=1e-3)
        values = held["condition"][:, :2]
        spread = np.abs(values - np.median(values, axis=0)).mean(axis=0)
        np.testing.assert_allclose(record["spread"], spread, rtol=1e-4)
        decoded = model.cvae.predict(held, verbose=0)["fingerprint"]
        error = np.abs(decoded - held["fingerprint"]) / model.scale
        assert record["decoder_error"] == pytest.approx(np.median(error.mean(axis=1)), rel=1e-3)


def test_keeps_the_best_weights():
    """At a rate so high that the last epoch is not the best."""
    model = trained(learning_rate=0.15, epochs=8)
    record = model.provenance
    assert record["history"]["val_loss"] > record["best_val_loss"]
    assert record["best_epoch"] < 8
    found = loss_of(model, small.dataset().select("validation"))
    assert found == pytest.approx(record["best_val_loss"], rel=1e-4)


@pytest.fixture(scope="module")
def logs(tmp_path_factory):
    return tmp_path_factory.mktemp("training") / "logs"


@pytest.fixture(scope="module")
def first(logs):
    return trained(logs=logs)


def assert_same(a, b):
    for one, two in zip(a.cvae.weights, b.cvae.weights, strict=True):
        np.testing.assert_array_equal(one, two)
    for name in ("best_epoch", "best_val_loss", "history", "surrogate_mae"):
        assert a.provenance[name] == b.provenance[name]
    assert a.config()["cvae"] == b.config()["cvae"]


def test_repeats_with_the_seed_only(first, capfd):
    assert_same(trained(), first)
    assert "training" not in capfd.readouterr().err  # no bar unless asked
    other = trained(seed=6)
    for a, b in zip(first.cvae.trainable_weights, other.cvae.trainable_weights, strict=True):
        assert np.abs(a - b).max() > 0
    assert other.provenance["history"] != first.provenance["history"]


class TestInterruption:
    @pytest.fixture
    def interrupt(self, monkeypatch):
        """Interrupts trainings after so many epochs; tells which they went through."""
        seen = []
        original = ShowProgress.on_epoch_end

        def prepare(after):
            def on_epoch_end(self, epoch, logs=None):
                seen.append(epoch)
                original(self, epoch, logs)
                if epoch + 1 == after:
                    raise KeyboardInterrupt

            monkeypatch.setattr(ShowProgress, "on_epoch_end", on_epoch_end)

        prepare.seen = seen
        return prepare

    def test_goes_on_to_the_bit(self, tmp_path, interrupt):
        checkpoint = tmp_path / "model.partial"
        changes = {"epochs": 6, "backup_interval": 2, "learning_rate": 0.05}
        arguments = {**changes, "checkpoint": checkpoint}
        interrupt(5)
        with pytest.raises(KeyboardInterrupt):
            trained(**arguments)
        assert interrupt.seen == [0, 1, 2, 3, 4]
        with pytest.raises(
            FileExistsError, match=r"model.partial' keeps another, interrupted training"
        ):
            trained(**arguments, seed=6)
        interrupt.seen.clear()
        interrupt(None)
        model = trained(**arguments)
        assert interrupt.seen == [4, 5]
        assert not list(tmp_path.iterdir())
        assert model.provenance["epochs"] == 6
        assert_same(model, trained(**changes))

    def test_after_the_last_validation_and_from_damaged_checkpoints(
        self, tmp_path, monkeypatch, interrupt
    ):
        """Epochs 2 and 4 of 5 are validated: after the checkpoint of epoch 4 none is."""
        small.train_eagerly(monkeypatch)
        checkpoint, kept = tmp_path / "model.partial", tmp_path / "kept"
        changes = {"epochs": 5, "backup_interval": 2, "max_validations": 2}
        interrupt(4)
        with pytest.raises(KeyboardInterrupt):
            trained(**changes, checkpoint=checkpoint)
        checkpoint.rename(kept)
        interrupt(None)
        first = trained(**changes)
        for damaged, left in (
            ((), [4]),
            (("last.npz",), [2, 3, 4]),
            (("last.npz", "before.npz"), [0, 1, 2, 3, 4]),
        ):
            shutil.copytree(kept, checkpoint)
            for name in damaged:
                data = (checkpoint / name).read_bytes()
                (checkpoint / name).write_bytes(data[: len(data) // 2])
            (checkpoint / "new").write_bytes(b"what a kill has left")
            interrupt.seen.clear()
            assert_same(trained(**changes, checkpoint=checkpoint), first)
            assert interrupt.seen == left

    def test_before_the_first_backup_is_as_if_it_had_not_been(
        self, tmp_path, monkeypatch, interrupt
    ):
        small.train_eagerly(monkeypatch)
        first, checkpoint = trained(), tmp_path / "model.partial"
        interrupt(1)
        with pytest.raises(KeyboardInterrupt):
            trained(checkpoint=checkpoint)
        assert checkpoint.is_dir()
        interrupt(None)
        assert_same(trained(checkpoint=checkpoint), first)
        assert not list(tmp_path.iterdir())


def test_an_empty_validation_split_leaves_the_training_split_to_judge(capfd):
    """Also: one property, given twice; logs for TensorBoard; a progress bar."""
    model = trained(with_splits(50, 0, 10), ["energy_per_atom"] * 2, progress=True)
    assert [c.name for c in model.conditions] == ["energy_per_atom"]
    assert model.covariance.shape == (1, 1)
    assert model.provenance["validation_structures"] == 0
    found = loss_of(model, with_splits(50, 0, 10).select("train"))
    assert found == pytest.approx(model.provenance["best_val_loss"], rel=1e-4)
    bar = capfd.readouterr().err
    assert "training: 100%" in bar
    assert "2/2" in bar
    assert "val_loss=" in bar


def test_writes_logs_for_tensorboard(first, logs):
    found = {}
    for split in ("train", "validation"):
        (path,) = (logs / split).glob("events.out.tfevents.*")
        for record in tf.data.TFRecordDataset(str(path)):
            event = tf.compat.v1.Event.FromString(record.numpy())
            for value in event.summary.value:
                number = float(tf.make_ndarray(value.tensor)) if value.HasField("tensor") else None
                found.setdefault((split, value.tag), []).append(number)
    for name in ("loss", "nll", "kl", "property_error"):
        assert len(found["train", f"epoch_{name}"]) == 2
        last = first.provenance["history"][f"val_{name}"]
        assert found["validation", f"epoch_{name}"][-1] == pytest.approx(last)


def test_of_an_alloy_counts_its_elements(monkeypatch):
    small.train_eagerly(monkeypatch)
    rng = np.random.default_rng(0)
    kinds = (["Cu"] * 3 + ["Au"], ["Cu"] + ["Au"] * 3)
    structures = [
        Atoms(kinds[i % 2], positions=rng.normal(size=(4, 3)) + 3 * np.eye(4)[:, :3])
        for i in range(8)
    ]
    dataset = Dataset(
        structures,
        {"gap": np.ones(8)},  # constant: only centred
        {"gap": "eV"},
        np.zeros(8),
    )
    fingerprint = Fingerprint(small.PairHistogram(["Cu", "Au"], 4.0, 1.0), ("mean",))
    model = trained(dataset, ["gap"], fingerprint=fingerprint)
    assert model.cvae.conditions == 3
    np.testing.assert_allclose(model.cvae.condition_mean, [1.0, 2.0, 2.0])
    np.testing.assert_allclose(model.cvae.condition_scale, [1.0, 1.0, 1.0])
    assert (model.potential, model.formulas) == (None, {"AuCu3": 4, "Au3Cu": 4})
    assert np.isfinite(model.provenance["best_val_loss"])


class TestNNP:
    @pytest.fixture(autouse=True)
    def brief(self, monkeypatch):
        small.train_eagerly(monkeypatch)
        small.brief_nnp(monkeypatch, min_calculations=1)

    def test_is_learned_from_what_made_the_energies(self):
        """By name, or any potential or calculator; the set's structures are no minima."""
        by_name = trained(potential="auto")
        record = by_name.provenance["nnp"]
        assert record["single_points"] == 4 * 40  # the training split, and three copies of each
        assert record["minima"] < 0.8
        assert not by_name.minima
        assert trained(potential=small.potential()).provenance["nnp"] == record
        with_ase = trained(potential=ase.calculators.emt.EMT())
        for a, b in zip(with_ase.nnp.weights, by_name.nnp.weights, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-3)

    def test_is_learned_from_what_the_data_set_has(self):
        dataset = small.dataset()
        forces = small.potential().compute(dataset.structures)["forces"]
        known = dataclasses.replace(dataset, forces=forces)
        first = trained(known, potential="auto")
        record = first.provenance["nnp"]
        passing = [np.linalg.norm(force, axis=1).max() > 0.1 for force in forces]
        assert record["stored"] == 40
        assert record["single_points"] < 4 * 40 - 40
        # Without a potential, too, as most of them are no minima.
        imported = dataclasses.replace(known, metadata={"kind": "imported"})
        assert np.mean(passing) > 0.5
        model = trained(imported, potential="auto")
        assert model.nnp is not None
        assert model.provenance["nnp"]["stored"] == 40
        assert model.provenance["nnp"]["single_points"] == 0
        assert (model.potential, model.provenance["potential"]) == (None, None)
        assert trained(imported, potential=None).nnp is None

    def test_not_from_another_potential_than_the_energies(self):
        dataset = small.dataset()
        energies = {
            **dataset.properties,
            "energy_per_atom": dataset.properties["energy_per_atom"] + 0.5,
        }
        shifted = dataclasses.replace(dataset, properties=energies)
        words = "potential is not the one of the data set: its energies differ .* by 0.5 eV/atom"
        with pytest.warns(TfgenWarning, match=f"has no neural-network potential: the {words}"):
            model = trained(shifted, potential="auto")
        assert model.nnp is None
        assert "by 0.5 eV/atom" in model.provenance["nnp_problem"]
        # Where no energy was trained on, it can relax structures all the same.
        with pytest.warns(TfgenWarning, match=f"^the {words}"):
            assert trained(shifted, small.PROPERTIES[1:], potential="auto").nnp is not None

    def test_of_minima(self):
        found = relax(small.structures(), small.potential(), fmax=0.01)
        assert found.converged.all()
        sizes = [len(atoms) for atoms in found.structures]
        energies = {**small.dataset().properties, "energy_per_atom": found.energy / sizes}
        dataset = dataclasses.replace(
            small.dataset(), structures=found.structures, properties=energies
        )
        assert trained(dataset, potential="auto").minima

    def test_there_is_none_without_a_potential(self):
        model = trained(potential=None)
        assert model.nnp is None
        assert model.provenance["nnp"] is None
        assert model.minima
        imported = dataclasses.replace(small.dataset(), metadata={"kind": "imported"})
        assert trained(imported, potential="auto").nnp is None

    def test_a_calculator_that_fails_at_times_is_endured(self):
        class Fails(ase.calculators.emt.EMT):
            def calculate(self, *arguments, **options):
                super().calculate(*arguments, **options)
                if self.results["energy"] > 10.0:
                    raise RuntimeError("SCF not converged")

        with pytest.warns(TfgenWarning, match="calculations failed for .*: SCF not converged"):
            record = trained(potential=Fails()).provenance["nnp"]
        assert 20 <= record["usable"] < record["single_points"]
        assert record["failed"] > 0

    @pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
    @pytest.mark.parametrize(
        ("changes", "words", "learned"),
        [
            ({"max_relative_error": 1e-9}, "can hardly tell them apart", True),
            ({"epochs": 3, "learning_rate": 1e30}, "potential diverged", False),
            ({"failing": True}, "only 0 single-point calculations", False),
        ],
    )
    def test_the_cvae_stays_without_an_nnp(self, tmp_path, changes, words, learned):
        potential = Silent() if changes.pop("failing", False) else small.potential()
        settings = NNPSettings(**{"min_calculations": 1, "epochs": 1, **changes})
        with pytest.warns(TfgenWarning, match=f"no neural-network potential: .*{words}"):
            model = trained(potential=potential, nnp=settings)
        assert model.nnp is None
        assert words in model.provenance["nnp_problem"]
        assert (model.provenance["nnp"] is not None) is learned
        model.save(tmp_path / "model")
        assert Model.load(tmp_path / "model").nnp is None

    def test_what_was_done_before_an_interruption_stays_done(self, tmp_path, monkeypatch):
        checkpoint = tmp_path / "model.partial"
        arguments = {"checkpoint": checkpoint, "keep_checkpoint": True, "potential": "auto"}
        with monkeypatch.context() as patch:
            patch.setattr(nnp_learning, "fit_nnp", interrupted)
            with pytest.raises(KeyboardInterrupt):
                trained(**arguments)
        monkeypatch.setattr(CVAE, "fit", lambda *_, **__: pytest.fail("trained again"))
        first, again = trained(**arguments), trained(**arguments)
        assert checkpoint.is_dir()
        assert_same(first, again)
        assert first.provenance["best_val_loss"] == pytest.approx(
            loss_of(first, small.dataset().select("validation")), rel=1e-4
        )
        remove_checkpoint(checkpoint)
        assert not list(tmp_path.iterdir())
        remove_checkpoint(checkpoint)
        checkpoint.mkdir()
        (checkpoint / "thesis.txt").touch()
        with pytest.raises(FileExistsError, match=r"thesis\.txt"):
            remove_checkpoint(checkpoint)

    def test_arguments_that_json_does_not_know(self, tmp_path):
        arguments = {"rc": float("inf"), "since": dt.date(2020, 1, 2)}
        potential = AsePotential(ase.calculators.emt.EMT(), arguments=arguments)
        model = trained(potential=potential)
        model.save(tmp_path / "model")
        said = Model.load(tmp_path / "model").provenance["potential"]["arguments"]
        assert said == {"rc": "Infinity", "since": "2020-01-02"}


def test_logs_stay_if_the_training_is_refused(tmp_path):
    (tmp_path / "train").mkdir()
    with pytest.raises(ValueError, match="property 'hue'"):
        trained(properties=["hue"], logs=tmp_path, overwrite=True)
    assert (tmp_path / "train").exists()
    with pytest.raises(FileExistsError, match="exists"):
        trained(logs=tmp_path)


def test_takes_the_default_preset_for_the_elements_of_the_data_set(monkeypatch):
    chosen = []

    class ChosenError(Exception):
        pass

    def preset(name, species):
        chosen.append((name, species))
        raise ChosenError

    monkeypatch.setattr(Fingerprint, "preset", preset)
    with pytest.raises(ChosenError):
        train(small.dataset())
    assert chosen == [("default", ["Pt"])]


def test_periodic_structures_are_refused():
    boxed = [s.copy() for s in small.structures()]
    boxed[3].set_cell([9.0, 9.0, 9.0])
    boxed[3].pbc = True
    dataset = dataclasses.replace(small.dataset(), structures=boxed)
    with pytest.raises(ValueError, match="holds periodic structures, and generation"):
        train(dataset, epochs=1)
