"""The one way to ASE calculators: single points, relaxations, and properties."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import BaseCalculator
from ase.optimize import BFGS

from tfgen.potentials._output import redirect_output
from tfgen.potentials.import_paths import is_calculator, make_calculator
from tfgen.potentials.outcomes import (
    Calculation,
    NotFiniteError,
    Relaxation,
    describe_error,
    warn_of_failures,
)
from tfgen.potentials.properties import PropertyFunction, run_functions
from tfgen.structures.status import Status

__all__ = [
    "AsePotential",
    "adapt",
    "shared_potential",
]

REPRODUCIBLE = 1e-3
"""By how much a fresh calculation may differ from the end of a relaxation, eV/atom."""
REPRODUCIBLE_FORCE = 2.0
"""How many times the largest force allowed it may have there."""
_SHARED: dict[tuple[str, str, float, Path | None], AsePotential] = {}


class AsePotential:
    """Any ASE calculator, made safe: every use of one in tfgen goes through this class.

    - Results do not depend on what the calculator did before: it is reset before each structure,
      and again after the last step of a relaxation. One without `reset` is made again if its import
      path is known.
    - Errors and results that are not finite become the status of their structure, with a detail,
      and the others continue. `KeyboardInterrupt` passes.
    - What the calculator prints is kept off the terminal.
    - Calculations are counted.

    A calculator that hangs or crashes takes its process with it;
    `tfgen.execution.worker_potential.WorkerPotential` runs it in others.

    Args:
        calculator: an ASE calculator.
        path: its import path MODULE:NAME, if known.
        arguments: the keyword arguments that it was made with.
        vacuum: empty space on all sides of a structure without a cell, in a box that only the
            calculator sees, Å. 0: no box. Some calculators need one.
        log: a file to which what the calculator prints is appended; it is lost if None.

    Raises:
        ValueError: if `calculator` is not one.

    Example:
        >>> potential = tfgen.AsePotential.from_path("tblite.ase:TBLite", {"method": "GFN2-xTB"})
        >>> tfgen.relax(structures, potential, fmax=0.05)
    """

    def __init__(
        self,
        calculator: BaseCalculator,
        *,
        path: str | None = None,
        arguments: Mapping[str, Any] | None = None,
        vacuum: float = 0.0,
        log: Path | None = None,
    ) -> None:
        if not is_calculator(calculator):
            raise ValueError(f"calculator is {calculator!r}; an ASE calculator is needed")
        self.calculator = calculator
        # A reset may replace `calculator`, but not whose potential this is.
        self._first = calculator
        kind = type(calculator)
        self.name = path or f"{kind.__module__}:{kind.__qualname__}"
        self.path, self.arguments, self.log = path, dict(arguments or {}), log
        self.vacuum = vacuum
        self.implemented_properties: tuple[str, ...] = tuple(
            getattr(calculator, "implemented_properties", ())
        )
        self._calculations, self._failed = 0, False
        self._lock = threading.Lock()

    @classmethod
    def from_path(
        cls,
        path: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        vacuum: float = 0.0,
        log: Path | None = None,
    ) -> AsePotential:
        """Makes the calculator that an import path names.

        Args:
            path: as for `make_calculator`.
            arguments: keyword arguments for it.
            vacuum: as for the class.
            log: as for the class.

        Raises:
            ValueError: if it cannot be made; says why.
        """
        with redirect_output(log):
            calculator = make_calculator(path, arguments)
        return AsePotential(calculator, path=path, arguments=arguments, vacuum=vacuum, log=log)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name}, calculations={self.calculations})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AsePotential) and self._first is other._first

    def __hash__(self) -> int:
        return id(self._first)

    def describe(self) -> dict[str, Any]:
        """Returns name, arguments and box as JSON holds them: what computed a value."""
        # Numbers that are not finite have no place in JSON.
        text: dict[str, Any] = json.loads(
            json.dumps(self.arguments, default=str), parse_constant=str
        )
        return {"name": self.name, "arguments": text, "vacuum": self.vacuum}

    @property
    def calculations(self) -> int:
        """How many geometries the calculator was asked for so far, failures included."""
        return self._calculations

    def check(self, structures: Sequence[Atoms]) -> None:
        """Does nothing: an ASE calculator does not tell which elements it knows."""

    def check_functions(self, functions: Sequence[PropertyFunction]) -> None:
        """Does nothing: any function can be called in this process."""

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
        found = self.calculate(structures)
        warn_of_failures([one.detail for one in found], stacklevel=3)
        return {
            "energy": np.array([one.energy for one in found]),
            "forces": [one.forces for one in found],
            "status": [one.status for one in found],
            "detail": [one.detail for one in found],
        }

    def calculate(
        self,
        structures: Sequence[Atoms],
        functions: Sequence[PropertyFunction] = (),
        *,
        advance: Callable[[], Any] | None = None,
    ) -> list[Calculation]:
        """Computes energies, forces and further properties of structures.

        Args:
            structures: left unmodified.
            functions: are called with a copy of each structure that has the calculator, which has
                just computed it.
            advance: called after each structure.
        """
        found = []
        for structure in structures:
            found.append(self._calculate(structure, functions))
            if advance is not None:
                advance()
        return found

    def relax(self, structure: Atoms, *, fmax: float = 0.01, max_steps: int = 2000) -> Relaxation:
        """Relaxes a structure by ASE's BFGS until no force on an atom exceeds `fmax`.

        Args:
            structure: left unmodified; all of ASE's constraints are kept.
            fmax: eV/Å.
            max_steps: bound on the steps.
        """
        (found,) = self.relax_all([structure], fmax=fmax, max_steps=max_steps)
        return found

    def relax_all(
        self,
        structures: Sequence[Atoms],
        *,
        fmax: float = 0.01,
        max_steps: int = 2000,
        advance: Callable[[], Any] | None = None,
    ) -> list[Relaxation]:
        """Relaxes structures, one after the other, as `relax` does.

        Args:
            structures: left unmodified.
            fmax: eV/Å.
            max_steps: bound on the steps of each.
            advance: called after each structure.
        """
        found = []
        for structure in structures:
            found.append(self._relax(structure, fmax, max_steps))
            if advance is not None:
                advance()
        return found

    def _relax(self, structure: Atoms, fmax: float, max_steps: int) -> Relaxation:
        atoms = self._put_in_box(structure)
        energy, largest, steps, evaluated = np.nan, np.inf, 0, 0
        forces = np.full(atoms.positions.shape, np.nan)
        with redirect_output(self.log):
            try:
                atoms.calc = self._reset()
                with BFGS(atoms, logfile=None) as optimizer:
                    for _ in optimizer.irun(fmax=fmax, steps=max_steps):
                        steps, evaluated = optimizer.get_number_of_steps(), evaluated + 1
                        energy = float(atoms.get_potential_energy())
                        forces = np.array(atoms.get_forces(), float)
                        largest = _largest_force(forces)
                        # BFGS would continue, and fail with an error of LAPACK.
                        if not (np.isfinite(energy) and np.isfinite(largest)):
                            raise NotFiniteError
            except (Exception, SystemExit) as error:  # noqa: BLE001  (calculators raise what they like)
                self._count(calculations := max(evaluated, steps + 1))
                self._failed, detail = True, describe_error(error)
                return Relaxation.failed(structure, detail, steps=steps, calculations=calculations)
        self._count(evaluated)
        atoms = self._take_out(atoms, structure)
        status = Status.CONVERGED if largest <= fmax else Status.NOT_CONVERGED
        if steps == 0:
            return Relaxation(
                structure=atoms, energy=energy, forces=forces, fmax=largest, steps=steps,
                status=status, detail="", calculations=evaluated,
            )  # fmt: skip
        return self._confirm(atoms, energy, fmax, steps, status, evaluated)

    def _confirm(
        self, atoms: Atoms, energy: float, fmax: float, steps: int, status: Status, evaluated: int
    ) -> Relaxation:
        """Computes the end of a relaxation anew.

        Some calculators start each step from the last, and may end in a state that is not the
        ground state.
        """
        fresh = self._calculate(atoms, ())
        if fresh.detail:
            return Relaxation.failed(
                atoms, fresh.detail, fresh.status, steps=steps, calculations=evaluated + 1
            )
        forces = fresh.forces.copy()
        for constraint in atoms.constraints:
            constraint.adjust_forces(atoms, forces)
        difference, detail = abs(fresh.energy - energy), ""
        largest = _largest_force(forces)
        if status is Status.CONVERGED and difference > REPRODUCIBLE * len(atoms):
            status = Status.NOT_CONVERGED
            detail = f"a fresh calculation at its end differs by {difference:.3g} eV"
        elif status is Status.CONVERGED and largest > REPRODUCIBLE_FORCE * fmax:
            status = Status.NOT_CONVERGED
            detail = f"a fresh calculation at its end has a force of {largest:.3g} eV/Å"
        return Relaxation(
            structure=atoms,
            energy=fresh.energy,
            forces=forces,
            fmax=largest,
            steps=steps,
            status=status,
            detail=detail,
            calculations=evaluated + 1,
        )

    def _calculate(self, structure: Atoms, functions: Sequence[PropertyFunction]) -> Calculation:
        atoms = self._put_in_box(structure)
        self._count(1)
        with redirect_output(self.log):
            try:
                atoms.calc = self._reset()
                forces = np.array(atoms.get_forces(apply_constraint=False), float)
                energy = float(atoms.get_potential_energy())
                if forces.shape != atoms.positions.shape:
                    raise ValueError(f"forces have the shape {forces.shape}")
                if not (np.isfinite(energy) and np.isfinite(forces).all()):
                    raise NotFiniteError
            except (Exception, SystemExit) as error:  # noqa: BLE001  (calculators raise what they like)
                self._failed = True
                return Calculation.failed(
                    structure, [f.name for f in functions], describe_error(error)
                )
            values, detail = run_functions(functions, atoms)
        return Calculation(
            energy=energy,
            forces=forces,
            values=values,
            status=Status.PROPERTY_FAILED if detail else Status.CONVERGED,
            detail=detail,
        )

    def _put_in_box(self, structure: Atoms) -> Atoms:
        """Returns a copy, in a box if one is needed."""
        atoms = structure.copy()
        if self.vacuum and not atoms.pbc.any() and atoms.cell.rank < 3:
            atoms.center(vacuum=self.vacuum)
        return atoms

    def _take_out(self, atoms: Atoms, structure: Atoms) -> Atoms:
        """Returns the structure with the positions that its copy in a box has in the end."""
        result = structure.copy()
        into = self._put_in_box(structure).positions[0] - structure.positions[0]
        result.positions = atoms.positions - into
        return result

    def _reset(self) -> Any:
        """Returns the calculator, which has forgotten what it did before."""
        reset = getattr(self.calculator, "reset", None)
        # Nobody knows what state an error has left.
        if self.path is not None and (self._failed or not callable(reset)):
            self.calculator = make_calculator(self.path, self.arguments)
            self._failed = False
        elif callable(reset):
            reset()
        return self.calculator

    def _count(self, calculations: int) -> None:
        with self._lock:
            self._calculations += calculations


def adapt(potential: Any) -> Any:
    """Returns an ASE calculator as an `AsePotential`, and anything else as it is."""
    if isinstance(potential, AsePotential) or not is_calculator(potential):
        return potential
    return AsePotential(potential)


def shared_potential(
    path: str, arguments: Mapping[str, Any], *, vacuum: float = 0.0, log: Path | None = None
) -> AsePotential:
    """Returns the calculator of an import path, made once in this process.

    Models of some calculators take longer to load than a calculation.

    Raises:
        ValueError: if it cannot be made; says why.
    """
    key = path, json.dumps(arguments, default=repr, sort_keys=True), vacuum, log
    if key not in _SHARED:
        _SHARED[key] = AsePotential.from_path(path, arguments, vacuum=vacuum, log=log)
    return _SHARED[key]


def _largest_force(forces: np.ndarray) -> float:
    return float(np.linalg.norm(forces, axis=1).max())
