"""The scripts about generation run, on a data set of twenty small clusters."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import numpy as np
import pytest
import small
from ase import Atoms
from click.testing import CliRunner

from tfgen.datasets.storage import Dataset
from tfgen.fingerprints.fingerprint import Fingerprint

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture
def file(tmp_path, monkeypatch):
    """Pt6 alone, a fingerprint of twelve features, and short searches."""
    whole = small.dataset()
    rows = np.flatnonzero([len(s) == 6 for s in whole.structures])
    dataset = Dataset(
        [whole.structures[i] for i in rows],
        {name: values[rows] for name, values in whole.properties.items()},
        whole.units,
        np.array([0] * (len(rows) - 8) + [1] * 4 + [2] * 4),
        whole.metadata,
    )
    dataset.save(tmp_path / "pt6.h5")
    monkeypatch.setattr(Fingerprint, "preset", lambda *_: small.fingerprint())
    small.train_eagerly(monkeypatch)
    with small.quick_search():
        yield tmp_path / "pt6.h5"


def run(name: str, *arguments: object) -> str:
    main = runpy.run_path(str(SCRIPTS / name))["main"]
    result = CliRunner().invoke(main, [*map(str, arguments)])
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture(scope="module")
def benchmark():
    """The script's names, as if it were imported."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(SCRIPTS / "benchmarks")
        yield runpy.run_path(str(SCRIPTS / "benchmark_generation.py"))


def test_benchmark(file, tmp_path, benchmark):
    arguments = (file, "--formula", "Pt6", "--count", 2, "--epochs", 2, "--most", 400)
    result = CliRunner().invoke(
        benchmark["main"], [*map(str, arguments), "--model", str(tmp_path / "model")]
    )
    assert result.exit_code == 0, result.output
    table = result.stdout
    assert (tmp_path / "model").is_dir()
    names = "one shot|chosen|training|rattled|random|halted"
    rows = re.findall(rf"^({names}) +(\d\.\d{{4}}) \|.*\| +(\d+) +(\d+) ", table, re.MULTILINE)
    assert len(rows) == 6 * 5  # small.dataset() holds structures on their way to minima
    assert [int(r[2]) for r in rows if r[0] == "one shot"] == [2] * 5
    for name, _, spent, verified in rows:
        if name in ("rattled", "random", "halted"):
            assert int(verified) >= 20 or int(spent) == 400
    summary = dict(re.findall(rf"^({names}) +\d+% +\d+%\|(.*)$", table, re.MULTILINE))
    assert set(summary) == set(names.split("|"))
    assert re.match(r" +10 ", summary["one shot"])  # each "relaxed" once


class TestAssessment:
    """Of what was made, by pairs of atoms whose distance says which minimum they are."""

    @staticmethod
    def made(distances, energies):
        from generation_methods import Made  # found by what the fixture does

        pairs = [Atoms("Pt2", positions=[[0, 0, 0], [0, 0, d]]) for d in distances]
        return Made(pairs, pairs, {"relaxed": np.array(energies)}, "relaxed", len(pairs), 70.0)

    def test_verified_hits_are_valid_new_and_counted_once(self, benchmark):
        known = [Atoms("Pt2", positions=[[0, 0, 0], [0, 0, 2.5]])]
        first = self.made([2.3, 2.3, 2.5, 2.7, 9.0], [0.5, 0.505, 0.5, 0.52, 0.5])
        row = benchmark["assess"](first, 0.5, known)
        assert row.stages["relaxed"]["hits"] == pytest.approx(3 / 5)
        assert np.isnan(row.stages["decoded"]["hits"])
        assert row.stages["relaxed"]["mae"] == pytest.approx(1e3 * 0.025 / 4)
        assert row.stages["relaxed"]["bias"] == pytest.approx(1e3 * 0.025 / 4)
        assert (row.valid, row.unique, row.new) == (0.8, 0.75, pytest.approx(2 / 3))
        assert (row.verified, row.per_hit) == (1, 5.0)
        benchmark["add"](row, self.made([2.3, 2.6, 2.7], [0.5, 0.5, np.nan]), known)
        assert (row.verified, row.relaxations, row.calculations) == (2, 8, 140.0)

    def test_rivals_go_on_until_there_are_enough(self, benchmark):
        calls = []

        def method(target, place, count, batch):
            calls.append((place, count, batch))
            distances = 2.0 + 0.06 * np.arange(15 * batch, 15 * batch + count) % 1.6
            return self.made(distances, [target] * count)

        effort = benchmark["Effort"]()

        class Shop:
            endless, structures = ("random",), []

        rows = list(benchmark["rows_of"]("random", method, [0.1, 0.2, 0.3], 15, Shop(), effort))
        assert calls[:3] == [(99, 8, 0), (0, 15, 0), (0, 200, 1)]
        assert [r.verified >= 20 for r in rows] == [True] * 3
        assert [r.stages["relaxed"]["hits"] for r in rows] == [1.0] * 3
        calls.clear()
        list(benchmark["rows_of"]("rattled", method, [0.1, 0.2, 0.3], 15, Shop(), effort))
        assert len(calls) == 4


def test_tuning(file, monkeypatch):
    monkeypatch.setattr("tfgen.generation.settings.ProposalSettings", lambda: small.QUICK_PROPOSALS)
    names = ("default", "likelihood Laplace", "scaled by range", "no KL warm-up")
    only = [word for name in names for word in ("--only", name)]
    table = run("tools/tune_cvae.py", file, "--epochs", 2, "--count", 3, *only)
    for name in names:
        assert re.search(rf"^{name} +\d+ +\d", table, re.MULTILINE)
