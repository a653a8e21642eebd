"""The neural-network potential: its formula and its forces."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule

from tfgen.descriptors.acsf import ACSF
from tfgen.models.neural_potential import EnergyNetwork, NeuralPotential
from tfgen.potentials.base import Potential

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
        net = filled(3, 2, step=0.05, slope_weight=0.3)
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
            slope = (e[1] - e[0]) / net.step - y["slope"][i]
            expected.append((off**2 + net.slope_weight * slope**2) / net.energy_scale**2)
        loss = net.compute_loss(x, y, out)
        assert float(loss) == pytest.approx(float(np.mean(expected)), rel=1e-3)

    def test_config_makes_the_same(self):
        net = EnergyNetwork(4, 2, hidden=(3,), step=0.03, slope_weight=0.2, seed=7)
        again = EnergyNetwork.from_config(net.get_config())
        for name in ("features", "elements", "hidden", "step", "slope_weight", "seed"):
            assert getattr(again, name) == getattr(net, name)
        net.build()
        again.build()
        for a, b in zip(net.weights, again.weights, strict=True):
            np.testing.assert_array_equal(a, b)

    @pytest.mark.parametrize("arguments", [(0, 1), (1, 0), (1, 1, (0,))])
    def test_sizes_of_nothing_are_refused(self, arguments):
        with pytest.raises(ValueError, match="all must be >= 1"):
            EnergyNetwork(*arguments)

    @pytest.mark.parametrize(("step", "weight"), [(0.0, 0.1), (-0.1, 0.1), (0.02, -1.0)])
    def test_a_loss_without_meaning_is_refused(self, step, weight):
        with pytest.raises(ValueError, match="step must be > 0, slope_weight >= 0"):
            EnergyNetwork(1, 1, step=step, slope_weight=weight)
