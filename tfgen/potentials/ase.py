"""The one way to ASE calculators: single points, relaxations, and import paths."""

from __future__ import annotations

import importlib
import inspect
import json
import re
import threading
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import BaseCalculator, FileIOCalculator
from ase.optimize import BFGS

from tfgen.potentials._output import redirect_output
from tfgen.structures.status import Status
from tfgen.warnings import TfgenWarning

__all__ = [
    "NOT_FINITE",
    "AsePotential",
    "Relaxation",
    "adapt",
    "is_calculator",
    "is_import_path",
    "make_calculator",
    "warn_of_failures",
]

NOT_FINITE = "energy or forces are not finite"
"""The detail where a calculator gave a result that is no number."""
_LONGEST_DETAIL = 300  # characters


def is_import_path(path: str) -> bool:
    """Says whether `path` has the form MODULE:NAME."""
    return re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*", path) is not None


def is_calculator(candidate: Any) -> bool:
    """Says whether an object can be used as an ASE calculator.

    Some calculators have the methods of one, but not the base class.
    """
    if isinstance(candidate, type | Atoms):
        return False
    methods = ("get_potential_energy", "get_forces")
    return isinstance(candidate, BaseCalculator) or all(hasattr(candidate, m) for m in methods)


def make_calculator(path: str, arguments: Mapping[str, Any] | None = None) -> BaseCalculator:
    """Imports and makes an ASE calculator.

    Args:
        path: MODULE:NAME of a class, or of a function that returns a calculator, such as
            "ase.calculators.emt:EMT" or "mace.calculators:mace_mp".
        arguments: keyword arguments for it.

    Raises:
        ValueError: if there is no such thing, it cannot be called with the arguments, or what it
            returns is no ASE calculator.
    """
    if not is_import_path(path):
        raise ValueError(f"calculator {path!r} is not of the form MODULE:NAME")
    module, _, attribute = path.partition(":")
    try:
        factory: Any = importlib.import_module(module)
        for name in attribute.split("."):
            factory = getattr(factory, name)
        calculator = factory(**(arguments or {}))
    except Exception as error:  # modules and calculators raise what they like
        reason = str(error) or type(error).__name__
        raise ValueError(f"calculator {path!r} cannot be made: {reason}") from error
    if not is_calculator(calculator):
        raise ValueError(
            f"calculator {path!r} is {type(calculator).__name__}, not an ASE calculator"
        )
    # ASE's base class takes any argument, and those of another name have no effect. Calculators
    # that write input files pass on whatever their program knows.
    known = getattr(type(calculator), "default_parameters", None)
    if known and isinstance(factory, type) and not issubclass(factory, FileIOCalculator):
        # The base class itself reads these.
        known = {*known, "restart", "label", "atoms", "directory", *_named_arguments(factory)}
        unknown = [name for name in arguments or {} if name not in known]
        if unknown:
            raise ValueError(
                f"calculator {path!r} has no argument {', '.join(map(repr, unknown))}; it has "
                f"{', '.join(sorted(known))}"
            )
    return calculator


def _named_arguments(factory: type) -> list[str]:
    """Returns the names of a class's arguments, those of its base classes included."""
    names = []
    for kind in factory.__mro__:
        if "__init__" in vars(kind) and kind is not object:
            names += list(inspect.signature(vars(kind)["__init__"]).parameters)[1:]
    return [name for name in names if name not in ("args", "kwargs", "parameters")]


@dataclass(frozen=True, kw_only=True)
class Relaxation:
    """How the relaxation of one structure by ASE ended.

    Attributes:
        structure: a copy with the last positions; with those of the start if the calculator raised
            an error.
        energy: eV, there; NaN if the calculator raised an error.
        fmax: largest force on an atom, eV/Å; infinite if the calculator raised an error.
        steps: steps that were taken.
        status: converged, not converged, or calculator failed.
        detail: what the calculator said that failed; "" otherwise.
    """

    structure: Atoms
    energy: float
    fmax: float
    steps: int
    status: Status
    detail: str


class AsePotential:
    """Any ASE calculator, made safe: every use of one in tfgen goes through this class.

    - Results do not depend on what the calculator did before: it is reset before each structure.
      One without `reset` is made again if its import path is known.
    - Errors and results that are not finite become the status of their structure, with a detail,
      and the others continue. `KeyboardInterrupt` passes.
    - What the calculator prints is kept off the terminal.
    - Calculations are counted.

    A calculator that hangs or crashes takes its process with it, unless it runs in one of
    `tfgen.execution.processes`.

    Args:
        calculator: an ASE calculator.
        path: its import path MODULE:NAME, if known.
        arguments: the keyword arguments that it was made with.
        log: a file to which what the calculator prints is appended; it is lost if None.

    Raises:
        ValueError: if `calculator` is not one.
    """

    def __init__(
        self,
        calculator: BaseCalculator,
        *,
        path: str | None = None,
        arguments: Mapping[str, Any] | None = None,
        log: Path | None = None,
    ) -> None:
        if not is_calculator(calculator):
            raise ValueError(f"calculator is {calculator!r}; an ASE calculator is needed")
        self.calculator = calculator
        self._first = (
            calculator  # a reset may replace `calculator`, but not whose potential this is
        )
        self.path, self.arguments, self.log = path, dict(arguments or {}), log
        self._calculations = 0
        self._lock = threading.Lock()

    @classmethod
    def from_path(
        cls, path: str, arguments: Mapping[str, Any] | None = None, *, log: Path | None = None
    ) -> AsePotential:
        """Makes the calculator that an import path names.

        Args:
            path: as for `make_calculator`.
            arguments: keyword arguments for it.
            log: as for the class.

        Raises:
            ValueError: if it cannot be made; says why.
        """
        with redirect_output(log):
            calculator = make_calculator(path, arguments)
        return cls(calculator, path=path, arguments=arguments, log=log)

    def __repr__(self) -> str:
        return f"AsePotential({self.name}, calculations={self.calculations})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AsePotential) and self._first is other._first

    def __hash__(self) -> int:
        return id(self._first)

    @property
    def name(self) -> str:
        """The import path if it is known, else the calculator's class in lower case."""
        return self.path or type(self.calculator).__name__.lower()

    def describe(self) -> dict[str, Any]:
        """Returns name and arguments as JSON holds them: enough to say what computed a value."""
        text: dict[str, Any] = json.loads(json.dumps(self.arguments, default=str))
        return {"name": self.name, "arguments": text}

    @property
    def calculations(self) -> int:
        """How many geometries the calculator was asked for so far, failures included."""
        return self._calculations

    def check(self, structures: Sequence[Atoms]) -> None:
        """Does nothing: an ASE calculator does not tell which elements it knows."""

    def compute(self, structures: Atoms | Sequence[Atoms]) -> dict[str, Any]:
        """Computes energies and forces of structures, one after the other.

        Args:
            structures: left unmodified; constraints on their atoms do not change the forces.

        Returns:
            "energy" [structures], eV, NaN where the calculation failed; "forces", a list of
            [atoms, 3], eV/Å, NaN there; "status", a list of `Status`, converged or calculator
            failed; "detail", a list of what the calculator said that failed, "" otherwise.

        Warns:
            TfgenWarning: if the calculator failed for some structures.
        """
        structures = [structures] if isinstance(structures, Atoms) else list(structures)
        found = [self._compute(structure) for structure in structures]
        warn_of_failures([detail for *_, detail in found], stacklevel=3)
        return {
            "energy": np.array([energy for energy, _, _ in found]),
            "forces": [forces for _, forces, _ in found],
            "status": [
                Status.CALCULATOR_FAILED if detail else Status.CONVERGED for *_, detail in found
            ],
            "detail": [detail for *_, detail in found],
        }

    def relax(self, structure: Atoms, *, fmax: float = 0.01, max_steps: int = 2000) -> Relaxation:
        """Relaxes a structure by ASE's BFGS until no force on an atom exceeds `fmax`.

        Args:
            structure: left unmodified; all of ASE's constraints are kept.
            fmax: eV/Å.
            max_steps: bound on the steps.
        """
        atoms = structure.copy()
        energy, largest, steps, evaluated = np.nan, np.inf, 0, 0
        status, detail = Status.NOT_CONVERGED, ""
        with redirect_output(self.log):
            try:
                atoms.calc = self._reset()
                with BFGS(atoms, logfile=None) as optimizer:
                    for _ in optimizer.irun(fmax=fmax, steps=max_steps):
                        steps, evaluated = optimizer.get_number_of_steps(), evaluated + 1
                        energy = float(atoms.get_potential_energy())
                        largest = float(np.linalg.norm(atoms.get_forces(), axis=1).max())
                        # BFGS would continue, and fail with an error of LAPACK.
                        if not (np.isfinite(energy) and np.isfinite(largest)):
                            status, detail = Status.CALCULATOR_FAILED, NOT_FINITE
                            break
            except Exception as error:  # noqa: BLE001  (calculators raise what they like)
                status, detail, evaluated = Status.CALCULATOR_FAILED, _words(error), evaluated + 1
                atoms, energy, largest = structure.copy(), np.nan, np.inf
            finally:
                self._count(evaluated)
        if status is Status.NOT_CONVERGED and largest <= fmax:
            status = Status.CONVERGED
        atoms.calc = None
        return Relaxation(
            structure=atoms,
            energy=energy,
            fmax=largest,
            steps=steps,
            status=status,
            detail=detail,
        )

    def _compute(self, structure: Atoms) -> tuple[float, np.ndarray, str]:
        """Returns energy, forces, and why there are none; "" if there are."""
        atoms = structure.copy()
        self._count(1)
        with redirect_output(self.log):
            try:
                atoms.calc = self._reset()
                forces = np.array(atoms.get_forces(apply_constraint=False), float)
                energy = float(atoms.get_potential_energy())
                if forces.shape != atoms.positions.shape:
                    raise ValueError(f"forces have the shape {forces.shape}")
                if np.isfinite(energy) and np.isfinite(forces).all():
                    return energy, forces, ""
                detail = NOT_FINITE
            except Exception as error:  # noqa: BLE001  (calculators raise what they like)
                detail = _words(error)
        return np.nan, np.full(atoms.positions.shape, np.nan), detail

    def _reset(self) -> Any:
        """Returns the calculator, which has forgotten what it did before."""
        reset = getattr(self.calculator, "reset", None)
        if callable(reset):
            reset()
        elif self.path is not None:
            self.calculator = make_calculator(self.path, self.arguments)
        return self.calculator

    def _count(self, calculations: int) -> None:
        with self._lock:
            self._calculations += calculations


def adapt(potential: Any) -> Any:
    """Returns an ASE calculator as an `AsePotential`, and anything else as it is."""
    if isinstance(potential, AsePotential) or not is_calculator(potential):
        return potential
    return AsePotential(potential)


def warn_of_failures(details: Sequence[str], stacklevel: int = 2) -> None:
    """Warns if a calculator failed for some structures.

    Args:
        details: of all structures; "" where the calculator did not fail.
        stacklevel: as for `warnings.warn`, counted from here.
    """
    failed = [detail for detail in details if detail]
    if failed:
        warnings.warn(
            f"the calculator failed for {len(failed)} of {len(details)} structures, "
            f"last with: {failed[-1]}",
            TfgenWarning,
            stacklevel=stacklevel,
        )


def _words(error: Exception) -> str:
    """An error in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:_LONGEST_DETAIL]
