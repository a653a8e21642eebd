"""`tfgen train` as a user types it."""

from __future__ import annotations

import dataclasses
import errno
import json
import re
import shutil

import ase.io
import keras
import numpy as np
import pytest
import small
import tensorflow as tf
from ase import Atoms
from ase.calculators.lj import LennardJones
from commands import assert_quiet, failed, run, run_alone

import tfgen.cli.train as train_command
from tfgen.datasets.storage import Dataset
from tfgen.descriptors.acsf import ACSF
from tfgen.fingerprints.fingerprint import Fingerprint
from tfgen.models.callbacks import ShowProgress
from tfgen.models.cvae import CVAE
from tfgen.models.model import Model


@pytest.fixture
def small_preset(monkeypatch):
    """The preset `default` is small here, so that little is compiled."""
    monkeypatch.setattr(Fingerprint, "preset", lambda *_: small.fingerprint())


@pytest.fixture
def no_training(monkeypatch):
    monkeypatch.setattr(keras.Model, "fit", lambda *_, **__: pytest.fail("has begun"))


def test_in_a_process_of_its_own(dataset_file, tmp_path):
    done = run_alone("train", dataset_file, "-o", "model", "--epochs", 2, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert_quiet(done.stderr)
    assert "training: 100%" in done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("trained on 40 structures for 2 epochs; best ")
    assert lines[1].startswith("  energy_per_atom: ")
    assert re.search(r"predicted within 0\.\d{4} on average, spread 0\.\d{4}$", lines[1])
    assert lines[2].startswith("  warning: the model can hardly tell structures apart by energy")
    assert re.fullmatch(
        r"  neural-network potential from 3000 single-point calculations: energies within "
        r"0\.\d{4} eV/atom on average, spread 0\.\d{4}",
        lines[3],
    )
    assert lines[4].startswith("  left out of these: ")
    assert lines[5:] == ["model in model, TensorBoard logs in model.logs"]
    model = Model.load(tmp_path / "model")
    assert model.fingerprint.get_config() == Fingerprint.preset("default").get_config()
    assert list((tmp_path / "model.logs" / "train").glob("events.*"))
    assert {path.name for path in tmp_path.iterdir()} == {"model", "model.logs"}


def test_options(dataset_file, tmp_path, small_preset):
    options = {
        "--epochs": 2, "--batch-size": 20, "--learning-rate": 0.002, "--latent": 2,
        "--kl-weight": 0.5, "--seed": 7, "--logs": tmp_path / "logs", "-o": tmp_path / "model",
        "--hidden": "8,4", "--patience": 9,
    }  # fmt: skip
    properties = [part for name in small.PROPERTIES for part in ("--property", name)]
    pairs = [part for pair in options.items() for part in pair]
    result = run("train", dataset_file, *properties, *pairs)
    assert result.exit_code == 0, result.output
    for name, unit in zip(small.PROPERTIES, ("eV/atom", "Å"), strict=True):
        assert f"  {name}: " in result.stdout
        assert f" {unit}, predicted within " in result.stdout
    model = Model.load(tmp_path / "model")
    assert [c.name for c in model.conditions] == [*small.PROPERTIES]
    record, settings = model.provenance, model.settings
    assert (record["epochs"], settings.batch_size, record["seed"]) == (2, 20, 7)
    assert settings.learning_rate == 0.002
    assert (settings.hidden, settings.patience, settings.backup_interval) == ((8, 4), 9, 10)
    config = model.cvae.get_config()
    assert (config["latent"], config["kl_weight"], config["seed"]) == (2, 0.5, 7)
    assert (tmp_path / "logs" / "validation").is_dir()

    old = json.loads((tmp_path / "model" / "config.json").read_text("utf-8"))
    failed(run("train", dataset_file, *pairs), 1, "model' exists; use --overwrite")
    assert json.loads((tmp_path / "model" / "config.json").read_text("utf-8")) == old


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--epochs", "0"], ["--epochs", "0 is not in the range"]),
        (["--epochs", "many"], ["--epochs", "'many' is not a valid integer"]),
        (["--batch-size", "0"], ["--batch-size"]),
        (["--learning-rate", "0"], ["--learning-rate"]),
        (["--latent", "0"], ["--latent"]),
        (["--kl-weight", "-1"], ["--kl-weight"]),
        (["--seed", "-1"], ["--seed"]),
        (["--seed", str(2**31)], ["--seed"]),
        (["--colour", "red"], ["No such option"]),
    ],
)
def test_wrong_usage(dataset_file, tmp_path, options, words):
    failed(run("train", dataset_file, "-o", tmp_path / "model", *options), 2, *words)
    assert not list(tmp_path.iterdir())


def test_missing_arguments(dataset_file):
    failed(run("train", dataset_file), 2, "Missing option '-o'")
    failed(run("train", "-o", "model"), 2, "Missing argument 'FILE.h5'")


@pytest.mark.usefixtures("no_training")
class TestWorkThatCannotBeDone:
    @pytest.mark.parametrize(
        ("options", "words"),
        [
            (["--property", "hue"], ["property 'hue'", "energy_per_atom, radius_of_gyration"]),
        ],
    )
    def test_unknown_names(self, dataset_file, tmp_path, options, words):
        failed(run("train", dataset_file, "-o", tmp_path / "model", *options), 1, *words)
        assert not list(tmp_path.iterdir())

    def test_data_sets(self, dataset_file, tmp_path):
        output = tmp_path / "model"
        failed(run("train", tmp_path / "no.h5", "-o", output), 1, "no.h5' does not exist")
        failed(run("train", tmp_path, "-o", output), 1, "is a folder")
        (tmp_path / "text.h5").write_text("hello")
        failed(run("train", tmp_path / "text.h5", "-o", output), 1, "is not an HDF5 file")
        (tmp_path / "half.h5").write_bytes(dataset_file.read_bytes()[:3000])
        failed(run("train", tmp_path / "half.h5", "-o", output), 1, "half.h5' is truncated")
        empty = dataclasses.replace(small.dataset(), split=np.full(60, 2))
        empty.save(tmp_path / "empty.h5")
        failed(run("train", tmp_path / "empty.h5", "-o", output), 1, "training split has 0 struct")
        assert not output.exists()

    def test_places_for_the_model(self, dataset_file, tmp_path):
        failed(run("train", dataset_file, "-o", tmp_path / "no" / "model"), 1, "no' does not exist")
        (tmp_path / "file").write_text("mine")
        arguments = ("train", dataset_file, "--overwrite", "-o")
        failed(run(*arguments, tmp_path / "file"), 1, "is a file, a folder was expected")
        (tmp_path / "folder").mkdir()
        (tmp_path / "folder" / "mine.txt").touch()
        failed(run(*arguments, tmp_path / "folder"), 1, "holds 'mine.txt'")
        assert (tmp_path / "file").read_text() == "mine"
        assert (tmp_path / "folder" / "mine.txt").exists()


def test_ctrl_c_keeps_what_is_done_and_the_old_model(
    dataset_file, tmp_path, small_preset, monkeypatch
):
    """Then the same command continues."""

    def interrupt(_self, epoch, *_, **__):
        if epoch > 0:
            raise KeyboardInterrupt

    small.model().save(tmp_path / "model")
    command = ("train", dataset_file, "-o", tmp_path / "model", "--overwrite", "--epochs", 2)
    command += ("--potential", "none")
    backups = dataclasses.replace(small.SETTINGS, backup_interval=1)
    monkeypatch.setattr(train_command, "TrainingSettings", lambda **_: backups)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ShowProgress, "on_epoch_end", interrupt)
        result = run(*command)
    assert result.exit_code == 1
    assert "Traceback" not in result.output
    line = result.stderr.splitlines()[-1]
    assert line.startswith("Error: interrupted; ")
    assert "model.partial' keeps what is done, the same command continues" in line
    assert Model.load(tmp_path / "model").provenance == small.model().provenance
    result = run(*command)
    assert result.exit_code == 0, result.output
    assert Model.load(tmp_path / "model").provenance["epochs"] == 2
    assert {path.name for path in tmp_path.iterdir()} == {"model", "model.logs"}


def test_a_model_that_cannot_be_written_is_not_trained_again(
    dataset_file, tmp_path, small_preset, monkeypatch
):
    """A full disk, then an output that has appeared meanwhile: the checkpoint stays."""
    small.train_eagerly(monkeypatch)
    command = ("train", dataset_file, "-o", tmp_path / "model", "--epochs", 2)
    command += ("--potential", "none")
    save = CVAE.save

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    def late(self, path, *arguments, **options):
        save(self, path, *arguments, **options)
        (tmp_path / "model").mkdir()
        (tmp_path / "model" / "thesis.txt").write_text("mine")

    monkeypatch.setattr(CVAE, "save", full)
    last = run(*command).stderr.splitlines()[-1]
    assert "Error: [Errno 28] No space left on device: '" in last
    assert "model.partial' keeps what is done, the same command continues there" in last
    assert {path.name for path in tmp_path.iterdir()} == {"model.partial", "model.logs"}
    monkeypatch.setattr(CVAE, "fit", lambda *_, **__: pytest.fail("trained again"))
    monkeypatch.setattr(CVAE, "save", late)
    last = run(*command).stderr.splitlines()[-1]
    assert "model' exists; " in last
    assert (tmp_path / "model.partial").exists()
    assert (tmp_path / "model" / "thesis.txt").read_text() == "mine"
    shutil.rmtree(tmp_path / "model")
    monkeypatch.setattr(CVAE, "save", save)
    result = run(*command)
    assert result.exit_code == 0, result.output
    assert {path.name for path in tmp_path.iterdir()} == {"model", "model.logs"}


def test_a_folder_that_is_not_its_own_stays(dataset_file, tmp_path, small_preset):
    for name in ("model.partial", "model.logs"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "thesis.txt").write_text("precious")
        command = ("train", dataset_file, "-o", tmp_path / "model", "--epochs", 1, "--overwrite")
        failed(run(*command), 1, "holds 'thesis.txt', which tfgen has not put there")
        assert (folder / "thesis.txt").read_text() == "precious"
        shutil.rmtree(folder)


# Clusters of an element whose bonds are about as long as those of the Lennard-Jones potential with
# ASE's defaults, 2^(1/6) Å.
RECIPE = """
name = "lennard-jones"
[sample]
formula = "F5"
count = 16
[relax]
potential = "ase.calculators.lj:LennardJones"
fmax = 0.5
[select]
duplicate_tolerance = 0.0
"""
LJ = "ase.calculators.lj:LennardJones"


@pytest.fixture
def preset_of_fluorine(monkeypatch):
    acsf = ACSF(["F"], 4.0, g2_params=[[4.0, r_s] for r_s in (0.8, 1.2, 1.6, 2.0)], g1=False)
    monkeypatch.setattr(Fingerprint, "preset", lambda *_: Fingerprint(acsf, ("mean", "std")))


@pytest.mark.slow
@pytest.mark.usefixtures("preset_of_fluorine", "quick")
def test_the_data_of_any_calculator(tmp_path, monkeypatch):
    """From its data set to structures and a SavedModel; the potential is no EMT."""
    small.train_eagerly(monkeypatch)
    (tmp_path / "lj.toml").write_text(RECIPE)
    data, model = tmp_path / "lj.h5", tmp_path / "model"

    def done(*arguments):
        result = run(*arguments)
        assert result.exit_code == 0, result.output
        return result.stdout

    done("dataset", "build", tmp_path / "lj.toml", "-o", data, "--workers", 1)
    assert Dataset.load(data).metadata["potential"] == LJ
    said = done("train", data, "-o", model, "--epochs", 2, "--potential", LJ)
    assert "  neural-network potential from " in said
    loaded = Model.load(model)
    assert loaded.potential == LJ
    assert loaded.nnp is not None
    assert loaded.nnp_settings.epochs == 3
    target = f"energy_per_atom={np.mean([loaded.conditions[0].low, loaded.conditions[0].high])}"
    common = ("generate", model, "--formula", "F5", "--target", target, "--count", 1)
    common += ("--relax", "none", "--candidates", 1)
    done(*common, "-o", tmp_path / "judged.extxyz", "--potential", LJ)
    (judged,) = ase.io.read(tmp_path / "judged.extxyz", ":")
    calculator = LennardJones()
    calculator.calculate(Atoms(judged.numbers, positions=judged.positions))
    energy = calculator.results["energy"] / 5
    assert judged.info["reconstructed"]["energy_per_atom"] == pytest.approx(energy, rel=1e-3)
    done(*common, "-o", tmp_path / "guessed.extxyz", "--potential", "none")
    done("export", model, "-o", tmp_path / "saved_model", "--rounds", 0)
    signatures = tf.saved_model.load(str(tmp_path / "saved_model")).signatures
    positions = tf.constant(judged.positions[None], tf.float32)
    found = signatures["fingerprint"](positions=positions, numbers=tf.fill([1, 5], 9))
    wanted = loaded.fingerprint.create(Atoms(judged.numbers, positions=judged.positions))
    np.testing.assert_allclose(found["fingerprint"], wanted, rtol=1e-3, atol=1e-4)


@pytest.mark.usefixtures("small_preset")
def test_another_interrupted_training_is_kept(dataset_file, tmp_path):
    partial = tmp_path / "model.partial"
    partial.mkdir()
    (partial / "task.json").write_text("{}")
    command = ("train", dataset_file, "-o", tmp_path / "model", "--epochs", 1)
    words = "model.partial' keeps another, interrupted training; use --overwrite to replace it"
    failed(run(*command), 1, words)
    assert (partial / "task.json").read_text() == "{}"
