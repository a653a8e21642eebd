"""Fingerprints against the loops, their invariances, gradients and ways in and out."""

from __future__ import annotations

import json

import numpy as np
import pytest
import reference
import tensorflow as tf
from ase import Atoms
from ase.build import bulk
from ase.cluster import Octahedron
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from tfgen.descriptors.acsf import ACSF
from tfgen.descriptors.base import Descriptor
from tfgen.fingerprints.fingerprint import Fingerprint
from tfgen.fingerprints.poolings import POOLINGS, Pooling, maximum, minimum
from tfgen.structures.batch import StructureBatch
from tfgen.structures.neighbours.displacements import neighbourhood

R_CUT = 6.0
FUNCTIONS = {
    "g2_params": [[0.1, 0.0], [1.0, 2.5]],
    "g4_params": [[0.05, 2, -1]],
    "g5_params": [[0.06, 1, 1], [0.1, 64, -1], [0.06, 1.5, -1]],
}
EVERY_POOLING = tuple(POOLINGS)

seeds = st.integers(0, 2**32 - 1)


def cluster(symbols: list[str], n: int, seed: int) -> Atoms:
    """Atoms in random places, at least 1 Å apart."""
    rng = np.random.default_rng(seed)
    positions = np.zeros([0, 3])
    while len(positions) < n:
        new = rng.normal(size=3) * 2.0
        if len(positions) == 0 or np.linalg.norm(positions - new, axis=1).min() > 1.0:
            positions = np.vstack([positions, new])
    return Atoms(rng.choice(symbols, n), positions)


@pytest.fixture(scope="module")
def alloys():
    """One fingerprint with every pooling, of each element apart."""
    acsf = ACSF(["Cu", "Au"], R_CUT, **FUNCTIONS)
    return Fingerprint(acsf, EVERY_POOLING, per_species=True)


@pytest.fixture(scope="module")
def fung2022():
    return Fingerprint.preset("fung2022")


class TestPresets:
    def test_fung2022_equals_the_loops(self, fung2022):
        structures = [cluster(["Pt"], n, n) for n in (5, 1, 2)] + [Octahedron("Pt", 2)]
        found = fung2022.create(structures)
        assert found.shape == (4, 380)
        assert fung2022.size == 380
        for one, structure in zip(found, structures, strict=True):
            wanted = reference.fung2022(structure, [78])
            np.testing.assert_allclose(one, wanted, rtol=1e-9, atol=1e-12)

    def test_fung2022_in_the_order_of_the_contract(self, fung2022):
        g2, g5 = reference.fung2022_functions()
        np.testing.assert_array_equal(fung2022.descriptor.g2_params, g2)
        np.testing.assert_array_equal(fung2022.descriptor.g5_params, g5)
        assert fung2022.pooling == ("max", "min")
        assert fung2022.descriptor.r_cut == 20.0
        found = fung2022.create(cluster(["Pt"], 6, 0))[0]
        assert (found[:190] >= found[190:]).all()

    def test_fung2022_of_an_alloy_equals_the_loops(self):
        fingerprint = Fingerprint.preset("fung2022", species=["Au", "Cu"])
        structure = cluster(["Au", "Cu"], 4, 4)
        np.testing.assert_allclose(
            fingerprint.create(structure)[0],
            reference.fung2022(structure, [29, 79]),
            rtol=1e-9,
            atol=1e-12,
        )

    @pytest.mark.parametrize("species", [["Pt"], ["Au", "Cu"]])
    def test_default_equals_the_loops(self, species):
        fingerprint = Fingerprint.preset("default", species=species)
        acsf = fingerprint.descriptor
        numbers = sorted(Atoms(species).numbers)
        structures = [cluster(species, 4, 1), cluster(species[:1], 3, 2)]
        for found, structure in zip(fingerprint.create(structures), structures, strict=True):
            features = reference.acsf(
                structure,
                numbers,
                acsf.r_cut,
                g2=acsf.g2_params,
                g3=acsf.g3_params[:, 0],
                g4=acsf.g4_params,
                g5=acsf.g5_params,
                g1=acsf.g1,
            )
            wanted = (
                reference.fingerprint(structure, features, numbers, fingerprint.pooling)
                if fingerprint.per_species
                else reference.pooled(features, fingerprint.pooling)
            )
            # The third moment is a difference of large numbers.
            np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-10)

    def test_refuses_unknown_names_and_elements(self):
        with pytest.raises(ValueError, match="preset is 'soap'; allowed are fung2022, default"):
            Fingerprint.preset("soap")
        with pytest.raises(ValueError, match="'Zz', which is not a chemical element"):
            Fingerprint.preset("default", species=["Zz"])


class TestPooling:
    @pytest.mark.parametrize("name", EVERY_POOLING)
    def test_equals_the_loops(self, name):
        acsf = ACSF(["Cu", "Au"], R_CUT, **FUNCTIONS)
        structures = [cluster(["Cu", "Au"], n, n) for n in (4, 1, 3)]
        found = Fingerprint(acsf, name).create(structures)
        for one, structure in zip(found, structures, strict=True):
            wanted = reference.pooled(acsf.create(structure), (name,))
            np.testing.assert_allclose(one, wanted, rtol=1e-9, atol=1e-12)

    def test_of_each_element_apart_equals_the_loops(self, alloys):
        structures = [cluster(["Cu", "Au"], 6, 1), cluster(["Au"], 4, 2), Atoms("Cu")]
        found = alloys.create(structures)
        features = alloys.descriptor.size
        pairs = sum(max(features - lag, 0) for lag in range(1, 7))
        assert found.shape == (3, alloys.size) == (3, 2 * (5 * features + pairs))
        for one, structure in zip(found, structures, strict=True):
            features = alloys.descriptor.create(structure)
            wanted = reference.fingerprint(structure, features, [29, 79], EVERY_POOLING)
            np.testing.assert_allclose(one, wanted, rtol=1e-9, atol=1e-12)
        half = alloys.size // 2
        assert (found[1, :half] == 0).all()  # no copper there
        assert (found[1, half:] != 0).any()

    def test_covariances_in_their_order(self):
        """By NumPy: of each with the next, each with the one after that, and so on to the sixth."""
        acsf = ACSF(["Cu"], R_CUT, g2_params=[[1.0, 0.3 * i] for i in range(9)], g1=False)
        atoms = cluster(["Cu"], 6, 5)
        matrix = np.cov(acsf.create(atoms).T, ddof=0)
        wanted = np.concatenate([np.diag(matrix, lag) for lag in range(1, 7)])
        fingerprint = Fingerprint(acsf, "covariance")
        assert fingerprint.size == len(wanted) == 8 + 7 + 6 + 5 + 4 + 3
        assert fingerprint.differentiable.all()
        np.testing.assert_allclose(fingerprint.create(atoms)[0], wanted, rtol=1e-9, atol=1e-13)

    def test_covariance_needs_two_functions(self):
        acsf = ACSF(["Cu"], R_CUT)
        with pytest.raises(ValueError, match="pooling is .*covariance.*descriptor of size 1"):
            Fingerprint(acsf, "covariance")
        assert Fingerprint(acsf, ("mean", "covariance")).size == 1

    @pytest.mark.parametrize("pooling", [(), ("max", "median"), "median", ["Max"]])
    def test_refuses(self, pooling):
        acsf = ACSF(["Cu"], R_CUT)
        with pytest.raises(ValueError, match=r"pooling is .*; allowed are max, min, mean, std"):
            Fingerprint(acsf, pooling)

    def test_a_new_one_is_an_entry(self, monkeypatch):
        pooling = Pooling(pool=lambda x, mask: maximum(x, mask) - minimum(x, mask))
        monkeypatch.setitem(POOLINGS, "range", pooling)
        acsf = ACSF(["Cu", "Au"], R_CUT, **FUNCTIONS)
        structures = [cluster(["Cu", "Au"], n, n) for n in (5, 3)]
        fingerprint = Fingerprint(acsf, ("mean", "range"))
        assert fingerprint.size == 2 * acsf.size
        found = fingerprint.create(structures)[:, acsf.size :]
        np.testing.assert_allclose(found, [np.ptp(acsf.create(s), axis=0) for s in structures])


class TestInvariance:
    @given(st.integers(1, 8), seeds)
    @settings(max_examples=25)
    def test_under_motion_mirror_and_order(self, alloys, fung2022, n, seed):
        rng = np.random.default_rng(seed)
        for fingerprint, symbols in ((alloys, ["Cu", "Au"]), (fung2022, ["Pt"])):
            atoms = cluster(symbols, n, seed)
            moved, turned, mirrored = (atoms.copy() for _ in range(3))
            moved.positions += rng.normal(size=3) * 10
            turn = Rotation.from_quat(rng.normal(size=4)).as_matrix()
            turned.positions = turned.positions @ turn
            mirrored.positions[:, rng.integers(3)] *= -1
            permuted = atoms[rng.permutation(n)]
            first, *others = fingerprint.create([atoms, moved, turned, mirrored, permuted])
            for other in others:
                np.testing.assert_allclose(other, first, rtol=1e-10, atol=1e-10)

    def test_of_crystals_under_the_choice_of_the_cell(self):
        acsf = ACSF(["Cu", "Au"], R_CUT, periodic=True, **FUNCTIONS)
        fingerprint = Fingerprint(acsf, EVERY_POOLING, per_species=True)
        cubic = bulk("Cu", a=3.8, cubic=True)
        cubic.numbers[0] = 79
        wrapped = cubic.copy()
        wrapped.positions += [5.1, -7.2, 0.3]
        wrapped.wrap()
        skewed = cubic.copy()
        skewed.cell[:] = [[1, 1, 0], [0, 1, 0], [0, -2, 1]] @ cubic.cell.array
        found = fingerprint.create([cubic, wrapped, skewed, cubic * (1, 1, 2)])
        for other in found[1:]:
            np.testing.assert_allclose(other, found[0], rtol=1e-10, atol=1e-9)

    def test_tells_apart_what_differs(self, alloys):
        atoms = Atoms("Cu2Au", [[0, 0, 0], [2.5, 0, 0], [0, 2.6, 0.2]])
        swapped = atoms[[0, 2, 1]]
        swapped.positions = atoms.positions
        closer = atoms.copy()
        closer.positions[0] += 0.01
        found = alloys.create([atoms, swapped, closer])
        assert np.abs(found[1] - found[0]).max() > 1e-2
        assert np.abs(found[2] - found[0]).max() > 1e-4


class TestCreate:
    def test_leaves_its_input_alone(self, alloys):
        atoms = cluster(["Cu", "Au"], 5, 0)
        before = atoms.copy()
        alloys.create([atoms])
        assert atoms == before

    def test_padding_and_company_do_not_matter(self, alloys):
        structures = [cluster(["Cu", "Au"], n, n) for n in (7, 1, 3, 8, 2, 5, 4)]
        together = alloys.create(structures)
        assert together.dtype == np.float64
        for one, structure in zip(together, structures, strict=True):
            np.testing.assert_allclose(one, alloys.create(structure)[0], rtol=1e-11, atol=1e-13)

    def test_equals_call(self, alloys):
        structures = [cluster(["Cu", "Au"], 5, n) for n in range(3)]
        batch = StructureBatch.from_ase(structures, r_cut=R_CUT, atoms=6)
        np.testing.assert_allclose(alloys(batch), alloys.create(structures), rtol=1e-11, atol=1e-13)

    @pytest.mark.parametrize(
        ("structures", "message"),
        [
            ([], "structures is empty"),
            ([Atoms("Cu"), Atoms()], r"structures\[1\] has no atoms"),
            ([Atoms("Cu"), Atoms("Pt")], r"structures\[1\] holds Pt; .* species are Cu, Au"),
            (Atoms("Cu", [[np.nan] * 3]), "not finite"),
            (Atoms("Cu", cell=[3] * 3, pbc=True), "is for clusters only"),
        ],
    )
    def test_refuses(self, alloys, structures, message):
        with pytest.raises(ValueError, match=message):
            alloys.create(structures)


def value_and_gradient(fingerprint, batch):
    with tf.GradientTape() as tape:
        tape.watch(batch.positions)
        value = fingerprint(batch)
    return value, tape.gradient(value, batch.positions)


MODES = {
    "eager": lambda function: function,
    "graph": lambda function: tf.function(function, autograph=False),
    "xla": lambda function: tf.function(function, jit_compile=True, autograph=False),
}


class TestGradients:
    def test_equal_finite_differences(self, alloys):
        atoms = cluster(["Cu", "Au"], 5, 3)
        atoms.numbers = [29, 79, 29, 79, 29]
        weights = np.random.default_rng(0).normal(size=alloys.size)
        weights /= np.abs(alloys.create(atoms)[0]) + 1e-3

        def function(positions):
            positions = tf.convert_to_tensor(positions)
            numbers = tf.tile(tf.constant(atoms.numbers, tf.int32)[None], [len(positions), 1])
            return tf.linalg.matvec(alloys(StructureBatch.of_clusters(positions, numbers)), weights)

        x = tf.constant(atoms.positions[None])
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = function(x)
        found = tape.gradient(value, x)[0]
        wanted = reference.central_difference(lambda p: function(p).numpy(), atoms.positions)
        np.testing.assert_allclose(found, wanted, atol=1e-6 * np.abs(wanted).max())

    @pytest.mark.parametrize("mode", MODES)
    def test_are_finite_where_geometry_is_degenerate(self, alloys, mode):
        degenerate = [
            Atoms("Cu3Au", [[0, 0, 0], [1.1, 1.1, 1.1], [2, 2, 2], [-1.3, -1.3, -1.3]]),
            Atoms("Au"),
            Atoms("Cu2", [[0, 0, 0], [2, 0, 0]]),  # two atoms that see the same: std = 0
            Atoms("Cu3", [[0, 0, 0], [2, 0, 0], [1, np.sqrt(3), 0]]),
            Atoms("Cu2Au", [[0, 0, 0], [9, 0, 0], [0, 9, 0]]),  # all alone
        ]
        batch = StructureBatch.from_ase(degenerate, r_cut=R_CUT, atoms=5, dtype="float32")
        value, gradient = MODES[mode](value_and_gradient)(alloys, batch)
        assert value.dtype == gradient.dtype == tf.float32
        assert np.isfinite(value).all()
        assert np.isfinite(gradient).all()
        np.testing.assert_array_equal(gradient.numpy()[~batch.mask.numpy()], 0.0)
        np.testing.assert_allclose(value, alloys.create(degenerate), rtol=1e-4, atol=1e-4)

    def test_are_finite_where_atoms_coincide(self, fung2022):
        batch = StructureBatch.from_ase([Atoms("Pt3", np.eye(3)[[0, 0, 1]] * 2)], r_cut=20.0)
        value, gradient = value_and_gradient(fung2022, batch)
        assert np.isfinite(value).all()
        assert np.isfinite(gradient).all()


def test_float32_is_close_to_float64(fung2022):
    structures = [cluster(["Pt"], 13, n) for n in range(20)]
    wanted = fung2022.create(structures)
    found = fung2022(StructureBatch.from_ase(structures, r_cut=20.0, dtype="float32"))
    error = np.abs(found.numpy() - wanted) / np.abs(wanted).max(axis=0)
    assert error.max() < 2e-5


class Distances:
    """A user's descriptor: sums of Gaussians of the distance, whatever the element."""

    r_cut = 5.0

    def __init__(self, species, centres):
        self.species, self.centres = list(species), list(centres)

    @property
    def size(self):
        return len(self.centres)

    def __call__(self, batch):
        near = neighbourhood(batch, self.r_cut)
        centres = tf.constant(self.centres, batch.positions.dtype)
        bumps = tf.exp(-((near.distances[..., None] - centres) ** 2))
        return tf.reduce_sum(tf.where(near.mask[..., None], bumps, tf.zeros_like(bumps)), axis=2)

    def get_config(self):
        return {"species": self.species, "centres": self.centres}


class TestConfiguration:
    def test_survives_json(self, alloys):
        copy = Fingerprint.from_config(json.loads(json.dumps(alloys.get_config())))
        assert copy.get_config() == alloys.get_config()
        assert copy.species == alloys.species == ["Cu", "Au"]
        atoms = cluster(["Cu", "Au"], 4, 1)
        np.testing.assert_array_equal(copy.create(atoms), alloys.create(atoms))

    def test_with_a_descriptor_of_ones_own(self):
        assert isinstance(Distances(["Pt"], [2]), Descriptor)
        fingerprint = Fingerprint(Distances(["Pt"], [2.0, 3.0]), ("mean", "max"))
        dimer = Atoms("Pt2", [[0, 0, 0], [2.5, 0, 0]])
        np.testing.assert_allclose(fingerprint.create(dimer), np.full([1, 4], np.exp(-0.25)))
        config = fingerprint.get_config()
        copy = Fingerprint.from_config(config, descriptors=[Distances])
        np.testing.assert_array_equal(copy.create(dimer), fingerprint.create(dimer))
        with pytest.raises(ValueError, match="descriptor is 'Distances'; known are ACSF"):
            Fingerprint.from_config(config)

    @pytest.mark.parametrize(
        "broken",
        [
            {"descriptor": None},
            {"descriptor_config": None},
            {"descriptor_config": {"r_cut": 5.0}},
            {"descriptor_config": {"species": ["Pt"], "r_cut": 5.0, "colour": "red"}},
            {"descriptor_config": {"species": ["Pt"], "r_cut": -5.0}},
            {"pooling": 3},
            {"pooling": ["median"]},
        ],
    )
    def test_refuses_what_is_malformed(self, alloys, broken):
        with pytest.raises(ValueError, match=r"malformed|descriptor is|r_cut is|pooling is"):
            Fingerprint.from_config({**alloys.get_config(), **broken})

    @pytest.mark.parametrize("name", ["descriptor", "descriptor_config", "pooling", "per_species"])
    def test_refuses_what_is_incomplete(self, alloys, name):
        config = alloys.get_config()
        del config[name]
        with pytest.raises(ValueError, match=f"malformed fingerprint configuration: '{name}'"):
            Fingerprint.from_config(config)


class TestParts:
    """The cheap part that a search uses, and the features that are differentiable everywhere."""

    @pytest.mark.parametrize("per_species", [False, True])
    def test_the_cheap_part_is_part_of_the_whole(self, per_species):
        acsf = ACSF(["Cu", "Au"], R_CUT, g3_params=[0.7], **FUNCTIONS)
        whole = Fingerprint(acsf, EVERY_POOLING, per_species)
        cheap, places = whole.cheap_part
        assert not cheap.triples
        assert whole.triples
        assert len(places) == cheap.size < whole.size
        structures = [cluster(["Cu", "Au"], n, n) for n in (4, 5)]
        np.testing.assert_allclose(
            cheap.create(structures), whole.create(structures)[:, places], rtol=1e-12, atol=1e-14
        )
        # All that is left out depends on triples: it is nothing for two atoms.
        rest = np.setdiff1d(np.arange(whole.size), places)
        assert not whole.create([cluster(["Cu", "Au"], 2, 0)])[:, rest].any()

    @pytest.mark.parametrize(
        "functions",
        [{"g1": True}, {"g1": False, "g5_params": [[0.1, 2, 1]]}],
        ids=["pairs only", "triples only"],
    )
    def test_without_a_cheap_part(self, functions):
        acsf = ACSF(["Pt"], R_CUT, **functions)
        assert acsf.cheap_part() is None
        assert Fingerprint(acsf, ("mean",)).cheap_part is None
        assert acsf.triples is Fingerprint(acsf, ("mean",)).triples is ("g5_params" in functions)

    def test_without_covariances_of_the_cheap_part(self):
        """It is one function, which has none."""
        acsf = ACSF(["Pt"], R_CUT, g5_params=[[0.1, 1, 1], [0.1, 1, -1]])
        assert acsf.cheap_part().size == 1
        assert Fingerprint(acsf, "covariance").cheap_part is None
        structures = [cluster(["Pt"], 4, i) for i in range(3)]
        whole = Fingerprint(acsf, ("mean", "covariance"))
        cheap, places = whole.cheap_part
        np.testing.assert_allclose(cheap.create(structures), whole.create(structures)[:, places])
        assert cheap.scale(cheap.create(structures)).shape == (1,)

    def test_the_cheap_part_of_an_acsf_is_the_first_features_of_each_atom(self):
        acsf = ACSF(["Cu", "Au"], R_CUT, periodic=True, **FUNCTIONS)
        cheap = acsf.cheap_part()
        crystal = bulk("Cu", cubic=True)
        crystal.symbols[0] = "Au"
        for atoms in (cluster(["Cu", "Au"], 5, 1), crystal):
            found, wanted = cheap.create(atoms), acsf.create(atoms)
            assert found.shape == (len(atoms), 2 * (1 + 2))
            np.testing.assert_allclose(found, wanted[:, : cheap.size], rtol=1e-12)
        assert cheap.periodic
        assert cheap.cheap_part() is None

    def test_broad_acsf_is_without_narrow_functions(self):
        acsf = ACSF(
            ["Cu", "Au"],
            R_CUT,
            g2_params=[[8.0, 2.0], [5.0, 2.5], [0.5, 3.0]],
            g5_params=[[9.0, 4, 1]],
            periodic=True,
        )
        broad = acsf.broad()
        kept = [0, 2, 3, 4, 6, 7, 8, 9, 10]  # for each element G1 and three G2; three pairs of G5
        atoms = cluster(["Cu", "Au"], 5, 1)
        np.testing.assert_allclose(broad.create(atoms), acsf.create(atoms)[:, kept], rtol=1e-12)
        assert broad.periodic
        assert broad.broad() is broad
        narrow = ACSF(["Pt"], R_CUT, g2_params=[[8.0, 2.0]], g1=False)
        assert narrow.broad() is narrow  # there is nothing else
        with_number = ACSF(["Pt"], R_CUT, g2_params=[[8.0, 2.0]])
        assert with_number.broad() is with_number  # next to nothing

    def test_of_a_descriptor_of_ones_own(self):
        own = Fingerprint(Distances(["Pt"], [2.0, 3.0]), ("mean",))
        assert own.cheap_part is None
        assert own.triples  # unless it says otherwise

    @pytest.mark.parametrize("per_species", [False, True])
    def test_differentiable_are_those_that_are_neither_largest_nor_smallest(self, per_species):
        acsf = ACSF(["Cu", "Au"], R_CUT, **FUNCTIONS)
        whole = Fingerprint(acsf, ("max", "mean", "min", "std"), per_species)
        size = acsf.size
        block = [False] * size + [True] * size + [False] * size + [True] * size
        np.testing.assert_array_equal(whole.differentiable, block * (2 if per_species else 1))
        assert whole.differentiable.dtype == bool
        assert len(whole.differentiable) == whole.size


class TestScale:
    """The unit of each feature's error."""

    def test_is_the_spread_with_a_floor_for_each_block(self, alloys):
        vectors = np.random.default_rng(0).lognormal(0.0, 2.0, [20, alloys.size])
        size = alloys.descriptor.size
        wanted = []
        widths = 2 * [*5 * [size], sum(size - lag for lag in range(1, 7))]
        for start, width in zip(np.cumsum([0, *widths]), widths, strict=False):
            spread = [float(np.std(column)) for column in vectors.T[start : start + width]]
            floor = max(0.1 * np.quantile(spread, 0.75), 1e-3 * max(spread))
            wanted += [max(s, floor) for s in spread]
        assert np.allclose(alloys.scale(vectors), wanted, rtol=1e-12, atol=0.0)

    def test_a_block_that_varies_much_leaves_the_others_alone(self, alloys):
        vectors = np.random.default_rng(1).normal(size=[20, alloys.size])
        before = alloys.scale(vectors)
        size = alloys.descriptor.size
        vectors[:, size : 2 * size] *= 100.0
        after = alloys.scale(vectors)
        others = np.r_[:size, 2 * size : alloys.size]
        assert np.array_equal(after[others], before[others])
        assert np.allclose(after[size : 2 * size], 100.0 * before[size : 2 * size])

    def test_where_nothing_varies(self, alloys):
        assert np.array_equal(alloys.scale(np.ones([5, alloys.size])), np.ones(alloys.size))

    @pytest.mark.parametrize("shape", [(0, 10), (3, 9), (10,)])
    def test_refuses(self, shape):
        fingerprint = Fingerprint(ACSF(["Pt"], 5.0, [[1.0, float(i)] for i in range(4)]))
        assert fingerprint.size == 10
        with pytest.raises(ValueError, match=r"\[structures, 10\] is needed"):
            fingerprint.scale(np.ones(shape))

    def test_does_not_blow_up_rounding(self):
        """Third moments of two atoms are zero but for it."""
        fingerprint = Fingerprint.preset("default", ["Cu", "Au"])
        scale = fingerprint.scale(fingerprint.create([cluster(["Cu"], 2, i) for i in range(9)]))
        assert scale.min() > 1e-8  # they are below 1e-16


def test_the_repr_is_one_line_without_arrays(fung2022):
    assert repr(fung2022) == (
        "<Fingerprint size=380, pooling=('max', 'min'), per_species=False, descriptor=<ACSF "
        "size=190, species=['Pt'], r_cut=20.0, periodic=False, functions=140 G2 + 50 G5>>"
    )
    every = ACSF(["Cu"], 5.0, [[1, 2]], [0.5, 0.7], [[1, 1, 1]], [[1, 1, 1]], periodic=True)
    assert repr(every).endswith("periodic=True, functions=G1 + 1 G2 + 2 G3 + 1 G4 + 1 G5>")
