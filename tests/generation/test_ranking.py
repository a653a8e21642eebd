"""The order in which proposals are taken."""

from __future__ import annotations

import dataclasses

import numpy as np
from ase import Atoms

from tfgen.generation.ranking import Proposal, Ranking, rank
from tfgen.generation.settings import ProposalSettings
from tfgen.structures.status import Status

SETTINGS = ProposalSettings()
LINE = [Atoms("Pt2", positions=[[0, 0, 0], [0, 0, 2 + 0.5 * i]]) for i in range(5)]


def proposal(i, **changes):
    return Proposal(**{
        "structure": LINE[i], "fingerprint": np.zeros(1), "predicted": {}, "loss": 0.0,
        "status": Status.CONVERGED, **changes,
    })  # fmt: skip


WAITING = [
    proposal(0, miss=3.0),
    proposal(1, miss=0.5),
    proposal(2, alike=True, equal=True),
    proposal(1, miss=0.4),
    proposal(3, status=Status.NOT_VALID),
    proposal(4, miss=0.2),
]


def test_sound_on_target_and_new_ones_come_first():
    order, promising, possible = rank(WAITING, [], SETTINGS)
    assert promising == possible == 2
    assert order[:2] == [5, 3]
    assert set(order[2:4]) == {1, 2}  # repeated or known, but on target
    assert order[4:] == [0, 4]


def test_what_was_taken_before_is_not_new():
    rest = [WAITING[i] for i in (0, 1, 2, 3, 4)]
    assert rank(rest, [LINE[4]], SETTINGS)[1:] == (1, 1)
    assert rank(rest, [LINE[4], LINE[1]], SETTINGS)[1:] == (0, 0)


def test_what_may_be_the_same_is_possible_but_not_promising():
    """Next to one of those taken, or to a training structure."""
    near = Atoms("Pt2", positions=[[0, 0, 0], [0, 0, 2.58]])
    rest = [
        *(WAITING[i] for i in (0, 1, 2, 3, 4)),
        dataclasses.replace(proposal(1, miss=0.4), structure=near),
        proposal(3, alike=True, miss=0.4),
    ]
    order, promising, possible = rank(rest, [LINE[4], LINE[1]], SETTINGS)
    assert (promising, possible) == (0, 2)
    assert set(order[:2]) == {5, 6}
    # The tolerances say what is alike and what is equal.
    strict = ProposalSettings(alike_tolerance=0.07, equal_tolerance=0.07)
    assert rank(rest, [LINE[4], LINE[1]], strict).promising == 1
    lax = ProposalSettings(equal_tolerance=0.1)
    assert rank(rest, [LINE[4], LINE[1]], lax).possible == 1


def test_the_predicted_miss_has_a_bound():
    assert rank([proposal(1, miss=0.65)], [], SETTINGS) == Ranking([0], 0, 0)
    assert rank([proposal(1, miss=0.65)], [], ProposalSettings(promising_miss=0.7)).promising == 1


def test_of_none():
    assert rank([], [], SETTINGS) == ([], 0, 0)
