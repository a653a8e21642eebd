"""Coarse inversion, and the step to a target energy."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import small

from tfgen.generation.coarse_inversion import (
    centred_structures,
    invert_coarsely,
    move_to_energies,
)
from tfgen.generation.settings import ProposalSettings
from tfgen.models.neural_potential import EnergyNetwork, NeuralPotential, select_broad

PT6 = np.full(6, 78)
SETTINGS = ProposalSettings(jit_compile=False, batch_size=4)


@pytest.fixture(scope="module")
def targets():
    return small.fingerprint().create([s for s in small.structures() if len(s) == 6][:6])


@pytest.fixture(scope="module")
def found(targets):
    done = []
    scale = small.model().scale
    positions = invert_coarsely(
        small.fingerprint(), targets, PT6, scale, seed=0, settings=SETTINGS, advance=done.append
    )
    assert done == [4, 2]  # the second batch is not full
    return positions


def test_large_structures_come_in_small_batches(targets):
    done: list[int] = []
    settings = replace(SETTINGS, triples_per_batch=2 * SETTINGS.initial_structures * len(PT6) ** 3)
    invert_coarsely(
        small.fingerprint(), targets, PT6, small.model().scale,
        seed=0, settings=settings, advance=done.append,
    )  # fmt: skip
    assert done == [2, 2, 2]
    assert ProposalSettings().inverted_at_once(13) == 16
    assert ProposalSettings().inverted_at_once(200) == 1


def test_comes_near_the_targets(targets, found):
    scale = small.model().scale
    values = small.fingerprint().create(centred_structures(PT6, found))
    near = np.abs(values - targets) / scale
    other = np.abs(np.roll(targets, 1, axis=0) - targets) / scale
    assert near.mean() < 0.3 * other.mean()


def test_repeats_with_the_seed_only(targets, found):
    arguments = (small.fingerprint(), targets, PT6, small.model().scale)
    again = invert_coarsely(*arguments, seed=0, settings=SETTINGS)
    np.testing.assert_array_equal(again, found)
    other = invert_coarsely(*arguments, seed=1, settings=SETTINGS)
    assert (np.abs(other - found).max(axis=(1, 2)) > 1e-3).all()


def test_more_steps_come_nearer(targets, found):
    scale = small.model().scale
    settings = ProposalSettings(
        jit_compile=False, batch_size=4, descent_steps=2, initial_structures=1
    )
    rough = invert_coarsely(
        small.fingerprint(), targets, PT6, scale, seed=0, settings=settings
    )  # fmt: skip
    loss = [
        np.abs(small.fingerprint().create(centred_structures(PT6, x)) - targets).mean()
        for x in (rough, found)
    ]
    assert loss[1] < 0.7 * loss[0]


def test_structures_are_centred(found):
    for atoms in centred_structures(PT6, found + 3.0):
        np.testing.assert_allclose(atoms.positions.mean(axis=0), 0.0, atol=1e-6)


class TestMovingToEnergies:
    @pytest.fixture
    def potential(self):
        """A network as it is made: smooth, and so low in slope that it shows bounds of a step."""
        descriptor = small.fingerprint().descriptor
        nnp = EnergyNetwork(select_broad(descriptor).size, 1, seed=0)
        nnp.build()
        return NeuralPotential(descriptor, nnp)

    def energies(self, potential, positions):
        return potential.compute(centred_structures(PT6, positions))["energy"] / 6

    def test_of_all_but_those_without_a_target(self, potential, found):
        before = self.energies(potential, found)
        wanted = before + np.array([0.05, -0.05, 0.02, -0.02, 0.01, np.nan])
        moved = move_to_energies(potential, found, PT6, wanted, SETTINGS)
        after = self.energies(potential, moved)
        np.testing.assert_allclose(after[:5], wanted[:5], atol=1e-4)
        np.testing.assert_array_equal(moved[5], found[5])

    def test_no_atom_goes_too_far_in_a_step(self, potential, found):
        settings = ProposalSettings(
            jit_compile=False, batch_size=4, energy_steps=3, energy_step_length=0.01
        )
        wanted = self.energies(potential, found) + 100.0
        moved = move_to_energies(potential, found, PT6, wanted, settings)
        longest = np.linalg.norm(moved - found, axis=2).max(axis=1)
        assert (longest <= 0.03 + 1e-5).all()
        assert (longest > 0.02).all()
