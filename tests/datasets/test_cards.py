"""Cards of the data sets: complete, small, in step with the list; the script that fills them."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.emt import EMT
from ase.cluster import Icosahedron
from ase.io import read
from ase.optimize import BFGS
from click.testing import CliRunner

from tfgen.datasets.recipe import load_recipe
from tfgen.datasets.storage import Dataset

ROOT = Path(__file__).parents[2]
NAMES = sorted(path.parent.name for path in (ROOT / "datasets").glob("*/recipe.toml"))


def counts(card: str) -> dict[str, int]:
    rows = re.findall(r"^\| \**(.+?)\** \| \**([\d,]+)\** \|$", card, re.MULTILINE)
    return {stage: int(number.replace(",", "")) for stage, number in rows}


@pytest.mark.parametrize("name", NAMES)
def test_cards(name):
    folder = ROOT / "datasets" / name
    card = (folder / "README.md").read_text(encoding="utf-8")
    recipe = load_recipe(name)
    assert recipe.name == name
    assert f"tfgen dataset build {name} -o {name}.h5" in card
    assert "teaching potential" in card
    for picture in ("structures.svg", "charts.svg"):
        assert f"]({picture})" in card
        assert (folder / picture).stat().st_size < 100_000
    found = counts(card)
    assert found["initial structures"] == recipe.sample.count * len(recipe.sample.formula)
    # What was made is what was dropped and what was kept.
    made = {"initial structures", "structures from moves", "snapshots on the way"}
    rest = sum(number for stage, number in found.items() if stage not in made)
    assert rest == sum(found.get(stage, 0) for stage in made)
    listed = (ROOT / "datasets" / "README.md").read_text(encoding="utf-8")
    assert f"| [{name}]({name}/README.md) | {found['kept']:,} |" in listed


def load(name: str) -> ModuleType:
    (path,) = (ROOT / "scripts").glob(f"*/{name}.py")
    spec = importlib.util.spec_from_file_location(name, path)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script


def test_make_card(tmp_path):
    script = load("make_card")
    rng = np.random.default_rng(0)
    whole = Icosahedron("Pt", 2)
    structures = [
        Atoms("Pt13", whole.positions + 0.05 * rng.normal(size=[13, 3])) for _ in range(9)
    ]
    structures += [Atoms("CuPt", [[0, 0, 0], [0, 0, 2.5]])]
    dataset = Dataset(
        structures,
        {"energy_per_atom": np.linspace(0.7, 0.9, 10)},
        {"energy_per_atom": "eV/atom"},
        np.zeros(10),
        {
            "counts": {"sampled": 12, "duplicates": 2, "kept": 10},
            "thresholds": {"bond_factor": 1.3, "duplicate_tolerance": 0.05},
            "rounds": [{"structures": 12, "minima": 10}],
        },
    )
    dataset.save(tmp_path / "set.h5")
    (tmp_path / "card").mkdir()
    card = tmp_path / "card" / "README.md"
    card.write_text("# Mine\n<!-- tables -->\nold\n<!-- end of tables -->\nWords.\n", "utf-8")
    for _ in range(2):
        arguments = [str(tmp_path / "set.h5"), "-o", str(tmp_path / "card")]
        CliRunner().invoke(script.main, arguments, catch_exceptions=False)
        text = card.read_text("utf-8")
        assert text.startswith("# Mine\n<!-- tables -->\n| stage")
        assert text.endswith("<!-- end of tables -->\nWords.\n")
        assert "old" not in text
    assert counts(text)["kept"] == 10
    assert "| Pt13 | 9 | 9.1000 | 0.7000 | 0.289 |" in text
    assert "| CuPt | 1 | 1.8000 | 0.9000 |  |" in text
    nearest = [np.sort(s.get_all_distances() + 99 * np.eye(len(s)))[:, 0] for s in structures]
    assert f"{np.concatenate(nearest).mean():.2f} Å on average, at least" in text
    assert "CuPt: 0.9000" in (tmp_path / "card" / "structures.svg").read_text("utf-8")
    assert "<svg" in (tmp_path / "card" / "charts.svg").read_text("utf-8")


@pytest.mark.parametrize(("error", "code"), [(0.0, 0), (0.1, 1)])
def test_check_depth(tmp_path, error, code):
    """Pt3 has one minimum, an equilateral triangle: a set either holds it or misses it."""
    triangle = Atoms("Pt3", [[0, 0, 0], [2.5, 0, 0], [1.25, 2.165, 0]], calculator=EMT())
    with BFGS(triangle, logfile=None) as optimizer:
        optimizer.run(fmax=0.001)
    energy = triangle.get_potential_energy() / 3 + error
    energies = {"energy_per_atom": np.array([energy])}
    Dataset([triangle], energies, {"energy_per_atom": "eV"}, np.zeros(1)).save(tmp_path / "pt3.h5")
    searches = tmp_path / "searches.extxyz"
    arguments = [str(tmp_path / "pt3.h5"), "--formula", "Pt3", "--searches", str(searches)]
    script = load("check_depth")
    for runs in (1, 2):
        more = ["--runs", str(runs), "--hops", "3", "--step", "0.2"]
        result = CliRunner().invoke(script.main, [*arguments, *more])
        assert result.exit_code == code, result.output
        assert len(read(searches, ":")) == runs
        (row,) = (line.split() for line in result.output.splitlines() if line.startswith("Pt3 ")
                  and "pt3" in line)  # fmt: skip
        assert row[:3] == ["Pt3", str(runs), str(3 * runs)]
        assert float(row[-2]) == pytest.approx(3 * error, abs=1e-3)
        assert float(row[-1]) < 0.05
