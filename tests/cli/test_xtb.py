"""The whole path by commands with a real calculator, GFN2-xTB, and a property of the user's."""

from __future__ import annotations

import ase.io
import numpy as np
import pytest
import small
from commands import run

from tfgen.datasets.storage import Dataset
from tfgen.descriptors.acsf import ACSF
from tfgen.fingerprints.fingerprint import Fingerprint

pytest.importorskip("tblite")

PATH = "tblite.ase:TBLite"
ARGUMENTS = ("--potential", PATH, "--potential-arg", "method=GFN2-xTB")
RECIPE = f"""
name = "si5"
[sample]
formula = "Si5"
count = 14
[relax]
potential = "{PATH}"
arguments = {{ method = "GFN2-xTB" }}
fmax = 0.2
max_steps = 100
rattle = 0.0
[split]
train = 0.7
validation = 0.2
test = 0.1
"""
LEVELS = f"{__name__}:levels"


def levels(atoms):
    """Width of the occupied levels, eV: something that only the calculator knows."""
    results = atoms.calc._res
    energies = np.ravel(results.get("orbital-energies"))
    occupied = np.ravel(results.get("orbital-occupations")) > 0.5
    return float(np.ptp(energies[occupied])) * 27.211386


def fresh(atoms):
    from ase import Atoms
    from tblite.ase import TBLite

    alone = Atoms(atoms.numbers, positions=atoms.positions)
    alone.calc = TBLite(method="GFN2-xTB", verbosity=0)
    return alone.get_potential_energy() / len(alone), levels(alone)


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_from_nothing_to_structures_that_are_what_they_are_said_to_be(tmp_path, monkeypatch):
    small.train_eagerly(monkeypatch)
    acsf = ACSF(["Si"], 5.0, g2_params=[[2.0, r_s] for r_s in (2.0, 2.5, 3.0, 3.5)], g1=False)
    monkeypatch.setattr(Fingerprint, "preset", lambda *_: Fingerprint(acsf, ("mean", "std")))

    def done(*arguments):
        result = run(*arguments)
        assert result.exit_code == 0, result.output
        return result

    (tmp_path / "si5.toml").write_text(RECIPE)
    data, model, out = (tmp_path / name for name in ("si5.h5", "model", "out.extxyz"))
    compute = ("--compute", f"levels={LEVELS}", "--compute", "dipole")
    done("dataset", "build", tmp_path / "si5.toml", "-o", data, *compute)
    loaded = Dataset.load(data)
    for atoms, energy, width in zip(
        loaded.structures, loaded.properties["energy_per_atom"], loaded.properties["levels"],
        strict=True,
    ):  # fmt: skip
        assert (energy, width) == pytest.approx(fresh(atoms), abs=2e-4)
    done(
        "train", data, "-o", model, "--epochs", 2, "--property", "energy_per_atom",
        "--property", "levels", *ARGUMENTS,
    )  # fmt: skip
    middle = float(np.median(loaded.properties["levels"]))
    result = done(
        "generate", model, "-o", out, "--formula", "Si5", "--target", f"levels={middle}",
        "--tolerance", "levels=1.0", "--count", 2, "--candidates", 1, "--fmax", 0.2,
        "--compute", f"levels={LEVELS}", *ARGUMENTS,
    )  # fmt: skip
    for atoms in ase.io.read(out, ":"):
        assert atoms.info["evaluated_by"] == {"energy_per_atom": PATH, "levels": LEVELS}
        assert atoms.info["calculations"] > 2
        if atoms.info["status"] == "converged":
            found = atoms.info["relaxed"]
            assert (found["energy_per_atom"], found["levels"]) == pytest.approx(
                fresh(atoms), abs=2e-4
            )
            on_target = abs(found["levels"] - middle) <= 1.0
            assert not atoms.info["verified"] or on_target
    assert f"by {LEVELS}" in result.stdout
    report = done(
        "evaluate", out, "--dataset", data, "-o", tmp_path / "report",
        "--compute", f"levels={LEVELS}", *ARGUMENTS,
    )  # fmt: skip
    assert "Warning: " not in report.stderr  # a fresh calculator says the same
    assert f"levels by {LEVELS}" in report.stdout
