"""`tfgen dataset ...` as a user types it."""

from __future__ import annotations

import json
import subprocess
import sys

import ase.io
import numpy as np
import pytest
from ase import Atoms
from click.testing import CliRunner

from tfgen.cli import main
from tfgen.datasets import building
from tfgen.datasets.storage import Dataset


def run(*arguments) -> object:
    return CliRunner().invoke(main, ["dataset", *map(str, arguments)])


def assert_one_line(result, code: int, *words: str) -> None:
    assert result.exit_code == code, result.output
    lines = result.output.strip().splitlines()
    assert "Traceback" not in result.output
    if code == 1:
        assert lines[-1].startswith("Error: ")
    for word in words:
        assert word in lines[-1], result.output


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_text('name = "tiny"\n[sample]\nformula = "Pt4"\ncount = 12\n')
    return path


@pytest.fixture
def file(tmp_path):
    rng = np.random.default_rng(0)
    images = [Atoms("PtCu2", rng.random((3, 3)) + 3 * np.eye(3)) for _ in range(10)]
    for i, atoms in enumerate(images):
        atoms.info.update(energy=float(i), gap=0.5 * i)
    path = tmp_path / "set.xyz"
    ase.io.write(path, images)
    return path


PROPERTIES = """
NO_FUNCTION = 1

def span(atoms):
    return atoms.get_all_distances().max()

def hopeless(atoms):
    raise RuntimeError("no SCF")
"""


def test_a_build_computes_properties(recipe, tmp_path, monkeypatch):
    (tmp_path / "span_of_a_user.py").write_text(PROPERTIES)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    output = tmp_path / "tiny.h5"
    command = ["build", recipe, "-o", output, "--compute"]
    for value, code, words in (
        ("span=span_of_a_user:spam", 1, ["compute span: 'span_of_a_user:spam' cannot be imported"]),
        ("span=no_such_module:span", 1, ["cannot be imported: No module named 'no_such_module'"]),
        ("span=span_of_a_user:NO_FUNCTION", 1, ["is a int, not a function of an ase.Atoms"]),
        ("dipole", 1, ["dipole has no function, and emt does not compute it"]),
        ("span", 2, ["'span' is neither NAME=MODULE:FUNCTION nor one of"]),
        ("span=span_of_a_user:hopeless", 1, ["leaves no structures: 12 sampled", "no SCF"]),
    ):
        assert_one_line(run(*command, value), code, *words)
        assert not output.exists()
    result = run(*command, "span=span_of_a_user:span")
    assert result.exit_code == 0, result.output
    assert "0  property failed" in result.output
    dataset = Dataset.load(output)
    spans = [s.get_all_distances().max() for s in dataset.structures]
    np.testing.assert_array_equal(dataset.properties["span"], spans)


def test_an_import_computes_properties(file, tmp_path, monkeypatch):
    (tmp_path / "gap_of_a_user.py").write_text(
        "def more(atoms):\n    return atoms.info['gap'] + atoms.get_potential_energy()\n"
        "def some(atoms):\n    return 1 / float(atoms.info['gap'])\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    output = tmp_path / "set.h5"
    command = ["import", file, "-o", output, "--property", "gap", "--compute"]
    for value, words in (
        ("more=gap_of_a_user:less", ["compute more: 'gap_of_a_user:less' cannot be imported"]),
        ("gap=gap_of_a_user:more", ["'gap' is both asked for from the files and computed"]),
        ("some=gap_of_a_user:some", ["set.xyz', row 1: compute some: ZeroDivisionError"]),
        ("dipole", ["row 1: compute dipole: PropertyNotImplementedError"]),
    ):
        assert_one_line(run(*command, value), 1, *words)
        assert not output.exists()
    skipping = [*command, "some=gap_of_a_user:some", "--missing", "skip"]
    result = run(*skipping, "--compute", "more=gap_of_a_user:more")
    assert result.exit_code == 0, result.output
    assert "1  property failed" in result.output
    dataset = Dataset.load(output)
    np.testing.assert_allclose(dataset.properties["more"], 1.5 * np.arange(1, 10))


def test_the_whole_way(recipe, tmp_path):
    output = tmp_path / "tiny.h5"
    result = run("build", recipe, "-o", output, "--seed", 3)
    assert result.exit_code == 0, result.output
    assert "12  sampled" in result.output
    assert "energy_per_atom          eV/atom" in result.output
    dataset = Dataset.load(output)
    assert dataset.metadata["seed"] == 3

    shown = run("info", output)
    assert shown.exit_code == 0
    for word in ("tiny", "Pt4", "train", "duplicates", "seed 3", "Å"):
        assert word in shown.output
    table = json.loads(run("info", output, "--json").output)
    assert table["structures"] == len(dataset)
    assert table["metadata"]["recipe"] == recipe.read_text()

    xyz = tmp_path / "tiny.extxyz"
    assert run("export", output, "-o", xyz, "--split", "all").exit_code == 0
    assert run("import", xyz, "-o", tmp_path / "back.h5").exit_code == 0
    back = Dataset.load(tmp_path / "back.h5")
    np.testing.assert_array_equal(
        back.properties["energy_per_atom"], dataset.properties["energy_per_atom"]
    )

    assert_one_line(run("build", recipe, "-o", output), 1, "exists; use --overwrite")
    assert run("build", recipe, "-o", output, "--overwrite").exit_code == 0


def test_import_with_properties_and_units(file, tmp_path):
    output = tmp_path / "out.h5"
    result = run("import", file, "-o", output, "--property", "gap", "--unit", "gap=eV")
    assert result.exit_code == 0, result.output
    assert "10  read" in result.output
    assert Dataset.load(output).units["gap"] == "eV"
    assert_one_line(run("import", file, "-o", output), 1, "exists")


def tetrahedra(folder, *comments: str):
    path = folder / "tetrahedra.extxyz"
    frames = [
        f"4\nProperties=species:S:1:pos:R:3 {comment}\nPt 0 0 0\nPt {2.6 + 0.3 * i} 0 0\n"
        "Pt 1.3 2.25 0\nPt 1.3 0.75 2.1\n"
        for i, comment in enumerate(comments)
    ]
    path.write_text("".join(frames))
    return path


def test_import_names_energies_that_stand_elsewhere(tmp_path):
    path = tetrahedra(tmp_path, "REF_energy=-20", "REF_energy=-21")
    output = tmp_path / "out.h5"
    result = run("import", path, "-o", output)
    assert result.exit_code == 0
    note = "Note: no energy was found; --energy takes one of 'REF_energy'"
    assert result.stderr.splitlines()[-1] == note
    command = ("import", path, "-o", output, "--overwrite", "--energy")
    result = run(*command, "REF_energy")
    assert "Note" not in result.stderr
    assert Dataset.load(output).properties["energy_per_atom"].tolist() == [-5.0, -5.25]
    assert_one_line(run(*command, "dft"), 1, "row 1: no energy 'dft'", "there is 'REF_energy'")


def test_import_skips_and_counts(tmp_path):
    path = tetrahedra(tmp_path, "energy=-20 gap=1", "energy=-20")
    path.write_text("1\nenergy=-1 gap=1\nPt 0 0 0\n" + path.read_text())
    command = ("import", path, "-o", tmp_path / "out.h5", "--property", "gap")
    assert_one_line(run(*command), 1, "row 1: a single atom")
    result = run(*command, "--missing", "skip")
    assert result.exit_code == 0
    lines = [line.split(maxsplit=1) for line in result.stdout.splitlines()[:5]]
    assert lines == [["3", "read"], ["1", "single atoms"], ["1", "without a property"],
                     ["0", "duplicates"], ["1", "kept"]]  # fmt: skip


def test_import_lists_what_it_drops(file, tmp_path):
    output = tmp_path / "out.h5"
    result = run("import", file, file, "-o", output)
    assert result.exit_code == 0
    assert "\nduplicates dropped (energies up to 0 eV/atom apart):\n" in result.stdout
    assert f"  {str(file)!r}, row 1 equals {str(file)!r}, row 1\n" in result.stdout
    assert "  and 5 more\n  --property NAME keeps those that differ in NAME" in result.stdout
    kept = run("import", file, file, "-o", output, "--overwrite", "--duplicates", "keep")
    assert "duplicates dropped" not in kept.stdout
    assert len(Dataset.load(output)) == 20


def test_import_says_what_it_did(tmp_path):
    path = tetrahedra(tmp_path, "energy=-20")
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    result = run("import", path, "-o", tmp_path / "out.h5")
    line = f"Warning: {str(path)!r}: the byte-order mark was skipped"
    assert line in result.stderr.splitlines()


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--energy", "name"], 1, "row 1: property 'name' is 'x'; a number is needed"),
        (["--energy", ""], 1, "row 1: no energy ''"),
        (["--format", "exyz"], 1, "format 'exyz' is unknown; near are xyz, extxyz"),
        (["--format", "vasp"], 1, "row 1: cannot be read as vasp"),
        (["--missing", "drop"], 2, "'drop' is not one of 'error', 'skip'"),
        (["--duplicates", "all"], 2, "'all' is not one of 'drop', 'keep'"),
    ],
)
def test_wrong_usage_of_import(tmp_path, options, code, words):
    path = tetrahedra(tmp_path, "energy=-20 name=x")
    output = tmp_path / "out.h5"
    assert_one_line(run("import", path, "-o", output, *options), code, words)
    assert not output.exists()


def test_an_input_is_never_the_output(file, tmp_path):
    before = file.read_bytes()
    result = run("import", file, "-o", tmp_path / "." / file.name, "--overwrite")
    assert_one_line(result, 2, "set.xyz' is an input, too")
    assert file.read_bytes() == before
    assert run("import", file, "-o", tmp_path / "a.h5").exit_code == 0
    command = ("export", tmp_path / "a.h5", "-o", tmp_path / "a.h5", "--overwrite")
    assert_one_line(run(*command), 2, "a.h5' is an input, too")


def test_export_of_clusters_to_a_format_that_needs_a_cell(tmp_path):
    run("import", tetrahedra(tmp_path, "energy=-20"), "-o", tmp_path / "out.h5")
    command = ("export", tmp_path / "out.h5", "-o", tmp_path / "POSCAR")
    assert_one_line(run(*command), 1, "cannot be written as vasp", "structures without a cell")
    assert run(*command, "--vacuum", "5").exit_code == 0
    assert ase.io.read(tmp_path / "POSCAR").cell.lengths()[0] == pytest.approx(12.6)
    assert_one_line(run(*command, "--vacuum", "0"), 2, "0.0 is not in the range")


def test_export_says_what_a_format_has_no_room_for(file, tmp_path):
    output = tmp_path / "out.h5"
    assert run("import", file, "-o", output, "--property", "gap", "--unit", "gap=eV").exit_code == 0
    result = run("export", output, "-o", tmp_path / "a.extxyz")
    assert result.stdout == f"{tmp_path / 'a.extxyz'}: 10 structures\n"
    note = result.stderr.splitlines()[-1]
    assert note.startswith("Note: ")
    assert note.endswith("a.extxyz does not hold: the unit of gap (eV)")
    assert "Note" not in run("export", output, "-o", tmp_path / "a.db").stderr
    assert_one_line(run("export", output, "-o", tmp_path / "POSCAR"), 1, "holds one structure")


def test_an_interrupted_import_leaves_nothing(file, tmp_path, monkeypatch):
    def interrupt(_structure, where):
        if where.endswith("row 5"):
            raise KeyboardInterrupt

    monkeypatch.setattr("tfgen.datasets.importing.collecting.check", interrupt)
    result = run("import", file, "-o", tmp_path / "out.h5")
    assert result.exit_code == 1
    assert "Traceback" not in result.output
    assert list(tmp_path.iterdir()) == [file]


def test_an_interrupted_build_says_how_to_go_on(recipe, tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(building, "run", interrupt)
    result = run("build", recipe, "-o", tmp_path / "x.h5")
    assert_one_line(result, 1, "interrupted", "x.h5.partial", "the same command continues")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--executor", "dask"], "--executor dask needs --scheduler ADDRESS"),
        (["--executor", "dask", "--scheduler", "tcp://x", "--workers", "2"], "--workers applies"),
        (["--executor", "slurm"], "'slurm' is not one of"),
        (["--scheduler", "tcp://x"], "--scheduler applies to --executor dask"),
        (["--workers", "0"], "0 is not in the range"),
        (["--seed", "-1"], "-1 is not in the range"),
        (["--workers", "two"], "'two' is not a valid integer"),
    ],
)
def test_wrong_usage_of_build(recipe, tmp_path, options, message):
    assert_one_line(run("build", recipe, "-o", tmp_path / "x.h5", *options), 2, message)


@pytest.mark.parametrize(
    ("potential", "message"),
    [
        ("no_such_module:EMT", "calculator 'no_such_module:EMT' cannot be made: No module named"),
        ("ase.calculators.emt:DFT", "has no attribute 'DFT'"),
        ("collections:OrderedDict", "is OrderedDict, not an ASE calculator"),
        ("dft", "recipe.toml': relax.potential is 'dft'; allowed is 'emt' or an ASE calculator"),
    ],
)
def test_calculators_that_cannot_be_made(recipe, tmp_path, potential, message):
    recipe.write_text(f'{recipe.read_text()}[relax]\npotential = "{potential}"\n')
    output = tmp_path / "x.h5"
    assert_one_line(run("build", recipe, "-o", output), 1, message)
    assert not output.exists()


def test_each_wrong_value_of_a_recipe_is_a_line(recipe, tmp_path):
    recipe.write_text(recipe.read_text().replace("12", "0") + "[relax]\nfmax = -1\n")
    result = run("build", recipe, "-o", tmp_path / "x.h5")
    assert result.exit_code == 1
    start = f"Error: recipe {str(recipe)!r}: "
    assert result.stderr.splitlines() == [
        f"{start}sample.count is 0; a whole number >= 1 and <= 1000000000 is needed",
        f"{start}relax.fmax is -1; a number > 0 is needed",
    ]


def test_a_recipe_that_leaves_nothing_says_which_filter_took_what(recipe, tmp_path):
    settings = '[relax]\npotential = "ase.calculators.emt:EMT"\nmax_steps = 1\nrattle = 0\n'
    recipe.write_text(recipe.read_text().replace("12", "3") + settings)
    result = run("build", recipe, "-o", tmp_path / "x.h5")
    assert_one_line(result, 1, "leaves no structures: 3 sampled, 3 not converged, 0 disconnected")


def test_a_cluster_that_is_not_there(recipe, tmp_path, monkeypatch):
    pytest.importorskip("distributed")
    command = ("build", recipe, "-o", tmp_path / "x.h5", "--executor", "dask", "--scheduler")
    message = "no Dask scheduler answers at 'tcp://127.0.0.1:9'"
    assert_one_line(run(*command, "tcp://127.0.0.1:9"), 1, message)
    assert_one_line(run(*command, "127.0.0.1"), 1, "no Dask scheduler answers at '127.0.0.1'")
    monkeypatch.setitem(sys.modules, "distributed", None)
    assert_one_line(run(*command, "tcp://127.0.0.1:9"), 1, "pip install 'tfgen[dask]'")


def test_wrong_usage_elsewhere(file, tmp_path):
    output = tmp_path / "x.h5"
    assert_one_line(run("build", "pt13"), 2, "Missing option '-o'")
    assert_one_line(run("import", "-o", output), 2, "Missing argument 'FILES...'")
    assert_one_line(run("import", file, "-o", output, "--unit", "gap"), 2, "NAME=UNIT")
    assert_one_line(run("import", file, "-o", output, "--tolerance", "-1"), 2, "-1")
    assert_one_line(run("export", file, "-o", output, "--split", "dev"), 2, "'dev' is not one of")


def test_work_that_cannot_be_done(recipe, file, tmp_path):
    output = tmp_path / "x.h5"
    assert_one_line(run("build", "pt14", "-o", output), 1, "pt14", "pt13")
    recipe.write_text(recipe.read_text().replace("12", "0"))
    assert_one_line(run("build", recipe, "-o", output), 1, "sample.count is 0", str(recipe))
    assert_one_line(run("build", "pt13", "-o", tmp_path / "no" / "x.h5"), 1, "does not exist")
    assert_one_line(run("import", tmp_path / "none.xyz", "-o", output), 1, "does not exist")
    assert_one_line(run("import", file, "-o", output, "--property", "hue"), 1, "row 1", "'hue'")
    assert_one_line(run("info", tmp_path / "none.h5"), 1, "does not exist")
    assert_one_line(run("info", file), 1, "is not an HDF5 file")
    assert_one_line(run("info", tmp_path), 1, "is a folder")
    assert_one_line(run("export", file, "-o", tmp_path / "y.xyz"), 1, "is not an HDF5 file")
    assert not output.exists()


def test_info_in_a_process_of_its_own(file, tmp_path):
    output = tmp_path / "out.h5"
    assert run("import", file, "-o", output).exit_code == 0
    command = [sys.executable, "-X", "importtime", "-m", "tfgen", "dataset", "info"]
    done = subprocess.run(
        [*command, str(output)], capture_output=True, text=True, check=True, timeout=60
    )
    assert "structures    10 (8 train, 1 validation, 1 test)" in done.stdout
    assert "| tensorflow\n" not in done.stderr  # nobody waits for TensorFlow to see a table
    failed = subprocess.run(
        [*command, str(file)], capture_output=True, text=True, check=False, timeout=60
    )
    assert failed.returncode == 1
    assert failed.stdout == ""
