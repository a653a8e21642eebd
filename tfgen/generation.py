"""From wanted property values to verified structures."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import ase.io
import numpy as np
from ase import Atoms
from ase.calculators.calculator import BaseCalculator

from tfgen._files import new_file
from tfgen._warnings import TfgenWarning
from tfgen.model import Model, Target, check_targets
from tfgen.potentials.base import Potential
from tfgen.potentials.emt import EMT
from tfgen.properties import ENERGY_PER_ATOM, GEOMETRIC, compute
from tfgen.reconstruction import CONVERGED, reconstruct, status_of
from tfgen.relaxation import relax as relax_structures
from tfgen.structures import formula_of, numbers_from_formula

__all__ = ["generate", "write"]

RELAXATION_FAILED = "relaxation not converged"

# Spreads the seeds of the stages apart; any constants do.
_PROPERTIES, _LATENTS, _SEARCH = 1, 2, 3


def generate(
    model: Model,
    formula: str,
    targets: Mapping[str, Target],
    count: int,
    *,
    seed: int = 0,
    potential: Potential | BaseCalculator | str | None = "auto",
    relax: bool | Potential | BaseCalculator = True,
    fmax: float = 0.01,
    max_rounds: int = 3,
    progress: bool = False,
) -> list[Atoms]:
    """Generates structures with wanted property values and verifies each.

    Fingerprints are drawn from the CVAE, inverted to structures, evaluated, relaxed and evaluated
    again. Every structure asked for comes back, failed ones too, with the record of each stage:

    `atoms.info` holds `target`, `decoded` (the surrogate's values for the drawn fingerprint),
    `reconstructed`, `relaxed` (property -> value), `evaluated_by` (property -> what computed it:
    "emt", a calculator, "geometry", or "surrogate" where nothing better is at hand),
    `fingerprint_loss`, the `tolerance` under which it counts as converged, `status`, `seed`,
    `seconds`; `atoms.arrays["reconstructed_positions"]`
    keeps the positions before relaxation.

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
        max_rounds: rounds of the inversion's search, see `reconstruct`.
        progress: show progress bars.

    Returns:
        `count` structures in the order of the requests: relaxed if asked, else as reconstructed.

    Warns:
        TfgenWarning: if a target is outside the training range, or the composition is none that
            the model was trained on.

    Raises:
        ValueError: on an unknown property, low > high, count < 1, a formula that makes no sense
            or has elements the model or a potential does not know, or a relaxation without a
            potential; all before the work begins.
    """
    numbers = numbers_from_formula(formula)
    if len(numbers) < 2:
        raise ValueError(f"formula {formula!r} has a single atom; at least two are needed")
    if count < 1:
        raise ValueError(f"count is {count}; at least 1 is needed")
    unseen = sorted(set(Atoms(numbers).symbols) - set(model.fingerprint.species))
    if unseen:
        raise ValueError(
            f"formula {formula!r} holds {', '.join(unseen)}; the model was trained on "
            f"{', '.join(model.fingerprint.species)}"
        )
    targets = check_targets(targets, [c.name for c in model.conditions])
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
    _warn(model, formula, targets)

    began = time.perf_counter()
    rng = np.random.default_rng([seed, _PROPERTIES])
    wanted = model.draw_properties(targets, count, rng)
    conditions = model.condition_vectors(wanted, numbers)
    fingerprints = model.sample(conditions, _derived(seed, _LATENTS))
    names = [c.name for c in model.conditions]
    decoded = dict(zip(names, model.predict_properties(fingerprints).T, strict=True))
    found = reconstruct(
        model.fingerprint,
        fingerprints,
        formula,
        seed=_derived(seed, _SEARCH),
        scale=model.scale,
        max_rounds=max_rounds,
        progress=progress,
    )
    structures = found.structures
    status = [
        status_of(atoms, loss, model.tolerance)
        for atoms, loss in zip(structures, found.loss, strict=True)
    ]
    evaluator = _Evaluator(model, judge)
    reconstructed = evaluator.values(structures)
    relaxed: dict[str, np.ndarray] = {}
    if relax:
        result = relax_structures(structures, mover, fmax=fmax, progress=progress)
        # Energies of another method are not those the model was trained on.
        relaxed = evaluator.values(result.structures, result.energy if mover == judge else None)
        for i, converged in enumerate(result.converged):
            if not converged and status[i] == CONVERGED:
                status[i] = RELAXATION_FAILED
        if ENERGY_PER_ATOM in relaxed:
            _mark_failures(status, relaxed[ENERGY_PER_ATOM])
    if ENERGY_PER_ATOM in reconstructed:
        _mark_failures(status, reconstructed[ENERGY_PER_ATOM])
    seconds = (time.perf_counter() - began) / count

    generated = []
    for i, raw in enumerate(structures):
        atoms = raw.copy()
        if relax:
            atoms.positions = result.structures[i].positions
            atoms.set_array("reconstructed_positions", raw.positions.copy())
        atoms.info.update(
            target={k: list(v) if isinstance(v, tuple) else v for k, v in targets.items()},
            decoded=_row(decoded, i),
            reconstructed=_row(reconstructed, i),
            relaxed=_row(relaxed, i),
            evaluated_by=evaluator.sources,
            fingerprint_loss=float(found.loss[i]),
            tolerance=model.tolerance,
            status=status[i],
            seed=seed,
            request=i,
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


def _energies(structures: Sequence[Atoms], potential: Any) -> np.ndarray:
    if not isinstance(potential, BaseCalculator):
        return np.asarray(potential.compute(structures)["energy"])
    return relax_structures(structures, potential, max_steps=0).energy


def _warn(model: Model, formula: str, targets: Mapping[str, Target]) -> None:
    for condition in model.conditions:
        target = targets.get(condition.name)
        if target is None:
            continue
        low, high = target if isinstance(target, tuple) else (target, target)
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


def _mark_failures(status: list[str], energies: np.ndarray) -> None:
    for i in np.flatnonzero(~np.isfinite(energies)).tolist():
        if status[i] in (CONVERGED, RELAXATION_FAILED):
            status[i] = "no energy: the calculator failed"


def _row(values: Mapping[str, np.ndarray], i: int) -> dict[str, float | None]:
    """One structure's values; None (JSON's null) where a value is not finite."""
    return {k: float(v[i]) if np.isfinite(v[i]) else None for k, v in values.items()}


def _derived(seed: int, stage: int) -> int:
    return int(np.random.SeedSequence([seed, stage]).generate_state(1)[0] // 2)
