"""The scripts about generation run, on a data set of twenty small clusters."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import numpy as np
import pytest
import small
from click.testing import CliRunner

from tfgen import candidates, landscape
from tfgen.datasets.storage import Dataset
from tfgen.fingerprint import Fingerprint

SCRIPTS = Path(__file__).parents[1] / "scripts"


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
    monkeypatch.setattr(landscape, "EPOCHS", 2)
    monkeypatch.setattr(landscape, "LEAST", 100)
    monkeypatch.setattr(candidates, "MOST", 8)
    return tmp_path / "pt6.h5"


def run(name: str, *arguments: object) -> str:
    main = runpy.run_path(str(SCRIPTS / name))["main"]
    result = CliRunner().invoke(main, [*map(str, arguments)])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_benchmark(file, tmp_path):
    arguments = (file, "--formula", "Pt6", "--count", 2, "--epochs", 2)
    table = run("benchmark_generation.py", *arguments, "--model", tmp_path / "model")
    assert (tmp_path / "model").is_dir()
    rows = re.findall(
        r"^(one shot|chosen|draws|rattled|packings) +(\d\.\d{4}) \|", table, re.MULTILINE
    )
    assert len(rows) == 5 * 5
    (summary,) = re.findall(r"^one shot +(\d+)% +(\d+)% \| +(\d+) +(\d+)", table, re.MULTILINE)
    assert int(summary[3]) == 10  # each relaxed once
    again = run(
        "benchmark_generation.py", *arguments, "--model", tmp_path / "model", "--only", "draws"
    )
    lines = [line for line in table.splitlines() if line.startswith("draws")]
    for ours, theirs in zip(lines, again.splitlines()[-1:], strict=False):
        assert ours[:9] == theirs[:9]


def test_tuning(file):
    table = run("tune_cvae.py", file, "--epochs", 2, "--count", 3, "--variants", 2)
    assert re.search(r"^default +\d+ +-?\d", table, re.MULTILINE)
    assert re.search(r"^latent 5 +\d+ ", table, re.MULTILINE)
