"""From wanted property values to verified structures."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import BaseCalculator

from tfgen.execution.results import ResultStore
from tfgen.generation.proposers import Proposer, make_proposer
from tfgen.generation.records import Cost, make_records
from tfgen.generation.request import Request, check_request, warn_of_doubts
from tfgen.generation.settings import GenerationSettings
from tfgen.generation.verification import Verification, Verifier
from tfgen.models.model import Model
from tfgen.potentials.ase import AsePotential
from tfgen.potentials.base import Potential
from tfgen.structures.status import Status
from tfgen.targets import TargetValue

__all__ = ["InterruptedRequest", "generate"]


def generate(
    model: Model,
    formula: str,
    targets: Mapping[str, TargetValue],
    count: int,
    *,
    seed: int = 0,
    tolerance: Mapping[str, float] | None = None,
    potential: Potential | AsePotential | BaseCalculator | str | None = "auto",
    relax: bool | Potential | AsePotential | BaseCalculator | str = "auto",
    compute: Mapping[str, Callable[[Atoms], Any] | str | None] | None = None,
    settings: GenerationSettings | None = None,
    results: ResultStore | None = None,
    progress: bool = False,
) -> list[Atoms]:
    """Generates structures with wanted property values and verifies each.

    The model samples fingerprints for the targets, and these are inverted to structures. If the
    model has a neural-network potential (NNP), many fingerprints are inverted coarsely for each
    structure asked for, the structures relax on the NNP, and those become candidates that are
    predicted to be on target and that equal none of the training structures and none of each other
    (see `tfgen.generation.proposers`). No calculation is needed for that. Candidates are evaluated,
    relaxed and evaluated again. One that is off target is replaced by the next, until
    `settings.candidates` have been tried. Every structure asked for comes back, those that failed,
    too, with its record in `atoms.info`:

    - `target`: property -> value or [low, high];
    - `decoded`: property -> value that the surrogate, the model's own network, gives for the
      sampled fingerprint;
    - `predicted`: property -> value that the NNP expects after relaxation; empty without an NNP;
    - `reconstructed`, `relaxed`: property -> value before and after relaxation;
    - `evaluated_by`: property -> what computed it: the name of the potential or the function,
      "geometry", or "surrogate" (the model's own network, whose word is never a hit) where nothing
      calculates it;
    - `hit_tolerance`: property -> half width of a hit, where a value was asked for;
    - `fingerprint_loss`: distance to the sampled fingerprint, from which the relaxation on an NNP
      may lead away; without an NNP a structure counts as converged if it is within `tolerance`;
    - `status`: a `tfgen.structures.status.Status`; `status_detail`, if there is more to say;
    - `verified`: whether the structure is on target, valid, converged and new; absent if a property
      asked for is known from the surrogate only;
    - `candidates` (how many were verified for it), `calculations` (geometries whose energy, forces
      or properties were calculated for it), `proposed` (relaxations on the NNP, or inversions
      without one, its share of them): summed over the structures, what the request has cost;
    - `seed`, `request` (its place in the request), `seconds`.

    `atoms.arrays["reconstructed_positions"]` keeps the positions before relaxation.

    Args:
        model: a trained model.
        formula: composition of the structures, like "Pt13".
        targets: property -> value or (low, high). Properties that the model knows and that are left
            out are sampled as the training structures have them, given the others.
        count: number of structures.
        seed: repeats the generation.
        tolerance: property -> half width of a hit where a value is asked for. Left out, it is
            0.01 eV/atom for the energy per atom, and 5 % of the training range for any other.
        potential: evaluates energies: a potential of tfgen's kind, any ASE calculator, None (the
            surrogate has to do), or "auto": EMT if the training energies were EMT's, else None.
        relax: whether to relax, with `potential`; "auto" if there is one; or what to relax with
            instead.
        compute: property -> what computes it: a function `f(atoms) -> float`, MODULE:FUNCTION of
            one, or None for the potential's own property of that ASE name (dipole, charges, magmom,
            magmoms, free_energy). `atoms.calc` is the potential's, if there is one. Own properties
            that the model is conditioned on need not be named.
        settings: how structures are proposed and verified; the defaults if None.
        results: keeps what was proposed. With the store of an interrupted request, the same request
            does not propose it again; a `tfgen.WorkerPotential` with the same store does not
            calculate again either.
        progress: show progress bars.

    Returns:
        `count` structures in the order of the request: relaxed if asked, else as reconstructed.

    Warns:
        TfgenWarning: if a target is outside the training range, or the model was not trained on the
            composition, or not on energies of this potential.

    Raises:
        ValueError: before work begins, if an argument is out of range; if a property, or an
            element, is unknown to the model; if there is nothing to relax with.
        UnsupportedFormulaError: if a potential does not know an element of the formula.
        UnverifiableError: if several candidates are asked for, but nothing calculates a property to
            choose them by. Both are ValueErrors of `tfgen.generation.request`.
        ValueError: if the calculations of the first candidates all fail; see
            `GenerationSettings.max_failures`.
        InterruptedRequest: a KeyboardInterrupt that has the structures verified so far.
    """
    settings = settings or GenerationSettings()
    request = check_request(
        model,
        formula,
        targets,
        count,
        seed=seed,
        tolerance=tolerance,
        potential=potential,
        relax=relax,
        compute=compute,
        candidates=settings.candidates,
    )
    warn_of_doubts(model, request)
    began = time.perf_counter()
    proposer = make_proposer(model, request, settings, results=results, progress=progress)
    verifier = Verifier(model, request, settings, progress=progress)
    search = _Search(request, proposer, verifier, settings.max_failures)

    def records() -> list[Atoms]:
        seconds = (time.perf_counter() - began) / request.count
        return make_records(search.best, model, request, costs=search.costs(), seconds=seconds)

    try:
        search.run()
    except KeyboardInterrupt as error:
        raise InterruptedRequest(records()) from error
    return records()


class InterruptedRequest(KeyboardInterrupt):
    """A request was interrupted.

    Attributes:
        structures: those that were accepted so far, with their records.
    """

    def __init__(self, structures: Sequence[Atoms]) -> None:
        super().__init__()
        self.structures = [atoms for atoms in structures if atoms.info.get("verified", True)]


# How candidates end of which something could not be calculated.
_FAILED = (
    Status.PROPERTY_FAILED, Status.CALCULATOR_FAILED, Status.CRASHED, Status.TIME_LIMIT,
)  # fmt: skip


class _Search:
    """Verifies candidates until all structures asked for are accepted, or enough were tried."""

    def __init__(
        self, request: Request, proposer: Proposer, verifier: Verifier, max_failures: int
    ) -> None:
        self._max_failures = max_failures
        self._request, self._proposer, self._verifier = request, proposer, verifier
        self._held: list[Verification | None] = [None] * request.count
        self._tried = np.zeros(request.count, int)
        self._calculations = np.zeros(request.count, int)

    @property
    def best(self) -> list[Verification | None]:
        """The best candidate for each structure asked for; None if none was verified yet."""
        return self._held

    def costs(self) -> list[Cost]:
        """What was spent on each structure asked for; proposals are shared by all."""
        count = self._request.count
        shares = self._proposer.proposed // count + (
            np.arange(count) < self._proposer.proposed % count
        )
        columns = (self._tried.tolist(), self._calculations.tolist(), shares.tolist())
        return [Cost(*row) for row in zip(*columns, strict=True)]

    def run(self) -> None:
        """Verifies candidates, in as many rounds as the request allows.

        Raises:
            ValueError: if the calculations of the first candidates all fail.
        """
        held = self._held
        failed: list[Verification] | None = []
        for _ in range(self._request.candidates):
            missing = [i for i, one in enumerate(held) if one is None or not one.accepted]
            # A request whose structure is on target, but not new, waits for a promising candidate.
            waiting = [i for i in missing if (one := held[i]) is not None and one.on_target]
            urgent = [i for i in missing if i not in waiting]
            candidates = self._proposer.take(len(urgent)) if urgent else []
            candidates += self._proposer.take_promising(len(waiting))
            if not candidates:
                break
            accepted = [one.structure for one in held if one is not None and one.accepted]
            found = self._verifier.verify(candidates, accepted)
            if failed is not None:
                failed = self._require_calculations(failed, found)
            for place, verification in zip([*urgent, *waiting], found, strict=False):
                self._tried[place] += 1
                self._calculations[place] += verification.calculations
                one = held[place]
                if one is None or verification.order < one.order:
                    held[place] = verification

    def _require_calculations(
        self, failed: list[Verification], found: Sequence[Verification]
    ) -> list[Verification] | None:
        """Returns the candidates so far, all of which failed; None as soon as one did not."""
        if any(one.status not in _FAILED for one in found):
            return None
        failed = [*failed, *found]
        if len(failed) >= self._max_failures:
            last = failed[-1]
            raise ValueError(
                f"the calculations of the first {len(failed)} candidates all failed, last with: "
                f"{last.status_detail or last.status}"
            )
        return failed
