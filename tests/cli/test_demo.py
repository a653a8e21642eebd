"""The demo and `tfgen demo`: the whole path, on something much smaller than Pt13."""

from __future__ import annotations

import json

import ase.io
import numpy as np
import pytest
import small
import tensorflow as tf
from commands import failed, run

from tfgen import demo
from tfgen.datasets.storage import Dataset
from tfgen.fingerprints.fingerprint import Fingerprint
from tfgen.models.model import Model

RECIPE = 'name = "tiny"\n[sample]\nformula = "Pt7"\ncount = 60\n'


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The folder of a demo, and the lines it said."""
    work = tmp_path_factory.mktemp("demo")
    (work / "recipe.toml").write_text(RECIPE)
    said = []
    with small.quick_search(), pytest.MonkeyPatch.context() as patch:
        small.train_eagerly(patch)
        patch.setattr(Fingerprint, "preset", lambda *_: small.fingerprint())
        demo.run(
            work / "out", seed=2, count=2, epochs=3, recipe=work / "recipe.toml", say=said.append
        )
    return work / "out", said


def test_leaves_everything_in_one_folder(made):
    folder, said = made
    assert {path.name for path in folder.iterdir()} == set(demo.CONTENTS)
    assert sorted(path.name for path in folder.parent.iterdir()) == ["out", "recipe.toml"]
    assert [line[:3] for line in said[:6]] == [f"[{i}/" for i in range(1, 7)]
    assert said[-1].startswith(f"everything is in {folder}; open ")


def test_builds_and_trains(made):
    dataset, model = Dataset.load(made[0] / "pt13.h5"), Model.load(made[0] / "model")
    assert dataset.metadata["seed"] == 2
    assert model.provenance["training_structures"] == len(dataset.select("train"))
    assert (model.provenance["epochs"], model.provenance["seed"]) == (3, 2)
    assert list((made[0] / "model.logs").rglob("events.*"))


def test_generates_for_three_quantiles_of_the_training_data(made):
    energies = Dataset.load(made[0] / "pt13.h5").select("train").properties["energy_per_atom"]
    generated = ase.io.read(made[0] / "generated.extxyz", ":")
    targets = [atoms.info["target"]["energy_per_atom"] for atoms in generated]
    wanted = np.repeat(np.quantile(energies, [0.1, 0.5, 0.9]), 2)
    np.testing.assert_allclose(targets, wanted, atol=5.1e-4)
    assert {str(atoms.symbols) for atoms in generated} == {"Pt7"}
    seeds = [atoms.info["seed"] for atoms in generated]
    assert seeds == [2, 2, 3, 3, 4, 4]


def test_reports_and_exports(made):
    metrics = json.loads((made[0] / "report" / "metrics.json").read_text("utf-8"))
    assert metrics["count"] == 6
    page = (made[0] / "report" / "index.html").read_text("utf-8")
    assert page.startswith("<!DOCTYPE html>")
    assert "energy_per_atom" in page
    assert "energy_per_atom" in "\n".join(made[1])
    assert "generate" in tf.saved_model.load(str(made[0] / "saved_model")).signatures


@pytest.fixture
def no_work(monkeypatch):
    monkeypatch.setattr(demo, "build", lambda *_, **__: pytest.fail("work has begun"))


def test_is_refused_a_folder_that_exists(made, no_work, tmp_path):
    with pytest.raises(FileExistsError, match="out' exists; pass overwrite=True"):
        demo.run(made[0])
    failed(run("demo", "-o", made[0]), 1, "out' exists; use --overwrite")
    (tmp_path / "thesis.tex").touch()
    failed(run("demo", "-o", tmp_path, "--overwrite"), 1, "holds 'thesis.tex'")
    failed(run("demo", "-o", tmp_path / "no" / "demo"), 1, "no' does not exist")
    assert (tmp_path / "thesis.tex").exists()
    assert (made[0] / "report").is_dir()


def test_ctrl_c_leaves_the_old_demo_whole(tmp_path, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "build", interrupt)
    (tmp_path / "demo" / "report").mkdir(parents=True)
    result = run("demo", "-o", tmp_path / "demo", "--overwrite")
    assert result.exit_code == 1
    assert "Aborted!" in result.stderr
    assert [path.name for path in tmp_path.rglob("*")] == ["demo", "report"]


def test_options_reach_the_demo(tmp_path, monkeypatch):
    given = []
    monkeypatch.setattr(demo, "run", lambda folder, **options: given.append((folder, options)))
    result = run("demo", "-o", tmp_path / "here", "--seed", 5, "--overwrite")
    assert result.exit_code == 0, result.output
    ((folder, options),) = given
    assert folder == tmp_path / "here"
    assert (options["seed"], options["overwrite"]) == (5, True)
    failed(run("demo", "--seed", "-1"), 2, "--seed")


def test_help():
    result = run("demo", "--help")
    assert result.exit_code == 0
    for word in ("--output", "--seed", "--overwrite", "[default: demo]"):
        assert word in result.output


def test_asks_for_what_was_promised():
    """At least 20 structures for each of three targets, of Pt13."""
    assert demo.COUNT >= 20
    assert len(demo.QUANTILES) == 3
    assert demo.run.__kwdefaults__["recipe"] == "pt13"
