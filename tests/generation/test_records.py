"""Records: what is written into structures, and what is read from anybody's."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import small
from ase import Atoms
from ase.io import write

from tfgen.generation.ranking import Proposal
from tfgen.generation.records import Cost, make_records, raw_structures, read_generated, read_record
from tfgen.generation.request import Request
from tfgen.generation.verification import Verification
from tfgen.structures.status import Status
from tfgen.targets import Target

ENERGY, SIZE = small.PROPERTIES


def dimer(**info) -> Atoms:
    return Atoms("Pt2", positions=[[0, 0, 0], [0, 0, 2.7]], info=info)


FULL = {
    "target": {"energy_per_atom": 0.75, "radius_of_gyration": [2.0, 3]},
    "decoded": {"energy_per_atom": 0.74},
    "reconstructed": {"energy_per_atom": 0.78},
    "relaxed": {},
    "fingerprint_loss": 0.001,
    "status": "converged",
    "seed": 3,
    "seconds": 0.5,
}


def test_a_record_survives_the_file(tmp_path):
    atoms = dimer(**FULL)
    atoms.arrays["reconstructed_positions"] = atoms.positions + 0.25
    write(tmp_path / "out.extxyz", [atoms, dimer()])
    back = read_generated(tmp_path / "out.extxyz")
    record = read_record(back[0], "structure 0")
    expected = {k: v for k, v in FULL.items() if k != "seed"}
    assert record.to_json() == {
        "formula": "Pt2",
        **expected,
        "predicted": {},
        "candidates": None,
        "calculations": None,
        "proposed": None,
        "evaluated_by": {},
    }
    np.testing.assert_allclose(raw_structures(back)[0].positions, atoms.positions + 0.25)
    assert raw_structures(back)[1] is back[1]


class TestMaking:
    """Records of verified structures."""

    @pytest.fixture
    def verification(self):
        square = [[0, 0, 0], [2.7, 0, 0], [0, 2.7, 0], [2.7, 2.7, 0]]
        structure = Atoms("Pt5", positions=[*square, [1.35, 1.35, 1.9]])
        proposal = Proposal(
            structure=structure, fingerprint=small.fingerprint().create([structure])[0],
            predicted={ENERGY: np.nan}, loss=0.25, status=Status.NOT_VALID,
        )  # fmt: skip
        moved = structure.copy()
        moved.positions += 0.1
        return Verification(
            proposal=proposal, structure=moved, reconstructed={ENERGY: 1.5, SIZE: 2.0},
            relaxed={ENERGY: np.inf, SIZE: 2.1}, status=Status.NOT_VALID,
            status_detail="in two pieces", calculations=7, sound=False, on_target=False, new=True,
            miss=3.0,
        )  # fmt: skip

    def made(self, verification, **changes):
        options = {
            "numbers": np.full(5, 78), "targets": (Target.of(ENERGY, (1.0, 2.0), 0.1),), "count": 1,
            "seed": 7, "potential": None, "relaxed_by": small.potential(), "minima": True,
            "evaluated_by": {ENERGY: "emt", SIZE: "geometry"}, "candidates": 1, **changes,
        }  # fmt: skip
        request = Request(**options)
        (atoms,) = make_records(
            [verification], small.model(), request, costs=[Cost(4, 30, 9)], seconds=0.5
        )
        return atoms

    def test_of_a_relaxed_structure(self, verification):
        atoms = self.made(verification)
        decoded = small.model().predict_properties(verification.proposal.fingerprint[None])[0]
        assert atoms.info == {
            "target": {ENERGY: [1.0, 2.0]},
            "decoded": dict(zip((ENERGY, SIZE), decoded.tolist(), strict=True)),
            "predicted": {ENERGY: None},
            "reconstructed": {ENERGY: 1.5, SIZE: 2.0},
            "relaxed": {ENERGY: None, SIZE: 2.1},
            "evaluated_by": {ENERGY: "emt", SIZE: "geometry"},
            "fingerprint_loss": 0.25,
            "tolerance": small.model().tolerance,
            "status": "no valid structure",
            "status_detail": "in two pieces",
            "seed": 7,
            "request": 0,
            "candidates": 4,
            "calculations": 30,
            "proposed": 9,
            "verified": False,
            "seconds": 0.5,
        }
        np.testing.assert_array_equal(atoms.positions, verification.structure.positions)
        raw = verification.proposal.structure.positions
        np.testing.assert_array_equal(atoms.arrays["reconstructed_positions"], raw)
        assert type(atoms.info["status"]) is str

    def test_of_one_that_was_not_to_be_relaxed(self, verification):
        atoms = self.made(verification, relaxed_by=None)
        raw = verification.proposal.structure.positions
        np.testing.assert_array_equal(atoms.positions, raw)
        assert "reconstructed_positions" not in atoms.arrays

    def test_nothing_is_verified_by_a_network(self, verification):
        surrogate = {ENERGY: "surrogate", SIZE: "geometry"}
        assert "verified" not in self.made(verification, evaluated_by=surrogate).info

    def test_a_detail_is_there_only_if_there_is_one(self, verification):
        plain = dataclasses.replace(verification, status_detail="")
        assert "status_detail" not in self.made(plain).info


def test_a_structure_without_a_record():
    assert read_record(dimer(energy=3.0, other="x"), "structure 0").to_json() == {
        "formula": "Pt2",
        "target": None,
        "predicted": {},
        "decoded": {},
        "reconstructed": {},
        "relaxed": {},
        "fingerprint_loss": None,
        "seconds": None,
        "status": None,
        "candidates": None,
        "calculations": None,
        "proposed": None,
        "evaluated_by": {},
    }


def test_a_detail_of_the_status_stands_apart():
    record = read_record(dimer(status="ambiguous", status_detail="3 structures"), "structure 0")
    assert (record.status, record.status_detail) == ("ambiguous", "3 structures")
    assert record.to_json()["status_detail"] == "3 structures"


def test_what_was_asked_for():
    record = read_record(dimer(target={"a": 0.5, "b": [1, 2]}), "structure 0")
    assert record.target("b") == Target.of("b", [1.0, 2.0])
    assert record.target("c") is None
    assert record.to_json()["target"] == {"a": 0.5, "b": [1.0, 2.0]}


def test_costs_are_counted():
    record = read_record(dimer(candidates=np.int64(3), calculations=0, proposed=np.int32(9)), "x")
    assert (record.candidates, record.calculations, record.proposed) == (3, 0, 9)


def test_tolerances_and_sources():
    info = {"hit_tolerance": {"a": 0.04}, "evaluated_by": {"a": "m:f", "b": "surrogate"}}
    record = read_record(dimer(**info), "x")
    assert record.hit_tolerance == {"a": 0.04}
    assert record.is_calculated("relaxed", "a")
    assert not record.is_calculated("decoded", "a")
    assert not record.is_calculated("relaxed", "b")


def test_values_that_are_no_numbers_are_missing():
    record = read_record(
        dimer(
            decoded={"a": float("nan"), "b": None, "c": np.float32(0.5)},
            fingerprint_loss=float("inf"),
        ),
        "structure 0",
    )
    assert record.decoded == {"a": None, "b": None, "c": 0.5}
    assert record.fingerprint_loss is None


@pytest.mark.parametrize(
    ("info", "message"),
    [
        ({"target": "0.75"}, "structure 7: target is '0.75', not a mapping"),
        ({"target": 0.75}, "structure 7: target is 0.75, not a mapping"),
        ({"target": {"e": "low"}}, "structure 7: target e is 'low'; a finite number or .low, high"),
        ({"target": {"e": None}}, "structure 7: target e is None; a finite number or .low, high"),
        ({"target": {"e": [0.8, 0.7]}}, r"structure 7: target e is \(0.8, 0.7\); low is above"),
        ({"target": {1: 0.5}}, "target is .*, not a mapping of property names"),
        ({"relaxed": [1.0]}, "structure 7: relaxed is .*, not a mapping"),
        ({"predicted": 1.0}, "structure 7: predicted is 1.0, not a mapping"),
        ({"decoded": {"e": [1.0]}}, "structure 7: decoded e is .*, not a number"),
        ({"fingerprint_loss": "small"}, "fingerprint_loss is 'small', not a number"),
        ({"seconds": {}}, "seconds is {}, not a number"),
        ({"candidates": 0}, "structure 7: candidates is 0; a whole number from 1 on is needed"),
        ({"candidates": 1.5}, "candidates is 1.5; a whole number"),
        ({"calculations": -1}, "calculations is -1; a whole number from 0 on is needed"),
        ({"proposed": float("inf")}, "proposed is inf; a whole number"),
        ({"calculations": True}, "calculations is True, not a number"),
        ({"hit_tolerance": {"a": 0.0}}, "hit_tolerance of a is 0.0; a number above 0 is needed"),
    ],
)
def test_malformed_records(info, message):
    with pytest.raises(ValueError, match=message):
        read_record(dimer(**info), "structure 7")


@pytest.mark.parametrize("shape", [(2,), (2, 2)])
def test_malformed_positions(shape):
    atoms = dimer()
    atoms.arrays["reconstructed_positions"] = np.zeros(shape)
    with pytest.raises(ValueError, match="reconstructed_positions are not three numbers per atom"):
        read_record(atoms, "structure 0")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n\n",
        b"\x89HDF\r\n\x1a\n\x00\x00\xff\xfe",
        b"hello world\n",
        b"0\n\n",
        b"2\nProperties=species:S:1:pos:R:3\nPt 0 0 0\n",
        b"1\nProperties=species:S:1:pos:R:3\nPt 0 0 zero\n",
        b"1\nProperties=species:S:1:pos:R:3\nQq 0 0 0\n",
        b"1\nProperties=species:S:1:pos:R:3\nX 0 0 0\n",
        b"1\nProperties=species:S:1:pos:R:3\nPt 0 nan 0\n",
        b"99999999999\nProperties=species:S:1:pos:R:3\nPt 0 0 0\n",
        b"1\nProperties=species:S:1:pos:R:3:forces:R:99999999\nPt 0 0 0\n",
        b'1\nProperties=species:S:1:pos:R:3 target="_JSON {broken"\nPt 0 0 0\n',
    ],
)
def test_files_that_cannot_be_read(tmp_path, content):
    path = tmp_path / "bad.extxyz"
    path.write_bytes(content)
    if content == b"0\n\n":  # a structure without atoms is read, and is not valid
        assert len(read_generated(path)[0]) == 0
        return
    with pytest.raises(ValueError, match="bad.extxyz"):
        read_generated(path)


def test_files_that_are_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="none.extxyz' does not exist"):
        read_generated(tmp_path / "none.extxyz")
    with pytest.raises(FileNotFoundError, match="is a folder"):
        read_generated(tmp_path)
