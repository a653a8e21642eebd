"""The page docs/own_descriptor.md: all that it shows is run, in its order."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import ase.io
import numpy as np
import pytest
import small
from ase import Atoms
from click.testing import CliRunner

import tfgen
from tfgen.cli import main
from tfgen.fingerprints.fingerprint import Fingerprint
from tfgen.potentials import emt
from tfgen.sampling.initial import random_structures
from tfgen.testing import check_descriptor

pytestmark = pytest.mark.slow

PAGE = (Path(__file__).parents[2] / "docs" / "own_descriptor.md").read_text("utf-8")
BLOCKS = re.findall(r'```python(?: title="(.+?)")?\n(.*?)```', PAGE, flags=re.DOTALL)
COMMANDS = re.findall(r"^\$ tfgen (.+)$", PAGE, flags=re.MULTILINE)
# Few steps, and no more of the inversion than shows that it runs.
SHORT = {
    "epochs=300": "epochs=4",
    'formula="Pt13", seed=0': 'formula="Pt13", seed=0, max_rounds=1',
}


def dataset() -> tfgen.Dataset:
    """Stands for the README's pt13.h5: 24 minima."""
    rng, numbers = np.random.default_rng(0), np.full(13, 78)
    structures = [Atoms(numbers, positions=x) for x in random_structures(numbers, 24, rng)]
    found = tfgen.relax(structures, small.potential(), fmax=0.05)
    structures, energy = found.structures, found.energy / 13
    split = np.repeat([0, 1, 2], [18, 4, 2])
    units = {"energy_per_atom": "eV/atom"}
    metadata = {"name": "pt13", "kind": "built", "potential": "emt", "seed": 0}
    return tfgen.Dataset(structures, {"energy_per_atom": energy}, units, split, metadata)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """What the page's names stand for after its last line, with the folder it ran in."""
    folder = tmp_path_factory.mktemp("page")
    dataset().save(folder / "pt13.h5")
    names: dict = {"__name__": "page"}
    with pytest.MonkeyPatch.context() as patch, small.quick_search():
        small.train_eagerly(patch)
        patch.chdir(folder)
        patch.syspath_prepend(folder)
        patch.setattr(emt, "EMT", small.potential)
        patch.setattr("tfgen.generation.request.EMT", small.potential)
        for title, code in BLOCKS:
            for long, short in SHORT.items():
                code = code.replace(long, short)
            if title:
                Path(title).write_text(code, "utf-8")
            exec(compile(code, title or PAGE, "exec"), names)
        yield names, folder
    sys.modules.pop("histogram", None)


def test_the_class_is_about_forty_lines():
    code = dict(BLOCKS)["histogram.py"]
    assert len(code.splitlines()) < 45


def test_counts_neighbours(page):
    """Far from its ends the histogram sums to the coordination number, each neighbour faded."""
    histogram = page[0]["DistanceHistogram"](["Cu", "Au"], r_cut=6.0, bins=12, width=0.1)
    atoms = Atoms("CuAu2", [[0, 0, 0], [2.25, 0, 0], [0, 3.25, 0]])
    found = histogram(tfgen.StructureBatch.from_ase([atoms], r_cut=6.0)).numpy()[0, 0]
    wanted = np.zeros([2, 12])
    for distance, place in ((2.25, 4), (3.25, 6)):  # both in the middle of a bin
        wanted[1, place] = (1 + np.cos(np.pi * distance / 6.0)) / 2
    np.testing.assert_allclose(found, wanted.ravel(), atol=1e-3)


def test_keeps_the_contract_with_other_arguments(page):
    check_descriptor(page[0]["DistanceHistogram"](["H"], 3.0, bins=5, width=0.4), seed=1)


def test_the_model_comes_back(page):
    names, folder = page
    assert isinstance(names["model"].fingerprint.descriptor, names["DistanceHistogram"])
    again = names["model"].fingerprint.create(names["dataset"].structures)
    np.testing.assert_array_equal(again, names["vectors"])
    with pytest.raises(ValueError, match="descriptor is 'DistanceHistogram'; known are ACSF"):
        tfgen.Model.load(folder / "model")


def test_the_structures_have_the_fingerprints_that_were_sampled(page):
    names, _ = page
    found, pt = names["found"], names["pt"]
    assert len(found.structures) == len(found.status) == 2
    assert np.isfinite(found.loss).all()
    structures = names["structures"]
    assert [atoms.get_chemical_formula() for atoms in structures] == ["Pt13"] * 2
    for atoms in structures:
        assert np.isfinite(pt.create(atoms)).all()
        assert set(atoms.info["relaxed"]) == {"energy_per_atom"}


def test_the_saved_model_computes_the_same(page):
    names, _ = page
    wanted, scale = names["vectors"][0], np.abs(names["vectors"]).max()
    np.testing.assert_allclose(names["exported"][0] / scale, wanted / scale, atol=1e-5)
    assert set(names["signatures"]) >= {"fingerprint", "sample", "generate"}


def test_the_commands_run(page, monkeypatch):
    """With the page's own fingerprint in place of its copies, so that little is traced anew."""
    names, folder = page
    made, config = [], names["pt"].get_config()

    def the_same(copy):
        assert copy.get_config() == config
        made.append(copy)
        return names["pt"]

    copied, of_species = Fingerprint.from_config, names["fingerprint"]
    monkeypatch.setattr(Fingerprint, "from_config", lambda *given: the_same(copied(*given)))
    monkeypatch.setattr("histogram.fingerprint", lambda species: the_same(of_species(species)))
    monkeypatch.chdir(folder)
    assert [command.split()[0] for command in COMMANDS] == [
        "train", "generate", "reconstruct", "export"
    ]  # fmt: skip
    extra = {"train": "--epochs 2", "reconstruct": "--max-rounds 0"}
    for command in COMMANDS:
        arguments = shlex.split(f"{command} {extra.get(command.split()[0], '')}")
        result = CliRunner().invoke(main, arguments)
        assert result.exit_code == 0, result.output
    assert len(made) == len(COMMANDS)
    assert len(ase.io.read(folder / "back.extxyz", ":")) == 2
    assert (folder / "my_saved_model" / "saved_model.pb").is_file()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ("train pt13.h5 -o m --fingerprint soap", 2, "'soap' is not one of 'default', 'fung2022'"),
        ("train pt13.h5 -o m --fingerprint histogram:nothing", 1, "has no attribute 'nothing'"),
        ("train pt13.h5 -o m --fingerprint no_such:thing", 1, "No module named 'no_such'"),
        ("train pt13.h5 -o m --fingerprint histogram:DistanceHistogram", 1, "not a tfgen.F"),
        ("export model -o s --descriptor DistanceHistogram", 2, "is not one of MODULE:NAME"),
        ("export model -o s --descriptor histogram:Nothing", 1, "has no attribute 'Nothing'"),
        ("export model -o s", 1, "descriptor is 'DistanceHistogram'; known are ACSF"),
    ],
)
def test_the_command_line_refuses(page, monkeypatch, arguments, code, message):
    monkeypatch.chdir(page[1])
    result = CliRunner().invoke(main, shlex.split(arguments))
    assert result.exit_code == code, result.output
    assert message in result.stderr
    assert "Traceback" not in result.output
