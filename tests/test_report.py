from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from tfgen import plotting, report
from tfgen.datasets.storage import Dataset
from tfgen.evaluation import evaluate
from tfgen.report import summary, write_report

CORNERS = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]) / np.sqrt(8)
EVIL = '"><script>alert(1)</script><img src=x onerror=alert(2)>&$\\frac{'
VOID = {"meta", "br", "img", "stop", "line", "circle", "path", "use", "rect", "image"}


def tetrahedron(edge: float, symbol: str = "Pt", **info) -> Atoms:
    return Atoms(f"{symbol}4", positions=edge * CORNERS, info=info)


def dataset(**metadata) -> Dataset:
    edges = np.linspace(2.5, 2.9, 9)
    return Dataset(
        [tetrahedron(edge) for edge in edges],
        {"energy_per_atom": edges - 2.0, "size": 10 * edges},
        {"energy_per_atom": "eV/atom", "size": "1"},
        np.array([0] * 7 + [1, 2]),
        {"name": "tetrahedra", "counts": {"starts": 9}, "recipe": "[starts]\nn = 9\n", **metadata},
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


def written(folder, structures, data, **options):
    metrics = evaluate(structures, data, **options)
    write_report(structures, data, metrics, folder)
    return Page((folder / "index.html").read_text(encoding="utf-8")), metrics


def test_the_report_says_it_all(tmp_path):
    page, metrics = written(tmp_path / "report", generated(), dataset())
    assert json.loads((tmp_path / "report" / "metrics.json").read_text("utf-8")) == metrics
    assert sorted(p.name for p in tmp_path.iterdir()) == ["report"]  # nothing left beside it
    words = page.words()
    for heading in ("Targets", "Target against property", "Distributions", "Structures"):
        assert heading in words
    assert "energy per atom 0.75:0.85 eV/atom" in words
    assert f"{100 * metrics['validity']:.1f} %" in words
    assert "not converged: the loss is too high" in words
    assert "0.7 × the sum of covalent radii" in words
    for provenance in ("tetrahedra", "starts: 9", "n = 9"):
        assert provenance in words
    rows = [tag for tag, _, inside in page.tags if tag == "tr" and inside[-1] == "tbody"]
    assert len(rows) == 3 + 20  # targets and structures
    labels = [svg["aria-label"] for svg in page.all("svg") if svg.get("role") == "img"]
    assert "Target against energy per atom (eV/atom), per stage" in labels
    assert "Interatomic distances, generated and training" in labels
    assert "Histogram of the fingerprint loss" in labels
    assert sum(label.startswith("structure ") for label in labels) == 12


def test_nothing_comes_from_elsewhere(tmp_path):
    page, _ = written(tmp_path / "report", generated(), dataset())
    for tag, attrs, _ in page.tags:
        assert tag not in {"link", "iframe", "object", "embed", "base"}
        for name in ("src", "href", "xlink:href", "action", "data"):
            assert attrs.get(name, "#").startswith(("#", "data:")), (tag, attrs)
        for value in attrs.values():
            assert re.search(r"url\((?!#)", value or "") is None
            assert (value or "").startswith("http://www.w3.org/") or "://" not in (value or "")
    style = "".join(text for text, tag in page.text if tag == "style")
    assert "url(" not in style
    assert "@import" not in style
    policy = next(m["content"] for m in page.all("meta") if "http-equiv" in m)
    assert policy.startswith("default-src 'none'")
    scripts = [text for text, tag in page.text if tag == "script"]
    digests = [base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in scripts]
    assert len(scripts) == 1
    assert f"'sha256-{digests[0]}'" in policy


def test_every_name_is_there_once(tmp_path):
    page, _ = written(tmp_path / "report", generated(), dataset())
    names = [attrs["id"] for _, attrs, _ in page.tags if "id" in attrs]
    assert len(names) == len(set(names))
    used = re.findall(r"url\(#([^)]+)\)", str([attrs for _, attrs, _ in page.tags]))
    assert set(used) <= set(names)


def test_words_from_a_file_stay_words(tmp_path):
    structures = generated(3)
    for atoms in structures:
        atoms.info["status"] = EVIL
        atoms.info["target"] = {EVIL: 1.0}
        atoms.info["reconstructed"] = {EVIL: 1.0}
    data = dataset(name=EVIL, recipe=EVIL, **{EVIL: EVIL})
    page, metrics = written(tmp_path / "report", structures, data, hit_tolerance={EVIL: 0.1})
    assert len(page.all("script")) == 1
    assert page.all("img") == []
    assert not any(name.startswith("on") for _, attrs, _ in page.tags for name in attrs)
    assert page.words().count("<script>alert(1)</script>") >= 5
    assert metrics["status"] == {EVIL: 3}


def test_a_terminal_shows_and_does_not_obey():
    structures = generated(1)
    structures[0].info["status"] = "\x1b[2J gone \n" + 100 * "x"
    structures[0].info["target"] = {"\x1b[31m": 1.0}
    text = summary(evaluate(structures, dataset(), hit_tolerance={"\x1b[31m": 1.0}))
    assert "\x1b" not in text
    assert "?[2J gone ?xx" in text
    assert 80 * "x" not in text


CASES = {
    "no records": [tetrahedron(2.7), tetrahedron(3.3)],
    "one structure": generated(1),
    "no relaxation": generated(9, ("decoded", "reconstructed")),
    "only decoded": generated(9, ("decoded",)),
    "no stage at all": generated(9, ()),
    "nothing valid": [tetrahedron(1.0, target={"energy_per_atom": 0.7}), tetrahedron(99.0)],
    "not finite": [tetrahedron(np.nan), tetrahedron(np.inf), tetrahedron(1e300), Atoms()],
    "new composition": [tetrahedron(2.9, "Au", relaxed={"energy_per_atom": 0.2})],
    "single atom": [Atoms("Pt", info={"target": {"size": [1, 2]}, "relaxed": {"size": 1.5}})],
    "crystal": [bulk("Pt", cubic=True), bulk("Au")],
    "no loss above zero": [tetrahedron(2.7, fingerprint_loss=0.0)],
    "a negative loss": [tetrahedron(2.7, fingerprint_loss=-1.0, status="?")] * 2,
    "many kinds of status": [
        tetrahedron(2.7, fingerprint_loss=1.0, status=str(k)) for k in range(9)
    ],
    "an extreme property": [
        tetrahedron(2.7, target={"energy_per_atom": 0.7}, relaxed={"energy_per_atom": value})
        for value in (1e300, -1e300, 0.7)
    ],
    "two properties": [
        tetrahedron(2.7, target={"energy_per_atom": 0.7, "size": 2.0}, relaxed={"size": 2.0})
    ],
}


@pytest.mark.parametrize("name", CASES)
def test_reports_on_odd_structures(tmp_path, name):
    page, metrics = written(tmp_path / "report", CASES[name], dataset())
    assert f"structure {len(CASES[name]) - 1}" in str(page.tags)
    assert "nan" not in str([attrs for tag, attrs, _ in page.tags if tag in {"path", "circle"}])
    assert summary(metrics).startswith(f"structures: {len(CASES[name])}")


def test_a_report_repeats_itself(tmp_path):
    for name in ("one", "two"):
        written(tmp_path / name, generated(), dataset())
    for file in ("index.html", "metrics.json"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_overwriting(tmp_path):
    folder = tmp_path / "report"
    structures, data = generated(3), dataset()
    metrics = evaluate(structures, data)
    write_report(structures, data, metrics, folder)
    with pytest.raises(FileExistsError, match="--overwrite"):
        write_report(structures, data, metrics, folder)
    (folder / "metrics.json").write_text("old")
    write_report(structures, data, metrics, folder, overwrite=True)
    assert json.loads((folder / "metrics.json").read_text("utf-8"))["count"] == 3


def test_only_a_report_is_overwritten(tmp_path):
    structures, data = generated(3), dataset()
    metrics = evaluate(structures, data)
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").write_text("years of work")
    with pytest.raises(FileExistsError, match="'thesis.tex', which tfgen has not put there"):
        write_report(structures, data, metrics, tmp_path / "home", overwrite=True)
    assert (tmp_path / "home" / "thesis.tex").read_text() == "years of work"
    (tmp_path / "file").write_text("a file")
    with pytest.raises(NotADirectoryError, match="is a file"):
        write_report(structures, data, metrics, tmp_path / "file", overwrite=True)


def test_a_failure_leaves_the_old_report_whole(tmp_path, monkeypatch):
    folder = tmp_path / "report"
    structures, data = generated(3), dataset()
    metrics = evaluate(structures, data)
    write_report(structures, data, metrics, folder)
    before = (folder / "index.html").read_bytes()

    def full(title, content):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(report, "page", full)
    with pytest.raises(OSError, match="No space left"):
        write_report(structures, data, metrics, folder, overwrite=True)
    assert (folder / "index.html").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["report"]


def test_metrics_of_other_structures(tmp_path):
    metrics = evaluate(generated(3), dataset())
    with pytest.raises(ValueError, match="metrics is of 3 structures, not of these 4"):
        write_report(generated(4), dataset(), metrics, tmp_path / "report")


def test_summary_is_a_table():
    metrics = evaluate(generated(), dataset())
    lines = summary(metrics).splitlines()
    assert lines[0] == "structures: 20, next to 7 for training, 0.5 s a structure"
    assert max(map(len, lines)) <= 100
    row = next(line for line in lines if line.startswith("energy_per_atom 0.6"))
    hits = [metrics["hit_rate"][s]["energy_per_atom=0.6"] for s in ("decoded", "reconstructed")]
    assert [f"{100 * rate:.1f}" in row.split() for rate in hits] == [True, True]
    assert "energy_per_atom 0.75:0.85" in "\n".join(lines)


def test_pair_distances_by_hand():
    edges = np.array([0.0, 1.5, 2.5, 3.5, 4.5])
    chain = Atoms("Pt3", positions=[[0, 0, 0], [0, 0, 2], [0, 0, 4]])
    square = Atoms("Pt4", positions=[[0, 0, 0], [2, 0, 0], [2, 2, 0], [0, 2, 0]])
    counts = plotting.pair_distances([chain, square, Atoms("Pt"), Atoms()], edges)
    np.testing.assert_array_equal(counts, [0, 2 + 4, 2, 1])
    cubic = Atoms("Pt", cell=[2, 9, 9], pbc=True)  # at 2 and 4 Å in each direction: half of four
    np.testing.assert_array_equal(plotting.pair_distances([cubic], edges), [0, 1, 0, 1])


def test_pictures_keep_the_shape():
    atoms = Atoms("Pt2Au", positions=[[0, 0, 0], [0, 0, 4], [0, 3, 0]])
    circles = [
        attrs
        for tag, attrs, _ in Page(plotting.picture(atoms, "three <atoms>")).tags
        if tag == "circle" and attrs["class"] == "atom"
    ]
    assert sorted(c["fill"] for c in circles) == ["url(#el-Au)", "url(#el-Pt)", "url(#el-Pt)"]
    # A projection: no distance is longer than in space, none vanishes in this flat structure.
    seen = np.array([[float(c["cx"]), float(c["cy"])] for c in circles])
    longest = max(np.linalg.norm(p - q) for p in seen for q in seen)
    assert 4.5 < longest <= 5.0 + 1e-3


def test_pictures_are_no_mirror_images():
    for seed in range(20):
        positions = np.random.default_rng(seed).normal(size=(5, 3))
        view = plotting._view(positions - positions.mean(axis=0))
        np.testing.assert_allclose(view.T @ view, np.eye(3), atol=1e-12)
        assert np.linalg.det(view) == pytest.approx(1.0)
