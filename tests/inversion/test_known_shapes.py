"""Known shapes, from their fingerprints back, by the real search with the preset `default`."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import shapes
import small
from ase import Atoms
from ase.cluster import Decahedron, Icosahedron, Octahedron

from tfgen.fingerprints.fingerprint import Fingerprint
from tfgen.inversion.reconstruct import reconstruct
from tfgen.structures.similarity.equality import deviations
from tfgen.structures.status import Status

SAME = 0.05  # Å, of every sorted distance
FORMULAS_OF_SOLIDS = ["Pt6", "Pt7", "Pt6"]


@functools.cache
def preset() -> Fingerprint:
    """One object for all tests: what XLA compiles for it, it compiles once."""
    return Fingerprint.preset("default")


@pytest.fixture(scope="module")
def found():
    """By the real search, compiled by XLA."""
    targets = preset().create(shapes.SOLIDS)
    return targets, reconstruct(preset(), targets, FORMULAS_OF_SOLIDS)


class TestDefaultPreset:
    def test_finds_solids_again(self, found):
        _, result = found
        assert [s.get_chemical_formula() for s in result.structures] == FORMULAS_OF_SOLIDS
        assert deviations(result.structures, shapes.SOLIDS).max() < SAME
        assert result.status == [Status.CONVERGED] * 3
        assert (result.loss <= 0.002).all()
        assert result.loss.dtype == np.float64
        assert (result.rounds >= 0).all()
        assert (result.seconds > 0).all()

    def test_centres_what_it_finds(self, found):
        for structure in found[1].structures:
            np.testing.assert_allclose(structure.positions.mean(axis=0), 0, atol=1e-5)
            assert not structure.pbc.any()

    def test_repeats_with_the_seed_only(self, found):
        targets, first = found
        again = reconstruct(preset(), targets, FORMULAS_OF_SOLIDS)
        other = reconstruct(preset(), targets, FORMULAS_OF_SOLIDS, seed=1)
        for a, b, c in zip(first.structures, again.structures, other.structures, strict=True):
            np.testing.assert_array_equal(a.positions, b.positions)
            assert np.abs(a.positions - c.positions).max() > 0.1  # turned another way
        np.testing.assert_array_equal(first.loss, again.loss)
        assert first.status == again.status
        assert deviations(other.structures, shapes.SOLIDS).max() < SAME

    def test_finds_an_alloy_again(self):
        """Copper atoms across, not side by side."""
        fingerprint = Fingerprint.preset("default", ["Cu", "Au"])
        alloy = shapes.octahedron()
        distances = alloy.get_distances(0, range(6))
        alloy.numbers[:] = 79
        alloy.numbers[[0, int(np.argmax(distances))]] = 29
        result = reconstruct(
            fingerprint, fingerprint.create([alloy]), "Au4Cu2", settings=small.UNCOMPILED
        )
        assert result.status == [Status.CONVERGED]
        assert deviations(result.structures, [alloy])[0] < SAME


class TestKnownShapes:
    """By the real search; a structure and its mirror image count as one."""

    def find(self, wanted: list[Atoms], **options) -> None:
        formulas = [atoms.get_chemical_formula() for atoms in wanted]
        result = reconstruct(preset(), preset().create(wanted), formulas, **options)
        assert result.status == [Status.CONVERGED] * len(wanted)
        assert deviations(result.structures, wanted).max() < SAME

    def test_six_and_seven_atoms(self):
        """A ring with nothing in it, one filled, and a helix of either hand."""
        mirrored = shapes.helix()
        mirrored.positions[:, 2] *= -1
        assert deviations([shapes.helix()], [mirrored])[0] < 1e-9
        ring = shapes.planar_hexagon()[:6]
        self.find([ring, shapes.planar_hexagon(), shapes.helix(), mirrored])

    def test_a_chain(self):
        self.find([shapes.chain()], settings=small.UNCOMPILED)

    @pytest.mark.slow
    def test_thirteen_atoms(self):
        solids = [Icosahedron("Pt", 2), Octahedron("Pt", 3, 1), Decahedron("Pt", 2, 2, 0)]
        self.find([Atoms(s.numbers, positions=s.positions) for s in solids])
