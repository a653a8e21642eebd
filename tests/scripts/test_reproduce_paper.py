"""The networks of the paper and the script that follows it, on inputs far smaller than its own."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from click.testing import CliRunner

from tfgen.datasets.storage import Dataset

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(SCRIPTS / "paper")
    return importlib.import_module


def plane(count=60, features=30):
    """Fingerprints that the energy decides but for a second number, and the energies."""
    rng = np.random.default_rng(0)
    y = rng.uniform(2, 4, count)
    other = rng.normal(size=count)
    x = np.outer(y, rng.normal(size=features)) + np.outer(other, rng.normal(size=features))
    x[:, 3] = 7.0  # some features never vary
    return x, y


def test_the_networks_learn_and_the_best_weights_are_kept(script):
    network = script("paper_network")
    x, y = plane()
    found = network.fit(x, y, seed=3, epochs=300)
    # The split is the one the seed says; what is kept is what did best on its held-out part.
    held = np.random.default_rng(3).permutation(len(x))[: len(x) // 5]
    error = np.mean((found.energies(x[held]) - y[held]) ** 2)
    assert error == pytest.approx(found.test_loss[1], rel=1e-4)
    assert error < 0.1 * y.var()
    means = [found.energies(found.sample(energy, 200, seed=1)).mean() for energy in (2.3, 3.0, 3.7)]
    np.testing.assert_allclose(means, [2.3, 3.0, 3.7], atol=0.2)
    sample = found.sample(3.0, 50, seed=1)
    np.testing.assert_array_equal(sample, found.sample(3.0, 50, seed=1))
    np.testing.assert_allclose(sample[:, 3], 7.0, atol=0.5)


def test_the_layers_are_as_published(script):
    network = script("paper_network")
    found = network.fit(*plane(20), seed=0, epochs=2)
    assert found.test_loss == network.fit(*plane(20), seed=0, epochs=2).test_loss
    widths = [layer.units for layer in found.decoder.layers]
    assert widths == [50, 89, 128, 30]
    assert [layer.units for layer in found.surrogate.layers] == [128, 128, 128, 128, 1]
    assert found.decoder.input_shape == (None, 11)


def test_reproduce_paper(script, tmp_path):
    rng = np.random.default_rng(1)
    corners = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]) / np.sqrt(8)
    structures = [
        Atoms("Pt4", positions=e * corners + 0.1 * rng.normal(size=(4, 3)))
        for e in np.linspace(2.4, 3.0, 30)
    ]
    energies = rng.uniform(1.0, 1.5, 30)
    split = np.repeat([0, 1, 2], [26, 2, 2])
    data = Dataset(structures, {"energy_per_atom": energies}, {"energy_per_atom": "eV/atom"}, split)
    data.save(tmp_path / "pt4.h5")
    main = script("reproduce_paper").main
    arguments = [str(tmp_path / "pt4.h5"), "--samples", "20", "--inverted", "1", "--epochs", "3"]
    done = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    width = 4 * np.ptp(energies)
    assert f"total energies span {width:.2f} eV, in the paper 1.80 eV" in done.output
    rows = re.findall(r"^ +(\d\.\d\d) .*%", done.output, re.MULTILINE)
    # Seven targets over the range, decoded and then inverted.
    assert [float(t) for t in rows] == pytest.approx(
        2 * np.linspace(1.9, 1.9 + width, 7).round(2).tolist(), abs=0.011
    )
    assert "all    7" in done.output
