"""Energies and further properties of structures, whatever computes them."""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes

from tfgen.potentials.ase import AsePotential, adapt
from tfgen.potentials.base import Potential
from tfgen.potentials.outcomes import NOT_FINITE
from tfgen.potentials.properties import (
    PropertyFunction,
    calculator_functions,
    make_functions,
    run_functions,
)
from tfgen.structures.status import Status

__all__ = [
    "Evaluation",
    "PotentialCalculator",
    "adapt_potential",
    "evaluate",
    "functions_for",
    "potential_name",
]


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What a potential and functions said of structures.

    Attributes:
        energy: [n], eV; NaN where the potential failed, and everywhere without one.
        values: property -> [n]; NaN where its function failed.
        status: [n], converged, calculator failed, property failed, crashed or time limit.
        detail: [n], what was said that failed; "" otherwise.
        calculations: [n] int, geometries that were computed: one for each structure if there was
            anything to compute.
    """

    energy: np.ndarray
    values: dict[str, np.ndarray]
    status: list[Status]
    detail: list[str]
    calculations: np.ndarray


def evaluate(
    potential: Potential | AsePotential | None,
    structures: Sequence[Atoms],
    functions: Sequence[PropertyFunction] = (),
    *,
    advance: Callable[[], Any] | None = None,
) -> Evaluation:
    """Computes energies and properties of structures.

    Args:
        potential: computes the energies; None: only functions are called.
        structures: left unmodified.
        functions: are called with a copy of each structure. Its `calc` is the potential's, as an
            ASE calculator that has just computed it, or None without a potential.
        advance: called after each structure, as far as one comes after the other.
    """
    if isinstance(potential, AsePotential):
        found = potential.calculate(structures, functions, advance=advance)
        return Evaluation(
            energy=np.array([one.energy for one in found]),
            values={
                function.name: np.array([one.values[function.name] for one in found])
                for function in functions
            },
            status=[one.status for one in found],
            detail=[one.detail for one in found],
            calculations=np.array([one.calculations for one in found], int),
        )
    count = len(structures)
    energy, forces = np.full(count, np.nan), []
    if potential is not None:
        computed = potential.compute(structures)
        energy, forces = np.asarray(computed["energy"]), computed["forces"]
    values = {function.name: np.full(count, np.nan) for function in functions}
    failed = ~np.isfinite(energy) & (potential is not None)
    status = [Status.CALCULATOR_FAILED if bad else Status.CONVERGED for bad in failed]
    detail = [NOT_FINITE if bad else "" for bad in failed]
    for i, structure in enumerate(structures if functions else ()):
        if failed[i]:
            continue
        atoms = structure.copy()
        if potential is not None:
            atoms.calc = PotentialCalculator(potential, atoms, float(energy[i]), forces[i])
        own, detail[i] = run_functions(functions, atoms)
        for name, value in own.items():
            values[name][i] = value
        if detail[i]:
            status[i] = Status.PROPERTY_FAILED
        if advance is not None:
            advance()
    spent = int(potential is not None or bool(functions))
    return Evaluation(
        energy=energy,
        values=values,
        status=status,
        detail=detail,
        calculations=np.full(count, spent),
    )


class PotentialCalculator(Calculator):
    """A potential of tfgen's kind as an ASE calculator.

    Args:
        potential: the potential.
        atoms: a structure that has been computed before.
        energy: its energy, eV.
        forces: [atoms, 3], on its atoms, eV/Å.
    """

    implemented_properties = ["energy", "forces"]  # noqa: RUF012  (ASE's own interface)

    def __init__(
        self, potential: Potential, atoms: Atoms, energy: float, forces: np.ndarray
    ) -> None:
        super().__init__()
        self.potential = potential
        self.atoms = atoms.copy()
        self.results = {"energy": energy, "forces": forces}

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy", "forces"),
        system_changes: Sequence[str] = all_changes,
    ) -> None:
        """Computes energy and forces, as ASE asks for them."""
        super().calculate(atoms, properties, system_changes)
        found = self.potential.compute([self.atoms])
        self.results = {"energy": float(found["energy"][0]), "forces": found["forces"][0]}


def potential_name(potential: Any) -> str:
    """Returns what records say computed a value: "emt", or MODULE:NAME."""
    kind = type(potential)
    return str(getattr(potential, "name", None) or f"{kind.__module__}:{kind.__qualname__}")


def adapt_potential(name: str, potential: Any) -> Potential | AsePotential | None:
    """Returns a potential as tfgen uses it.

    Args:
        name: of the argument, for the message.
        potential: a potential of tfgen's kind, an ASE calculator, or None.

    Raises:
        ValueError: if it is anything else.
    """
    if potential is None:
        return None
    if isinstance(potential, type):
        raise ValueError(f"{name} is the class {potential.__name__}; an object of it is needed")
    adapted = adapt(potential)
    if not isinstance(adapted, AsePotential | Potential):
        raise ValueError(
            f"{name} is {reprlib.repr(potential)}, neither a potential like tfgen.EMT() nor an ASE "
            "calculator"
        )
    return adapted


def functions_for(
    compute: Mapping[str, Callable[[Atoms], Any] | str | None],
    potential: Potential | AsePotential | None,
) -> list[PropertyFunction]:
    """Returns what computes properties of structures that have a potential.

    Args:
        compute: property -> a function, the import path MODULE:FUNCTION of one, or None for a
            property that the potential's own calculator computes.
        potential: of the structures.

    Raises:
        ValueError: as `make_functions`, and if the potential does not compute such a property, or
            a function cannot be sent to where the potential works.
    """
    functions = make_functions({k: v for k, v in compute.items() if v is not None})
    own = [name for name, function in compute.items() if function is None]
    found = calculator_functions(potential, own)
    if missing := sorted(set(own) - {function.name for function in found}):
        by = "no potential" if potential is None else potential_name(potential)
        raise ValueError(
            f"compute: {', '.join(missing)} has no function, and {by} does not compute it"
        )
    if isinstance(potential, AsePotential):
        potential.check_functions(functions)
    return [*functions, *found]
