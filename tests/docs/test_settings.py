"""The page docs/settings.md: its examples run, and it names every class of settings."""

from __future__ import annotations

import dataclasses
import inspect
import re
from types import SimpleNamespace

import numpy as np
import pytest
from ase import Atoms
from documents import ROOT, Recorder

import tfgen
from tfgen.evaluation.report import write

PAGE = (ROOT / "docs" / "settings.md").read_text("utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
FUNCTIONS = [
    name
    for name in ("build", "relax", "train", "reconstruct", "generate", "export", "evaluate")
    if "settings" in inspect.signature(getattr(tfgen, name)).parameters
]


@pytest.fixture
def recorders(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    structures = [Atoms("Pt2", rng.normal(size=[2, 3])) for _ in range(3)]
    values = {"energy_per_atom": np.zeros(3)}
    dataset = tfgen.Dataset(structures, values, {"energy_per_atom": "eV/atom"}, np.zeros(3), {})
    fingerprint = SimpleNamespace(create=lambda given: np.zeros([len(given), 1]))
    results = {
        "build": dataset,
        "train": SimpleNamespace(fingerprint=fingerprint),
        "generate": structures,
    }
    found = {name: Recorder(getattr(tfgen, name), results.get(name)) for name in FUNCTIONS}
    for name, recorder in found.items():
        monkeypatch.setattr(tfgen, name, recorder)
    found["write_report"] = Recorder(write.write_report)
    monkeypatch.setattr(write, "write_report", found["write_report"])
    monkeypatch.chdir(tmp_path)
    return found


def test_the_examples_run(recorders):
    names: dict = {}
    for block in BLOCKS:
        exec(compile(block, "settings.md", "exec"), names)
    for name, recorder in recorders.items():
        given = recorder.arguments["settings"]
        assert dataclasses.is_dataclass(given), name
        assert given != type(given)(), f"{name}: all as by default"
        # Annotations are text: the class, perhaps with None.
        wanted = recorder.signature.parameters["settings"].annotation
        assert type(given).__name__ in re.findall(r"\w+", str(wanted)), name


def test_names_every_class_of_settings():
    modules = (path.read_text("utf-8") for path in (ROOT / "tfgen").rglob("*.py"))
    classes = set(re.findall(r"^class ([A-Z]\w*Settings)\b", "\n".join(modules), re.MULTILINE))
    assert classes
    assert sorted(name for name in classes if f"{name}`" not in PAGE) == []
