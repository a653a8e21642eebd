"""`tfgen export` as a user types it."""

from __future__ import annotations

import pytest
import tensorflow as tf
from commands import assert_quiet, failed, run, run_alone

from tfgen.models import export as saved_model


def test_in_a_process_of_its_own(model_folder, tmp_path):
    """A folder of its kind is replaced by another when told."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "saved_model.pb").write_text("old")
    failed(run("export", model_folder, "-o", tmp_path / "out"), 1, "out' exists; use --overwrite")
    assert (tmp_path / "out" / "saved_model.pb").read_text() == "old"
    options = ("-o", "out", "--rounds", 0, "--overwrite")
    done = run_alone("export", model_folder, *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert_quiet(done.stderr)
    assert done.stdout == "SavedModel in out: fingerprint, encode, decode, sample, generate\n"
    assert {"fingerprint", "generate"} <= set(tf.saved_model.load(str(tmp_path / "out")).signatures)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_wrong_usage(model_folder, tmp_path):
    failed(run("export", model_folder), 2, "Missing option '-o'")
    failed(run("export", "-o", tmp_path / "out"), 2, "Missing argument 'MODEL'")
    failed(run("export", model_folder, "-o", tmp_path / "out", "--rounds", "-1"), 2, "--rounds")


def test_work_that_cannot_be_done(model_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(saved_model, "GraphSearch", lambda *_: pytest.fail("work has begun"))
    output = tmp_path / "out"
    failed(run("export", tmp_path / "none", "-o", output), 1, "none' does not exist")
    (tmp_path / "model").mkdir()
    failed(run("export", tmp_path / "model", "-o", output), 1, "model' lacks config.json")
    failed(run("export", model_folder, "-o", tmp_path / "no" / "out"), 1, "no' does not exist")
    # A model is not a SavedModel.
    arguments = ("export", model_folder, "-o", model_folder, "--overwrite")
    failed(run(*arguments), 1, "which tfgen has not put there; refusing to replace the folder")
    assert (model_folder / "config.json").is_file()
    assert not output.exists()
