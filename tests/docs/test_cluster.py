"""The page docs/cluster.md: its recipes are ones that `tfgen dataset build` takes."""

from __future__ import annotations

import re

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.emt import EMT
from documents import ROOT

from tfgen.datasets.building import build
from tfgen.datasets.recipe import Recipe, Sample, load_recipe

PAGE = (ROOT / "docs" / "cluster.md").read_text("utf-8")
RECIPES = re.findall(r"```toml\n(.*?)```", PAGE, flags=re.DOTALL)
# What a section alone leaves out.
REST = 'name = "x"\ndescription = "x"\n[sample]\nformula = "Pt7"\ncount = 2\n'


@pytest.mark.parametrize("text", RECIPES)
def test_recipes_are_valid(text, tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_text(text if text.startswith("name") else REST + text, "utf-8")
    recipe = load_recipe(path)
    assert f'"{recipe.relax.potential}"' in text
    assert all(f"{name} = " in text for name in recipe.relax.arguments)


def test_finds_the_recipes():
    assert len(RECIPES) == 5


def test_the_function_of_the_page(tmp_path):
    (code,) = re.findall(r"```python\n(def .*?)```", PAGE, flags=re.DOTALL)
    names: dict = {}
    exec(code, names)
    recipe = Recipe("x", Sample(("Pt4",), 4))
    dataset = build(recipe, tmp_path / "x.h5", compute={"pull": names["hardest_pull"]})
    for atoms, pull in zip(dataset.structures, dataset.properties["pull"], strict=True):
        larger = Atoms(atoms.numbers, positions=1.05 * atoms.positions, calculator=EMT())
        assert pull == pytest.approx(np.abs(larger.get_forces()).max(), abs=1e-9)
