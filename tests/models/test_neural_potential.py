"""The neural-network potential: its formula, its forces, what it learns, how it is saved."""

from __future__ import annotations

import numpy as np
import pytest
import small
from ase import Atoms
from ase.build import molecule

from tfgen.descriptors.acsf import ACSF
from tfgen.models import neural_potential as module
from tfgen.models.neural_potential import EnergyNetwork, NeuralPotential, fit_nnp, rattled
from tfgen.potentials.base import Potential
from tfgen.potentials.emt import EMT

ALLOY = ACSF(["Au", "Cu"], 6.0, g2_params=[[1.0, 2.5], [1.0, 3.5]], g1=False)


@pytest.fixture(scope="module")
def alloys():
    rng = np.random.default_rng(0)
    result = []
    for gold in (1, 2, 3):
        for _ in range(4):
            grid = np.array(np.meshgrid([0, 1], [0, 1], [0])).reshape(3, -1).T * 2.7
            symbols = ["Au"] * gold + ["Cu"] * (4 - gold)
            result.append(Atoms(symbols, positions=grid + rng.normal(0, 0.1, [4, 3])))
    return result


def filled(features: int, elements: int, **options) -> EnergyNetwork:
    """An NNP with weights as if it had been trained."""
    rng = np.random.default_rng(1)
    result = EnergyNetwork(features, elements, **options)
    result.build()
    result.set_weights([rng.uniform(0.2, 1.0, w.shape) for w in result.get_weights()])
    return result


def by_hand(nnp: EnergyNetwork, features: np.ndarray, elements: np.ndarray) -> float:
    """The formula of the docstring, an atom at a time: eV for the whole structure."""
    total = 0.0
    for d, z in zip(features, elements, strict=True):
        y = (d - nnp.feature_mean) / nnp.feature_scale
        y = np.concatenate([y, z])
        for k, layer in enumerate(nnp.stack):
            y = y @ np.asarray(layer.kernel, float) + np.asarray(layer.bias, float)
            if k + 1 < len(nnp.stack):
                y = y / (1.0 + np.exp(-y))
        total += float(z @ np.asarray(nnp.baseline, float))
        total += float(nnp.energy_scale) * float(y[0])
    return total


class TestPotential:
    def test_is_one(self):
        assert isinstance(NeuralPotential(ALLOY, filled(ALLOY.size, 2)), Potential)

    def test_energies_of_any_mix_of_sizes(self, alloys):
        net = filled(ALLOY.size, 2, hidden=(5, 4))
        structures = [*alloys[:3], Atoms("CuAu", positions=[[0, 0, 0], [0, 0, 2.6]])]
        found = NeuralPotential(ALLOY, net).compute(structures)["energy"]
        for energy, atoms in zip(found, structures, strict=True):
            elements = np.array([[s == "Au", s == "Cu"] for s in atoms.symbols], float)
            # The descriptor lists its species by atomic number, whatever their order.
            order = [["Au", "Cu"].index(s) for s in ALLOY.species]
            expected = by_hand(net, ALLOY.create(atoms), elements[:, order])
            assert energy == pytest.approx(expected, rel=1e-6)

    def test_forces_are_the_slopes(self, alloys):
        potential = NeuralPotential(ALLOY, filled(ALLOY.size, 2))
        forces = potential.compute(alloys[:1])["forces"][0]
        for atom, axis in ((0, 0), (3, 2)):
            ends = []
            for step in (1e-4, -1e-4):
                moved = alloys[0].copy()
                moved.positions[atom, axis] += step
                ends.append(potential.compute([moved])["energy"][0])
            assert forces[atom, axis] == pytest.approx((ends[1] - ends[0]) / 2e-4, rel=1e-5)

    def test_refuses_other_elements(self):
        with pytest.raises(ValueError, match="holds H, O; the descriptor's species are"):
            NeuralPotential(ALLOY, filled(ALLOY.size, 2)).check([molecule("H2O")])


class TestNetwork:
    def test_loss(self):
        net = filled(3, 2)
        rng = np.random.default_rng(2)
        elements = np.eye(2, dtype=np.float32)[[[0, 1, 1], [1, 0, 0]]]
        elements[1, 2] = 0.0  # padding
        x = {"features": rng.random([2, 2, 3, 3], np.float32), "elements": elements}
        y = {"energy": np.float32([0.3, 0.7]), "slope": np.float32([1.0, -2.0])}
        out = net(x)
        expected = []
        for i, count in enumerate((3, 2)):
            e = [by_hand(net, x["features"][i, k, :count], elements[i, :count]) for k in (0, 1)]
            np.testing.assert_allclose(np.array(e) / count, out[i], rtol=1e-5)
            off = np.mean(e) / count - y["energy"][i]
            slope = (e[1] - e[0]) / module.STEP - y["slope"][i]
            expected.append((off**2 + module.SLOPE_WEIGHT * slope**2) / net.energy_scale**2)
        loss = net.compute_loss(x, y, out)
        assert float(loss) == pytest.approx(float(np.mean(expected)), rel=1e-3)

    def test_config_makes_the_same(self):
        net = EnergyNetwork(4, 2, hidden=(3,), seed=7)
        again = EnergyNetwork.from_config(net.get_config())
        net.build()
        again.build()
        for a, b in zip(net.weights, again.weights, strict=True):
            np.testing.assert_array_equal(a, b)

    @pytest.mark.parametrize("arguments", [(0, 1), (1, 0), (1, 1, (0,))])
    def test_sizes_of_nothing_are_refused(self, arguments):
        with pytest.raises(ValueError, match="all must be >= 1"):
            EnergyNetwork(*arguments)


def test_rattled_copies_differ_by_all_amounts(alloys):
    rng = np.random.default_rng(0)
    copies = rattled(alloys[:2], 300, rng)
    assert len(copies) == 600
    moved = np.array([c.positions - alloys[i // 300].positions for i, c in enumerate(copies)])
    spread = np.sqrt((moved**2).mean(axis=(1, 2)))
    assert 0.005 < spread.min() < 0.05
    assert 0.15 < spread.max() < 0.4
    assert np.abs(moved.mean()) < 0.005


def from_emt(structures):
    found = EMT().compute(structures)
    return found["energy"], found["forces"]


@pytest.fixture(scope="module")
def learned():
    return fit_nnp(small.fingerprint().descriptor, small.structures(), from_emt, seed=1, epochs=25)


class TestFit:
    def test_predicts_energies(self, learned):
        """Of structures on the way to their minima, far better than their mean does."""
        nnp, record = learned
        held = rattled(small.structures(), 1, np.random.default_rng(8))
        potential = NeuralPotential(small.fingerprint().descriptor, nnp)
        sizes = np.array([len(s) for s in held])
        truth = from_emt(held)[0] / sizes
        sane = truth < 3.0
        found = potential.compute(held)["energy"] / sizes
        assert np.abs(found - truth)[sane].mean() < 0.35 * truth[sane].std()
        assert record["energy_error"] < 0.35 * truth[sane].std()
        assert record["single_points"] == 3000
        assert record["usable"] <= 3000
        assert 0.0 <= record["minima"] <= 1.0

    def test_does_without_narrow_functions(self, monkeypatch):
        monkeypatch.setattr(module, "LEAST", 1)
        functions = {"g2_params": [[1.0, 2.7], [8.0, 2.7]], "g1": False}
        narrow = ACSF(["Pt"], 7.0, **functions)
        nnp, _ = fit_nnp(narrow, small.structures(), from_emt, epochs=1)
        assert nnp.features == 1
        assert NeuralPotential(narrow, nnp).descriptor.g2_params.tolist() == [[1.0, 2.7]]

    def test_repeats_with_the_seed(self, learned):
        again, record = fit_nnp(
            small.fingerprint().descriptor, small.structures(), from_emt, seed=1, epochs=25
        )
        assert record == learned[1]
        for a, b in zip(again.weights, learned[0].weights, strict=True):
            np.testing.assert_array_equal(a, b)

    def test_does_without_calculations_that_failed(self, monkeypatch):
        monkeypatch.setattr(module, "LEAST", 1)

        def evaluate(structures):
            energy, forces = from_emt(structures)
            energy[3] = np.nan
            return energy, forces

        _, record = fit_nnp(small.fingerprint().descriptor, small.structures(), evaluate, epochs=1)
        assert record["single_points"] == 240
        assert record["usable"] < 240
        with pytest.raises(ValueError, match="only 0 of 240 calculations are usable"):
            fit_nnp(
                small.fingerprint().descriptor,
                small.structures(),
                lambda s: (np.full(len(s), np.nan), from_emt(s)[1]),
                epochs=1,
            )
