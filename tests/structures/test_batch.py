"""Batches and their way from and to ase.Atoms, against ASE's own answers."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from ase import Atoms
from ase.build import bulk, molecule
from ase.cluster import Icosahedron, Octahedron
from ase.neighborlist import neighbor_list
from hypothesis import given, settings
from hypothesis import strategies as st

from tfgen.structures.batch import BUCKETS, StructureBatch, bucket, groups
from tfgen.structures.neighbours.lists import neighbour_lists


def mixed() -> list[Atoms]:
    slab = Atoms("CuAu", [[0, 0, 0], [1.2, 1.0, 2.0]], cell=[[3, 0, 0], [1, 3, 0], [0, 0, 9]])
    slab.pbc = [True, True, False]
    return [molecule("H2O"), Atoms("Pt", [[1, 2, 3]]), slab, bulk("Pt", cubic=True)]


class TestBatch:
    def test_survives_the_way_there_and_back(self):
        structures = mixed()
        back = StructureBatch.from_ase(structures, r_cut=3.0).to_ase()
        assert back == structures  # ASE compares positions, numbers, cell and pbc
        for one, two in zip(back, structures, strict=True):
            np.testing.assert_array_equal(one.positions, two.positions)

    def test_pads_with_number_0_at_the_origin(self):
        batch = StructureBatch.from_ase(mixed(), r_cut=3.0, atoms=6)
        assert batch.positions.shape == (4, 6, 3)
        assert batch.numbers.dtype == tf.int32
        assert batch.pbc.dtype == tf.bool
        np.testing.assert_array_equal(tf.reduce_sum(tf.cast(batch.mask, tf.int32), 1), [3, 1, 2, 4])
        padding = ~batch.mask.numpy()
        np.testing.assert_array_equal(batch.numbers.numpy()[padding], 0)
        np.testing.assert_array_equal(batch.positions.numpy()[padding], 0.0)

    @pytest.mark.parametrize("dtype", ["float32", tf.float64])
    def test_has_the_dtype_asked_for(self, dtype):
        batch = StructureBatch.from_ase(mixed(), r_cut=3.0, dtype=dtype)
        assert batch.positions.dtype == batch.cell.dtype == batch.neighbours.shift.dtype == dtype

    def test_leaves_its_input_alone(self):
        structures, untouched = mixed(), mixed()
        StructureBatch.from_ase(structures, r_cut=3.0)
        assert structures == untouched

    def test_clusters_have_no_neighbour_lists(self):
        assert StructureBatch.from_ase(mixed()[:2], r_cut=3.0).neighbours is None

    def test_neighbour_lists_are_those_of_the_search(self):
        structures = mixed()
        batch = StructureBatch.from_ase(structures, r_cut=3.0, atoms=6, dtype="float32")
        index, shift = neighbour_lists(structures, 3.0, 6)
        assert batch.neighbours.index.dtype == tf.int32
        np.testing.assert_array_equal(batch.neighbours.index, index)
        np.testing.assert_array_equal(batch.neighbours.shift, shift)

    def test_passes_through_tf_function_and_tf_data(self):
        batch = StructureBatch.from_ase(mixed(), r_cut=3.0)
        through = tf.function(lambda b: b._replace(positions=2.0 * b.positions))(batch)
        assert isinstance(through, StructureBatch)
        np.testing.assert_array_equal(through.positions, 2.0 * batch.positions)
        for one in tf.data.Dataset.from_tensors(batch):
            assert isinstance(one, StructureBatch)
            np.testing.assert_array_equal(one.neighbours.index, batch.neighbours.index)

    def test_the_repr_holds_shapes_and_no_numbers(self):
        clusters = StructureBatch.from_ase(mixed()[:2], r_cut=3.0)
        assert repr(clusters) == "<StructureBatch positions=(2, 3, 3) float64>"
        crystals = StructureBatch.from_ase(mixed(), r_cut=3.0, dtype="float32")
        shape = crystals.neighbours.index.shape
        assert repr(crystals) == (
            f"<StructureBatch positions=(4, 4, 3) float32, neighbours={shape}>"
        )
        seen = []
        signature = tf.TensorSpec([None, None, 3], tf.float64), tf.TensorSpec([None, None], "int32")
        tf.function(
            lambda x, n: seen.append(repr(StructureBatch.of_clusters(x, n)))
        ).get_concrete_function(*signature)
        assert seen == ["<StructureBatch positions=(None, None, 3) float64>"]

    def test_of_clusters_is_what_from_ase_makes(self):
        structures = mixed()[:2]
        wanted = StructureBatch.from_ase(structures, r_cut=3.0)
        found = StructureBatch.of_clusters(wanted.positions, wanted.numbers)
        for one, two in zip(found[:4], wanted[:4], strict=True):
            assert one.dtype == two.dtype
            np.testing.assert_array_equal(one, two)
        assert found.neighbours is None


class TestBatches:
    @given(st.integers(1, 1000))
    def test_buckets_are_large_enough_and_not_much_larger(self, n):
        size = bucket(n)
        assert n <= size < n + 64
        assert bucket(size) == size
        assert size in BUCKETS or size % 64 == 0

    @given(st.lists(st.tuples(st.integers(1, 20), st.booleans()), min_size=1, max_size=30))
    @settings(max_examples=30)
    def test_every_structure_is_in_one_chunk_of_its_own_kind(self, kinds):
        structures = [Atoms(f"Cu{n}", cell=[9] * 3, pbc=p) for n, p in kinds]
        limit = 500
        seen = []
        for group in groups(structures):
            for members in group.chunks(limit):
                assert {bucket(len(structures[i])) for i in members} == {group.width}
                assert {structures[i].pbc.any() for i in members} == {group.periodic}
                assert len(members) == 1 or len(members) * group.width**2 <= limit
                seen += list(members)
        assert sorted(seen) == list(range(len(structures)))

    def test_a_structure_above_the_limit_is_a_chunk_of_its_own(self):
        (group,) = groups([Atoms("Cu9")] * 3)
        assert [list(members) for members in group.chunks(10)] == [[0], [1], [2]]


class TestSparse:
    """Neighbour lists of clusters."""

    def test_lists_hold_the_neighbours_that_ase_finds(self):
        clusters = [Icosahedron("Pt", 3), Octahedron("Pt", 4), Atoms("Pt40", np.eye(40, 3) * 9)]
        clusters[2].positions = np.arange(120).reshape(40, 3) * 0.8
        batch = StructureBatch.from_ase(clusters, r_cut=4.5, atoms=64, sparse=True)
        index = batch.neighbours.index.numpy()
        for row, cluster in zip(index, clusters, strict=True):
            i, j = neighbor_list("ij", cluster, 4.5)
            for atom in range(64):
                found = row[atom][row[atom] >= 0]
                assert sorted(found) == sorted(j[i == atom])
        assert not batch.neighbours.shift.numpy().any()

    @pytest.mark.parametrize(("layers", "r_cut"), [(3, 20.0), (2, 3.0)])
    def test_no_lists_where_they_save_nothing(self, layers, r_cut):
        cluster = Icosahedron("Pt", layers)
        batch = StructureBatch.from_ase([cluster], r_cut=r_cut, sparse=True)
        assert batch.neighbours is None
