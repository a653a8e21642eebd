"""Neighbourhoods against ASE, and roots and cutoffs against calculus."""

from __future__ import annotations

import numpy as np
import pytest
import reference
import tensorflow as tf
from ase import Atoms

from tfgen.structures.batch import StructureBatch
from tfgen.structures.neighbours.displacements import cosine_cutoff, neighbourhood, safe_sqrt


def some(pbc: list[bool]) -> list[Atoms]:
    rng = np.random.default_rng(0)
    cell = np.eye(3) * 2.8 + rng.uniform(-0.5, 0.5, size=(3, 3))
    return [
        Atoms(symbols, rng.uniform(0, 3, size=(len(symbols), 3)), cell=cell, pbc=pbc)
        for symbols in (["Cu", "Au", "Cu", "Au"], ["Au"], ["Au", "Cu"])
    ]


@pytest.mark.parametrize("pbc", [[False] * 3, [True] * 3, [True, False, True]])
@pytest.mark.parametrize("reach", [2.5, 4.0])
def test_neighbourhood_is_that_of_a_loop(pbc, reach):
    structures = some(pbc)
    # Lists may reach further than what is asked for.
    batch = StructureBatch.from_ase(structures, r_cut=4.0)
    near = neighbourhood(batch, reach)
    numbers = tf.broadcast_to(near.of_neighbours(batch.numbers), tf.shape(near.mask))
    for row, structure in enumerate(structures):
        for i in range(len(structure)):
            here = near.mask[row, i].numpy()
            found = [
                (int(z), *v.round(8), r.round(8))
                for z, v, r in zip(
                    numbers[row, i].numpy()[here],
                    near.vectors[row, i].numpy()[here],
                    near.distances[row, i].numpy()[here],
                    strict=True,
                )
            ]
            wanted = [
                (z, *v.round(8), np.linalg.norm(v).round(8))
                for z, v in reference.neighbours(structure, i, reach)
            ]
            assert len(found) == len(wanted)
            if wanted:
                np.testing.assert_allclose(sorted(found), sorted(wanted), atol=2e-8)
        assert not near.mask[row, len(structure) :].numpy().any()
    np.testing.assert_array_equal(near.distances.numpy()[~near.mask.numpy()], 1.0)


def test_an_atom_on_the_cutoff_is_out_of_reach():
    batch = StructureBatch.from_ase([Atoms("Cu2", [[0, 0, 0], [3, 0, 0]])], r_cut=3.0)
    assert not neighbourhood(batch, 3.0).mask.numpy().any()
    assert neighbourhood(batch, 3.0 + 1e-9).mask.numpy().sum() == 2


@pytest.mark.parametrize("jit_compile", [None, True])
def test_distances_have_finite_gradients_at_zero(jit_compile):
    structures = [Atoms("Cu3", [[0, 0, 0], [0, 0, 0], [0, 3.0, 4.0]]), Atoms("Cu")]
    batch = StructureBatch.from_ase(structures, r_cut=9.0)

    @tf.function(jit_compile=jit_compile)
    def gradient(positions):
        with tf.GradientTape() as tape:
            tape.watch(positions)
            near = neighbourhood(batch._replace(positions=positions), 9.0)
            total = tf.reduce_sum(near.distances)
        return tape.gradient(total, positions)

    found = gradient(batch.positions).numpy()
    # Pairs count twice; the coincident pair adds nothing.
    np.testing.assert_allclose(found[0], 2 * np.array([[0, -0.6, -0.8]] * 2 + [[0, 1.2, 1.6]]))
    np.testing.assert_array_equal(found[1], 0.0)


@pytest.mark.parametrize("jit_compile", [None, True])
def test_safe_sqrt_and_its_slope(jit_compile):
    x = tf.constant([4.0, 0.0, -1.0, 9.0], tf.float64)
    mask = tf.constant([True, True, True, False])

    @tf.function(jit_compile=jit_compile)
    def run(x, mask=None):
        with tf.GradientTape() as tape:
            tape.watch(x)
            root = safe_sqrt(x, mask)
        return root, tape.gradient(root, x)

    for arguments, roots, slopes in [
        ((x,), [2, 0, 0, 3], [0.25, 0, 0, 1 / 6]),
        ((x, mask), [2, 0, 0, 0], [0.25, 0, 0, 0]),
    ]:
        root, slope = run(*arguments)
        np.testing.assert_allclose(root, roots, rtol=1e-14)
        np.testing.assert_allclose(slope, slopes, rtol=1e-14)


def test_cosine_cutoff():
    r = np.linspace(0, 5.0, 21)
    found = cosine_cutoff(tf.constant(r), 5.0).numpy()
    np.testing.assert_allclose(found[:-1], [reference.f_c(x, 5.0) for x in r[:-1]], atol=1e-15)
    assert found[0] == 1.0
    assert found[10] == pytest.approx(0.5, abs=1e-15)
    assert found[-1] == pytest.approx(0.0, abs=1e-15)
