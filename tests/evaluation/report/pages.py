"""Small reports, and pages taken apart, for the tests of the report."""

from __future__ import annotations

import json
from html.parser import HTMLParser

import numpy as np
from ase import Atoms

from tfgen.datasets.storage import Dataset
from tfgen.descriptors.acsf import ACSF
from tfgen.evaluation.evaluate import evaluate
from tfgen.evaluation.report.write import write_report
from tfgen.fingerprints.fingerprint import Fingerprint

CORNERS = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]) / np.sqrt(8)
VOID = {"meta", "br", "input", "img", "stop", "line", "circle", "path", "use", "rect", "image"}
# The preset's many functions take seconds to trace; one test has the real ones.
FEW_FUNCTIONS = Fingerprint(ACSF(["Pt", "Au"], 6.0, g2_params=[[1.0, 2.7]]))


def tetrahedron(edge: float, symbol: str = "Pt", **info) -> Atoms:
    return Atoms(f"{symbol}4", positions=edge * CORNERS, info=info)


def dataset(**metadata) -> Dataset:
    edges = np.linspace(2.5, 2.9, 9)
    return Dataset(
        [tetrahedron(edge) for edge in edges],
        {"energy_per_atom": edges - 2.0, "size": 10 * edges},
        {"energy_per_atom": "eV/atom", "size": "1"},
        np.array([0] * 7 + [1, 2]),
        {"name": "tetrahedra", "counts": {"sampled": 9}, "recipe": "[sample]\nn = 9\n", **metadata},
    )


def generated(n: int = 20, stages: tuple[str, ...] = ("decoded", "reconstructed", "relaxed")):
    rng = np.random.default_rng(0)
    structures = []
    for k in range(n):
        wanted = (0.6, 0.7, [0.75, 0.85])[k % 3]
        info = {
            "target": {"energy_per_atom": wanted},
            "fingerprint_loss": float(10 ** rng.normal(-3)),
            "status": "converged" if k % 4 else "not converged: the loss is too high",
            "seconds": 0.5,
        }
        info |= {stage: {"energy_per_atom": float(rng.normal(0.7, 0.1))} for stage in stages}
        atoms = tetrahedron(2.4 + 0.03 * k, **info)
        if "relaxed" in stages:
            atoms.arrays["reconstructed_positions"] = 1.01 * atoms.positions
        structures.append(atoms)
    return structures


class Page(HTMLParser):
    """Collects what the tests ask about, and checks that tags are closed in order."""

    def __init__(self, text: str):
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.text = [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs), list(self.open)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs), list(self.open)))

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append((data, self.open[-1] if self.open else ""))

    def all(self, tag):
        return [attrs for name, attrs, _ in self.tags if name == tag]

    def words(self):
        return " ".join(text for text, tag in self.text if tag not in {"script", "style"})


def written(folder, structures, data, evaluation=None, **options):
    metrics = evaluate(structures, data, settings=evaluation)
    options = {"fingerprint": FEW_FUNCTIONS} | options
    write_report(structures, data, metrics, folder, **options)
    return Page((folder / "index.html").read_text(encoding="utf-8")), metrics


def scene(page):
    return json.loads(next(text for text, tag in page.text if tag == "script"))
