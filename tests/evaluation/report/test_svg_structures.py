from __future__ import annotations

import importlib
import re
from html.parser import HTMLParser
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms
from click.testing import CliRunner

from tfgen.evaluation.report import svg_structures


class Circles(HTMLParser):
    """Collects the circles of a drawing that are atoms."""

    def __init__(self, text: str):
        super().__init__()
        self.found: list[dict] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        if tag == "circle" and dict(attrs)["class"] == "atom":
            self.found.append(dict(attrs))


def test_pictures_keep_the_shape():
    atoms = Atoms("Pt2Au", positions=[[0, 0, 0], [0, 0, 4], [0, 3, 0]])
    circles = Circles(svg_structures.draw_structure(atoms, "three <atoms>")).found
    assert sorted(c["fill"] for c in circles) == ["url(#el-Au)", "url(#el-Pt)", "url(#el-Pt)"]
    # A projection: no distance is longer than in space, none vanishes in this flat structure.
    seen = np.array([[float(c["cx"]), float(c["cy"])] for c in circles])
    longest = max(np.linalg.norm(p - q) for p in seen for q in seen)
    assert 4.5 < longest <= 5.0 + 1e-3


def test_pictures_are_no_mirror_images():
    for seed in range(20):
        positions = np.random.default_rng(seed).normal(size=(5, 3))
        view = svg_structures.find_view(positions - positions.mean(axis=0))
        np.testing.assert_allclose(view.T @ view, np.eye(3), atol=1e-12)
        assert np.linalg.det(view) == pytest.approx(1.0)


def test_what_can_be_drawn():
    assert svg_structures.is_drawable(Atoms("Pt"))
    for positions in ([[np.nan, 0, 0]], [[1e7, 0, 0]]):
        assert not svg_structures.is_drawable(Atoms("Pt", positions=positions))
    assert not svg_structures.is_drawable(Atoms())
    assert "cannot be drawn" in svg_structures.draw_structure(Atoms(), "nothing")


def test_the_edges_of_a_cell():
    atoms = Atoms("Pt", cell=[1, 2, 3], pbc=[True, False, False])
    edges = svg_structures.find_cell_edges(atoms, np.array([0.5, 1.0, 1.5]), np.eye(3))
    lengths = np.linalg.norm(edges[:, 0] - edges[:, 1], axis=1)
    assert sorted(lengths) == [1] * 4 + [2] * 4 + [3] * 4
    np.testing.assert_allclose(np.abs(edges), np.tile([0.5, 1.0, 1.5], (12, 2, 1)))
    assert len(svg_structures.find_cell_edges(Atoms("Pt"), np.zeros(3), np.eye(3))) == 0


def test_colours_are_those_of_jmol():
    assert svg_structures.find_colour(79) == "#ffd123"  # gold
    assert 'id="el-Au"' in svg_structures.define_gradients([79, 79])


def test_the_picture_of_the_readme(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[3] / "scripts" / "tools")
    main = importlib.import_module("make_picture").main
    structures = []
    for value in (0.705, 0.72, None):
        atoms = Atoms("Pt2", positions=[[0, 0, 0], [0, 0, 2.7]])
        atoms.info["target"] = {"energy_per_atom": 0.7}
        atoms.info["relaxed"] = {"energy_per_atom": value}
        structures.append(atoms)
    ase.io.write(tmp_path / "out.extxyz", structures)
    arguments = [str(tmp_path / "out.extxyz"), "-o", str(tmp_path / "docs" / "picture.svg")]
    done = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    drawn = (tmp_path / "docs" / "picture.svg").read_text("utf-8")
    assert len(Circles(drawn).found) == 6
    assert "1 of 3 within 0.01" in drawn
    # Nearest first, those that are not known last.
    assert re.findall(r'class="t c">([^<]*)<', drawn) == ["0.705", "0.720", "-"]
