"""The scripts run, on inputs far smaller than those they are for."""

from __future__ import annotations

import functools
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import small
from click.testing import CliRunner, Result

from tfgen.fingerprints.fingerprint import Fingerprint
from tfgen.inversion import reconstruct as inversion
from tfgen.inversion.settings import SearchSettings

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("benchmark_fingerprint.py Pt11", "'Pt11'; the cases are Pt10"),
        ("benchmark_fingerprint.py --count 0", "0 is not in the range x>=1"),
        ("benchmarks/benchmark_relaxation.py Pt2x", "formula 'Pt2x' is not a formula"),
        ("benchmarks/benchmark_relaxation.py --fmax 0", "0.0 is not in the range x>0"),
        (
            "benchmarks/check_depth.py --searches none.xyz --formula Fe3",
            "Fe3 holds Fe; EMT knows Al, Cu",
        ),
        ("compare_fingerprints.py Pt5 Fe13", "Fe13 holds Fe; EMT knows Al, Cu"),
        ("compare_fingerprints.py --only best", "'best' is no candidate"),
    ],
)
def test_wrong_usage_is_one_line(command, message):
    name, *arguments = command.split()
    result = invoke(name, *arguments)
    assert result.exit_code == 2, result.output
    assert message in result.stderr
    assert "Traceback" not in result.output


def invoke(name: str, *arguments: object) -> Result:
    """In this process, as loading TensorFlow takes seconds."""
    main = runpy.run_path(str(SCRIPTS / name))["main"]
    return CliRunner().invoke(main, [*map(str, arguments)])


def run(name: str, *arguments: object) -> str:
    result = invoke(name, *arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def run_alone(name: str, *arguments: object) -> str:
    done = subprocess.run(
        [sys.executable, SCRIPTS / name, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def search_with(settings: SearchSettings, patch: pytest.MonkeyPatch) -> None:
    """Makes searches use settings for which the scripts have no options."""
    search = functools.partial(inversion.reconstruct, settings=settings)
    patch.setattr(inversion, "reconstruct", search)


@pytest.mark.parametrize("name", [p.name for p in SCRIPTS.glob("*.py")])
def test_those_of_the_old_places_run(name):
    """Their own folder is all that they find there."""
    assert run_alone(name, "--help").startswith(f"Usage: {name} ")


def test_check_import(tmp_path):
    table = run_alone("tools/check_import.py", "--count", 300, "--folder", tmp_path)
    assert "300 structures of 13 to 55 atoms" in table
    assert float(re.search(r"structures per second +(\d+)", table)[1]) > 0
    # What 300 structures need; importing TensorFlow by the way would be hundreds of MiB.
    assert float(re.search(r"memory above that, at most +(-?\d+) MiB", table)[1]) < 100
    assert list(tmp_path.iterdir()) == []


def test_benchmark_relaxation():
    table = run("benchmarks/benchmark_relaxation.py", "--count", 3, "--ase-count", 1, "Pt3", "CuAu")
    lines = table.splitlines()
    assert [line.split()[:2] for line in lines[1::4]] == [
        ["Pt3", "tfgen.relax"],
        ["CuAu", "tfgen.relax"],
    ]
    assert table.count("ASE BFGS") == table.count("ASE FIRE") == 2
    lowest = [float(line.split()[-3]) for line in lines[1:] if "(of 1)" in line]
    assert len(lowest) == 6
    for optimizers in (lowest[:3], lowest[3:]):
        assert max(optimizers) - min(optimizers) < 2e-3
    assert table.count("changes at most") == 2
    for change in re.findall(r"changes at most ([\d.]+) meV", table):
        assert float(change) < 1


def test_benchmark_fingerprint():
    arguments = ("Pt10", "--count", 4, "--repeats", 1, "--dscribe-seconds", 0.1)
    *_, row = run("benchmark_fingerprint.py", *arguments).splitlines()
    assert row.split()[0] == "Pt10"
    assert float(row.split()[-1]) < 1e-10  # largest difference from DScribe


def test_compare_fingerprints(monkeypatch):
    search_with(small.UNCOMPILED, monkeypatch)
    arguments = ("Pt5", "--only", "default", "--targets", 1, "--rounds", 2, "--structures", 60)
    table = run("compare_fingerprints.py", *arguments)
    # Found in the first generation already.
    assert re.search(r"^default +925 +100% +0 ", table, re.MULTILINE)


def test_benchmark_inversion(monkeypatch):
    search_with(small.QUICK, monkeypatch)
    monkeypatch.setattr(Fingerprint, "preset", lambda *_: small.fingerprint())
    arguments = ("Pt3", "--targets", 1, "--preset", "default", "--max-rounds", 2)
    heading, row = run("benchmark_inversion.py", *arguments).splitlines()
    assert heading.split()[:3] == ["formula", "preset", "targets"]
    assert row.split()[:6] == ["Pt3", "default", "1", "100%", "100%", "100%"]


RECIPE = """
name = "pt5"
[sample]
formula = "Pt5"
count = 10
[relax]
potential = "ase.calculators.emt:EMT"
fmax = 0.05
rattle = 0.0
snapshots = [2, 4, 8]
"""
SPREAD = f"{__name__}:spread"


def spread(atoms):
    return float(atoms.get_all_distances().max())


@pytest.fixture
def quick(monkeypatch):
    small.train_eagerly(monkeypatch)
    monkeypatch.setattr(Fingerprint, "preset", lambda *_: small.fingerprint())
    with small.quick_search():
        yield


def test_benchmark_property(tmp_path, quick):
    (tmp_path / "recipe.toml").write_text(RECIPE)
    options = {
        "--folder": tmp_path / "work", "--recipe": tmp_path / "recipe.toml", "--property": "spread",
        "--function": SPREAD, "--tolerance": 0.5, "--quantile": 0.5, "--count": 2,
        "--candidates": 1, "--random": 2, "--epochs": 1,
    }  # fmt: skip
    arguments = [part for pair in options.items() for part in pair]
    heading, _, row = run("benchmarks/benchmark_property.py", *arguments).splitlines()
    assert re.match(r"Pt5: \d+ structures, \d+ to train on; \d+ single points", heading)
    cells = row.split()
    assert cells[2:4] == ["of", "2"]
    # What tfgen reports and what fresh calculators say are the same.
    assert cells[1] == cells[4]
    assert float(cells[5]) < 1e-6  # a file has eight digits


def test_check_calculators(quick):
    table = run(
        "tools/check_calculators.py", "ase", "--count", 8, "--structures", 1, "--epochs", 1,
        "--calculations", 60,
    )  # fmt: skip
    row = table.splitlines()[-1]
    assert row.split()[:2] == ["ase", "Pt9"]
    difference = re.search(r" (\d\.\de[-+]\d\d) ", row)[1]
    assert float(difference) < 1e-9
