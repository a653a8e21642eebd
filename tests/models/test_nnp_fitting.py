"""Learning the neural-network potential: how exact it is, and what it is learned from."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import small

from tfgen.descriptors.acsf import ACSF
from tfgen.models.neural_potential import NeuralPotential
from tfgen.models.nnp_fitting import _hold_out, fit_nnp
from tfgen.models.settings import NNPSettings
from tfgen.models.single_points import FewUsableError, rattle
from tfgen.potentials.emt import EMT

# One epoch of the fewest calculations there can be: the 60 structures and three copies of each.
BRIEF = NNPSettings(min_calculations=1, epochs=1)


def from_emt(structures):
    found = EMT().compute(structures)
    return found["energy"], found["forces"]


class Calls:
    """EMT, which notes what it was asked to calculate."""

    def __init__(self):
        self.structures = []

    def __call__(self, structures):
        self.structures += structures
        return from_emt(structures)


def fit(calculate=from_emt, descriptor=None, *, structures=None, settings=BRIEF, seed=1):
    return fit_nnp(
        descriptor or small.fingerprint().descriptor,
        structures or small.structures(),
        calculate,
        seed=seed,
        settings=settings,
    )


@pytest.fixture
def eagerly(monkeypatch):
    """Spares fits of a few steps the tracing."""
    small.train_eagerly(monkeypatch)


@pytest.fixture(scope="module")
def learned():
    return fit(settings=NNPSettings(epochs=25))


class TestFit:
    def test_predicts_energies(self, learned):
        """Of structures on the way to their minima, far better than their mean does."""
        network, record = learned
        held = rattle(small.structures(), 1, np.random.default_rng(8))
        potential = NeuralPotential(small.fingerprint().descriptor, network)
        sizes = np.array([len(s) for s in held])
        truth = from_emt(held)[0] / sizes
        sane = truth < 3.0
        found = potential.compute(held)["energy"] / sizes
        assert np.abs(found - truth)[sane].mean() < 0.35 * truth[sane].std()
        assert record.energy_error < 0.35 * truth[sane].std()
        assert record.single_points == 3000
        assert record.usable <= 3000
        assert json.loads(json.dumps(record.to_json())) == dataclasses.asdict(record)

    @pytest.mark.usefixtures("eagerly")
    def test_repeats_with_the_seed_only(self):
        first, again, other = fit(), fit(), fit(seed=2)
        assert first[1] == again[1] != other[1]
        for a, b, c in zip(first[0].weights, again[0].weights, other[0].weights, strict=True):
            np.testing.assert_array_equal(a, b)
            assert np.abs(a - c).max() > 0 or a.shape in ((1,), ())

    @pytest.mark.usefixtures("eagerly")
    def test_does_without_narrow_functions(self):
        functions = {"g2_params": [[1.0, 2.7], [8.0, 2.7]], "g1": False}
        narrow = ACSF(["Pt"], 7.0, **functions)
        network, _ = fit(descriptor=narrow)
        assert network.features == 1
        assert NeuralPotential(narrow, network).descriptor.g2_params.tolist() == [[1.0, 2.7]]

    @pytest.mark.usefixtures("eagerly")
    def test_does_without_calculations_that_failed(self):
        """Energies and forces that are none, or that float32 cannot square."""

        def fail_at_times(structures):
            energy, forces = from_emt(structures)
            energy[[3, 13]] = np.nan, np.inf
            for i, value in ((7, np.nan), (9, -np.inf), (11, np.inf), (170, np.nan), (21, 1e30)):
                forces[i][1, 2] = value
            return energy, forces

        settings = dataclasses.replace(BRIEF, max_excess_energy=1e6)
        network, record = fit(fail_at_times, settings=settings)
        assert record.single_points == 240
        assert record.failed == 7
        assert record.usable == 240 - 7 - record.too_high - record.too_low
        assert record.usable > 200
        assert np.isfinite([record.energy_error, record.force_error]).all()
        assert all(np.isfinite(w).all() for w in network.get_weights())
        with pytest.raises(FewUsableError, match="only 0 single-point calculations, of 0 training"):
            fit(lambda s: (np.full(len(s), np.nan), from_emt(s)[1]))

    @pytest.mark.usefixtures("eagerly")
    def test_failed_calculations_say_nothing_of_minima(self):
        """All forces that are known are small."""

        def still(structures):
            energy, forces = from_emt(structures)
            return energy, [
                np.full_like(f, np.nan if i % 2 else 0.01) for i, f in enumerate(forces)
            ]

        assert fit(still)[1].minima == 1.0

    def test_holds_out_structures_with_all_of_their_copies(self):
        family = np.repeat(np.arange(30), 4)
        held = _hold_out(family, 0.1, np.random.default_rng(0))
        assert held.sum() == 3 * 4
        assert len(np.unique(family[held])) == 3
        for share, count in ((0.0, 1), (0.9, 27)):
            held = _hold_out(family, share, np.random.default_rng(0))
            assert held.sum() == count * 4
        with pytest.raises(FewUsableError, match="of 1 training structures and their copies"):
            _hold_out(np.zeros(50, int), 0.1, np.random.default_rng(0))

    @pytest.mark.usefixtures("eagerly")
    def test_measures_what_it_is_to_be_compared_with(self):
        _, record = fit()
        per_atom = from_emt(small.structures())[0] / [len(s) for s in small.structures()]
        halves = [per_atom[:30], per_atom[30:]]
        wanted = np.mean([np.abs(half - np.median(half)).mean() for half in halves])
        # A few structures may be left out.
        assert record.energy_spread == pytest.approx(wanted, rel=0.1)
        assert record.tells_apart(1.001 * record.energy_error / record.energy_spread)
        assert not record.tells_apart(0.999 * record.energy_error / record.energy_spread)

    @pytest.mark.usefixtures("eagerly")
    def test_that_diverges_is_an_error(self):
        with pytest.raises(ArithmeticError, match="neural-network potential diverged"):
            fit(settings=dataclasses.replace(BRIEF, epochs=3, learning_rate=1e30))


@pytest.mark.usefixtures("eagerly")
class TestSettings:
    """Each does what its name says."""

    def test_numbers_of_calculations(self):
        few = small.structures()[:10]
        for settings, count in (
            (NNPSettings(copies=5, min_calculations=1, epochs=1), 60),
            (NNPSettings(copies=2, min_calculations=95, epochs=1), 100),
            (NNPSettings(copies=4, min_calculations=1, max_calculations=25, epochs=1), 25),
        ):
            calls = Calls()
            _, record = fit(calls, structures=few, settings=settings)
            assert record.single_points == len(calls.structures) == count

    def test_excess_energy(self):
        limit = 0.05
        calls = Calls()
        settings = dataclasses.replace(BRIEF, max_excess_energy=limit)
        _, record = fit(calls, settings=settings)
        energy = from_emt(calls.structures)[0] / [len(s) for s in calls.structures]
        excess = energy - np.concatenate([energy[:60], np.repeat(energy[:60], 3)])
        assert record.usable == (excess < limit).sum() < 240

    def test_minima(self):
        forces = from_emt(small.structures())[1]
        largest = np.sort([np.linalg.norm(f, axis=1).max() for f in forces])
        limit = float(largest[19:21].mean())
        settings = dataclasses.replace(BRIEF, minimum_fmax=limit)
        assert fit(settings=settings)[1].minima == pytest.approx(20 / 60)

    def test_network(self):
        settings = dataclasses.replace(BRIEF, hidden=(7, 5), step=0.03, slope_weight=0.2)
        network, _ = fit(settings=settings)
        assert [layer.units for layer in network.stack] == [7, 5, 1]
        assert (network.step, network.slope_weight) == (0.03, 0.2)

    def test_others_change_what_comes_out(self):
        few = small.structures()[:10]
        plain = NNPSettings(min_calculations=1, epochs=1)
        errors = [
            fit(structures=few, settings=dataclasses.replace(plain, **changes))[1].energy_error
            for changes in (
                {},
                {"epochs": 2},
                {"batch_size": 10},
                {"learning_rate": 1e-3},
                {"held_out": 0.5},
                {"amplitudes": (0.05, 0.06)},
            )
        ]
        assert len(set(errors)) == len(errors)
