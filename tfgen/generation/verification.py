"""Verification: candidates are evaluated, relaxed, evaluated again, and accepted or not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from ase import Atoms

from tfgen.generation.proposals import training_structures
from tfgen.generation.ranking import Proposal
from tfgen.generation.request import SURROGATE, Request
from tfgen.generation.settings import GenerationSettings
from tfgen.models.model import Model
from tfgen.potentials.ase import AsePotential
from tfgen.potentials.base import Potential
from tfgen.relaxation.relax import relax
from tfgen.structures import similarity
from tfgen.structures.properties import ENERGY_PER_ATOM, compute
from tfgen.structures.status import Status
from tfgen.structures.validity import valid
from tfgen.targets import hits_all, largest_miss

__all__ = ["Evaluator", "Verification", "Verifier"]


@dataclass(frozen=True, kw_only=True)
class Verification:
    """What came of a candidate.

    Attributes:
        proposal: the candidate, as it was proposed.
        structure: as it comes back: relaxed if that was asked for.
        reconstructed: property -> value of the structure as proposed.
        relaxed: property -> value of the relaxed structure; empty if it was not to be relaxed.
        status: converged, or how the candidate failed.
        status_detail: what can be said beyond that.
        sound: converged and valid.
        on_target: sound, and all properties asked for are hits.
        new: equal to no training structure and to none accepted, or verified, before.
        miss: how far the properties are off (see `Target.miss`).
    """

    proposal: Proposal
    structure: Atoms
    reconstructed: dict[str, float]
    relaxed: dict[str, float]
    status: Status
    status_detail: str
    sound: bool
    on_target: bool
    new: bool
    miss: float

    @property
    def accepted(self) -> bool:
        """Whether it is what was asked for: sound, on target and new."""
        return self.on_target and self.new

    @property
    def order(self) -> tuple[bool, bool, bool, float]:
        """Sorts candidates for one request, the best first: on target, then new, then near."""
        return not self.sound, not self.on_target, not self.new, self.miss


class Evaluator:
    """Computes the properties of a model's conditions by the best means at hand."""

    def __init__(self, model: Model, request: Request) -> None:
        self._model, self._request = model, request
        self._computed = [
            name for name, source in request.evaluated_by.items() if source != SURROGATE
        ]

    def evaluate(
        self, structures: Sequence[Atoms], energies: np.ndarray | None = None
    ) -> list[dict[str, float]]:
        """Returns property -> value of each structure, NaN where a calculation failed.

        Args:
            structures: of the composition asked for.
            energies: [n], eV, if they are known; they are computed otherwise.
        """
        if ENERGY_PER_ATOM in self._computed and energies is None:
            energies = self._energies(structures)
        values = compute(structures, self._computed, energies)
        names = list(self._request.evaluated_by)
        if len(self._computed) < len(names):
            fingerprints = self._model.fingerprint.create(structures)
            predicted = self._model.predict_properties(fingerprints)
            for i, name in enumerate(names):
                values.setdefault(name, predicted[:, i])
        return [{name: float(values[name][i]) for name in names} for i in range(len(structures))]

    def _energies(self, structures: Sequence[Atoms]) -> np.ndarray:
        potential = cast(Potential | AsePotential, self._request.potential)
        return np.asarray(potential.compute(structures)["energy"])


class Verifier:
    """Verifies the candidates of one request."""

    def __init__(
        self,
        model: Model,
        request: Request,
        settings: GenerationSettings,
        *,
        progress: bool = False,
    ) -> None:
        self._request, self._settings, self._progress = request, settings, progress
        self._evaluator = Evaluator(model, request)
        self._training = training_structures(model, request.numbers)

    def verify(
        self, candidates: Sequence[Proposal], accepted: Sequence[Atoms]
    ) -> list[Verification]:
        """Evaluates candidates, relaxes them if that is asked for, and says which are accepted.

        Args:
            candidates: in the order in which they may be accepted; a later one that equals an
                earlier one is not new.
            accepted: structures accepted before.
        """
        structures = [c.structure for c in candidates]
        reconstructed = self._evaluator.evaluate(structures)
        relaxed: list[dict[str, float]] = [{} for _ in candidates]
        status = [c.status for c in candidates]
        if self._request.relaxed_by is not None:
            structures, relaxed, converged = self._relax(structures)
            status = [
                Status.RELAXATION_NOT_CONVERGED if was == Status.CONVERGED and not done else was
                for was, done in zip(status, converged, strict=True)
            ]
        for i, was in enumerate(status):
            energies = [row.get(ENERGY_PER_ATOM, 0.0) for row in (reconstructed[i], relaxed[i])]
            computable = was in (Status.CONVERGED, Status.RELAXATION_NOT_CONVERGED)
            if computable and not np.isfinite(energies).all():
                status[i] = Status.CALCULATOR_FAILED
        is_valid, new = valid(structures), self._are_new(structures, accepted)
        verifications = []
        for i, candidate in enumerate(candidates):
            values = relaxed[i] or reconstructed[i]
            sound = bool(is_valid[i]) and status[i] == Status.CONVERGED
            verifications.append(
                Verification(
                    proposal=candidate,
                    structure=structures[i],
                    reconstructed=reconstructed[i],
                    relaxed=relaxed[i],
                    status=status[i],
                    status_detail=candidate.status_detail if status[i] == candidate.status else "",
                    sound=sound,
                    on_target=sound and hits_all(self._request.targets, values),
                    new=bool(new[i]),
                    miss=largest_miss(self._request.targets, values),
                )
            )
        return verifications

    def _relax(
        self, structures: Sequence[Atoms]
    ) -> tuple[list[Atoms], list[dict[str, float]], np.ndarray]:
        """Returns relaxed structures, their properties, and which of them converged."""
        request, settings = self._request, self._settings
        result = relax(
            structures,
            request.relaxed_by,
            fmax=settings.fmax,
            max_steps=settings.max_steps,
            progress=self._progress,
        )
        # Energies of another potential are not those that the model was trained on.
        energies = result.energy if request.relaxed_by == request.potential else None
        rows = self._evaluator.evaluate(result.structures, energies)
        return result.structures, rows, result.converged

    def _are_new(self, structures: Sequence[Atoms], accepted: Sequence[Atoms]) -> np.ndarray:
        """Says which structures equal no training structure, none accepted and none before."""
        tolerance = self._settings.duplicate_tolerance
        finite = [s if np.isfinite(s.positions).all() else Atoms("X") for s in structures]
        known = similarity.match(finite, self._training, tolerance) >= 0
        first = similarity.duplicates([*accepted, *finite], tolerance)[len(accepted) :]
        return ~known & (first == np.arange(len(accepted), len(accepted) + len(structures)))
