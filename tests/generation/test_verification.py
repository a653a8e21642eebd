"""Verification: what is accepted, and in which order the rest is preferred."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import small
from ase import Atoms

import tfgen
from tfgen.datasets.storage import Dataset
from tfgen.generation.ranking import Proposal
from tfgen.generation.request import Request
from tfgen.generation.settings import GenerationSettings
from tfgen.generation.verification import Verifier
from tfgen.inversion.result import status_of
from tfgen.structures.properties import radius_of_gyration
from tfgen.structures.status import Status
from tfgen.targets import Target

ENERGY, SIZE = small.PROPERTIES
SIDE = 2.7


def pyramid(height: float) -> Atoms:
    """Pt5: a square of side 2.7 Å with an atom above its middle."""
    square = [[0, 0, 0], [SIDE, 0, 0], [0, SIDE, 0], [SIDE, SIDE, 0]]
    return Atoms("Pt5", positions=[*square, [SIDE / 2, SIDE / 2, height]])


def proposal(height: float, status=Status.CONVERGED, detail="") -> Proposal:
    return Proposal(
        structure=pyramid(height), fingerprint=np.zeros(12), predicted={}, loss=0.0,
        status=status, status_detail=detail,
    )  # fmt: skip


def verify(*candidates, accepted=(), known=(), target=None, **changes):
    settings = GenerationSettings(**changes)
    request = Request(
        numbers=np.full(5, 78),
        targets=(target or Target.of(SIZE, (0.5, 3.0), 0.1),),
        count=1,
        seed=0,
        potential=small.potential(),
        relaxed_by=None,
        minima=True,
        evaluated_by={ENERGY: "emt", SIZE: "geometry"},
        candidates=1,
    )
    model = dataclasses.replace(small.model(), training_structures=tuple(known))
    return Verifier(model, request, settings).verify(candidates, list(accepted))


def test_what_is_on_target_and_new_is_accepted():
    size = radius_of_gyration([pyramid(1.8)])[0]
    near, far = verify(proposal(1.8), proposal(2.6), target=Target.of(SIZE, size, 0.01))
    assert near.accepted
    assert (near.miss, near.sound) == (0.0, True)
    assert near.reconstructed[SIZE] == pytest.approx(size)
    energy = small.potential().compute([pyramid(1.8)])["energy"][0] / 5
    assert near.reconstructed[ENERGY] == pytest.approx(energy)
    assert near.relaxed == {}
    assert (far.sound, far.on_target, far.accepted) == (True, False, False)
    assert near.order < far.order


def test_what_equals_another_is_not_new():
    found = verify(
        proposal(1.8), proposal(1.81), proposal(2.2), proposal(2.6),
        accepted=[pyramid(2.2)], known=[pyramid(2.6), Atoms("Pt2", positions=np.eye(3)[:2])],
    )  # fmt: skip
    assert [v.on_target for v in found] == [True] * 4
    assert [v.accepted for v in found] == [True, False, False, False]
    strict = verify(proposal(1.8), proposal(1.81), duplicate_tolerance=1e-4)
    assert [v.accepted for v in strict] == [True, True]


def test_what_is_not_sound_is_not_accepted():
    failed, apart = verify(
        proposal(1.8, Status.NOT_VALID, "after relaxation on the NNP"),
        proposal(9.0),  # in two pieces
        target=Target.of(SIZE, (0.5, 9.0), 0.1),
    )
    assert failed.status == Status.NOT_VALID
    assert failed.status_detail == "after relaxation on the NNP"
    assert apart.status == Status.CONVERGED  # the inversion has
    for verification in (failed, apart):
        assert not verification.sound
        assert verification.miss < 1.0
        assert not verification.accepted


def test_short_bonds_of_the_training_set_are_valid():
    """Two chromium atoms are 1.68 Å apart: 0.6 of the sum of their radii."""
    dimers = [Atoms("Cr2", positions=[[0, 0, 0], [0, 0, x]]) for x in (1.66, 1.68, 1.7)]
    model = dataclasses.replace(small.model(), training_structures=tuple(dimers))
    data = Dataset(
        structures=dimers, properties={"a": np.zeros(3)}, units={"a": "1"}, split=np.zeros(3)
    )
    metrics = tfgen.evaluate(dimers, data)
    limits = model.validity_thresholds
    assert metrics.thresholds.overlap_factor == limits.overlap_factor < 1.66 / (2 * 1.39)
    assert metrics.thresholds.bond_factor == limits.bond_factor
    assert limits.valid(dimers).all()
    assert metrics.shares.validity == 1.0
    statuses = [status_of(d, 0.0, 1.0, limits.overlap_factor) for d in dimers]
    assert statuses == [Status.CONVERGED] * 3
    assert status_of(dimers[0], 0.0, 1.0) == Status.OVERLAPPING_ATOMS
    nothing = dataclasses.replace(model, training_structures=())
    assert nothing.validity_thresholds[:2] == (0.7, 1.3)
