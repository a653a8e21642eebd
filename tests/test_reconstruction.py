"""From fingerprints to structures: what is found, what is said about it, what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import small
from ase import Atoms
from ase.cluster import Octahedron

from tfgen import reconstruction
from tfgen.fingerprint import Fingerprint
from tfgen.reconstruction import CONVERGED, TOLERANCE, reconstruct, status_of
from tfgen.similarity import deviations

SAME = 0.05  # Å, of every sorted distance


def octahedron() -> Atoms:
    return Atoms("Pt6", positions=Octahedron("Pt", 2).positions)


def tetrahedron() -> Atoms:
    corners = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]])
    return Atoms("Pt4", positions=2.7 / np.sqrt(8) * corners)


def pentagonal_bipyramid(edge: float = 2.7) -> Atoms:
    angle = 2 * np.pi * np.arange(5) / 5
    radius = edge / (2 * np.sin(np.pi / 5))
    height = np.sqrt(edge**2 - radius**2)
    ring = np.c_[radius * np.cos(angle), radius * np.sin(angle), 0 * angle]
    return Atoms("Pt7", positions=[*ring, [0, 0, height], [0, 0, -height]])


SOLIDS = (octahedron(), tetrahedron(), pentagonal_bipyramid())


@pytest.fixture(scope="module")
def found():
    """By the real search, compiled by XLA."""
    fingerprint = Fingerprint.preset("default")
    targets = fingerprint.create(SOLIDS)
    return fingerprint, targets, reconstruct(fingerprint, targets, ["Pt6", "Pt4", "Pt7"])


class TestDefaultPreset:
    def test_finds_solids_again(self, found):
        _, _, result = found
        assert [s.get_chemical_formula() for s in result.structures] == ["Pt6", "Pt4", "Pt7"]
        assert deviations(result.structures, SOLIDS).max() < SAME
        assert result.status == [CONVERGED] * 3
        assert (result.loss <= TOLERANCE).all()
        assert result.loss.dtype == np.float64
        assert (result.rounds >= 0).all()
        assert (result.seconds > 0).all()

    def test_centres_what_it_finds(self, found):
        for structure in found[2].structures:
            np.testing.assert_allclose(structure.positions.mean(axis=0), 0, atol=1e-5)
            assert not structure.pbc.any()

    def test_repeats_with_the_seed_only(self, found):
        fingerprint, targets, first = found
        again = reconstruct(fingerprint, targets, ["Pt6", "Pt4", "Pt7"])
        other = reconstruct(fingerprint, targets, ["Pt6", "Pt4", "Pt7"], seed=1)
        for a, b, c in zip(first.structures, again.structures, other.structures, strict=True):
            np.testing.assert_array_equal(a.positions, b.positions)
            assert np.abs(a.positions - c.positions).max() > 0.1  # turned another way
        np.testing.assert_array_equal(first.loss, again.loss)
        assert first.status == again.status
        assert deviations(other.structures, SOLIDS).max() < SAME

    def test_finds_an_alloy_again(self):
        """Copper atoms across, not side by side."""
        fingerprint = Fingerprint.preset("default", ["Cu", "Au"])
        alloy = octahedron()
        distances = alloy.get_distances(0, range(6))
        alloy.numbers[:] = 79
        alloy.numbers[[0, int(np.argmax(distances))]] = 29
        result = reconstruct(fingerprint, fingerprint.create([alloy]), "Au4Cu2")
        assert result.status == [CONVERGED]
        assert deviations(result.structures, [alloy])[0] < SAME


@pytest.fixture(scope="module")
def quick():
    with small.quick_search():
        yield


@pytest.fixture
def targets():
    """Fingerprints of two Pt5 and two Pt6 clusters, in turns."""
    return small.fingerprint().create([small.structures()[i] for i in (0, 40, 1, 41)])


FORMULAS = ["Pt5", "Pt6", "Pt5", "Pt6"]


@pytest.mark.usefixtures("quick")
class TestResult:
    def test_keeps_the_order_of_the_targets(self, targets):
        result = reconstruct(small.fingerprint(), targets, FORMULAS, max_rounds=2)
        assert [len(s) for s in result.structures] == [5, 6, 5, 6]
        for values in (result.loss, result.status, result.rounds, result.seconds):
            assert len(values) == 4
        swapped = [1, 0, 3, 2]
        again = reconstruct(
            small.fingerprint(), targets[swapped], ["Pt6", "Pt5", "Pt6", "Pt5"], max_rounds=2
        )
        np.testing.assert_array_equal(again.loss[swapped], result.loss)
        for a, b in zip(again.structures, [result.structures[i] for i in swapped], strict=True):
            np.testing.assert_array_equal(a.positions, b.positions)

    def test_the_seed_draws_the_starts(self, targets):
        """And not only the packings that give the scale."""
        losses = [
            reconstruct(
                small.fingerprint(), targets, FORMULAS, max_rounds=0, scale=np.ones(12), seed=seed
            ).loss
            for seed in (0, 0, 1)
        ]
        np.testing.assert_array_equal(losses[0], losses[1])
        assert (losses[0] != losses[2]).all()

    def test_sizes_do_not_disturb_one_another(self, targets):
        both = reconstruct(small.fingerprint(), targets, FORMULAS, max_rounds=0)
        alone = reconstruct(small.fingerprint(), targets[[0, 2]], "Pt5", max_rounds=0)
        np.testing.assert_array_equal(both.loss[[0, 2]], alone.loss)

    def test_loss_is_that_of_the_structures_in_double_precision(self, targets):
        scale = np.linspace(0.5, 2.0, targets.shape[1])
        result = reconstruct(small.fingerprint(), targets, FORMULAS, max_rounds=0, scale=scale)
        error = np.abs(small.fingerprint().create(result.structures) - targets)
        np.testing.assert_allclose(result.loss, (error / scale).mean(axis=1), rtol=1e-12)

    def test_rounds_make_it_better_and_are_bounded(self, targets):
        losses = []
        for max_rounds in (0, 5):
            result = reconstruct(
                small.fingerprint(), targets, FORMULAS, max_rounds=max_rounds, tolerance=1e-9
            )
            np.testing.assert_array_equal(result.rounds, max_rounds)
            losses.append(result.loss)
        assert (losses[1] <= losses[0] * (1 + 1e-4)).all()
        assert losses[1].mean() < losses[0].mean()

    def test_targets_that_are_reached_get_no_more_rounds(self, targets):
        result = reconstruct(small.fingerprint(), targets, FORMULAS, tolerance=1e3)
        np.testing.assert_array_equal(result.rounds, 0)
        reached = reconstruct(small.fingerprint(), targets, FORMULAS, max_rounds=0).loss
        between = np.sort(reached)[1:3].mean() / 0.9
        result = reconstruct(
            small.fingerprint(), targets, FORMULAS, max_rounds=1, tolerance=between
        )
        np.testing.assert_array_equal(result.rounds, np.where(reached < between * 0.9, 0, 1))

    def test_more_targets_than_fit_in_a_batch(self, targets, monkeypatch):
        monkeypatch.setattr(reconstruction, "TARGETS_PER_BATCH", 2)
        targets = small.fingerprint().create(small.structures()[:5])
        result = reconstruct(small.fingerprint(), targets, "Pt5", max_rounds=2, tolerance=1e-9)
        np.testing.assert_array_equal(result.rounds, 2)
        error = np.abs(small.fingerprint().create(result.structures) - targets).mean(axis=1)
        own = np.array([
            np.abs(small.fingerprint().create([s]) - targets).mean(axis=1).argmin()
            for s in result.structures
        ])  # fmt: skip
        assert (own == np.arange(5)).mean() >= 0.8  # each has its own target, not a neighbour's
        assert np.isfinite(error).all()

    def test_targets_out_of_reach_are_said_to_be(self, targets):
        result = reconstruct(small.fingerprint(), 10 * targets, FORMULAS, max_rounds=1)
        assert result.status == ["not converged: loss above tolerance"] * 4
        assert np.isfinite(result.loss).all()
        assert all(np.isfinite(s.positions).all() for s in result.structures)

    def test_shows_progress_only_if_asked(self, targets, capfd):
        reconstruct(small.fingerprint(), targets, FORMULAS, max_rounds=2, tolerance=0.5)
        assert capfd.readouterr().err == ""
        reconstruct(
            small.fingerprint(), targets, FORMULAS, max_rounds=2, tolerance=0.5, progress=True
        )
        assert "inverting: 100%" in capfd.readouterr().err

    def test_a_descriptor_of_ones_own(self, monkeypatch):
        """Twenty lines of a user's are all it takes."""
        monkeypatch.setitem(small.QUICK, "STARTS", 12)
        monkeypatch.setitem(small.QUICK, "STEPS", 150)
        fingerprint = Fingerprint(small.PairHistogram(["Pt"], 5.0, 1.0), ("mean", "std"))
        target = fingerprint.create([tetrahedron()])
        result = reconstruct(fingerprint, target, "Pt4", max_rounds=2, tolerance=0.01)
        assert result.status == [CONVERGED]
        assert deviations(result.structures, [tetrahedron()])[0] < 0.1

    def test_two_atoms(self):
        pair = Atoms("Pt2", positions=[[0, 0, 0], [0, 0, 2.5]])
        target = small.fingerprint().create([pair])
        result = reconstruct(small.fingerprint(), target, "Pt2", max_rounds=1, tolerance=0.05)
        assert result.structures[0].get_distance(0, 1) == pytest.approx(2.5, abs=0.1)


class TestStatus:
    def test_converged(self):
        assert status_of(octahedron(), 0.004, 0.004) == "converged"

    def test_not_converged(self):
        assert status_of(octahedron(), 0.0041, 0.004) == "not converged: loss above tolerance"

    @pytest.mark.parametrize("loss", [np.nan, np.inf])
    def test_no_fingerprint(self, loss):
        assert status_of(octahedron(), loss, 0.004) == "no finite fingerprint"

    def test_overlap(self):
        """Nearer than 0.7 times the sum of the covalent radii, 2 x 1.36 Å."""
        near, apart = (
            Atoms("Pt2", positions=[[0, 0, 0], [0, 0, x * 2 * 1.36 * 0.7]]) for x in (0.99, 1.01)
        )
        assert status_of(near, 0.0, 0.004) == "overlapping atoms"
        assert status_of(apart, 0.0, 0.004) == "converged"


class TestBadInput:
    @pytest.fixture(autouse=True)
    def no_work(self, monkeypatch):
        monkeypatch.setattr(
            reconstruction, "_search", lambda *_: pytest.fail("the search has begun")
        )

    @pytest.mark.parametrize("shape", [(12,), (2, 11), (0, 12), (1, 2, 12), ()], ids=str)
    def test_targets_of_another_shape(self, shape):
        with pytest.raises(ValueError, match=r"targets has shape .*; \[n, 12\] is needed"):
            reconstruct(small.fingerprint(), np.zeros(shape), "Pt5")

    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_targets_that_are_not_finite(self, value):
        targets = np.zeros([3, 12])
        targets[1, 4] = value
        with pytest.raises(ValueError, match=r"targets\[1\] holds values that are not finite"):
            reconstruct(small.fingerprint(), targets, "Pt5")

    @pytest.mark.parametrize(
        ("formula", "message"),
        [
            ("nonsense", "formula 'nonsense' makes no sense"),
            ("", "formula '' makes no sense"),
            ("Pt0", "formula 'Pt0' makes no sense"),
            ("Pt", "formula 'Pt' has a single atom"),
            ("Pt5Au", "formula 'Pt5Au' holds Au; the fingerprint's species are Pt"),
            (["Pt5"], "1 formulas were given for 2 targets"),
            (["Pt5", "Pt"], "formula 'Pt' has a single atom"),
        ],
    )
    def test_formulas(self, formula, message):
        with pytest.raises(ValueError, match=message):
            reconstruct(small.fingerprint(), np.zeros([2, 12]), formula)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"max_rounds": -1}, "max_rounds and tolerance are -1"),
            ({"tolerance": 0.0}, "max_rounds and tolerance are 12, 0.0"),
            ({"tolerance": np.nan}, "max_rounds and tolerance are 12, nan"),
            ({"scale": np.ones(11)}, "scale must be 12 finite positive numbers"),
            ({"scale": np.zeros(12)}, "scale must be 12 finite positive numbers"),
            ({"scale": np.full(12, np.nan)}, "scale must be 12 finite positive numbers"),
            ({"scale": [1.0] * 11 + [-1.0]}, "scale must be 12 finite positive numbers"),
            ({"scale": np.full(12, np.inf)}, "scale must be 12 finite positive numbers"),
        ],
    )
    def test_options(self, options, message):
        with pytest.raises(ValueError, match=message):
            reconstruct(small.fingerprint(), np.zeros([1, 12]), "Pt5", **options)
