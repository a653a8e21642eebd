"""Derivatives of features and fingerprints, forward and in reverse, against finite differences."""

from __future__ import annotations

import numpy as np
import pytest
import reference
import tensorflow as tf
from ase import Atoms

from tfgen.descriptors.acsf import ACSF
from tfgen.fingerprints.fingerprint import Fingerprint
from tfgen.structures.batch import StructureBatch

R_CUT = 4.0
MOST_ROWS = 100
FUNCTIONS = {
    "g1": {},
    "g2": {"g2_params": [[0.01, 0.0], [4.0, 2.5]]},
    "g3": {"g3_params": [0.5, 2.2]},
    "g4": {"g4_params": [[0.02, 4, 1], [0.06, 1, -1], [0.1, 2.5, 1]]},
    "g5": {"g5_params": [[0.1, 16, -1], [0.06, 1, 1], [0.05, 1.5, -1], [0.02, 64, 1]]},
}
TOGETHER = {name: values for kind in FUNCTIONS.values() for name, values in kind.items()}

CLUSTER = Atoms(
    ["Cu", "Au", "Cu", "Au", "Au"],
    [[0, 0, 0], [2.1, 0.3, -0.2], [0.4, 1.9, 0.6], [-1.5, 0.2, 1.4], [0.8, -0.9, 2.2]],
)
CRYSTAL = Atoms(
    ["Cu", "Au"],
    [[0.1, 0.2, 0.3], [1.4, 1.7, 1.1]],
    cell=[[3.1, 0.2, 0.1], [-0.6, 2.8, 0.3], [0.2, 0.7, 2.9]],
    pbc=True,
)
SLAB = CRYSTAL.copy()
SLAB.pbc = [True, True, False]


def moved(atoms: Atoms, r_cut: float):
    """A map of positions [batch, atoms, 3] to a batch of such structures, inside TensorFlow."""
    # Lists that reach further serve all displacements.
    one = StructureBatch.from_ase([atoms], r_cut=r_cut + 0.1)

    def batch(positions):
        positions = tf.convert_to_tensor(positions)
        count = tf.shape(positions)[0]
        tiled = tf.nest.map_structure(
            lambda x: x if x is None else tf.repeat(x, count, axis=0), one
        )
        return tiled._replace(positions=positions)

    return batch


def assert_derivatives(function, x):
    """Of [batch, ...] -> [batch, outputs]: forward and reverse mode equal central differences.

    To 1e-6 of each output's largest derivative; outputs nearly flat, of 1e-4 of the largest.
    """
    wanted = reference.central_difference(lambda p: function(p).numpy(), x)
    outputs = len(wanted)
    size = np.abs(wanted).max(axis=(1, 2))
    assert size.max() > 0
    size = np.maximum(size, 1e-4 * size.max())
    wanted /= size[:, None, None]
    # Each row of a batch is derived along another coordinate.
    rows = tf.constant(np.repeat(x[None], x.size, axis=0))
    tangents = tf.constant(np.eye(x.size).reshape(x.size, *x.shape))
    with tf.autodiff.ForwardAccumulator(rows, tangents) as accumulator:
        values = function(rows)
    forward = (accumulator.jvp(values).numpy() / size).T.reshape(wanted.shape)
    np.testing.assert_allclose(forward, wanted, rtol=0, atol=1e-6)
    # Each row has another output derived; of very many outputs several, with random signs, so that
    # an error in one of them shows in the sum.
    count = min(outputs, MOST_ROWS)
    weights = np.zeros([count, outputs])
    signs = np.random.default_rng(0).choice([-1.0, 1.0], outputs)
    weights[np.arange(outputs) % count, np.arange(outputs)] = signs
    rows = tf.constant(np.repeat(x[None], count, axis=0))
    with tf.GradientTape() as tape:
        tape.watch(rows)
        total = tf.reduce_sum(function(rows) * (weights / size))
    reverse = tape.gradient(total, rows).numpy()
    np.testing.assert_allclose(reverse, np.tensordot(weights, wanted, axes=1), rtol=0, atol=1e-6)


def of_features(acsf, atoms):
    batch = moved(atoms, acsf.r_cut)

    def function(positions):
        features = acsf(batch(positions))
        return tf.reshape(features, [tf.shape(features)[0], len(atoms) * acsf.size])

    return function


STRUCTURES = {"cluster": CLUSTER, "crystal": CRYSTAL, "slab": SLAB}
CASES = [(kind, name) for kind in FUNCTIONS for name in ("cluster", "crystal")]


@pytest.mark.parametrize(("kind", "name"), [*CASES, *(("together", name) for name in STRUCTURES)])
def test_of_every_feature_equal_finite_differences(kind, name):
    atoms = STRUCTURES[name]
    functions = FUNCTIONS.get(kind, TOGETHER)
    acsf = ACSF(["Cu", "Au"], R_CUT, periodic=True, g1=kind in ("g1", "together"), **functions)
    assert_derivatives(of_features(acsf, atoms), atoms.positions)


@pytest.mark.parametrize("preset", ["fung2022", "default"])
@pytest.mark.parametrize("species", [["Pt"], ["Cu", "Au"]], ids=["element", "alloy"])
def test_of_presets_equal_finite_differences(preset, species):
    atoms = CLUSTER.copy()
    atoms.symbols = np.resize(species, 5)
    atoms.positions *= 1.2
    fingerprint = Fingerprint.preset(preset, species)
    batch = moved(atoms, fingerprint.descriptor.r_cut)
    assert_derivatives(lambda x: fingerprint(batch(x)), atoms.positions)


@pytest.mark.parametrize("poolings", [("max", "min"), ("mean", "std", "moment3")])
def test_of_periodic_fingerprints_equal_finite_differences(poolings):
    acsf = ACSF(["Cu", "Au"], 3.0, periodic=True, **TOGETHER)
    atoms = CRYSTAL * (2, 1, 1)
    atoms.positions += np.random.default_rng(0).normal(size=(4, 3)) * 0.2
    fingerprint = Fingerprint(acsf, poolings, per_species=True)
    batch = moved(atoms, acsf.r_cut)
    assert_derivatives(lambda x: fingerprint(batch(x)), atoms.positions)


@pytest.mark.parametrize("periodic", [False, True])
def test_on_a_line_equal_finite_differences(periodic):
    """θ = 0 and π, where a derivative by the angle itself would be 0 / 0."""
    atoms = Atoms("Cu4", [[0, 0, 0], [1, 1, 1], [2, 2, 2], [-1.1, -1.1, -1.1]])
    if periodic:
        atoms = Atoms("Cu2", [[0, 0, 0], [1, 1, 1]], cell=np.eye(3) * 3.3, pbc=True)
    whole = {
        "g4_params": [[0.02, 1, -1], [0.02, 1, 1], [0.05, 4, 1]],
        "g5_params": [[0.02, 1, -1], [0.02, 2, -1], [0.02, 1, 1], [0.05, 64, 1]],
    }
    acsf = ACSF(["Cu"], R_CUT, periodic=True, g1=False, **whole)
    assert_derivatives(of_features(acsf, atoms), atoms.positions)


CLUSTERS = [
    Atoms("Cu3Au", [[0, 0, 0], [1, 1, 1], [2, 2, 2], [-1.3, -1.3, -1.3]]),  # on a line
    Atoms("CuAu2", [[0, 0, 0], [2, 0, 0], [-2, 0, 0]]),  # on an axis
    Atoms("Au", [[0.3, 0, 0]]),  # alone
    Atoms("Cu3", [[0, 0, 0], [0, 0, 0], [1.5, 0, 0]]),  # two in one place
    Atoms("Cu2", [[0.1, 0.2, 0.3]] * 2),
    Atoms("CuAuCu", [[0.1, 0.2, 0.3]] * 3),
    Atoms("Cu2", [[0, 0, 0], [R_CUT, 0, 0]]),  # on the cutoff
    Atoms("Cu4", [[0, 0, 0], [2, 0, 0], [0, 2, 0], [2, 2, 0]]),
]
CELLS = [
    Atoms("Cu", cell=[2.0, 2.1, 2.2], pbc=True),  # only images of its own, on lines
    Atoms("Cu", cell=[2.0, 0, 0], pbc=[True, False, False]),
    Atoms("Cu", cell=[9.0, 9.0, 9.0], pbc=True),  # alone
    Atoms("CuAu", [[0, 0, 0], [0, 0, 0]], cell=[3.0, 3.0, 3.0], pbc=True),  # in one place
    Atoms("CuAu", [[0, 0, 0], [3.0, 0, 0]], cell=[3.0, 3.0, 3.0], pbc=True),  # of an image
    Atoms("Cu", cell=[R_CUT] * 3, pbc=True),  # on the cutoff
]
DEGENERATE = {"clusters": CLUSTERS, "cells": CELLS}
MODES = {
    "eager": lambda function: function,
    "graph": lambda function: tf.function(function, autograph=False),
    "xla": lambda function: tf.function(function, jit_compile=True, autograph=False),
}


def slopes(model, batch, tangents):
    """Forward mode: of the sum of all values, along `tangents`."""
    with tf.autodiff.ForwardAccumulator(batch.positions, tangents) as accumulator:
        values = model(batch)
    return tf.reduce_sum(tf.reshape(accumulator.jvp(values), [tangents.shape[0], -1]), axis=1)


def gradients(model, batch):
    """Reverse mode: of the sum of all values."""
    with tf.GradientTape() as tape:
        tape.watch(batch.positions)
        total = tf.reduce_sum(model(batch))
    return tape.gradient(total, batch.positions)


def degenerate(kind, r_cut, dtype):
    # One more place than atoms: the padding is part of what is tried.
    batch = StructureBatch.from_ase(DEGENERATE[kind], r_cut=r_cut, atoms=5, dtype=dtype)
    tangents = np.random.default_rng(0).normal(size=batch.positions.shape)
    return batch, tf.constant(tangents, dtype)


def assert_sound(slope, gradient, batch, tangents):
    """Finite, 0 at padding, and forward and reverse mode the same."""
    assert slope.dtype == gradient.dtype == batch.positions.dtype
    assert np.isfinite(gradient.numpy()).all()
    np.testing.assert_array_equal(gradient.numpy()[~batch.mask.numpy()], 0.0)
    size = np.abs(slope).max() + 1.0
    dots = tf.reduce_sum(gradient * tangents, axis=[1, 2])
    tolerance = 1e-11 if batch.positions.dtype == tf.float64 else 1e-4
    np.testing.assert_allclose(dots / size, slope / size, rtol=0, atol=tolerance)


class TestWhereGeometryIsDegenerate:
    acsf = ACSF(
        ["Cu", "Au"],
        R_CUT,
        periodic=True,
        g2_params=[[4.0, 2.5]],
        g3_params=[2.2],
        g4_params=[[0.1, 1, -1]],
        g5_params=[[0.05, 1.5, -1]],
    )

    @pytest.mark.parametrize(("kind", "dtype"), [("clusters", "float32"), ("cells", "float64")])
    def test_eager(self, kind, dtype):
        batch, tangents = degenerate(kind, R_CUT, dtype)
        slope = slopes(self.acsf, batch, tangents)
        assert_sound(slope, gradients(self.acsf, batch), batch, tangents)

    # Reverse mode of clusters in graphs and under XLA is among the tests of ACSF.
    @pytest.mark.parametrize("mode", ["graph", "xla"])
    def test_forward_mode_compiled(self, mode):
        batch, tangents = degenerate("clusters", R_CUT, "float32")
        slope = MODES[mode](slopes)(self.acsf, batch, tangents)
        assert_sound(slope, gradients(self.acsf, batch), batch, tangents)

    @pytest.mark.parametrize("mode", ["graph", "xla"])
    def test_reverse_mode_of_cells_compiled(self, mode):
        batch, tangents = degenerate("cells", R_CUT, "float32")
        gradient = MODES[mode](gradients)(self.acsf, batch)
        assert_sound(slopes(self.acsf, batch, tangents), gradient, batch, tangents)

    @pytest.mark.parametrize(("preset", "mode"), [("fung2022", "eager"), ("default", "xla")])
    def test_presets(self, preset, mode):
        """Where atoms are alike, the slope of a maximum is not one: only finite."""
        fingerprint = Fingerprint.preset(preset, ["Cu", "Au"])
        batch, tangents = degenerate("clusters", 20.0, "float32")
        assert np.isfinite(MODES[mode](gradients)(fingerprint, batch)).all()
        assert np.isfinite(slopes(fingerprint, batch, tangents)).all()
