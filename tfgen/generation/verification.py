"""Verification: candidates are evaluated, relaxed, evaluated again, and accepted or not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from ase import Atoms

from tfgen.generation.proposers import training_structures
from tfgen.generation.ranking import Proposal
from tfgen.generation.request import Request
from tfgen.generation.settings import GenerationSettings
from tfgen.models.model import Model
from tfgen.potentials.evaluation import evaluate
from tfgen.potentials.outcomes import warn_of_failures
from tfgen.relaxation.relax import relax
from tfgen.structures.properties import ENERGIES, GEOMETRIC, compute
from tfgen.structures.similarity import equality
from tfgen.structures.status import Status
from tfgen.targets import SURROGATE, hits_all, is_verified, largest_miss

__all__ = ["Evaluated", "Evaluator", "Verification", "Verifier"]


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
        calculations: energies, forces and properties that were calculated of it, one for each
            geometry.
        sound: converged and valid.
        on_target: sound, and all properties asked for are calculated, and hits.
        new: equal to no training structure and to none accepted, or verified, before.
        miss: how far the properties are off (see `Target.miss`).
    """

    proposal: Proposal
    structure: Atoms
    reconstructed: dict[str, float]
    relaxed: dict[str, float]
    status: Status
    status_detail: str
    calculations: int
    sound: bool
    on_target: bool
    new: bool
    miss: float

    @property
    def accepted(self) -> bool:
        """Whether it is what was asked for: sound, on target and new."""
        return bool(is_verified(self.on_target, sound=self.sound, new=self.new))

    @property
    def order(self) -> tuple[bool, bool, bool, float]:
        """Sorts candidates for one request, the best first: on target, then new, then near."""
        return not self.sound, not self.on_target, not self.new, self.miss


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """What is known of a structure.

    Attributes:
        values: property -> value; NaN where a calculation failed.
        status: converged, or how a calculation failed.
        detail: what was said that failed; "" otherwise.
        calculations: geometries that were calculated.
    """

    values: dict[str, float]
    status: Status
    detail: str
    calculations: int


class Evaluator:
    """Computes the properties of a request by the best means at hand."""

    def __init__(self, model: Model, request: Request) -> None:
        self._model, self._request = model, request
        self._geometric = [name for name in request.evaluated_by if name in GEOMETRIC]
        sources = request.evaluated_by
        self._energies = [name for name in ENERGIES if sources.get(name, SURROGATE) != SURROGATE]

    def evaluate(
        self, structures: Sequence[Atoms], energies: np.ndarray | None = None
    ) -> list[Evaluated]:
        """Evaluates structures of the composition asked for.

        Args:
            structures: n structures.
            energies: [n], eV, if they are known; they are computed otherwise.
        """
        request = self._request
        if not structures:
            return []
        known = energies is not None and not request.functions
        found = evaluate(None if known else request.potential, structures, request.functions)
        warn_of_failures(found.detail, stacklevel=5)
        energies = energies if known else found.energy
        names = [*self._geometric, *self._energies]
        values = {**compute(structures, names, energies), **found.values}
        guessed = [n for n, source in request.evaluated_by.items() if source == SURROGATE]
        if guessed:
            fingerprints = self._model.fingerprint.create(structures)
            predicted = self._model.predict_properties(fingerprints)
            places = {c.name: place for place, c in enumerate(self._model.conditions)}
            values |= {name: predicted[:, places[name]] for name in guessed}
        return [
            Evaluated(
                values={name: float(values[name][i]) for name in request.evaluated_by},
                status=found.status[i],
                detail=found.detail[i],
                calculations=int(found.calculations[i]),
            )
            for i in range(len(structures))
        ]


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
        self._limits = model.validity_thresholds

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
        before = final = self._evaluator.evaluate(structures)
        spent = [found.calculations for found in before]
        if self._request.relaxed_by is not None:
            structures, final = self._relax(structures)
            spent = [a + b.calculations for a, b in zip(spent, final, strict=True)]
        is_valid, new = self._limits.valid(structures), self._are_new(structures, accepted)
        verifications = []
        for i, candidate in enumerate(candidates):
            status, detail = candidate.status, candidate.status_detail
            if status == Status.CONVERGED:
                status, detail = final[i].status, final[i].detail
            sound = bool(is_valid[i]) and status == Status.CONVERGED
            calculated = not self._request.unverifiable
            targets = self._request.targets
            verifications.append(
                Verification(
                    proposal=candidate,
                    structure=structures[i],
                    reconstructed=before[i].values,
                    relaxed={} if final is before else final[i].values,
                    status=status,
                    status_detail=detail,
                    calculations=spent[i],
                    sound=sound,
                    on_target=sound and calculated and hits_all(targets, final[i].values),
                    new=bool(new[i]),
                    miss=largest_miss(targets, final[i].values),
                )
            )
        return verifications

    def _relax(self, structures: Sequence[Atoms]) -> tuple[list[Atoms], list[Evaluated]]:
        """Returns relaxed structures, and what is known of them."""
        request, settings = self._request, self._settings
        result = relax(
            structures,
            request.relaxed_by,
            fmax=settings.fmax,
            max_steps=settings.max_steps,
            progress=self._progress,
        )
        # A relaxation that failed gives back its start, which is no relaxed structure.
        ended = [status in (Status.CONVERGED, Status.NOT_CONVERGED) for status in result.status]
        rows = np.flatnonzero(ended).tolist()
        # Energies of another potential are not those that the model was trained on.
        energies = result.energy[rows] if request.relaxed_by == request.potential else None
        relaxed = [result.structures[i] for i in rows]
        evaluated = dict(zip(rows, self._evaluator.evaluate(relaxed, energies), strict=True))
        nothing = dict.fromkeys(request.evaluated_by, np.nan)
        found = []
        for i, status in enumerate(result.status):
            one = evaluated.get(i) or Evaluated(
                values=nothing, status=status, detail=result.detail[i], calculations=0
            )
            if status == Status.NOT_CONVERGED:
                one = replace(one, status=Status.RELAXATION_NOT_CONVERGED, detail=result.detail[i])
            spent = one.calculations + int(result.calculations[i])
            found.append(replace(one, calculations=spent))
        return result.structures, found

    def _are_new(self, structures: Sequence[Atoms], accepted: Sequence[Atoms]) -> np.ndarray:
        """Says which structures equal no training structure, none accepted and none before."""
        tolerance = self._settings.duplicate_tolerance
        finite = [s if np.isfinite(s.positions).all() else Atoms("X") for s in structures]
        known = equality.match(finite, self._training, tolerance) >= 0
        first = equality.duplicates([*accepted, *finite], tolerance)[len(accepted) :]
        return ~known & (first == np.arange(len(accepted), len(accepted) + len(structures)))
