"""From wanted property values to verified structures."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import ase.io
import numpy as np
from ase import Atoms
from ase.calculators.calculator import BaseCalculator

from tfgen._files import new_file
from tfgen.generation.proposals import Candidate, Candidates
from tfgen.inversion.reconstruct import CONVERGED
from tfgen.models.model import Model
from tfgen.potentials.base import Potential
from tfgen.potentials.emt import EMT
from tfgen.relaxation.relax import relax as relax_structures
from tfgen.structures import similarity
from tfgen.structures.formulas import formula_of, numbers_from_formula
from tfgen.structures.properties import ENERGY_PER_ATOM, GEOMETRIC, compute
from tfgen.structures.validity import valid
from tfgen.targets import (
    Target,
    TargetValue,
    check_targets,
    default_tolerance,
    hits_all,
    largest_miss,
)
from tfgen.warnings import TfgenWarning

__all__ = ["generate", "write"]

RELAXATION_FAILED = "relaxation not converged"

# Relaxations at most for one structure asked for, where something can verify them.
CANDIDATES = 10
# Two structures are the same if all sorted distances agree within this, Å.
SAME = 0.05
# Spreads the seeds of the stages apart; any constant does.
_DRAWS = 2


def generate(
    model: Model,
    formula: str,
    targets: Mapping[str, TargetValue],
    count: int,
    *,
    seed: int = 0,
    potential: Potential | BaseCalculator | str | None = "auto",
    relax: bool | Potential | BaseCalculator = True,
    fmax: float = 0.01,
    candidates: int | None = None,
    max_rounds: int = 3,
    progress: bool = False,
) -> list[Atoms]:
    """Generates structures with wanted property values and verifies each.

    Fingerprints are drawn from the CVAE and inverted to structures. If the model has a learned
    NNP, several are inverted roughly for each structure asked for, slide down the NNP
    to its minima, and those go on whose properties are then expected to be on target, that equal
    none of the training structures and none of each other (see `tfgen.generation.proposals`); this
    takes no calculation. They are evaluated, relaxed and evaluated again; a structure that is off
    target is replaced by the next candidate, up to `candidates` times. Every structure asked for
    comes back, failed ones too, with the record of each stage:

    `atoms.info` holds `target`, `decoded` (the surrogate's values for the drawn fingerprint),
    `predicted` (the NNP's, if there is one), `reconstructed`, `relaxed` (property -> value),
    `evaluated_by` (property -> what computed it: "emt", a calculator, "geometry", or "surrogate"
    where nothing better is at hand), `fingerprint_loss` (distance to the drawn fingerprint, from
    which an NNP may lead away), the `tolerance` under which it counts as converged where
    there is no NNP, `status`, `seed`, `candidates` (how many were relaxed for this one),
    `verified` (on target, valid, converged, new, or None where nothing can tell), `seconds`;
    `atoms.arrays["reconstructed_positions"]` keeps the positions before relaxation.

    Args:
        model: a trained model.
        formula: composition of the structures, like "Pt13".
        targets: property -> value or (low, high); properties the model knows and that are left
            out are drawn as the training data has them, given the others.
        count: number of structures.
        seed: repeats the generation.
        potential: evaluates energies: a tfgen potential, any ASE calculator, None (the surrogate
            has to do), or "auto": EMT if the training energies were EMT's, else None.
        relax: whether to relax, with `potential`; or what to relax with instead.
        fmax: of the relaxation, eV/Å.
        candidates: how many may be relaxed for each structure asked for: 1 takes the first, come
            what may; None means 10 where something computes the properties asked for, else 1.
        max_rounds: rounds of the inversion's search without an NNP, see `reconstruct`.
        progress: show progress bars.

    Returns:
        `count` structures in the order of the requests: relaxed if asked, else as reconstructed.

    Warns:
        TfgenWarning: if a target is outside the training range, or the composition is none that
            the model was trained on.

    Raises:
        ValueError: on an unknown property, low > high, count < 1, candidates < 1 or several with
            nothing to choose by, text that is not a formula, a formula with elements that the model
            or a potential does not know, a relaxation without a potential; all before work begins.
    """
    numbers = numbers_from_formula(formula)
    if len(numbers) < 2:
        raise ValueError(f"formula {formula!r} has a single atom; at least two are needed")
    if count < 1:
        raise ValueError(f"count is {count}; at least 1 is needed")
    if candidates is not None and candidates < 1:
        raise ValueError(f"candidates is {candidates}; at least 1 is needed")
    unseen = sorted(set(Atoms(numbers).symbols) - set(model.fingerprint.species))
    if unseen:
        raise ValueError(
            f"formula {formula!r} holds {', '.join(unseen)}; the model was trained on "
            f"{', '.join(model.fingerprint.species)}"
        )
    asked = _with_tolerances(check_targets(targets, [c.name for c in model.conditions]), model)
    judge = _judge(model, potential)
    mover = judge if isinstance(relax, bool) else relax
    if relax is True and mover is None:
        raise ValueError("relax needs a potential: pass one, or relax=False")
    for used in (judge, mover):
        check = getattr(used, "check", None)
        if check is not None:
            try:
                check([Atoms(numbers)])
            except ValueError as error:
                reason = str(error).removeprefix("structures[0] ")
                raise ValueError(
                    f"formula {formula!r} {reason}; without relaxation (--relax none) and with "
                    "another potential it can be generated"
                ) from None
    evaluator = _Evaluator(model, judge)
    blind = [name for name in targets if evaluator.sources[name] == "surrogate"]
    if candidates is None:
        candidates = 1 if blind or (not relax and judge is None) else CANDIDATES
    elif candidates > 1 and blind:
        raise ValueError(
            f"candidates is {candidates}, but nothing computes {', '.join(blind)} to choose by; "
            "candidates=1, or a potential, is needed"
        )
    _warn(model, formula, asked)

    began = time.perf_counter()
    pool = Candidates(
        model,
        numbers,
        asked,
        count,
        _derived(seed, _DRAWS),
        slide=bool(relax) or model.minima,
        max_rounds=max_rounds,
        progress=progress,
    )
    best: list[_Trial | None] = [None] * count
    spent = [0] * count
    for _ in range(candidates):
        open_ = [i for i, trial in enumerate(best) if trial is None or not trial.accepted]
        # Whoever has a structure on target, though not a new one, waits for a promising candidate.
        served = [i for i in open_ if (held := best[i]) is not None and held.on_target]
        unserved = [i for i in open_ if i not in served]
        taken = pool.take(len(unserved)) if unserved else []
        taken += pool.take_promising(len(served))
        if not taken:
            break
        trials = _try(taken, evaluator, judge, mover if relax else None, fmax, progress)
        accepted = [t.structure for t in best if t is not None and t.accepted]
        _judge_trials(trials, accepted, pool)
        for place, trial in zip([*unserved, *served], trials, strict=False):
            spent[place] += 1
            held = best[place]
            if held is None or trial.rank < held.rank:
                best[place] = trial
    seconds = (time.perf_counter() - began) / count

    generated = []
    names = [c.name for c in model.conditions]
    chosen = [cast(_Trial, trial) for trial in best]
    decoded = model.predict_properties(np.array([t.candidate.drawn for t in chosen]))
    for i, trial in enumerate(chosen):
        raw = trial.candidate.structure
        atoms = raw.copy()
        if relax:
            atoms.positions = trial.structure.positions
            atoms.set_array("reconstructed_positions", raw.positions.copy())
        atoms.info.update(
            target={target.name: target.to_json() for target in asked},
            decoded=_finite(dict(zip(names, decoded[i].tolist(), strict=True))),
            predicted=_finite(trial.candidate.predicted),
            reconstructed=_finite(trial.reconstructed),
            relaxed=_finite(trial.relaxed),
            evaluated_by=evaluator.sources,
            fingerprint_loss=trial.candidate.loss,
            tolerance=model.tolerance,
            status=trial.status,
            seed=seed,
            request=i,
            candidates=spent[i],
            verified=trial.accepted if not blind else None,
            seconds=seconds,
        )
        generated.append(atoms)
    return generated


def write(
    structures: Sequence[Atoms], path: str | os.PathLike[str], overwrite: bool = False
) -> None:
    """Writes structures with their records as extxyz; the file is whole or not there.

    Raises:
        FileExistsError: if it exists and `overwrite` is false.
    """
    with new_file(path, overwrite) as temporary:
        ase.io.write(temporary, structures, format="extxyz")


def _judge(
    model: Model, potential: Potential | BaseCalculator | str | None
) -> Potential | BaseCalculator | None:
    if isinstance(potential, str):
        if potential != "auto":
            raise ValueError(f"potential is {potential!r}; 'auto', None or an object is needed")
        return EMT() if model.potential == "emt" else None
    if potential is not None and not isinstance(potential, BaseCalculator | Potential):
        raise ValueError(
            f"potential is a {type(potential).__name__}, neither a potential of tfgen's kind nor "
            "an ASE calculator"
        )
    return potential


class _Evaluator:
    """Computes a model's properties on structures by the best means at hand."""

    def __init__(self, model: Model, potential: Potential | BaseCalculator | None) -> None:
        self._model, self._potential = model, potential
        self._names = [c.name for c in model.conditions]
        energy_source = "surrogate"
        if potential is not None:
            energy_source = getattr(potential, "name", None) or type(potential).__name__.lower()
        self.sources = {
            name: "geometry" if name in GEOMETRIC
            else energy_source if name == ENERGY_PER_ATOM
            else "surrogate"
            for name in self._names
        }  # fmt: skip

    def values(
        self, structures: Sequence[Atoms], energies: np.ndarray | None = None
    ) -> dict[str, np.ndarray]:
        """Returns property -> [structures]; `energies` spares computing them again."""
        computed = [name for name, source in self.sources.items() if source != "surrogate"]
        if ENERGY_PER_ATOM in computed and energies is None:
            energies = _energies(structures, self._potential)
        result = compute(structures, computed, energies)
        if len(computed) < len(self._names):
            predicted = self._model.predict_properties(self._model.fingerprint.create(structures))
            result.update(
                (name, predicted[:, i])
                for i, name in enumerate(self._names)
                if name not in computed
            )
        return {name: result[name] for name in self._names}

    def rows(
        self, structures: Sequence[Atoms], energies: np.ndarray | None = None
    ) -> list[dict[str, float]]:
        """Returns property -> value of each structure."""
        values = self.values(structures, energies)
        return [
            {name: float(column[i]) for name, column in values.items()}
            for i in range(len(structures))
        ]


def _energies(structures: Sequence[Atoms], potential: Any) -> np.ndarray:
    if not isinstance(potential, BaseCalculator):
        return np.asarray(potential.compute(structures)["energy"])
    return relax_structures(structures, potential, max_steps=0).energy


def _warn(model: Model, formula: str, targets: Sequence[Target]) -> None:
    for condition in model.conditions:
        target = next((t for t in targets if t.name == condition.name), None)
        if target is None:
            continue
        low, high = target.low, target.high
        if low < condition.low or high > condition.high:
            unit = "" if condition.unit in ("1", "unknown") else f" {condition.unit}"
            shown = f"{low:g}" if low == high else f"{low:g}:{high:g}"
            warnings.warn(
                f"target {condition.name}={shown} is outside the training range "
                f"{condition.low:.4g} to {condition.high:.4g}{unit}; trying all the same",
                TfgenWarning,
                stacklevel=3,
            )
    canonical = formula_of(numbers_from_formula(formula))
    if canonical not in model.formulas:
        known = sorted(model.formulas, key=lambda name: -model.formulas[name])
        shown = ", ".join(known[:5]) + (", ..." if len(known) > 5 else "")
        warnings.warn(
            f"the model was not trained on {canonical}, only on {shown}; trying all the same",
            TfgenWarning,
            stacklevel=3,
        )


@dataclass
class _Trial:
    """What came of a candidate.

    Attributes:
        candidate: the candidate.
        structure: as it comes back: relaxed if that was asked for.
        reconstructed, relaxed: property -> value; relaxed is empty if that was not asked for.
        status: "converged", or the reason it is not.
        accepted: on target, valid, converged and new.
        on_target: valid and converged, too, but perhaps not new.
        rank: the lower the better, among trials for one place.
    """

    candidate: Candidate
    structure: Atoms
    reconstructed: dict[str, float]
    relaxed: dict[str, float]
    status: str
    accepted: bool = False
    on_target: bool = False
    rank: tuple[bool, bool, bool, float] = (True, True, True, np.inf)


def _try(
    candidates: Sequence[Candidate],
    evaluator: _Evaluator,
    judge: Any,
    mover: Any,
    fmax: float,
    progress: bool,
) -> list[_Trial]:
    """Evaluates candidates, and relaxes and evaluates them again if there is a mover."""
    structures = [c.structure for c in candidates]
    trials = [
        _Trial(c, c.structure, values, {}, c.status)
        for c, values in zip(candidates, evaluator.rows(structures), strict=True)
    ]
    if mover is not None:
        result = relax_structures(structures, mover, fmax=fmax, progress=progress)
        # Energies of another method are not those the model was trained on.
        energy = result.energy if mover == judge else None
        for i, values in enumerate(evaluator.rows(result.structures, energy)):
            trials[i].structure, trials[i].relaxed = result.structures[i], values
            if not result.converged[i] and trials[i].status == CONVERGED:
                trials[i].status = RELAXATION_FAILED
    for trial in trials:
        energies = [v.get(ENERGY_PER_ATOM, 0.0) for v in (trial.reconstructed, trial.relaxed)]
        if trial.status in (CONVERGED, RELAXATION_FAILED) and not np.isfinite(energies).all():
            trial.status = "no energy: the calculator failed"
    return trials


def _judge_trials(trials: Sequence[_Trial], accepted: list[Atoms], pool: Candidates) -> None:
    """Says which trials are accepted, next to those accepted before, and how good the rest is."""
    structures = [t.structure for t in trials]
    sound = valid(structures)
    finite = [s if np.isfinite(s.positions).all() else Atoms("X") for s in structures]
    known = similarity.match(finite, pool.library, SAME) >= 0
    first = similarity.duplicates([*accepted, *finite], SAME)[len(accepted) :]
    fresh = first == np.arange(len(accepted), len(accepted) + len(trials))
    for i, trial in enumerate(trials):
        values = trial.relaxed or trial.reconstructed
        off, hit = largest_miss(pool.targets, values), hits_all(pool.targets, values)
        good = bool(sound[i]) and trial.status == CONVERGED
        new = bool(fresh[i]) and not known[i]
        trial.on_target = good and hit
        trial.accepted = trial.on_target and new
        # On target comes first, then new, then near the target.
        trial.rank = (not good, not hit, not new, off)


def _with_tolerances(targets: Sequence[Target], model: Model) -> list[Target]:
    ranges = {c.name: (c.low, c.high) for c in model.conditions}
    return [t.with_tolerance(default_tolerance(t.name, *ranges[t.name])) for t in targets]


def _finite(values: Mapping[str, float]) -> dict[str, float | None]:
    """None (JSON's null) where a value is not finite."""
    return {k: float(v) if np.isfinite(v) else None for k, v in values.items()}


def _derived(seed: int, stage: int) -> int:
    return int(np.random.SeedSequence([seed, stage]).generate_state(1)[0] // 2)
