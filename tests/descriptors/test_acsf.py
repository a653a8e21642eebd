"""ACSF against DScribe and against loops, and its gradients against finite differences."""

from __future__ import annotations

import json

import dscribe.descriptors
import numpy as np
import pytest
import reference
import tensorflow as tf
from ase import Atoms
from ase.build import bulk
from ase.cluster import Icosahedron
from hypothesis import given, settings
from hypothesis import strategies as st

from tfgen.descriptors.acsf import ACSF
from tfgen.descriptors.base import Descriptor
from tfgen.structures.batch import StructureBatch

FUNCTIONS = {
    "g2_params": [[0.01, 0.0], [1.0, 2.5], [0.4, 3.0]],
    "g3_params": [0.0, 1.0, 2.2],
    # (zeta, lambda) groups out of order, so that results have to be put back in order.
    "g4_params": [[0.02, 4, 1], [0.06, 1, -1], [0.1, 2.5, 1], [0.0, 64, -1], [0.06, 4, 1]],
    "g5_params": [[0.1, 16, -1], [0.06, 1, 1], [0.3, 16, -1], [0.05, 1.5, -1], [0.06, 3, 0.5]],
}
SPECIES = {1: ["Pt"], 2: ["Cu", "Au"], 3: ["Au", "H", "Cu"], 4: ["O", "Pt", "H", "Cu"]}
R_CUT = 4.0

seeds = st.integers(0, 2**32 - 1)


def cluster(symbols: list[str], n: int, rng: np.random.Generator, spread: float = 2.0) -> Atoms:
    atoms = Atoms(rng.choice(symbols, n), rng.uniform(-spread, spread, size=(n, 3)))
    # Closer than 0.5 Å the exponentials of both codes are still fine, but nobody goes there.
    for i in range(1, n):
        while np.linalg.norm(atoms.positions[:i] - atoms.positions[i], axis=1).min() < 0.5:
            atoms.positions[i] = rng.uniform(-spread, spread, size=3) * 1.5
    return atoms


def crystal(symbols: list[str], n: int, pbc: list[bool], rng: np.random.Generator) -> Atoms:
    """A skewed cell, smaller than the cutoff; some atoms lie outside of it."""
    atoms = cluster(symbols, n, rng)
    atoms.cell = np.diag(rng.uniform(2.2, 3.8, size=3)) + rng.uniform(-0.8, 0.8, size=(3, 3))
    atoms.pbc = pbc
    return atoms


def both(species, structures, periodic=False, **functions):
    """Features by tfgen and by DScribe."""
    ours = ACSF(species=species, r_cut=R_CUT, periodic=periodic, **functions)
    theirs = dscribe.descriptors.ACSF(species=species, r_cut=R_CUT, periodic=periodic, **functions)
    assert ours.get_number_of_features() == ours.size == theirs.get_number_of_features()
    return [ours.create(s) for s in structures], [theirs.create(s) for s in structures]


def assert_equal(found, wanted):
    assert len(found) == len(wanted)
    for one, two in zip(found, wanted, strict=True):
        assert one.dtype == np.float64
        np.testing.assert_allclose(one, two, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("count", SPECIES)
def test_equals_dscribe_for_all_functions_together(count):
    rng = np.random.default_rng(count)
    clusters = [cluster(SPECIES[count], n, rng) for n in (1, 2, 3, 6, 7, 8)]
    assert_equal(*both(SPECIES[count], clusters, **FUNCTIONS))


@pytest.mark.parametrize("kind", ["g1", *FUNCTIONS])
def test_equals_dscribe_for_each_function_apart(kind):
    rng = np.random.default_rng(7)
    functions = {} if kind == "g1" else {kind: FUNCTIONS[kind]}
    clusters = [cluster(SPECIES[2], n, rng) for n in (3, 6, 7)]
    assert_equal(*both(SPECIES[2], clusters, **functions))


@pytest.mark.parametrize(
    "pbc",
    [[True, True, True], [True, True, False], [False, True, False], [False, False, False]],
    ids=["bulk", "slab", "wire", "unflagged"],
)
def test_equals_dscribe_in_skewed_cells_smaller_than_the_cutoff(pbc):
    rng = np.random.default_rng(sum(pbc))
    crystals = [crystal(SPECIES[2], n, pbc, rng) for n in (1, 2, 3)]
    assert_equal(*both(SPECIES[2], crystals, periodic=True, **FUNCTIONS))


def test_equals_dscribe_where_declared_species_are_absent():
    rng = np.random.default_rng(3)
    structures = [cluster(["Cu"], 4, rng), cluster(["H"], 2, rng), cluster(["Cu", "Au"], 3, rng)]
    found, wanted = both(SPECIES[3], structures, **FUNCTIONS)
    assert_equal(found, wanted)
    assert (found[0] == 0).mean() > 0.5  # most functions ask for elements that are not there


def test_equals_dscribe_for_ideal_angles_and_atoms_on_the_cutoff():
    square = Atoms("Pt5", [[0, 0, 0], [2, 0, 0], [-2, 0, 0], [0, 2, 0], [4, 0, 0]])
    fcc = bulk("Pt", a=R_CUT, cubic=True)  # neighbours exactly on the cutoff, θ = 0, π/2, π
    assert_equal(*both(["Pt"], [square], **FUNCTIONS))
    assert_equal(*both(["Pt"], [fcc], periodic=True, **FUNCTIONS))


class TestLoops:
    """The second oracle, on structures that hypothesis samples."""

    acsf = ACSF(species=["Cu", "Au"], r_cut=3.5, periodic=True, **FUNCTIONS)

    def loop(self, atoms):
        lists = {name[:2]: values for name, values in FUNCTIONS.items()}
        return reference.acsf(atoms, [29, 79], 3.5, **lists)

    @given(st.integers(1, 8), seeds)
    @settings(max_examples=20)
    def test_clusters(self, n, seed):
        atoms = cluster(["Cu", "Au"], n, np.random.default_rng(seed))
        assert_equal([self.acsf.create(atoms)], [self.loop(atoms)])

    @given(st.integers(1, 2), st.lists(st.booleans(), min_size=3, max_size=3), seeds)
    @settings(max_examples=12)
    def test_cells(self, n, pbc, seed):
        atoms = crystal(["Cu", "Au"], n, pbc, np.random.default_rng(seed))
        assert_equal([self.acsf.create(atoms)], [self.loop(atoms)])

    def test_flat_cell_with_a_vector_only_where_it_is_periodic(self):
        atoms = Atoms(
            "CuAu", [[0, 0, 0], [1.0, 0.9, 0.4]], cell=[[2.6, 0.3, 0], [0, 0, 0], [0, 0, 0]]
        )
        atoms.pbc = [True, False, False]
        assert_equal([self.acsf.create(atoms)], [self.loop(atoms)])


@pytest.fixture(scope="module")
def acsf():
    return ACSF(species=["Cu", "Au"], r_cut=R_CUT, **FUNCTIONS)


def test_is_a_descriptor(acsf):
    assert isinstance(acsf, Descriptor)


def test_isolated_atom_has_features_of_zero(acsf):
    np.testing.assert_array_equal(acsf.create(Atoms("Cu")), np.zeros([1, acsf.size]))
    apart = Atoms("Cu2", [[0, 0, 0], [R_CUT + 1e-9, 0, 0]])
    np.testing.assert_array_equal(acsf.create(apart), np.zeros([2, acsf.size]))


def test_without_g1_leaves_out_only_g1(acsf):
    bare = ACSF(species=["Cu", "Au"], r_cut=R_CUT, g1=False, **FUNCTIONS)
    atoms = cluster(["Cu", "Au"], 6, np.random.default_rng(1))
    of_pairs = 1 + 3 + 3
    np.testing.assert_allclose(
        bare.create(atoms), np.delete(acsf.create(atoms), [0, of_pairs], axis=1), rtol=1e-13
    )


def test_order_does_not_depend_on_that_of_species(acsf):
    other = ACSF(species=[79, 29], r_cut=R_CUT, **FUNCTIONS)
    atoms = cluster(["Cu", "Au"], 5, np.random.default_rng(2))
    assert other.species == acsf.species == ["Cu", "Au"]
    np.testing.assert_array_equal(other.create(atoms), acsf.create(atoms))


def test_create_gives_the_shapes_of_dscribe(acsf):
    rng = np.random.default_rng(0)
    theirs = dscribe.descriptors.ACSF(species=["Cu", "Au"], r_cut=R_CUT, **FUNCTIONS)
    three, other_three, two = (cluster(["Cu", "Au"], n, rng) for n in (3, 3, 2))
    for system in (three, [three, other_three]):
        assert acsf.create(system).shape == theirs.create(system).shape
    mixed = acsf.create([three, two])
    assert isinstance(mixed, list)
    assert [m.shape for m in mixed] == [m.shape for m in theirs.create([three, two])]
    assert acsf.create([three]).shape == theirs.create([three]).shape == (3, acsf.size)


def test_create_leaves_its_input_alone():
    atoms = crystal(["Cu"], 3, [True] * 3, np.random.default_rng(0))
    before = atoms.copy()
    ACSF(species=["Cu"], r_cut=R_CUT, periodic=True).create([atoms])
    assert atoms == before
    np.testing.assert_array_equal(atoms.positions, before.positions)


def test_padding_and_company_do_not_matter(acsf):
    rng = np.random.default_rng(5)
    structures = [cluster(["Cu", "Au"], n, rng) for n in (7, 1, 3, 8, 2, 5)]
    for alone, together in zip(
        [acsf.create(s) for s in structures], acsf.create(structures), strict=True
    ):
        np.testing.assert_allclose(together, alone, rtol=1e-12, atol=1e-14)
    wide = acsf(StructureBatch.from_ase(structures[:1], r_cut=R_CUT, atoms=8))
    np.testing.assert_allclose(wide[0, :7], acsf.create(structures[0]), rtol=1e-12, atol=1e-14)


def test_clusters_and_crystals_in_one_call():
    acsf = ACSF(species=["Cu", "Au"], r_cut=R_CUT, periodic=True, g2_params=[[1, 2]])
    rng = np.random.default_rng(6)
    structures = [
        cluster(["Cu", "Au"], 4, rng),
        crystal(["Cu", "Au"], 3, [True, False, True], rng),
        cluster(["Cu", "Au"], 2, rng),
    ]
    for alone, together in zip(
        [acsf.create(s) for s in structures], acsf.create(structures), strict=True
    ):
        np.testing.assert_allclose(together, alone, rtol=1e-12, atol=1e-14)


def test_call_equals_create(acsf):
    rng = np.random.default_rng(8)
    structures = [cluster(["Cu", "Au"], 4, rng) for _ in range(3)]
    batch = StructureBatch.from_ase(structures, r_cut=R_CUT)
    np.testing.assert_allclose(acsf(batch), acsf.create(structures), rtol=1e-12, atol=1e-14)


def test_short_cutoffs_use_lists_and_give_the_same():
    acsf = ACSF(species=["Pt"], r_cut=4.2, g2_params=[[1, 2]], g4_params=[[0.1, 4, -1]])
    icosahedron = Icosahedron("Pt", 3)
    batch = StructureBatch.from_ase([icosahedron], r_cut=4.2, sparse=True)
    assert batch.neighbours is not None
    dense = acsf(StructureBatch.from_ase([icosahedron], r_cut=4.2))[0]
    np.testing.assert_allclose(acsf.create(icosahedron), dense, rtol=1e-12, atol=1e-14)


def features_and_gradient(acsf, batch):
    with tf.GradientTape() as tape:
        tape.watch(batch.positions)
        features = acsf(batch)
    return features, tape.gradient(features, batch.positions)


MODES = {
    "eager": lambda function: function,
    "graph": lambda function: tf.function(function, autograph=False),
    "xla": lambda function: tf.function(function, jit_compile=True, autograph=False),
}


class TestGradients:
    atoms = cluster(["Cu", "Au"], 5, np.random.default_rng(11), spread=1.6)

    def of_positions(self, acsf, atoms, weights):
        """A function of [batch, atoms, 3] -> [batch]: the features' weighted sum."""

        def function(positions):
            positions = tf.convert_to_tensor(positions)
            numbers = tf.tile(tf.constant(atoms.numbers, tf.int32)[None], [len(positions), 1])
            features = acsf(StructureBatch.of_clusters(positions, numbers))
            return tf.reduce_sum(features * weights, axis=[1, 2])

        return function

    def test_reverse_and_forward_mode_equal_finite_differences(self, acsf):
        atoms = self.atoms
        rng = np.random.default_rng(12)
        # Features span many orders of magnitude: each is weighted by the inverse of its size.
        size = np.abs(acsf.create(atoms)).max(axis=0) + 1e-6
        function = self.of_positions(acsf, atoms, rng.normal(size=acsf.size) / size)
        x = tf.constant(atoms.positions[None])
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = function(x)
        found = tape.gradient(value, x)[0].numpy()
        wanted = reference.central_difference(lambda p: function(p).numpy(), atoms.positions)
        scale = np.abs(wanted).max()
        np.testing.assert_allclose(found / scale, wanted / scale, atol=1e-6)
        along = rng.normal(size=x.shape)
        with tf.autodiff.ForwardAccumulator(x, tf.constant(along)) as accumulator:
            value = function(x)
        slope = accumulator.jvp(value).numpy()[0]
        np.testing.assert_allclose(slope / scale, np.sum(wanted * along[0]) / scale, atol=1e-5)

    def test_by_positions_and_cell_of_a_crystal(self):
        acsf = ACSF(["Cu", "Au"], 3.0, g2_params=[[1, 2]], g4_params=[[0.1, 2, 1]], periodic=True)
        atoms = crystal(["Cu", "Au"], 2, [True] * 3, np.random.default_rng(13))
        batch = StructureBatch.from_ase([atoms], r_cut=3.5)  # lists reach further than needed

        def function(positions, cell):
            moved = batch._replace(positions=positions, cell=cell)
            return tf.reduce_sum(acsf(moved), axis=[1, 2])

        with tf.GradientTape() as tape:
            tape.watch([batch.positions, batch.cell])
            value = function(batch.positions, batch.cell)
        found = tape.gradient(value, [batch.positions, batch.cell])

        def one_by_one(which):
            def differ(xs):
                arguments = [batch.positions, batch.cell]
                values = []
                for x in xs:
                    arguments[which] = tf.constant(x[None])
                    values.append(function(*arguments).numpy()[0])
                return np.array(values)

            return differ

        for which, x in enumerate((atoms.positions, atoms.cell.array)):
            wanted = reference.central_difference(one_by_one(which), x)
            np.testing.assert_allclose(found[which][0], wanted, atol=1e-6 * np.abs(wanted).max())

    @pytest.mark.parametrize("mode", ["eager", "graph", "xla"])
    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    def test_are_finite_where_geometry_is_degenerate(self, acsf, mode, dtype):
        degenerate = [
            Atoms("Cu3Au", [[0, 0, 0], [1, 1, 1], [2, 2, 2], [-1.3, -1.3, -1.3]]),  # θ = 0, π
            Atoms("Au", [[0.3, 0, 0]]),  # alone
            Atoms("Cu2", [[0, 0, 0], [R_CUT, 0, 0]]),  # on the cutoff
            Atoms("Cu3", [[0, 0, 0], [2, 0, 0], [0, 2, 0]]),
        ]
        batch = StructureBatch.from_ase(degenerate, r_cut=R_CUT, atoms=4, dtype=dtype)

        features, gradient = MODES[mode](features_and_gradient)(acsf, batch)
        features, gradient = features.numpy(), gradient.numpy()
        assert features.dtype == gradient.dtype == dtype
        assert np.isfinite(features).all()
        assert np.isfinite(gradient).all()
        np.testing.assert_array_equal(gradient[1:3], 0.0)
        np.testing.assert_array_equal(gradient[~batch.mask.numpy()], 0.0)
        if mode != "eager":
            tolerance = 1e-12 if dtype == "float64" else 1e-5
            expected = features_and_gradient(acsf, batch)
            for found, wanted in zip((features, gradient), expected, strict=True):
                np.testing.assert_allclose(found, wanted, atol=tolerance * np.abs(wanted).max())

    @pytest.mark.parametrize("mode", ["eager", "graph", "xla"])
    def test_are_finite_where_atoms_coincide(self, mode):
        acsf = ACSF(
            ["Cu"], R_CUT, g2_params=[[1, 2]], g4_params=[[0.1, 2, 1]], g5_params=[[0.1, 1.5, -1]]
        )
        structures = [
            Atoms("Cu3", [[0, 0, 0], [0, 0, 0], [1.5, 0, 0]]),
            Atoms("Cu2", [[0.1, 0.2, 0.3]] * 2),
            Atoms("Cu3", [[0.1, 0.2, 0.3]] * 3),
        ]
        batch = StructureBatch.from_ase(structures, r_cut=R_CUT)
        features, gradient = MODES[mode](features_and_gradient)(acsf, batch)
        assert np.isfinite(features).all()
        assert np.isfinite(gradient).all()


def test_float32_is_close_to_float64_up_to_zeta_64():
    g5 = [[eta, zeta, sign] for eta in (0.06, 1.0) for zeta in (1, 4, 64) for sign in (-1, 1)]
    acsf = ACSF(["Pt"], 20.0, g2_params=[[0.01, 3], [5.0, 2.5]], g4_params=g5, g5_params=g5)
    rng = np.random.default_rng(14)
    clusters = [cluster(["Pt"], 13, rng, spread=4.0) for _ in range(20)]
    wanted = acsf.create(clusters)
    found = acsf(StructureBatch.from_ase(clusters, r_cut=20.0, dtype="float32"))
    assert found.dtype == tf.float32
    error = np.abs(found.numpy() - wanted) / np.abs(wanted).max(axis=(0, 1))
    assert error.max() < 1e-5


def test_configuration_survives_json(acsf):
    copy = ACSF(**json.loads(json.dumps(acsf.get_config())))
    assert copy.get_config() == acsf.get_config()
    atoms = cluster(["Cu", "Au"], 4, np.random.default_rng(15))
    np.testing.assert_array_equal(copy.create(atoms), acsf.create(atoms))


GOOD = {"species": ["Cu"], "r_cut": 4.0}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"species": []}, "species is []"),
        ({"species": "Cu"}, "species is 'Cu'; a list"),
        ({"species": None}, "species is None"),
        ({"species": ["Cu", "Zz"]}, "'Zz', which is not a chemical element"),
        ({"species": ["X"]}, "'X', which is not"),
        ({"species": [0]}, "0, which is not"),
        ({"species": [-1]}, "-1, which is not"),
        ({"species": [1.5]}, "1.5, which is not"),
        ({"species": ["Cu", 29]}, "none twice"),
        ({"r_cut": 0}, "r_cut is 0;"),
        ({"r_cut": -1.0}, "r_cut is -1.0"),
        ({"r_cut": float("nan")}, "r_cut is nan"),
        ({"r_cut": float("inf")}, "r_cut is inf"),
        ({"r_cut": "6"}, "r_cut is '6'"),
        ({"r_cut": True}, "r_cut is True"),
        ({"r_cut": None}, "r_cut is None"),
        ({"r_cut": [4.0]}, "r_cut is"),
        ({"g2_params": [1.0, 2.0]}, "g2_params has shape (2,)"),
        ({"g2_params": [[1.0]]}, "g2_params has shape (1, 1)"),
        ({"g2_params": [[1.0, 2.0], [1.0]]}, "g2_params is"),
        ({"g2_params": "eta"}, "g2_params is 'eta'"),
        ({"g2_params": [[-0.1, 2.0]]}, "g2_params holds eta = -0.1"),
        ({"g2_params": [[np.nan, 2.0]]}, "g2_params holds a value that is not finite"),
        ({"g2_params": [[1.0, np.inf]]}, "g2_params holds a value that is not finite"),
        ({"g3_params": [[1.0, 2.0]]}, "g3_params has shape (1, 2)"),
        ({"g3_params": [np.nan]}, "g3_params holds a value that is not finite"),
        ({"g3_params": 1.0}, "g3_params has shape ()"),
        ({"g4_params": [[1.0, 2.0]]}, "g4_params has shape (1, 2)"),
        ({"g4_params": [[-1.0, 1, 1]]}, "g4_params holds eta = -1.0"),
        ({"g4_params": [[1.0, 0.5, 1]]}, "g4_params holds zeta = 0.5; zeta must be >= 1"),
        ({"g4_params": [[1.0, 1, 2]]}, "lambda must be in [-1, 1]"),
        ({"g5_params": [[1.0, 0, 1]]}, "g5_params holds zeta = 0.0"),
        ({"g5_params": [[1.0, 1, -1.5]]}, "g5_params holds lambda"),
        ({"g5_params": [[1.0, 1, None]]}, "g5_params"),
        ({"g1": False}, "nothing to compute"),
    ],
)
def test_refuses_arguments(arguments, message):
    with pytest.raises(ValueError, match=".*") as caught:
        ACSF(**{**GOOD, **arguments})
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("system", "message"),
    [
        ([], "system is empty"),
        ([Atoms()], "system[0] has no atoms"),
        ([Atoms("Cu"), "Cu"], "system[1] is a str"),
        ([Atoms("Cu"), Atoms("Pt")], "system[1] holds Pt"),
        (Atoms("X"), "dummy atoms"),
        (Atoms("Cu", [[np.nan, 0, 0]]), "not finite"),
        (Atoms("Cu", [[0, np.inf, 0]]), "not finite"),
        (Atoms("Cu", cell=[3, 3, 3], pbc=True), "is for clusters only"),
        (Atoms("Cu", cell=[3, 3, 0], pbc=True), "without a cell vector"),
        (Atoms("Cu", cell=[3, 3, np.nan], pbc=True), "cell that is not finite"),
    ],
)
def test_refuses_structures(system, message):
    with pytest.raises(ValueError, match=".*") as caught:
        ACSF(**GOOD).create(system)
    assert message in str(caught.value)
