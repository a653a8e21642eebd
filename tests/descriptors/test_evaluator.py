"""Evaluation over many structures: the same numbers however they are cut into chunks."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
from ase import Atoms
from hypothesis import given, settings
from hypothesis import strategies as st

from tfgen.descriptors import evaluator
from tfgen.descriptors.acsf import ACSF
from tfgen.fingerprints.fingerprint import Fingerprint
from tfgen.structures.batch import BUCKETS, StructureBatch


def clusters(sizes, seed=0):
    rng = np.random.default_rng(seed)
    return [Atoms(f"Pt{n}", positions=rng.uniform(-4, 4, size=[n, 3])) for n in sizes]


@pytest.fixture
def fingerprint():
    acsf = ACSF(["Pt"], 6.0, g2_params=[[1, 2], [4, 3]], g5_params=[[0.1, 4, 1]], periodic=True)
    return Fingerprint(acsf, ("mean", "max"))


def traces(fingerprint):
    inner = fingerprint._evaluator
    functions = [*inner._graphs.values(), inner._compiled]
    return sum(f.experimental_get_tracing_count() for f in functions)


def one_by_one(fingerprint, structures):
    rows = [fingerprint(StructureBatch.from_ase([s], r_cut=6.0)).numpy()[0] for s in structures]
    return np.array(rows)


@pytest.fixture(params=["graph", "compiled"])
def way(request, monkeypatch):
    """Small chunks, with or without XLA."""
    monkeypatch.setattr(evaluator, "NUMBERS_PER_CHUNK", 10_000)
    monkeypatch.setattr(evaluator, "NUMBERS_IN_CACHE", 4_000)
    if request.param == "compiled":
        monkeypatch.setattr(evaluator, "NUMBERS_TO_COMPILE", 1)
    return request.param


def test_chunks_padding_and_threads_do_not_matter(fingerprint, way):
    structures = clusters([3, 8, 2, 5, 7, 8, 1, 6, 5, 8, 4])
    structures[3].set_cell([5, 6, 7])
    structures[3].pbc = True
    values = fingerprint.create(structures)
    np.testing.assert_allclose(values, one_by_one(fingerprint, structures), rtol=1e-12, atol=1e-14)
    compiled = fingerprint._evaluator._compiled.experimental_get_tracing_count()
    assert compiled == (3 if way == "compiled" else 0)  # one for each padded size: 2, 4, 8


OF_ALL_EXAMPLES = Fingerprint(ACSF(["Pt"], 6.0, g2_params=[[1, 2]]), ("mean",))


@given(st.lists(st.integers(1, 30), min_size=1, max_size=12), st.integers(0, 99))
@settings(max_examples=10)
def test_any_mix_of_sizes_comes_back_in_order(sizes, seed):
    structures = clusters(sizes, seed)
    wanted = one_by_one(OF_ALL_EXAMPLES, structures)
    np.testing.assert_allclose(OF_ALL_EXAMPLES.create(structures), wanted, rtol=1e-12)


def test_mixed_sizes_cost_few_traces(fingerprint):
    for n in range(1, 17):
        fingerprint.create(clusters([n] * n))
        fingerprint.create(clusters([n] * (n + 1)))
    # For each padded size one for the first number of structures, and one for any.
    assert traces(fingerprint) <= 2 * len([size for size in BUCKETS if size <= 16])


def test_values_do_not_depend_on_what_was_computed_before(fingerprint):
    structures = clusters([7, 8, 12])
    wanted = copy.deepcopy(fingerprint).create(structures)
    for sizes in ([3], [5, 30], [8, 8], [20]):
        fingerprint.create(clusters(sizes))
    np.testing.assert_array_equal(fingerprint.create(structures), wanted)


def test_compilations_are_bounded_by_buckets(fingerprint, monkeypatch):
    monkeypatch.setattr(evaluator, "NUMBERS_TO_COMPILE", 1)
    for first in range(1, 10, 4):
        fingerprint.create(clusters(range(first, first + 4)))
    assert traces(fingerprint) <= len([size for size in BUCKETS if size <= 13])


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
    assert max(sizes) <= evaluator.NUMBERS_PER_CHUNK / 200


def test_descriptors_that_were_used_can_be_copied_and_pickled(fingerprint):
    structures = clusters([3, 4])
    wanted = fingerprint.create(structures)
    fingerprint.descriptor.create(structures)
    for other in (copy.deepcopy(fingerprint), pickle.loads(pickle.dumps(fingerprint))):
        np.testing.assert_array_equal(other.create(structures), wanted)
