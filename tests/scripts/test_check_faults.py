"""`check_faults.py` calls good files right, sees what is bad, and finds no fault in the readers."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from faults import attempts, kills, models, mutations
from faults.readers import READERS

from tfgen.models.artefact import MODEL_FILES
from tfgen.models.model import Model

SCRIPT = Path(__file__).parents[2] / "scripts" / "check_faults.py"


@pytest.mark.filterwarnings("ignore")  # what was done to the input is said
@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.name)
def test_files_that_are_not_damaged_are_right(tmp_path, reader):
    path = tmp_path / f"good{reader.suffix}"
    path.write_bytes(reader.make())
    assert reader.judge(reader.read(path), path) == ""


@pytest.mark.parametrize("damage", [mutations.damage_bytes, mutations.damage_text])
def test_damage_comes_from_the_seed(damage):
    content = b"4\nenergy=1\nPt 0 0 0\n"
    found = [damage(np.random.default_rng(seed), content) for seed in (0, 0, 1, 2, 3)]
    assert found[0] == found[1]
    assert len(set(found)) > 2


def test_a_few_hundred_files():
    command = [sys.executable, SCRIPT, "readers", "--count", "170"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    counts = [int(text) for text in done.stdout.splitlines()[-1].split("|")[2:-1]]
    assert counts[0] == 170 == counts[1] + counts[2]
    assert min(counts[1:3]) > 10
    assert counts[3:] == [0, 0, 0]


KIND = """
import os, time
import numpy as np

def attempt(seed, number, folder):
    if number == 2:
        held = np.ones(100_000_000)
    if number == 3:
        os._exit(7)
    return "thing", ["right", "wrong", "right", "right", "unforeseen"][number], "a word"
"""


def test_attempts_that_die_or_take_too_much_are_counted(tmp_path, monkeypatch):
    (tmp_path / "kind_of_test.py").write_text(KIND)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    found = list(attempts.run("kind_of_test", 0, range(5)))
    outcomes = ["right", "wrong", "hang or memory", "hang or memory", "unforeseen"]
    assert [a.outcome for a in found] == outcomes
    assert "code 7" in found[3].detail
    lines = attempts.table(found).splitlines()
    assert lines[-5].split("|")[1:-1] == [" all ", " 5 ", " 0 ", " 1 ", " 1 ", " 1 ", " 2 "]


def test_a_few_damaged_models(tmp_path):
    found = [models.attempt(0, number, tmp_path) for number in range(30)]
    assert {tried for tried, *_ in found} == {*MODEL_FILES, "nnp.weights.h5", models.FORGED}
    assert {outcome for _, outcome, _ in found} <= {"refused well", "right"}


def test_models_that_differ_are_seen():
    model = Model.load(models._good())
    assert models._problem_of(model, forged=False) == ""
    assert models._problem_of(dataclasses.replace(model, tolerance=0.2), forged=False)
    assert not models._problem_of(dataclasses.replace(model, tolerance=0.2), forged=True)
    model.cvae.raw_sigma.assign(model.cvae.raw_sigma + 1.0)
    changed = dataclasses.replace(model)  # what is cached is not
    assert models._problem_of(changed, forged=False) == "other weights"


def test_what_came_of_a_kill_is_seen(tmp_path):
    folder = tmp_path / "work"
    folder.mkdir()
    output, log = folder / "model", folder / "log"
    log.write_text("half\nError: no")
    assert kills._judge(None, output, {}, log, last=False)[:2] == (
        "killed before a checkpoint", "right",
    )  # fmt: skip
    (folder / "model.partial").mkdir()
    (folder / "model.partial" / "last.npz").touch()
    assert kills._judge(None, output, {}, log, last=False)[0] == "killed after a checkpoint"
    assert kills._judge(1, output, {}, log, last=False)[1:] == ("unforeseen", "code 1: Error: no")
    assert kills._judge(None, output, {}, log, last=True)[1] == "hang or memory"
    shutil.copytree(models._good(), output)
    wanted = kills._result(output)
    assert kills._judge(0, output, wanted, log, last=True)[1:] == ("wrong", "model.partial")
    shutil.rmtree(folder / "model.partial")
    assert kills._judge(0, output, wanted, log, last=True)[1] == "right"
    wanted["vars/0"] = wanted["vars/0"] + 1e-7
    assert kills._judge(0, output, wanted, log, last=True)[1:] == ("wrong", "vars/0")
    (output / "weights.weights.h5").write_bytes(b"")
    assert kills._judge(None, output, wanted, log, last=False)[1] == "wrong"


@pytest.mark.slow
def test_a_few_kills():
    command = [sys.executable, SCRIPT, "kills", "--count", "2", "--epochs", "20"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    counts = [int(text) for text in done.stdout.splitlines()[-1].split("|")[2:-1]]
    assert counts == [3, 0, 3, 0, 0, 0]
