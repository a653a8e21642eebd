"""The README's promises that can be checked without running everything in it."""

from __future__ import annotations

import re
from types import SimpleNamespace

import ase.io
import numpy as np
import pytest
from ase import Atoms
from documents import ROOT, Recorder

import tfgen
from tfgen.cli import COMMANDS

README = (ROOT / "README.md").read_text("utf-8")


def test_nothing_is_left_to_fill_in():
    assert "@@" not in README


def test_names_every_command():
    for command in COMMANDS:
        assert f"tfgen {command}" in README


@pytest.mark.slow
def test_the_example_in_python_runs(tmp_path, monkeypatch):
    """With the right arguments to what takes long, and the results that the example prints."""
    (block,) = re.findall(r"## In Python\n\n```python\n(.*?)```", README, flags=re.DOTALL)
    cluster = Atoms("Pt3", [[0, 0, 0], [2.5, 0, 0], [1.2, 2.2, 0]])
    cluster.info = {"status": "converged", "reconstructed": {}, "relaxed": {}}
    model = SimpleNamespace(save=Recorder(tfgen.Model.save))
    model.save.signature = model.save.signature.replace(
        parameters=list(model.save.signature.parameters.values())[1:]  # without self
    )
    found = SimpleNamespace(status=["converged"], loss=[0.0])
    results = {"build": None, "train": model, "generate": [cluster] * 2, "reconstruct": found}
    for name, result in results.items():
        monkeypatch.setattr(tfgen, name, Recorder(getattr(tfgen, name), result))
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(compile(block, "README.md", "exec"), names)
    assert names["vectors"].shape == (2, names["fingerprint"].size)
    assert names["relaxed"].converged.all()
    assert len(ase.io.read("out.xyz", ":")) == 2
    assert np.isfinite(names["relaxed"].energy).all()
    assert model.save.arguments == {"folder": "model"}
