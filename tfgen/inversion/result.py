"""What an inversion returns: structures, losses, statuses, and what they cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms

from tfgen.fingerprints.fingerprint import Fingerprint
from tfgen.fingerprints.loss import fingerprint_loss, scaled_errors
from tfgen.inversion.checks import InitialStructures
from tfgen.inversion.descent import Goal
from tfgen.inversion.search import Found
from tfgen.inversion.settings import SearchSettings
from tfgen.structures.factors import OVERLAP_FACTOR
from tfgen.structures.similarity.equality import duplicates
from tfgen.structures.status import Status
from tfgen.structures.validity import overlapping

__all__ = ["ReconstructionResult", "judge", "status_of"]


@dataclass(frozen=True)
class ReconstructionResult:
    """What `reconstruct` returns, one entry for each target in the order given.

    Attributes:
        structures: the best structure found for each target.
        loss: [targets], its loss (`tfgen.fingerprints.loss`), in float64.
        status: how the search for each target ended: converged, ambiguous (several structures
            have this fingerprint; those found are among the candidates), unreachable (no structure
            seems to have it), not converged (the budget is used up), overlapping atoms, or no
            finite fingerprint.
        detail: what can be said beyond the status, as text; "" if nothing.
        candidates: the best distinct structures of each target, best first.
        candidate_losses: their losses.
        descents: [targets] int, structures that were followed downhill, random and moved ones.
        steps: [targets] int, gradients computed on the way. A Jacobian of the Gauss-Newton steps
            counts as one for each free coordinate: in forward mode, each of these derivatives
            costs about as much as a gradient.
        rounds: [targets] int, generations of the search after the first.
        seconds: [targets], time spent on each; those searched at the same time share processors.
    """

    structures: list[Atoms]
    loss: np.ndarray
    status: list[Status]
    detail: list[str]
    candidates: list[list[Atoms]]
    candidate_losses: list[np.ndarray]
    descents: np.ndarray
    steps: np.ndarray
    rounds: np.ndarray
    seconds: np.ndarray

    def to_json(self) -> list[dict[str, Any]]:
        """Returns one record for each target, as `tfgen reconstruct` writes it.

        Returns:
            Mappings of `fingerprint_loss` (None where it is not finite), `status`, `status_detail`
            (only if there is one), `seconds` and `rounds`, JSON-able.
        """
        records = []
        for i, status in enumerate(self.status):
            loss = float(self.loss[i])
            record: dict[str, Any] = {
                "fingerprint_loss": loss if np.isfinite(loss) else None,
                "status": status.value,
            }
            if self.detail[i]:
                record["status_detail"] = self.detail[i]
            record["seconds"] = float(self.seconds[i])
            record["rounds"] = int(self.rounds[i])
            records.append(record)
        return records


def status_of(
    atoms: Atoms, loss: float, tolerance: float, overlap_factor: float = OVERLAP_FACTOR
) -> Status:
    """Says whether a reconstructed structure has converged, or why not.

    Args:
        atoms: the structure; atoms overlap with periodic images, too.
        loss: of its fingerprint.
        tolerance: loss up to which the target is reached.
        overlap_factor: atoms closer than this times the sum of their covalent radii overlap.
    """
    if not np.isfinite(loss):
        return Status.NO_FINGERPRINT
    if not loss <= tolerance:
        return Status.NOT_CONVERGED
    if overlapping([atoms], overlap_factor)[0]:
        return Status.OVERLAPPING_ATOMS
    return Status.CONVERGED


def judge(
    fingerprint: Fingerprint,
    goals: list[Goal],
    found: list[Found],
    initial: InitialStructures,
    settings: SearchSettings,
) -> ReconstructionResult:
    """Makes the result of what searches found; losses are computed again, in float64.

    Args:
        fingerprint: of the structures.
        goals: what was sought.
        found: what was found for each goal.
        initial: knows the order of the atoms.
        settings: of the search.
    """
    candidates, losses, statuses, details = [], [], [], []
    for goal, one in zip(goals, found, strict=True):
        structures = [_structure(goal, x) for x in one.positions]
        errors = scaled_errors(fingerprint.create(structures), goal.target, goal.scale)
        loss = np.where(np.isfinite(one.loss), fingerprint_loss(errors), np.inf)
        order = np.argsort(loss, kind="stable")
        if goal.periodic:  # the search does not know that images are the same
            first = duplicates([structures[i] for i in order], settings.periodic_distance)
            order = order[first == np.arange(len(order))]
        order = order[: settings.candidates]
        structures, loss = [structures[i] for i in order], loss[order]
        candidates.append([initial.reorder(atoms) for atoms in structures])
        losses.append(loss)
        status, detail = _judge_target(structures, loss, goal.tolerance, one.repeated, settings)
        statuses.append(status)
        details.append(detail)
    return ReconstructionResult(
        structures=[c[0] for c in candidates],
        loss=np.array([values[0] for values in losses]),
        status=statuses,
        detail=details,
        candidates=candidates,
        candidate_losses=losses,
        descents=np.array([f.descents for f in found]),
        steps=np.array([f.steps for f in found]),
        rounds=np.array([f.rounds for f in found]),
        seconds=np.array([f.seconds for f in found]),
    )


def _structure(goal: Goal, positions: np.ndarray) -> Atoms:
    positions = np.nan_to_num(positions)
    if not goal.periodic and not goal.fixed.any():
        positions = positions - positions.mean(axis=0)
    atoms = goal.atoms(positions)
    if goal.periodic and not goal.fixed.any():
        atoms.wrap()
    return atoms


def _judge_target(
    structures: list[Atoms],
    loss: np.ndarray,
    tolerance: float,
    repeated: bool,
    settings: SearchSettings,
) -> tuple[Status, str]:
    """Returns the status of a target and the detail, from its candidates, best first."""
    status = status_of(structures[0], loss[0], tolerance)
    if status is Status.CONVERGED:
        # Others that fit as well; the search returns distinct ones only.
        limit = max(settings.ambiguous_ratio * loss[0], settings.ambiguous_loss * tolerance)
        fits = [
            value <= limit and status_of(atoms, value, tolerance) is Status.CONVERGED
            for atoms, value in zip(structures, loss, strict=True)
        ]
        if sum(fits) > 1:
            detail = f"{sum(fits)} different structures found with this fingerprint"
            return Status.AMBIGUOUS, detail
    if status is not Status.NOT_CONVERGED:
        return status, ""
    if repeated:
        detail = f"several populations ended in the same structure, whose loss is {loss[0]:.2g}"
        return Status.UNREACHABLE, detail
    if loss[0] > settings.unreachable_loss:
        return Status.UNREACHABLE, f"the best structure is far off, with a loss of {loss[0]:.2g}"
    return status, f"a loss of {loss[0]:.2g} is above the tolerance {tolerance:g}"
