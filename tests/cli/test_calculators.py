"""Calculators in `tfgen train`: counted, in processes of their own, and never asked twice."""

from __future__ import annotations

from pathlib import Path

import pytest
import small
from ase.calculators.emt import EMT
from commands import run

from tfgen.fingerprints.fingerprint import Fingerprint
from tfgen.models import nnp_fitting
from tfgen.models.model import Model

COUNTING = f"{__name__}:Counting"


class Counting(EMT):
    """Writes a line for each calculation."""

    def __init__(self, log: str) -> None:
        super().__init__()
        self.log = log

    def calculate(self, atoms=None, properties=("energy",), system_changes=()):
        with Path(self.log).open("a") as file:
            file.write("computed\n")
        print("the calculator talks")
        super().calculate(atoms, properties, system_changes)


@pytest.fixture
def brief(monkeypatch):
    small.train_eagerly(monkeypatch)
    small.brief_nnp(monkeypatch, min_calculations=100, epochs=1)
    monkeypatch.setattr(Fingerprint, "preset", lambda *_: small.fingerprint())


def train(dataset_file, output, *options):
    return run("train", dataset_file, "-o", output, "--epochs", 1, *options)


@pytest.mark.usefixtures("brief")
def test_an_interrupted_training_repeats_no_calculation(dataset_file, tmp_path, monkeypatch):
    log, output = tmp_path / "log", tmp_path / "model"
    options = ("--potential", COUNTING, "--potential-arg", f"log={log}", "--workers", 2)

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(nnp_fitting, "_fit", interrupted)
        result = train(dataset_file, output, *options)
    assert result.exit_code == 1
    line = result.stderr.splitlines()[-1]
    assert line.startswith("Error: interrupted; ")
    assert "the same command continues" in line
    calculated = log.read_text().count("computed")
    assert calculated >= 100
    result = train(dataset_file, output, *options)
    assert result.exit_code == 0, result.output
    assert log.read_text().count("computed") == calculated
    model = Model.load(output)
    assert model.nnp is not None
    assert model.provenance["nnp"]["single_points"] == calculated
    assert model.provenance["potential"] == {
        "name": COUNTING,
        "arguments": {"log": str(log)},
        "vacuum": 0,
    }
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"log", "model", "model.logs", "model.calculator.log"}
    assert "the calculator talks" in (tmp_path / "model.calculator.log").read_text()
    assert "talks" not in result.output
