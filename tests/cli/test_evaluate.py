from __future__ import annotations

import json

import numpy as np
import pytest
from ase import Atoms
from ase.io import write
from click.testing import CliRunner

from tfgen.cli import main
from tfgen.datasets.storage import Dataset
from tfgen.descriptors.acsf import ACSF
from tfgen.evaluation.settings import EvaluationSettings
from tfgen.fingerprints.fingerprint import Fingerprint

CORNERS = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]) / np.sqrt(8)


def tetrahedron(edge: float, **info) -> Atoms:
    return Atoms("Pt4", positions=edge * CORNERS, info=info)


@pytest.fixture(autouse=True)
def quick_maps(monkeypatch):
    """The preset's many functions take seconds to trace; a test of the report has the real ones."""

    def few_functions(_name, species):
        return Fingerprint(ACSF(species, 6.0, g2_params=[[1.0, 2.7]]))

    monkeypatch.setattr(Fingerprint, "preset", few_functions)


@pytest.fixture
def files(tmp_path):
    edges = np.array([2.5, 2.6, 2.7, 2.8])
    dataset = Dataset(
        [tetrahedron(edge) for edge in edges],
        {"energy_per_atom": edges - 2},
        {"energy_per_atom": "eV/atom"},
        np.array([0, 0, 0, 1]),
    )
    dataset.save(tmp_path / "data.h5")
    structures = [
        tetrahedron(edge, target={"energy_per_atom": 0.7}, relaxed={"energy_per_atom": edge - 2})
        for edge in (2.7, 2.8)
    ]
    write(tmp_path / "out.extxyz", structures)
    return tmp_path


def run(folder, *arguments, structures="out.extxyz", dataset="data.h5"):
    command = ["evaluate", str(folder / structures), "--dataset", str(folder / dataset)]
    return CliRunner().invoke(main, [*command, "-o", str(folder / "report"), *arguments])


def failed(result, code: int) -> str:
    """Checks the exit code and that there is no traceback; returns the message."""
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    message = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert len(message) == 1
    return message[0]


def metrics(folder) -> dict:
    return json.loads((folder / "report" / "metrics.json").read_text("utf-8"))


def test_evaluate(files):
    result = run(files)
    assert result.exit_code == 0, result.output
    assert "energy_per_atom 0.7" in result.stdout
    assert result.stdout.endswith(f"report: {files / 'report' / 'index.html'}\n")
    assert (files / "report" / "index.html").stat().st_size > 10_000
    assert metrics(files)["count"] == 2
    assert metrics(files)["hit_rate"]["relaxed"] == {"energy_per_atom=0.7": 0.5}


def test_tolerances_are_options(files):
    options = ("--hit-tolerance", "energy_per_atom=0.2", "--duplicate-tolerance", "0.5")
    assert run(files, *options).exit_code == 0
    assert metrics(files)["hit_rate"]["relaxed"] == {"energy_per_atom=0.7": 1.0}
    assert metrics(files)["uniqueness"] == 0.5


def test_defaults_are_those_of_the_settings(files):
    assert run(files).exit_code == 0
    thresholds, settings = metrics(files)["thresholds"], EvaluationSettings()
    assert thresholds["duplicate_tolerance"] == settings.duplicate_tolerance
    assert thresholds["basin_rmsd"] == settings.basin_rmsd


def test_a_report_is_replaced_only_when_told(files):
    assert run(files).exit_code == 0
    assert "exists; use --overwrite" in failed(run(files), 1)
    assert run(files, "--overwrite").exit_code == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ("--hit-tolerance", "energy_per_atom"),
        ("--hit-tolerance", "=0.1"),
        ("--hit-tolerance", "energy_per_atom=wide"),
        ("--hit-tolerance", "energy_per_atom=0"),
        ("--hit-tolerance", "energy_per_atom=nan"),
        ("--hit-tolerance", "energy_per_atom=0.1", "--hit-tolerance", "energy_per_atom=0.2"),
        ("--duplicate-tolerance", "0"),
        ("--duplicate-tolerance", "much"),
        ("--duplicate-tolerance", "nan"),
        ("--duplicate-tolerance", "inf"),
        ("--nonsense",),
    ],
)
def test_wrong_usage(files, arguments):
    failed(run(files, *arguments), 2)
    assert not (files / "report").exists()


def test_missing_options(files):
    result = CliRunner().invoke(main, ["evaluate", str(files / "out.extxyz")])
    assert "Missing option" in failed(result, 2)


def test_bad_structures(files):
    assert "no.extxyz' does not exist" in failed(run(files, structures="no.extxyz"), 1)
    (files / "empty.extxyz").touch()
    assert "is empty" in failed(run(files, structures="empty.extxyz"), 1)
    assert "not a readable extxyz file" in failed(run(files, structures="data.h5"), 1)
    write(files / "odd.extxyz", tetrahedron(2.7, target=0.7))
    message = failed(run(files, structures="odd.extxyz"), 1)
    assert "structure 0: target is 0.7, not a mapping" in message
    assert not (files / "report").exists()


def test_bad_data_sets(files):
    assert "no.h5' does not exist" in failed(run(files, dataset="no.h5"), 1)
    assert "not an HDF5 file" in failed(run(files, dataset="out.extxyz"), 1)
    whole = (files / "data.h5").read_bytes()
    (files / "half.h5").write_bytes(whole[: len(whole) // 2])
    failed(run(files, dataset="half.h5"), 1)
    assert not (files / "report").exists()


def test_bad_places_for_the_report(files):
    (files / "report").write_text("a file")
    failed(run(files), 1)
    assert "is a file" in failed(run(files, "--overwrite"), 1)
    (files / "report").unlink()
    (files / "report").mkdir()
    (files / "report" / "data.csv").touch()
    assert "tfgen has not put there" in failed(run(files, "--overwrite"), 1)
    assert (files / "report" / "data.csv").exists()


def test_an_unknown_property(files):
    message = failed(run(files, "--hit-tolerance", "gap=0.1"), 1)
    assert "a hit tolerance is given for 'gap', which is no property" in message


def test_help_says_what_it_does():
    result = CliRunner().invoke(main, ["evaluate", "--help"])
    assert result.exit_code == 0
    for word in ("--dataset", "--hit-tolerance", "--duplicate-tolerance", "--overwrite"):
        assert word in result.output


def test_a_data_set_of_other_compositions_is_warned_of(files):
    write(files / "other.extxyz", [tetrahedron(2.6), Atoms("Au4", positions=2.8 * CORNERS)])
    result = run(files, structures="other.extxyz")
    assert result.exit_code == 0, result.output
    assert "Warning: no training structure is Au4; is it the data set" in result.stderr
    assert "Warning" not in run(files, "--overwrite").stderr
