"""The page docs/cluster.md: its recipes are ones that `tfgen dataset build` takes."""

from __future__ import annotations

import re

import pytest
from documents import ROOT

from tfgen.datasets.recipe import load_recipe

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
    assert len(RECIPES) == 4
