"""What is asked for, checked before any work begins."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import BaseCalculator

from tfgen.models.model import Model
from tfgen.potentials.ase import AsePotential
from tfgen.potentials.base import Potential
from tfgen.potentials.emt import EMT
from tfgen.potentials.evaluation import adapt_potential, functions_for, potential_name
from tfgen.potentials.properties import PropertyFunction, calculator_functions, check_units
from tfgen.structures.formulas import MAX_SOUGHT, formula_of, numbers_from_formula
from tfgen.structures.properties import ENERGIES, GEOMETRIC, GEOMETRY, UNITS
from tfgen.targets import SURROGATE, Target, TargetValue, check_targets, default_tolerance
from tfgen.warnings import TfgenWarning

__all__ = [
    "Request",
    "UnsupportedFormulaError",
    "UnverifiableError",
    "check_request",
    "warn_of_doubts",
]

# Most structures of a request: all of them wait in memory.
MAX_COUNT = 100_000
# Candidates for each structure, where something can tell which are on target.
CANDIDATES = 10
# Names of potentials that give the same values.
SAME_VALUES = {"emt", "ase.calculators.emt:EMT"}


class UnsupportedFormulaError(ValueError):
    """The potential that is to compute the structures does not know their elements."""


class UnverifiableError(ValueError):
    """Several candidates are asked for, but nothing calculates a property to choose them by.

    Attributes:
        properties: those that nothing calculates.
    """

    def __init__(self, candidates: int, properties: Sequence[str]) -> None:
        super().__init__(
            f"candidates is {candidates}, but nothing calculates {', '.join(properties)} to "
            "choose by; 1, a potential or a function in compute is needed"
        )
        self.properties = tuple(properties)


@dataclass(frozen=True, kw_only=True, eq=False)
class Request:
    """A request that a model can work on.

    Attributes:
        numbers: [atoms], atomic numbers of the composition, sorted.
        targets: what is asked for, with tolerances.
        count: structures asked for.
        seed: of all that is sampled.
        potential: evaluates energies; None if nothing does.
        relaxed_by: relaxes candidates; None if they stay as reconstructed.
        minima: whether proposals relax to minima of the NNP; if not, they stay at the target
            energy.
        evaluated_by: property -> what computes it: the name of the potential or function,
            "geometry", or "surrogate" (the model's own network) where nothing calculates it. The
            properties that the model knows come first, in their order.
        candidates: how many may be relaxed and verified for each structure asked for.
        functions: compute further properties.
    """

    numbers: np.ndarray
    targets: tuple[Target, ...]
    count: int
    seed: int
    potential: Potential | AsePotential | None
    relaxed_by: Potential | AsePotential | None
    minima: bool
    evaluated_by: Mapping[str, str]
    candidates: int
    functions: tuple[PropertyFunction, ...] = ()

    @property
    def unverifiable(self) -> list[str]:
        """The properties asked for of which only the model's own network says anything."""
        return [t.name for t in self.targets if self.evaluated_by[t.name] == SURROGATE]


def check_request(
    model: Model,
    formula: str,
    targets: Mapping[str, TargetValue],
    count: int,
    *,
    seed: int,
    tolerance: Mapping[str, float] | None,
    potential: Potential | AsePotential | BaseCalculator | str | None,
    relax: bool | Potential | AsePotential | BaseCalculator | str,
    candidates: int | None,
    compute: Mapping[str, Callable[[Atoms], Any] | str | None] | None = None,
) -> Request:
    """Checks the arguments of `tfgen.generate`, which documents them.

    Raises:
        UnsupportedFormulaError: if a potential does not know an element of the formula.
        UnverifiableError: if there are several candidates, but nothing to choose them by.
        ValueError: on anything else that cannot be worked on.
    """
    numbers = _check_formula(formula, model)
    if isinstance(count, bool) or not isinstance(count, Integral) or count < 1:
        raise ValueError(f"count is {count!r}; a whole number of at least 1 is needed")
    if count > MAX_COUNT:
        raise ValueError(f"count is {count}; at most {MAX_COUNT} structures are allowed at once")
    if isinstance(seed, bool) or not isinstance(seed, Integral) or seed < 0:
        raise ValueError(f"seed is {seed!r}; a whole number of at least 0 is needed")
    asked = _with_tolerances(
        check_targets(targets, [c.name for c in model.conditions]), model, tolerance or {}
    )
    evaluating = _choose_potential(model, potential)
    relaxing = _choose_relaxing(relax, evaluating)
    for used in (evaluating, relaxing):
        _check_knows(used, formula, numbers)
    functions = functions_for(compute or {}, evaluating)
    check_units(functions, {c.name: c.unit for c in model.conditions}, "the model")
    given = [function.name for function in functions]
    # The same name in another unit is another quantity.
    functions += [
        function
        for condition in model.conditions
        for function in calculator_functions(evaluating, [condition.name])
        if condition.name not in given and condition.unit == function.unit
    ]
    names = [c.name for c in model.conditions if c.unit == UNITS.get(c.name, c.unit)]
    sources = _find_sources([*names, *given], evaluating, functions)
    evaluated_by = {c.name: SURROGATE for c in model.conditions} | sources
    unknown = [t.name for t in asked if evaluated_by[t.name] == SURROGATE]
    if candidates is None:
        calculated = relaxing is not None or evaluating is not None or bool(functions)
        candidates = CANDIDATES if calculated and not unknown else 1
    elif candidates > 1 and unknown:
        raise UnverifiableError(candidates, unknown)
    return Request(
        numbers=numbers,
        targets=asked,
        count=int(count),
        seed=int(seed),
        potential=evaluating,
        functions=tuple(functions),
        relaxed_by=relaxing,
        minima=relaxing is not None or model.minima,
        evaluated_by=evaluated_by,
        candidates=candidates,
    )


def warn_of_doubts(model: Model, request: Request) -> None:
    """Warns if the model was not trained on a target, on the composition, or by the potential.

    The warnings name the line that called this function's caller.
    """
    if differs := _describe_difference(model, request.potential):
        warnings.warn(f"the model was trained on energies of {differs}", TfgenWarning, stacklevel=3)
    targets = {target.name: target for target in request.targets}
    for condition in model.conditions:
        target = targets.get(condition.name)
        if target is None or condition.low <= target.low <= target.high <= condition.high:
            continue
        unit = "" if condition.unit in ("1", "unknown") else f" {condition.unit}"
        shown = f"{target.low:g}" if target.is_value else f"{target.low:g}:{target.high:g}"
        warnings.warn(
            f"target {condition.name}={shown} is outside the training range "
            f"{condition.low:.4g} to {condition.high:.4g}{unit}; trying all the same",
            TfgenWarning,
            stacklevel=3,
        )
    formula = formula_of(request.numbers)
    if formula not in model.formulas:
        known = sorted(model.formulas, key=lambda name: -model.formulas[name])
        shown = ", ".join(known[:5]) + (", ..." if len(known) > 5 else "")
        warnings.warn(
            f"the model was not trained on {formula}, only on {shown}; trying all the same",
            TfgenWarning,
            stacklevel=3,
        )


def _describe_difference(model: Model, potential: Potential | AsePotential | None) -> str:
    """Says how what evaluates differs from what computed the training set; "" if it is the same."""
    if potential is None:
        return ""
    trained = model.calculator or {}
    name, evaluating = trained.get("name", model.potential), potential_name(potential)
    if name not in (None, evaluating) and not {name, evaluating} <= SAME_VALUES:
        return f"{name}, and {evaluating} evaluates; their energies are not comparable"
    if isinstance(potential, AsePotential) and trained:
        known, given = trained.get("arguments", {}), potential.describe()["arguments"]
        if known != given:  # what the calculator's defaults are, nobody knows
            return (
                f"{name} with {known or 'no arguments'}, and it evaluates with {given or 'none'}; "
                "their energies may not be comparable"
            )
    return ""


def _check_formula(formula: str, model: Model) -> np.ndarray:
    numbers = numbers_from_formula(formula, most=MAX_SOUGHT)
    if len(numbers) < 2:
        raise ValueError(f"formula {formula!r} has a single atom; at least two are needed")
    unseen = sorted(set(Atoms(numbers).symbols) - set(model.fingerprint.species))
    if unseen:
        raise ValueError(
            f"formula {formula!r} holds {', '.join(unseen)}; the model was trained on "
            f"{', '.join(model.fingerprint.species)}"
        )
    return numbers


def _with_tolerances(
    targets: Sequence[Target], model: Model, tolerance: Mapping[str, float]
) -> tuple[Target, ...]:
    asked = [target.name for target in targets]
    for name in tolerance:
        if name not in asked:
            raise ValueError(f"tolerance names {name!r}; the targets are {', '.join(asked)}")
    ranges = {c.name: (c.low, c.high) for c in model.conditions}
    return tuple(
        target.with_tolerance(
            tolerance[target.name]
            if target.name in tolerance
            else default_tolerance(target.name, *ranges[target.name])
        )
        for target in targets
    )


def _choose_potential(
    model: Model, potential: Potential | AsePotential | BaseCalculator | str | None
) -> Potential | AsePotential | None:
    if isinstance(potential, str):
        if potential != "auto":
            raise ValueError(f"potential is {potential!r}; 'auto', None or an object is needed")
        return EMT() if model.potential == "emt" else None
    return adapt_potential("potential", potential)


def _choose_relaxing(
    relax: bool | Potential | AsePotential | BaseCalculator | str,
    evaluating: Potential | AsePotential | None,
) -> Potential | AsePotential | None:
    if isinstance(relax, str) and relax != "auto":
        raise ValueError(f"relax is {relax!r}; 'auto', a bool or an object is needed")
    if relax is True and evaluating is None:
        raise ValueError("relax is True, but there is no potential; pass one, or relax=False")
    if isinstance(relax, str | bool):
        return evaluating if relax else None
    return _require_potential(relax)


def _require_potential(relax: Any) -> Potential | AsePotential:
    found = adapt_potential("relax", relax)
    if found is None:
        raise ValueError("relax is None; 'auto', a bool or what relaxes is needed")
    return found


def _find_sources(
    names: Sequence[str],
    potential: Potential | AsePotential | None,
    functions: Sequence[PropertyFunction],
) -> dict[str, str]:
    """Returns property -> what computes it."""
    sources = {function.name: function.source for function in functions}
    sources |= dict.fromkeys(GEOMETRIC, GEOMETRY)
    if potential is not None:
        sources |= dict.fromkeys(ENERGIES, potential_name(potential))
    return {name: sources.get(name, SURROGATE) for name in names}


def _check_knows(potential: Any, formula: str, numbers: np.ndarray) -> None:
    """Raises UnsupportedFormulaError if a potential says that it cannot compute the formula."""
    if potential is None:
        return
    try:
        potential.check([Atoms(numbers)])
    except ValueError as error:
        symbols = sorted(set(Atoms(numbers).symbols))
        unknown = [symbol for symbol in symbols if not _knows(potential, symbol)]
        reason = f"holds {', '.join(unknown)}, which" if unknown else "is a formula that"
        raise UnsupportedFormulaError(
            f"formula {formula!r} {reason} the potential {potential_name(potential)!r} does not "
            "know"
        ) from error


def _knows(potential: Potential, symbol: str) -> bool:
    try:
        potential.check([Atoms(symbol)])
    except ValueError:
        return False
    return True
