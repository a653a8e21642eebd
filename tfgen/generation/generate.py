"""From wanted property values to verified structures."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import cast

from ase import Atoms
from ase.calculators.calculator import BaseCalculator

from tfgen.generation.proposals import Proposer, make_proposer
from tfgen.generation.records import make_records
from tfgen.generation.request import Request, check_request, warn_of_extrapolation
from tfgen.generation.settings import GenerationSettings
from tfgen.generation.verification import Verification, Verifier
from tfgen.models.model import Model
from tfgen.potentials.ase import AsePotential
from tfgen.potentials.base import Potential
from tfgen.targets import TargetValue

__all__ = ["generate"]


def generate(
    model: Model,
    formula: str,
    targets: Mapping[str, TargetValue],
    count: int,
    *,
    seed: int = 0,
    tolerance: Mapping[str, float] | None = None,
    potential: Potential | AsePotential | BaseCalculator | str | None = "auto",
    relax: bool | Potential | AsePotential | BaseCalculator = True,
    settings: GenerationSettings | None = None,
    progress: bool = False,
) -> list[Atoms]:
    """Generates structures with wanted property values and verifies each.

    The model samples fingerprints for the targets, and these are inverted to structures. If the
    model has a neural-network potential (NNP), many fingerprints are inverted coarsely for each
    structure asked for, the structures relax on the NNP, and those become candidates that are
    predicted to be on target and that equal none of the training structures and none of each other
    (see `tfgen.generation.proposals`). No calculation is needed for that. Candidates are evaluated,
    relaxed and evaluated again. One that is off target is replaced by the next, until
    `settings.candidates` have been tried. Every structure asked for comes back, those that failed,
    too, with its record in `atoms.info`:

    - `target`: property -> value or [low, high];
    - `decoded`: property -> value that the surrogate, the model's own network, gives for the
      sampled fingerprint;
    - `predicted`: property -> value that the NNP expects after relaxation; empty without an NNP;
    - `reconstructed`, `relaxed`: property -> value before and after relaxation;
    - `evaluated_by`: property -> what computed it: the name of the potential, "geometry", or
      "surrogate" where nothing better is at hand;
    - `fingerprint_loss`: distance to the sampled fingerprint, from which the relaxation on an NNP
      may lead away; without an NNP a structure counts as converged if it is within `tolerance`;
    - `status`: a `tfgen.structures.status.Status`; `status_detail`, if there is more to say;
    - `verified`: whether the structure is on target, valid, converged and new; absent if a property
      asked for is known from the surrogate only;
    - `seed`, `request` (its place in the request), `candidates` (how many were tried for it),
      `seconds`.

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
        relax: whether to relax, with `potential`; or what to relax with instead.
        settings: how structures are proposed and verified; the defaults if None.
        progress: show progress bars.

    Returns:
        `count` structures in the order of the request: relaxed if asked, else as reconstructed.

    Warns:
        TfgenWarning: if a target is outside the training range, or the model was not trained on the
            composition.

    Raises:
        ValueError: before work begins, if an argument is out of range; if a property, or an
            element, is unknown to the model; if there is nothing to relax with.
        UnsupportedFormulaError: if a potential does not know an element of the formula.
        UnverifiableError: if several candidates are asked for, but nothing computes a property to
            choose them by. Both are ValueErrors of `tfgen.generation.request`.
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
        candidates=settings.candidates,
    )
    warn_of_extrapolation(model, request)
    began = time.perf_counter()
    proposer = make_proposer(model, request, settings, progress=progress)
    verifier = Verifier(model, request, settings, progress=progress)
    best, tried = _search(request, proposer, verifier)
    seconds = (time.perf_counter() - began) / request.count
    return make_records(best, model, request, tried=tried, seconds=seconds)


def _search(
    request: Request, proposer: Proposer, verifier: Verifier
) -> tuple[list[Verification], list[int]]:
    """Verifies candidates until all structures asked for are accepted, or enough were tried.

    Returns:
        The best candidate for each structure asked for, and how many were tried for each.
    """
    best: list[Verification | None] = [None] * request.count
    tried = [0] * request.count
    for _ in range(request.candidates):
        missing = [i for i, held in enumerate(best) if held is None or not held.accepted]
        # A request whose structure is on target, but not new, waits for a promising candidate.
        waiting = [i for i in missing if (held := best[i]) is not None and held.on_target]
        urgent = [i for i in missing if i not in waiting]
        candidates = proposer.take(len(urgent)) if urgent else []
        candidates += proposer.take_promising(len(waiting))
        if not candidates:
            break
        accepted = [held.structure for held in best if held is not None and held.accepted]
        found = verifier.verify(candidates, accepted)
        for place, verification in zip([*urgent, *waiting], found, strict=False):
            tried[place] += 1
            held = best[place]
            if held is None or verification.order < held.order:
                best[place] = verification
    return cast(list[Verification], best), tried
