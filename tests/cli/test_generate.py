"""`tfgen generate` as a user types it."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter

import ase.io
import numpy as np
import pytest
import small
from commands import failed, run, run_alone

from tfgen.fingerprints.fingerprint import Fingerprint
from tfgen.generation import generate as generation
from tfgen.generation import proposers
from tfgen.generation.verification import Verifier
from tfgen.models.model import Model
from tfgen.potentials import emt

LJ = "ase.calculators.lj:LennardJones"
MIDDLE = ("--target", "energy_per_atom=1.6")


@pytest.fixture
def no_work(monkeypatch):
    monkeypatch.setattr(generation, "generate", lambda *_, **__: pytest.fail("work has begun"))


@pytest.fixture
def no_search(monkeypatch):
    monkeypatch.setattr(proposers, "reconstruct", lambda *_, **__: pytest.fail("work has begun"))


@pytest.fixture
def shared(monkeypatch, quick):
    """Nothing is compiled anew: one potential, and the model that others have used."""
    monkeypatch.setattr(emt, "EMT", small.potential)
    monkeypatch.setattr(Model, "load", lambda *_: small.model())


def generate(model, output, *options):
    return run("generate", model, "-o", output, "--formula", "Pt6", "--count", 4, *options)


def test_in_a_process_of_its_own(model_folder, tmp_path):
    done = run_alone(
        "generate", model_folder, "-o", "out.extxyz", "--formula", "Pt6", "--count", 1,
        "--target", "hue=1", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stdout == ""
    message = "property 'hue' is unknown; the model knows energy_per_atom, radius_of_gyration"
    assert done.stderr == f"Error: {message}\n"
    assert not list(tmp_path.iterdir())


def test_warns_and_tries_all_the_same(model_folder, tmp_path, shared):
    result = run(
        "generate", model_folder, "-o", tmp_path / "out.extxyz", "--formula", "Pt4", "--count", 1,
        "--target", "energy_per_atom=9", "--relax", "none",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    warned = [line for line in result.stderr.splitlines() if line.startswith("Warning: ")]
    assert len(warned) == 2
    assert "energy_per_atom=9 is outside the training range" in warned[0]
    assert "not trained on Pt4" in warned[1]
    assert result.stdout.startswith("1 structures in ")
    (atoms,) = ase.io.read(tmp_path / "out.extxyz", ":")
    assert atoms.info["target"] == {"energy_per_atom": 9.0}


def test_writes_structures_with_their_records(model_folder, tmp_path, quick):
    output = tmp_path / "out.extxyz"
    options = ("--target", "energy_per_atom=1.4:1.8", "--seed", 3, "--candidates", 2)
    result = generate(model_folder, output, *options)
    assert result.exit_code == 0, result.output
    structures = ase.io.read(output, ":")
    counts = Counter(atoms.info["status"] for atoms in structures).most_common()
    statuses = ", ".join(f"{number} {status}" for status, number in counts)
    lines = result.stdout.splitlines()
    assert lines[0] == f"4 structures in {output}: {statuses}"
    spent = sum(atoms.info["candidates"] for atoms in structures)
    verified = sum(atoms.info["verified"] for atoms in structures)
    assert 4 <= spent <= 8
    assert (spent == 4) == (verified == 4 or lines[1].startswith("4 of 4"))
    assert lines[1] == f"{verified} of 4 are on target, valid and new"
    proposed, calculations = (
        sum(atoms.info[name] for atoms in structures) for name in ("proposed", "calculations")
    )
    assert lines[2] == (
        f"{proposed} proposals, {spent} candidates and {calculations} calculations were spent on "
        "them"
    )
    assert proposed == spent  # without an NNP
    assert calculations >= 2 * spent  # before, and at least once while it relaxes
    apart = lines.index("what the model's own network says, which nothing has calculated:")
    for stage in ("decoded", "reconstructed", "relaxed"):
        values = [atoms.info[stage]["energy_per_atom"] for atoms in structures]
        (line,) = (x for x in lines if x.strip().startswith(f"{stage} energy_per_atom"))
        shown = f"mean {np.mean(values):.4f}, {min(values):.4f} to {max(values):.4f}"
        assert line.endswith(shown if stage == "decoded" else f"{shown}, by emt")
        assert (lines.index(line) > apart) == (stage == "decoded")
    for atoms in structures:
        assert atoms.info["target"] == {"energy_per_atom": [1.4, 1.8]}
        assert atoms.info["seed"] == 3
        assert "reconstructed_positions" in atoms.arrays
        json.dumps(atoms.info["relaxed"])

    failed(generate(model_folder, output, *options), 1, "out.extxyz' exists; use --overwrite")
    result = generate(model_folder, output, *options, "--overwrite")
    assert result.exit_code == 0, result.output
    for ours, theirs in zip(structures, ase.io.read(output, ":"), strict=True):
        np.testing.assert_array_equal(ours.positions, theirs.positions)


@pytest.mark.parametrize(
    ("options", "source"),
    [
        ([], "emt"),
        (["--potential", "emt"], "emt"),
        (["--potential", "none"], "surrogate"),
        (["--potential", LJ, "--potential-arg", "sigma=2.0"], LJ),
    ],
)
def test_without_relaxation(model_folder, tmp_path, shared, options, source):
    output = tmp_path / "out.extxyz"
    options = ("--relax", "none", "--candidates", 1, *options)
    result = generate(model_folder, output, *MIDDLE, *options)
    assert result.exit_code == 0, result.output
    for atoms in ase.io.read(output, ":"):
        assert atoms.info["relaxed"] == {}
        assert atoms.info["evaluated_by"]["energy_per_atom"] == source
    assert "relaxed" not in result.stdout


class TestPotentialsThatCannotServe:
    def test_of_unknown_elements(self, model_folder, tmp_path, monkeypatch):
        fingerprint = Fingerprint.preset("fung2022", ["Fe", "Pt"])
        model = dataclasses.replace(small.model(), fingerprint=fingerprint, potential=None)
        monkeypatch.setattr(Model, "load", lambda *_: model)
        result = generate(
            model_folder, tmp_path / "out.extxyz", *MIDDLE, "--formula", "Fe2Pt4", "--relax", "emt"
        )
        words = "formula 'Fe2Pt4' holds Fe, which the potential 'emt' does not know"
        failed(result, 1, words, "--relax none")
        assert not list(tmp_path.iterdir())

    def test_where_nothing_tells_candidates_apart(self, model_folder, tmp_path, shared):
        options = ("--potential", "none", "--candidates", 2)
        result = generate(model_folder, tmp_path / "out.extxyz", *MIDDLE, *options)
        failed(result, 1, "nothing calculates energy_per_atom", "--candidates can only be 1")
        assert "candidates=" not in result.stderr
        assert not list(tmp_path.iterdir())


def test_relaxation_without_evaluation(model_folder, tmp_path, shared):
    """EMT moves the atoms, but its energies do not pass for those the model was trained on."""
    output = tmp_path / "out.extxyz"
    options = ("--potential", "none", "--relax", "emt", "--candidates", 1)
    result = generate(model_folder, output, *MIDDLE, *options)
    assert result.exit_code == 0, result.output
    for atoms in ase.io.read(output, ":"):
        assert atoms.info["evaluated_by"]["energy_per_atom"] == "surrogate"
        assert np.abs(atoms.positions - atoms.arrays["reconstructed_positions"]).max() > 0.01


@pytest.mark.usefixtures("no_work")
class TestWrongUsage:
    @pytest.mark.parametrize(
        ("target", "words"),
        [
            ("energy_per_atom", "not of the form NAME=VALUE"),
            ("energy_per_atom=", "not of the form"),
            ("=0.7", "not of the form"),
            ("0.7", "not of the form"),
            ("", "not of the form"),
            ("energy_per_atom=low", "'low' in 'energy_per_atom=low' is not a number"),
            ("energy_per_atom=1:", "is not a number or a range"),
            ("energy_per_atom=:1", "is not a number or a range"),
            ("energy_per_atom=1:2:3", "is not a finite number or a range LO:HI"),
            ("energy_per_atom=nan", "is not a finite number"),
            ("energy_per_atom=0:inf", "is not a finite number"),
            ("energy_per_atom=0.8:0.7", "has LO above HI"),
        ],
    )
    def test_of_targets(self, model_folder, tmp_path, target, words):
        result = generate(model_folder, tmp_path / "out.extxyz", "--target", target)
        failed(result, 2, "--target", words)
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            ((*MIDDLE, *MIDDLE), "each property takes one target"),
            ((*MIDDLE, "--count", "0"), "0 is not in the range"),
            ((*MIDDLE, "--count", "a few"), "'a few' is not a valid integer"),
            ((*MIDDLE, "--relax", "dft"), "'dft' is not one of auto, emt, none, MODULE:NAME"),
            ((*MIDDLE, "--potential-arg", "sigma"), "'sigma' is not of the form KEY=VALUE"),
            ((*MIDDLE, "--potential-arg", "=2"), "'=2' is not of the form KEY=VALUE"),
            ((*MIDDLE, "--potential-arg", "sigma=2"), "goes with --potential MODULE:NAME, not"),
            (
                (*MIDDLE, "--potential", LJ, *(("--potential-arg", "sigma=2") * 2)),
                "each KEY takes one value",
            ),
            ((*MIDDLE, "--potential", "dft"), "'dft' is not one of auto, emt, none, MODULE:NAME"),
            ((*MIDDLE, "--seed", "-1"), "-1 is not in the range"),
            ((), "Missing option '--target'"),
        ],
    )
    def test_of_other_options(self, model_folder, tmp_path, options, words):
        failed(generate(model_folder, tmp_path / "out.extxyz", *options), 2, words)
        assert not list(tmp_path.iterdir())

    def test_of_what_must_be_given(self, model_folder):
        needed = {
            "-o": "out.extxyz", "--formula": "Pt6", "--count": 2, "--target": "energy_per_atom=1"
        }  # fmt: skip
        for missing in needed:
            rest = [part for pair in needed.items() if pair[0] != missing for part in pair]
            failed(run("generate", model_folder, *rest), 2, f"Missing option '{missing}'")


class TestWorkThatCannotBeDone:
    @pytest.fixture(autouse=True)
    def no_search(self, monkeypatch):
        monkeypatch.setattr(proposers, "reconstruct", lambda *_, **__: pytest.fail("has begun"))

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            (["--target", "hue=1"], "property 'hue' is unknown; the model knows energy_per_atom"),
            ([*MIDDLE, "--formula", "Au6"], "'Au6' holds Au; the model was trained on Pt"),
            ([*MIDDLE, "--formula", "water"], "formula 'water' is not a formula"),
            ([*MIDDLE, "--formula", "Pt0"], "formula 'Pt0' is not a formula"),
            ([*MIDDLE, "--potential", "no.such:Thing"], "calculator 'no.such:Thing' cannot be"),
            ([*MIDDLE, "--potential", "ase.calculators.emt:DFT"], "cannot be made"),
            ([*MIDDLE, "--potential", LJ, "--potential-arg", "depth=2"], "no argument 'depth'; it"),
            ([*MIDDLE, "--relax", "no.such:Thing"], "calculator 'no.such:Thing' cannot be"),
        ],
    )
    def test_options(self, model_folder, tmp_path, options, words):
        failed(generate(model_folder, tmp_path / "out.extxyz", *options), 1, words)
        assert not list(tmp_path.iterdir())

    def test_models(self, model_folder, tmp_path):
        output = tmp_path / "out.extxyz"
        failed(generate(tmp_path / "no", output, *MIDDLE), 1, "no' does not exist")
        (tmp_path / "model").mkdir()
        failed(generate(tmp_path / "model", output, *MIDDLE), 1, "model' lacks config.json")
        config = (model_folder / "config.json").read_bytes()
        (tmp_path / "model" / "config.json").write_bytes(config)
        failed(generate(tmp_path / "model", output, *MIDDLE), 1, "lacks weights.weights.h5")
        (tmp_path / "model" / "weights.weights.h5").write_bytes(b"hello")
        failed(generate(tmp_path / "model", output, *MIDDLE), 1, "lacks training_structures.npz")
        for name in ("training_structures.npz", "checksums.json"):
            (tmp_path / "model" / name).write_bytes((model_folder / name).read_bytes())
        failed(generate(tmp_path / "model", output, *MIDDLE), 1, "weights.weights.h5 has 5 bytes")
        (tmp_path / "model" / "checksums.json").unlink()  # older models have none
        older = {**json.loads(config), "schema_version": 1}
        (tmp_path / "model" / "config.json").write_text(json.dumps(older), "utf-8")
        words = ("it has schema version 1; this version of tfgen reads 4, so train it again",)
        failed(generate(tmp_path / "model", output, *MIDDLE), 1, *words)
        assert not output.exists()

    def test_places_for_the_output(self, model_folder, tmp_path):
        output = tmp_path / "no" / "out.extxyz"
        failed(generate(model_folder, output, *MIDDLE), 1, "no' does not exist")


def test_ctrl_c_leaves_the_old_file_whole(model_folder, tmp_path, shared, monkeypatch):
    def half(path, *_, **__):
        path.write_text("half")
        raise KeyboardInterrupt

    output = tmp_path / "out.extxyz"
    output.write_text("mine")
    monkeypatch.setattr(ase.io, "write", half)
    options = ("--relax", "none", "--candidates", 1, "--overwrite")
    result = generate(model_folder, output, *MIDDLE, *options)
    assert result.exit_code == 1
    assert "Aborted!" in result.stderr
    assert output.read_text() == "mine"
    # What was proposed is kept for the same command.
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.extxyz", "out.extxyz.partial"]


def width(atoms):
    return float(np.ptp(atoms.positions[:, 0]))


HERE = f"{__name__}:width"


def test_a_computed_property_and_its_tolerance(model_folder, tmp_path, shared):
    output = tmp_path / "out.extxyz"
    options = (
        "--compute",
        f"width={HERE}",
        "--tolerance",
        "energy_per_atom=0.5",
        "--candidates",
        1,
    )
    result = generate(model_folder, output, *MIDDLE, *options, "--relax", "none")
    assert result.exit_code == 0, result.output
    for atoms in ase.io.read(output, ":"):
        assert atoms.info["reconstructed"]["width"] == pytest.approx(width(atoms), abs=1e-6)
        assert atoms.info["evaluated_by"]["width"] == HERE
        assert atoms.info["hit_tolerance"] == {"energy_per_atom": 0.5}
    assert f", by {HERE}" in result.stdout


def test_what_only_the_network_says_stands_apart(model_folder, tmp_path, shared):
    options = ("--potential", "none", "--candidates", 1)
    result = generate(model_folder, tmp_path / "out.extxyz", *MIDDLE, *options)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert "0 calculations were spent" in lines[1]
    apart = lines.index("what the model's own network says, which nothing has calculated:")
    guessed = [i for i, line in enumerate(lines) if "energy_per_atom: mean" in line]
    assert guessed
    assert min(guessed) > apart
    assert lines[-1] == (
        "nothing has calculated energy_per_atom, so that nothing is verified; --potential emt would"
    )


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--compute", "gap"], 2, "'gap' is neither NAME=MODULE:FUNCTION nor one of free_energy"),
        (["--compute", "gap=math"], 2, "'gap=math' is neither"),
        (["--compute", f"a={HERE}", "--compute", f"a={HERE}"], 2, "a is given twice"),
        (["--compute", "gap=no_such_module:gap"], 1, "'no_such_module:gap' cannot be imported"),
        (["--compute", "gap=math:pi"], 1, "'math:pi' is a float, not a function"),
        (["--compute", f"energy={HERE}"], 1, "tfgen computes energy itself"),
        (["--compute", "dipole"], 1, "dipole has no function, and emt does not compute it"),
        (["--tolerance", "energy_per_atom=0"], 2, "is not NAME=VALUE with a value above 0"),
        (["--tolerance", "energy_per_atom=-1"], 2, "is not NAME=VALUE with a value above 0"),
        (["--tolerance", "energy_per_atom=nan"], 2, "is not NAME=VALUE with a value above 0"),
        (["--tolerance", "hue=1"], 1, "tolerance names 'hue'; the targets are energy_per_atom"),
        (["--potential-arg", "a"], 2, "'a' is not of the form KEY=VALUE"),
        (["--potential-arg", "a=1"], 2, "--potential-arg goes with --potential MODULE:NAME"),
        (["--potential", LJ, "--potential-arg", "sigmo=1"], 1, "has no argument 'sigmo'"),
        (
            ["--potential", "no_such:EMT"],
            1,
            "cannot be made: No module named 'no_such'; --potential none does",
        ),
        (["--workers", 0], 2, "0 is not in the range x>=1"),
        (["--time-limit", 0], 2, "is not in the range"),
        (["--executor", "dask"], 2, "--executor dask needs --scheduler ADDRESS"),
    ],
)
def test_what_cannot_be_computed(model_folder, tmp_path, shared, no_search, options, code, words):
    result = generate(model_folder, tmp_path / "out.extxyz", *MIDDLE, *options)
    failed(result, code, words)
    assert not list(tmp_path.iterdir())


def test_ctrl_c_keeps_what_is_done(model_folder, tmp_path, shared, monkeypatch):
    output, options = tmp_path / "out.extxyz", (*MIDDLE, "--tolerance", "energy_per_atom=9")
    verify, calls = Verifier.verify, []

    def interrupted(self, *arguments):
        if calls:
            raise KeyboardInterrupt
        calls.append(1)
        return verify(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Verifier, "verify", interrupted)
        result = generate(model_folder, output, *options)
    assert result.exit_code == 1
    line = result.stderr.splitlines()[-1]
    assert line.startswith(f"Error: interrupted; '{output}.partial' keeps what is done")
    assert not output.exists()
    finished = tmp_path / "out.unfinished.extxyz"
    done = ase.io.read(finished, ":")
    assert f"{len(done)} of 4 structures are finished, in '{finished}'" in line
    assert all(atoms.info["verified"] for atoms in done)
    result = generate(model_folder, output, *options)
    assert result.exit_code == 0, result.output
    assert len(ase.io.read(output, ":")) == 4
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.extxyz"]


def test_a_name_that_promises_another_format(model_folder, tmp_path):
    result = generate(model_folder, tmp_path / "out.cif", *MIDDLE)
    failed(result, 2, "must end in .extxyz or .xyz")
