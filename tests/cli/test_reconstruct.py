"""`tfgen reconstruct` as a user types it."""

from __future__ import annotations

import ase.io
import numpy as np
import pytest
import small
from ase import Atoms
from commands import assert_quiet, failed, run, run_alone

from tfgen.fingerprints.fingerprint import Fingerprint
from tfgen.inversion import reconstruct as reconstruction
from tfgen.structures.similarity.equality import deviations

# A fingerprint that is compiled in a few seconds.
FEW = """
from tfgen import Fingerprint
from tfgen.descriptors.acsf import ACSF

DISTANCES = [[1.0, 2.0], [1.0, 2.7], [1.0, 3.4], [1.0, 4.1]]
ACSF_OF_FEW = ACSF(["Pt"], 7.0, g2_params=DISTANCES, g5_params=[[0.05, 1, 1]], g1=False)
fingerprint = Fingerprint(ACSF_OF_FEW, ("mean", "std"))
"""


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("clusters") / "clusters.xyz"
    ase.io.write(path, [small.structures()[i] for i in (0, 40, 1)])
    return path


@pytest.fixture
def small_preset(monkeypatch):
    monkeypatch.setattr(Fingerprint, "preset", lambda *_: small.fingerprint())


def test_in_a_process_of_its_own(tmp_path):
    triangle = Atoms("Pt3", positions=[[0, 0, 0], [2.7, 0, 0], [1.35, 2.3, 0]])
    ase.io.write(tmp_path / "in.xyz", triangle)
    (tmp_path / "few.py").write_text(FEW)
    options = ("-o", "out.extxyz", "--max-rounds", 0, "--fingerprint", "few:fingerprint")
    done = run_alone("reconstruct", "in.xyz", *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert_quiet(done.stderr)
    assert "inverting: 100%" in done.stderr
    assert done.stdout.startswith("1 structures: 1 fingerprints reached, 1 found again (every")
    assert done.stdout.endswith("s each; in out.extxyz\n")
    (found,) = ase.io.read(tmp_path / "out.extxyz", ":")
    assert deviations([found], [triangle])[0] < 0.05
    left = {path.name for path in tmp_path.iterdir()} - {"few.py", "__pycache__"}
    assert left == {"in.xyz", "out.extxyz"}


def test_says_of_each_structure_how_it_went(file, tmp_path, quick, small_preset):
    output = tmp_path / "out.extxyz"
    command = ("reconstruct", file, "-o", output, "--seed", 2, "--max-rounds", 1)
    result = run(*command)
    assert result.exit_code == 0, result.output
    sources, found = ase.io.read(file, ":"), ase.io.read(output, ":")
    assert [len(atoms) for atoms in found] == [5, 6, 5]
    fingerprint = small.fingerprint()
    same = deviations(found, sources) <= 0.05
    for row, atoms in enumerate(found):
        info = atoms.info
        assert set(info) - {"status_detail"} == {
            "fingerprint_loss", "status", "same_structure", "seed", "seconds", "rounds",
        }  # fmt: skip
        detailed = info["status"] in ("not converged", "ambiguous", "unreachable")
        assert ("status_detail" in info) == detailed
        assert info["seed"] == 2
        assert bool(info["same_structure"]) == same[row]
        if info["status"] == "converged":
            np.testing.assert_allclose(
                fingerprint.create(atoms), fingerprint.create(sources[row]), atol=0.2
            )
        else:
            assert info["status"] in (
                "not converged", "overlapping atoms", "ambiguous", "unreachable"
            )  # fmt: skip
    reached = sum(atoms.info["status"] == "converged" for atoms in found)
    assert result.stdout.startswith(
        f"3 structures: {reached} fingerprints reached, {same.sum()} found again"
    )

    failed(run(*command), 1, "out.extxyz' exists; use --overwrite")
    assert run(*command, "--overwrite").exit_code == 0
    for ours, theirs in zip(found, ase.io.read(output, ":"), strict=True):
        np.testing.assert_array_equal(ours.positions, theirs.positions)


def test_forgets_the_positions(file, tmp_path, small_preset, monkeypatch):
    """The search gets fingerprints and formulas, and nothing else."""
    given = []

    class SeenError(ValueError):
        pass

    def reconstruct(*arguments, **options):
        given.append((arguments, options))
        raise SeenError("seen")

    monkeypatch.setattr(reconstruction, "reconstruct", reconstruct)
    failed(run("reconstruct", file, "-o", tmp_path / "out.extxyz"), 1, "seen")
    (((fingerprint, targets, formulas), options),) = given
    assert fingerprint is small.fingerprint()
    np.testing.assert_array_equal(targets, fingerprint.create(ase.io.read(file, ":")))
    assert formulas == ["Pt5", "Pt6", "Pt5"]
    assert options == {
        "seed": 0, "max_rounds": 100, "time_limit": None, "cell": None, "pbc": True,
        "executor": None, "progress": True,
    }  # fmt: skip


def test_wrong_usage(file, tmp_path):
    output = tmp_path / "out.extxyz"
    failed(run("reconstruct", file), 2, "Missing option '-o'")
    failed(run("reconstruct", "-o", output), 2, "Missing argument 'FILE'")
    failed(run("reconstruct", file, "-o", output, "--max-rounds", "-1"), 2, "--max-rounds")
    failed(run("reconstruct", file, "-o", output, "--seed", "x"), 2, "--seed")


class TestWorkThatCannotBeDone:
    @pytest.fixture(autouse=True)
    def no_search(self, monkeypatch):
        monkeypatch.setattr(reconstruction, "search", lambda *_, **__: pytest.fail("has begun"))

    @pytest.fixture
    def refused(self, tmp_path):
        def check(file, *words, options=()):
            output = tmp_path / "out.extxyz"
            failed(run("reconstruct", file, "-o", output, *options), 1, *words)
            assert not output.exists()

        return check

    def test_files(self, tmp_path, refused):
        refused(tmp_path / "no.xyz", "no.xyz' does not exist")
        refused(tmp_path, "is a folder")
        (tmp_path / "empty.xyz").touch()
        refused(tmp_path / "empty.xyz", "empty.xyz'")
        (tmp_path / "bad.xyz").write_text("hello\nworld\n")
        refused(tmp_path / "bad.xyz", "bad.xyz'")

    def test_presets(self, file, tmp_path):
        result = run("reconstruct", file, "-o", tmp_path / "out.xyz", "--fingerprint", "soap")
        failed(result, 2, "'soap' is not one of 'default', 'fung2022'")

    def test_periodic_structures(self, tmp_path, refused):
        ase.io.write(tmp_path / "in.xyz", Atoms("Pt2", [[0, 0, 0], [2, 2, 0]], cell=[4] * 3, pbc=1))
        refused(tmp_path / "in.xyz", "in.xyz'[0] is periodic; the descriptor is for clusters")

    def test_structures_that_are_too_large(self, tmp_path, refused):
        grid = 3.0 * np.stack(np.meshgrid(*[np.arange(6)] * 3), -1).reshape(-1, 3)[:201]
        ase.io.write(tmp_path / "in.xyz", [Atoms("Pt200", grid[:200]), Atoms("Pt201", grid)])
        refused(tmp_path / "in.xyz", "in.xyz', row 2 has 201 atoms; at most 200 are allowed")

    def test_single_atoms(self, tmp_path, refused):
        ase.io.write(tmp_path / "in.xyz", Atoms("Pt", [[0, 0, 0]]))
        refused(tmp_path / "in.xyz", "single atom")

    def test_places_for_the_output(self, file, tmp_path):
        output = tmp_path / "no" / "out.extxyz"
        failed(run("reconstruct", file, "-o", output), 1, "no' does not exist")
