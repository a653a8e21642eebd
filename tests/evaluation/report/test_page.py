from __future__ import annotations

import base64
import hashlib
import itertools
import json
import re
import shutil
import subprocess

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from pages import dataset, generated, scene, tetrahedron, written
from scipy.spatial.distance import cdist, pdist
from scipy.spatial.transform import Rotation

from tfgen.evaluation.report import svg_charts
from tfgen.evaluation.report.format import escape_svg
from tfgen.evaluation.report.settings import ReportSettings
from tfgen.evaluation.report.summary import summarise
from tfgen.evaluation.settings import EvaluationSettings
from tfgen.generation.records import STAGES

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")

EVIL = '"><script>alert(1)</script><img src=x onerror=alert(2)>&$\\frac{'


def test_the_report_says_it_all(tmp_path):
    page, metrics = written(tmp_path / "report", generated(), dataset())
    stored = json.loads((tmp_path / "report" / "metrics.json").read_text("utf-8"))
    assert stored == metrics.to_json()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["report"]  # nothing left beside it
    words = page.words()
    for heading in ("Targets", "Target against property", "Distributions", "Structures"):
        assert heading in words
    assert "energy per atom 0.75:0.85 eV/atom" in words
    assert f"{100 * metrics.shares.validity:.1f} %" in words
    assert "not converged: the loss is too high" in words
    assert "0.7 × the sum of covalent radii" in words
    for provenance in ("tetrahedra", "sampled: 9", "n = 9"):
        assert provenance in words
    rows = [tag for tag, _, inside in page.tags if tag == "tr" and inside[-1] == "tbody"]
    assert len(rows) == 3 + 3 + 20  # targets, the same by the network's word, and structures
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
    # The other one is data, and is not run.
    assert [attrs.get("type") for attrs in page.all("script")] == ["application/json", None]
    scripts = [text for text, tag in page.text if tag == "script"][1:]
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
    page, metrics = written(
        tmp_path / "report", structures, data, EvaluationSettings(hit_tolerance={EVIL: 0.1})
    )
    assert len(page.all("script")) == 2
    assert "<" not in next(text for text, tag in page.text if tag == "script")
    assert page.all("img") == []
    assert not any(name.startswith("on") for _, attrs, _ in page.tags for name in attrs)
    assert page.words().count("<script>alert(1)</script>") >= 5
    assert metrics.status == {EVIL: 3}


def test_hostile_words_stand_in_every_place(tmp_path):
    """Formulas come from ASE; names of properties, statuses and units can be anything."""
    evil = EVIL.replace("/", "")  # which data sets do not allow
    structures = generated(4)
    for atoms in structures:
        atoms.info["status"] = evil
        atoms.info["target"][evil] = 26.0
        for stage in ("predicted", *STAGES):
            atoms.info.setdefault(stage, {})[evil] = 26.5
    data = dataset()
    data.properties[evil] = data.properties["size"]
    data.units[evil] = evil
    page, metrics = written(tmp_path / "report", structures, data)
    assert metrics.units[evil] == evil
    assert page.all("img") == []
    assert len(page.all("script")) == 2
    assert not any(name.startswith("on") for _, attrs, _ in page.tags for name in attrs)
    words = evil.replace("_", " ")
    for where, text in {
        "the table of targets": f"{words} 26 {evil}",
        "captions": f"Every structure: {words} ({evil}) over its target.",
        "the gallery": f"{words}: 26.50 for 26",
        "definitions": f"hit, {evil}",
    }.items():
        assert text in page.words(), where
    assert f"Histogram of {words} ({evil}), generated and training" in [
        svg.get("aria-label") for svg in page.all("svg")
    ]
    assert evil in [cell.get("data-v") for cell in page.all("td")]  # the status
    assert f"{words} 26.500 {evil}" in scene(page)["structures"][0]["views"][0][0]
    assert escape_svg(words) in (tmp_path / "report" / "index.html").read_text("utf-8")


def test_settings_of_the_report(tmp_path, monkeypatch):
    sizes = []

    def draw(known, _known_values, made, *_):
        sizes.append((len(known), len(made)))
        return "<svg></svg>"

    monkeypatch.setattr(svg_charts, "draw_map", draw)
    few = ReportSettings(pictures=3, map_structures=5)
    page, _ = written(tmp_path / "few", generated(), dataset(), settings=few)
    assert [f["data-k"] for f in page.all("figure") if "data-k" in f] == ["0", "10", "19"]
    assert "3 of 20, evenly spaced" in page.words()
    written(tmp_path / "report", generated(), dataset())
    assert sizes == [(5, 5), (7, 20)]
    for name, value in (("pictures", 0), ("pictures", 2.5), ("map_structures", 2)):
        with pytest.raises(ValueError, match=f"{name} is {value}; a whole number >="):
            ReportSettings(**{name: value})


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
    assert summarise(metrics).startswith(f"structures: {len(CASES[name])}")


def test_what_the_script_draws_are_the_structures(tmp_path):
    structures = generated(4)
    # The fourth has a nearest neighbour in training that lies, and lists its atoms, otherwise.
    turn = Rotation.from_euler("xyz", [0.3, 1.0, 2.0]).as_matrix()
    for name in ("positions", "reconstructed_positions"):
        structures[3].arrays[name] = structures[3].arrays[name][::-1] @ turn
    page, metrics = written(tmp_path / "report", structures, dataset())
    drawn = scene(page)
    assert drawn["elements"] == {"78": ["Pt", "#d0d0e0", pytest.approx(1.36)]}
    assert len(drawn["structures"]) == 4
    known = dataset().structures
    for k, (atoms, found) in enumerate(zip(structures, drawn["structures"], strict=True)):
        assert found["numbers"] == [78] * 4
        titles = [title for title, _ in found["views"]]
        assert [t.split(":")[0].split(",")[0] for t in titles] == [
            "reconstructed", "relaxed", "nearest in training"
        ]  # fmt: skip
        assert found["shown"] == 1
        row = metrics.structures[k]
        assert f"number {row.nearest.index}" in titles[2]
        energy = row.relaxed["energy_per_atom"]
        assert f"energy per atom {energy:.5g} eV/atom"[:21] in titles[1]
        nearest = known[row.nearest.index]
        expected = (atoms.arrays["reconstructed_positions"], atoms.positions, nearest.positions)
        seen = [np.reshape(flat, (-1, 3)) / 100 for _, flat in found["views"]]
        for positions, view in zip(expected, seen, strict=True):
            distances = [sorted(pdist(p)) for p in (positions, view)]
            np.testing.assert_allclose(*distances, atol=0.02)
            assert np.linalg.norm(view, axis=1).max() < found["reach"]
        # All views lie alike, so that one sees what differs; atoms may be listed in any order.
        for one, other in itertools.pairwise(seen):
            assert cdist(one, other).min(axis=1).max() < 0.3


def test_a_row_joins_everything(tmp_path):
    page, metrics = written(tmp_path / "report", generated(), dataset())
    heads = [attrs for attrs in page.all("button") if "data-column" in attrs]
    assert [h["data-column"] for h in heads] == [str(k) for k in range(16)]
    cells, rows = [], []
    for tag, attrs, inside in page.tags:
        if tag == "tr" and inside[-1] == "tbody":
            cells = []
            rows.append(cells)
        elif tag == "td" and "data-v" in attrs:
            cells.append(attrs["data-v"])
    rows = [cells for cells in rows if cells]
    word = {True: "yes", False: "no", None: ""}
    assert len(rows) == 20
    for k, (found, row) in enumerate(zip(rows, metrics.structures, strict=True)):
        (target,) = row.targets
        assert found == [
            str(k), "Pt4", repr(target.low if target.is_value else 0.8),
            *(repr(row.stage(stage)["energy_per_atom"]) for stage in STAGES),
            word[row.hit], repr(row.fingerprint_loss),
            "" if row.basin_rmsd is None else repr(row.basin_rmsd),
            word[row.valid], word[row.unique], word[row.novel],
            str(row.nearest.index), repr(row.nearest.distance), row.status, "0.5",
        ]  # fmt: skip


def test_predictions_have_a_column_where_there_are_any(tmp_path):
    structures = generated(3)
    structures[1].info["predicted"] = {"energy_per_atom": 0.4321}
    page, _ = written(tmp_path / "report", structures, dataset())
    heads = [attrs for attrs in page.all("button") if "data-column" in attrs]
    assert len(heads) == 17
    assert "predicted" in page.words()
    assert [a["data-v"] for a in page.all("td") if a.get("data-v") == "0.4321"] == ["0.4321"]


def test_a_detail_stands_by_its_status(tmp_path):
    structures = generated(2)
    structures[1].info |= {"status": "ambiguous", "status_detail": "3 structures"}
    page, metrics = written(tmp_path / "report", structures, dataset())
    assert "ambiguous: 3 structures" in [cell.get("data-v") for cell in page.all("td")]
    assert metrics.status == {"not converged: the loss is too high": 1, "ambiguous": 1}


def test_what_hits_cost_is_told(tmp_path):
    structures = generated()
    for atoms in structures:
        atoms.info |= {"candidates": 5, "calculations": 3, "proposed": 6}
    structures[0].info["relaxed"] = {"energy_per_atom": 0.6}  # as asked for, and new
    structures[0].info["status"] = "converged"
    page, metrics = written(tmp_path / "report", structures, dataset())
    rate = metrics.acceptance.rate
    assert f"{100 * rate:.1f} % of 100 candidates accepted" in summarise(metrics)
    hits = metrics.verified.hits
    each = f"{60 / hits:.3g} calculations and {120 / hits:.3g} proposals each"
    assert f"{hits} verified hits, {each}" in summarise(metrics)
    words = page.words()
    for card in ("calculations per verified hit", "of 100 candidates", "kept their basin"):
        assert card in words
    # The test split has one structure.
    assert f"{metrics.coverage.found} of 1 structures held out" in words


@pytest.mark.skipif(BROWSER is None, reason="no Chromium here")
def test_the_page_in_a_browser(tmp_path):
    """Sorts, opens a row, rotates a structure; the title says with what result."""
    written(tmp_path / "report", generated(), dataset())
    text = (tmp_path / "report" / "index.html").read_text("utf-8")
    assert text.count("</body>") == 1
    # Only here, and only for this: the page's own policy would not let it in.
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", text)
    probe = """<script>
    const heads = [...document.querySelectorAll("thead button")];
    const head = heads.find((b) => b.textContent === "loss");
    const losses = () => [...document.querySelectorAll("table.sortable tbody tr")]
      .filter((row) => row.className !== "detail")
      .map((row) => Number(row.cells[head.dataset.column].dataset.v));
    const result = {};
    head.click();
    result.up = losses();
    const first = document.querySelector("table.sortable tbody tr");
    first.click();
    head.click();
    result.down = losses();
    result.follows = first.nextElementSibling.className;
    const canvases = [...first.nextElementSibling.querySelectorAll("canvas")];
    setTimeout(() => {
      const before = canvases.map((c) => c.toDataURL());
      result.blank = before.map((image) => image.length < 2000);
      canvases[0].dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowLeft" }));
      result.turned = canvases.map((c, i) => c.toDataURL() !== before[i]);
      first.click();
      result.closed = first.nextElementSibling?.className !== "detail";
      document.body.innerHTML = "<pre>" + JSON.stringify(result) + "</pre>";
    }, 300);
    </script></body>"""
    (tmp_path / "page.html").write_text(text.replace("</body>", probe), "utf-8")
    done = subprocess.run(
        [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=5000",
         f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", f"file://{tmp_path}/page.html"],
        capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    result = json.loads(re.search(r"<pre>(.*)</pre>", done.stdout)[1])
    assert result["up"] == sorted(result["up"])
    assert result["down"] == result["up"][::-1]
    assert len(set(result["up"])) == 20
    assert result["follows"] == "detail"
    assert result["blank"] == [False] * 3
    assert result["turned"] == [True] * 3
    assert result["closed"]
