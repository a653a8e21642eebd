"""Evaluation over many structures: the same numbers however they are cut into chunks."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
from ase import Atoms
from hypothesis import given, settings
from hypothesis import strategies as st

from tfgen.descriptors.acsf import ACSF
from tfgen.descriptors.evaluator import Evaluator, Limits
from tfgen.fingerprints.fingerprint import Fingerprint
from tfgen.structures.batch import BUCKETS, StructureBatch


def clusters(sizes, seed=0):
    rng = np.random.default_rng(seed)
    return [Atoms(f"Pt{n}", positions=rng.uniform(-4, 4, size=[n, 3])) for n in sizes]


@pytest.fixture
def fingerprint():
    acsf = ACSF(["Pt"], 6.0, g2_params=[[1, 2], [4, 3]], g5_params=[[0.1, 4, 1]], periodic=True)
    return Fingerprint(acsf, ("mean", "max"))


def traces(evaluator):
    functions = [*evaluator._graphs.values(), evaluator._compiled]
    return sum(f.experimental_get_tracing_count() for f in functions)


def evaluated(evaluator, structures):
    """In the order of the structures."""
    rows = {}
    for members, values in evaluator(structures):
        assert not set(members) & set(rows)
        rows |= dict(zip(members.tolist(), values, strict=True))
    return np.array([rows[i] for i in range(len(structures))])


def one_by_one(fingerprint, structures):
    rows = [fingerprint(StructureBatch.from_ase([s], r_cut=6.0)).numpy()[0] for s in structures]
    return np.array(rows)


@pytest.mark.parametrize("compiled", [False, True])
def test_chunks_padding_and_threads_do_not_matter(fingerprint, compiled):
    limits = Limits(
        numbers_per_chunk=10_000,
        numbers_in_cache=4_000,
        numbers_to_compile=1 if compiled else 10**9,
        pieces=4,
    )
    evaluator = Evaluator(fingerprint, 6.0, limits)
    structures = clusters([3, 8, 2, 5, 7, 8, 1, 6, 5, 8, 4])
    structures[3].set_cell([5, 6, 7])
    structures[3].pbc = True
    values = evaluated(evaluator, structures)
    np.testing.assert_allclose(values, one_by_one(fingerprint, structures), rtol=1e-12, atol=1e-14)
    # One for each padded size: 2, 4, 8.
    assert evaluator._compiled.experimental_get_tracing_count() == (3 if compiled else 0)


OF_ALL_EXAMPLES = Fingerprint(ACSF(["Pt"], 6.0, g2_params=[[1, 2]]), ("mean",))


@given(st.lists(st.integers(1, 30), min_size=1, max_size=12), st.integers(0, 99))
@settings(max_examples=10)
def test_any_mix_of_sizes_comes_back_in_order(sizes, seed):
    structures = clusters(sizes, seed)
    wanted = one_by_one(OF_ALL_EXAMPLES, structures)
    np.testing.assert_allclose(OF_ALL_EXAMPLES.create(structures), wanted, rtol=1e-12)


def test_mixed_sizes_cost_few_traces(fingerprint):
    evaluator = Evaluator(fingerprint, 6.0)
    for n in range(1, 17):
        evaluated(evaluator, clusters([n] * n))
        evaluated(evaluator, clusters([n] * (n + 1)))
    # For each padded size one for the first number of structures, and one for any.
    assert traces(evaluator) <= 2 * len([size for size in BUCKETS if size <= 16])


def test_values_do_not_depend_on_what_was_computed_before(fingerprint):
    structures = clusters([7, 8, 12])
    wanted = evaluated(Evaluator(fingerprint, 6.0), structures)
    evaluator = Evaluator(fingerprint, 6.0)
    for sizes in ([3], [5, 30], [8, 8], [20]):
        evaluated(evaluator, clusters(sizes))
    np.testing.assert_array_equal(evaluated(evaluator, structures), wanted)
    np.testing.assert_array_equal(fingerprint.create(structures), wanted)


def test_compilations_are_bounded_by_buckets(fingerprint):
    evaluator = Evaluator(fingerprint, 6.0, Limits(numbers_to_compile=1))
    for first in range(1, 10, 4):
        evaluated(evaluator, clusters(range(first, first + 4)))
    assert 0 < traces(evaluator) <= len([size for size in BUCKETS if size <= 13])


def test_memory_stays_bounded(fingerprint, monkeypatch):
    """No chunk holds more than its share, even where all is asked for at once."""
    sizes = []
    pack = StructureBatch.from_ase

    def spy(structures, **arguments):
        sizes.append(len(structures) * arguments["atoms"] ** 2)
        return pack(structures, **arguments)

    monkeypatch.setattr(StructureBatch, "from_ase", spy)
    fingerprint.create(clusters([20] * 500))
    assert sum(sizes) == 500 * 20**2
    assert max(sizes) <= Limits().numbers_per_chunk / 200


def test_descriptors_that_were_used_can_be_copied_and_pickled(fingerprint):
    structures = clusters([3, 4])
    wanted = fingerprint.create(structures)
    fingerprint.descriptor.create(structures)
    for other in (copy.deepcopy(fingerprint), pickle.loads(pickle.dumps(fingerprint))):
        np.testing.assert_array_equal(other.create(structures), wanted)


def test_equal_descriptors_and_fingerprints_share_their_graphs():
    def acsf(r_s=2.0):
        return ACSF(["Pt"], 5.5, g2_params=[[1.0, r_s]])

    structures = clusters([3, 4])
    for one, same, other in (
        (acsf(), acsf(), acsf(2.1)),
        (Fingerprint(acsf()), Fingerprint(acsf()), Fingerprint(acsf(), "mean")),
    ):
        assert one == same
        assert hash(one) == hash(same)
        assert one != other
        assert one != "fingerprint"
        one.create(structures)
        before = traces(one._evaluator)
        same.create(structures)
        assert traces(one._evaluator) == before > 0
        other.create(structures)
        assert traces(one._evaluator) == before
        assert traces(other._evaluator) > 0


def test_a_class_of_its_own_does_not_share_what_another_computes():
    class Twice(ACSF):
        def __call__(self, batch):
            return 2.0 * super().__call__(batch)

    one, other = (kind(["Pt"], 5.5, g2_params=[[1.0, 2.0]]) for kind in (ACSF, Twice))
    assert one != other
    np.testing.assert_allclose(2.0 * one.create(clusters([3])), other.create(clusters([3])))
    np.testing.assert_allclose(
        2.0 * Fingerprint(one).create(clusters([3])), Fingerprint(other).create(clusters([3]))
    )
