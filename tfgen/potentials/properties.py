"""Properties of a structure that a user's function, or an ASE calculator, computes."""

from __future__ import annotations

import functools
import hashlib
import inspect
import reprlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from tfgen.potentials.import_paths import import_path, is_import_path
from tfgen.potentials.outcomes import describe_error
from tfgen.structures.properties import ENERGIES, GEOMETRIC

__all__ = [
    "CALCULATED",
    "PropertyFunction",
    "calculator_functions",
    "check_units",
    "make_functions",
    "own_function",
    "run_functions",
]


def _magnitude(value: Any) -> float:
    return float(np.linalg.norm(value))


def _largest(value: Any) -> float:
    return float(np.abs(value).max())


CALCULATED: dict[str, tuple[str, Callable[[Any], float]]] = {
    "free_energy": ("eV", float),
    "magmom": ("μB", float),
    "magmoms": ("μB", _largest),
    "dipole": ("e Å", _magnitude),
    "charges": ("e", _largest),
}
"""Properties of ASE's calculators by their ASE names -> (unit, the number made of the result).

A dipole counts with its magnitude, charges and magnetic moments of the atoms with the largest
absolute value.
"""


@dataclass(frozen=True)
class PropertyFunction:
    """A property of a structure, and the function that computes it.

    Attributes:
        name: of the property.
        function: `f(atoms) -> float`; `atoms.calc` is the potential's where there is one.
        source: what records say computed the value.
        unit: of the values; "unknown" if nobody says.
    """

    name: str
    function: Callable[[Atoms], Any]
    source: str
    unit: str = "unknown"

    @functools.cached_property
    def code(self) -> str:
        """A digest of the file that the function is in, which another version of it changes.

        "" if there is no such file.
        """
        try:
            path = inspect.getsourcefile(inspect.unwrap(self.function))
            return hashlib.sha256(Path(path or "").read_bytes()).hexdigest()
        except (OSError, TypeError, ValueError):
            return ""

    def __call__(self, atoms: Atoms) -> float:
        """Computes the property.

        Raises:
            ValueError: if the function returns anything but a finite number. What the function
                raises passes.
        """
        value = self.function(atoms)
        array = np.asarray(value)
        if array.shape != () or array.dtype.kind not in "fiu" or not np.isfinite(array):
            raise ValueError(f"it returned {reprlib.repr(value)}; a finite number is needed")
        return float(array)


def make_functions(compute: Mapping[str, Callable[[Atoms], Any] | str]) -> list[PropertyFunction]:
    """Checks what computes properties.

    Args:
        compute: property -> a function `f(atoms) -> float`, or the import path MODULE:FUNCTION of
            one.

    Raises:
        ValueError: if a path names nothing that can be called, a name is no name for a property,
            or tfgen computes the property itself.
    """
    return [_make_function(name, function) for name, function in compute.items()]


def _make_function(name: str, function: Callable[[Atoms], Any] | str) -> PropertyFunction:
    label = f"compute {name}"
    if not isinstance(name, str) or not name.isidentifier():
        raise ValueError(f"compute: {name!r} is no name for a property; use letters, digits and _")
    if name in (*GEOMETRIC, *ENERGIES):
        raise ValueError(f"{label}: tfgen computes {name} itself; another name is needed")
    if isinstance(function, str):
        source = function
        if not is_import_path(function):
            raise ValueError(f"{label}: {function!r} is not of the form MODULE:FUNCTION")
        try:
            found = import_path(function)
        except (Exception, SystemExit) as error:  # modules raise what they like
            reason = str(error) or type(error).__name__
            raise ValueError(f"{label}: {function!r} cannot be imported: {reason}") from error
    else:
        found = function
        qualified = getattr(function, "__qualname__", type(function).__qualname__)
        source = f"{getattr(function, '__module__', '')}:{qualified}"
    if not callable(found) or isinstance(found, type):
        raise ValueError(
            f"{label}: {source!r} is a {type(found).__name__}, not a function of an ase.Atoms"
        )
    return PropertyFunction(name, found, source)


def check_units(functions: Sequence[PropertyFunction], units: Mapping[str, str], of: str) -> None:
    """Checks that values can be compared with those that a data set has.

    Args:
        functions: compute properties.
        units: property -> its unit there.
        of: who has these units, for the message.

    Raises:
        ValueError: if both units are known, and differ.
    """
    for function in functions:
        unit = units.get(function.name, "unknown")
        if "unknown" not in (unit, function.unit) and unit != function.unit:
            raise ValueError(
                f"compute {function.name}: {function.source} gives it in {function.unit}, but "
                f"{of} has it in {unit}; a function that converts it is needed"
            )


def calculator_functions(potential: Any, names: Sequence[str]) -> list[PropertyFunction]:
    """Returns those of `names` that an ASE calculator computes besides energies and forces.

    Args:
        potential: an `AsePotential`; anything else computes none of them.
        names: properties, by their ASE names.
    """
    implemented = getattr(potential, "implemented_properties", ())
    return [
        own_function(name, str(potential.name))
        for name in names
        if name in CALCULATED and name in implemented
    ]


def own_function(name: str, source: str) -> PropertyFunction:
    """Returns what takes a property from the calculator that structures have.

    Args:
        name: of the property, by its ASE name.
        source: what records say computed the values.

    Raises:
        ValueError: if there is no such property.
    """
    if name not in CALCULATED:
        raise ValueError(
            f"compute {name}: there is no function, and the properties that calculators compute "
            f"are {', '.join(CALCULATED)}"
        )
    return PropertyFunction(name, functools.partial(_read, name), source, CALCULATED[name][0])


def _read(name: str, atoms: Atoms) -> float:
    if atoms.calc is None:
        raise ValueError(f"there is no {name}")
    return CALCULATED[name][1](atoms.calc.get_property(name, atoms))


def run_functions(
    functions: Sequence[PropertyFunction], atoms: Atoms
) -> tuple[dict[str, float], str]:
    """Computes properties of one structure.

    Returns:
        Property -> value, NaN where the function failed; and in one line what the first said that
        failed, "" if none did.
    """
    found = {function.name: _run(function, atoms) for function in functions}
    failed = [f"{name}: {said}" for name, (_, said) in found.items() if said]
    return {name: value for name, (value, _) in found.items()}, failed[0] if failed else ""


def _run(function: PropertyFunction, atoms: Atoms) -> tuple[float, str]:
    """Returns a value, and why there is none."""
    own = atoms.copy()  # a function may move the atoms
    own.calc = atoms.calc
    try:
        return function(own), ""
    except (Exception, SystemExit) as error:  # noqa: BLE001  (functions raise what they like)
        return float("nan"), describe_error(error)
