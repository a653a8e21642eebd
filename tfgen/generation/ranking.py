"""Which proposals come first, and which are screened out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from ase import Atoms

from tfgen.generation.settings import ProposalSettings
from tfgen.structures.similarity import equality
from tfgen.structures.status import Status

__all__ = ["Proposal", "Ranking", "rank"]


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """A structure proposed for the targets of a request.

    Attributes:
        structure: as reconstructed, at a minimum of the NNP if it has relaxed on it.
        fingerprint: [features], the sampled fingerprint that it was inverted from.
        predicted: property -> value expected after relaxation; empty without an NNP.
        loss: distance of its fingerprint to the sampled one, as the inversion measures it.
        status: converged, or how making it failed.
        status_detail: what can be said beyond that.
        alike: whether it may be one of the training structures.
        equal: whether it certainly is one of them.
        miss: how far the prediction is off, up to 1 a hit (see `Target.miss`); 0 without an NNP.
    """

    structure: Atoms
    fingerprint: np.ndarray
    predicted: dict[str, float]
    loss: float
    status: Status
    status_detail: str = ""
    alike: bool = False
    equal: bool = False
    miss: float = 0.0


class Ranking(NamedTuple):
    """Proposals in the order in which they are taken.

    Attributes:
        order: places of all proposals, the best first.
        promising: how many of the first are predicted on target, and like no other structure.
        possible: how many of the first are predicted on target, and equal to no other structure.
    """

    order: list[int]
    promising: int
    possible: int


def rank(
    proposals: Sequence[Proposal], taken: Sequence[Atoms], settings: ProposalSettings
) -> Ranking:
    """Ranks proposals: sound and on target ones first, and among them new ones.

    Args:
        proposals: in the order in which they were made.
        taken: structures that have been taken before.
        settings: `promising_miss`, `alike_tolerance` and `equal_tolerance` are used.
    """
    if not proposals:
        return Ranking([], 0, 0)

    def faults(i: int) -> tuple[bool, bool]:
        proposal = proposals[i]
        return proposal.status != Status.CONVERGED, proposal.miss > settings.promising_miss

    # Ties go to the one proposed first.
    order = sorted(
        range(len(proposals)), key=lambda i: (*faults(i), proposals[i].alike, proposals[i].miss)
    )
    everyone = [*taken, *(proposals[i].structure for i in order)]
    # 0: like no other structure; 1: may be one of those before, or a training structure;
    # 2: certainly is.
    repeats = np.array([int(proposals[i].alike) + int(proposals[i].equal) for i in order])
    for tolerance, degree in ((settings.alike_tolerance, 1), (settings.equal_tolerance, 2)):
        first = equality.duplicates(everyone, tolerance) == np.arange(len(everyone))
        repeats = np.maximum(repeats, np.where(first[len(taken) :], 0, degree))
    degrees = dict(zip(order, repeats.tolist(), strict=True))
    # A repeated structure that is on target is better than a new one that is not.
    order.sort(key=lambda i: (*faults(i), degrees[i]))
    sound = [degrees[i] for i in order if not any(faults(i))]
    return Ranking(order, sound.count(0), sound.count(0) + sound.count(1))
