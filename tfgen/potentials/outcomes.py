"""What came of calculations and relaxations of single structures, and of those that failed."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from ase import Atoms

from tfgen.structures.status import Status
from tfgen.warnings import TfgenWarning

__all__ = [
    "NOT_FINITE",
    "Calculation",
    "NotFiniteError",
    "Relaxation",
    "describe_error",
    "warn_of_failures",
]

NOT_FINITE = "energy or forces are not finite"
"""The detail where a calculator gave a result that is no number."""
_LONGEST_DETAIL = 300  # characters


class NotFiniteError(ArithmeticError):
    """An energy or a force is NaN or infinite."""


@dataclass(frozen=True, kw_only=True)
class Calculation:
    """What a calculator said of one structure.

    Attributes:
        energy: eV; NaN if the calculator failed.
        forces: [atoms, 3], eV/Å, likewise; constraints on atoms do not change them.
        values: property -> value of the functions asked for; NaN where one failed.
        status: converged, calculator failed, or property failed.
        detail: what was said that failed; "" otherwise.
        calculations: geometries that the calculator was asked for.
    """

    energy: float
    forces: np.ndarray
    values: dict[str, float] = field(default_factory=dict)
    status: Status = Status.CONVERGED
    detail: str = ""
    calculations: int = 1

    @classmethod
    def failed(
        cls,
        structure: Atoms,
        names: Sequence[str],
        detail: str,
        status: Status = Status.CALCULATOR_FAILED,
    ) -> Calculation:
        """The calculation of a structure that failed."""
        return cls(
            energy=np.nan,
            forces=np.full(structure.positions.shape, np.nan),
            values=dict.fromkeys(names, np.nan),
            status=status,
            detail=detail,
        )


@dataclass(frozen=True, kw_only=True)
class Relaxation:
    """How the relaxation of one structure by ASE ended.

    Attributes:
        structure: a copy with the last positions; with those of the start if the calculator raised
            an error.
        energy: eV, there, from a calculation that knows nothing of those before; NaN if the
            calculator raised an error.
        forces: [atoms, 3], eV/Å, likewise, as constraints on atoms leave them.
        fmax: largest force on an atom, eV/Å, likewise; infinite if the calculator raised an error.
        steps: steps that were taken.
        status: converged, not converged, or calculator failed.
        detail: what the calculator said that failed; "" otherwise.
        calculations: geometries that the calculator was asked for.
    """

    structure: Atoms
    energy: float
    forces: np.ndarray
    fmax: float
    steps: int
    status: Status
    detail: str
    calculations: int

    @classmethod
    def failed(
        cls,
        structure: Atoms,
        detail: str,
        status: Status = Status.CALCULATOR_FAILED,
        *,
        steps: int = 0,
        calculations: int = 1,
    ) -> Relaxation:
        """The relaxation of a structure that failed."""
        atoms = structure.copy()
        atoms.calc = None
        return cls(
            structure=atoms,
            energy=np.nan,
            forces=np.full(structure.positions.shape, np.nan),
            fmax=np.inf,
            steps=steps,
            status=status,
            detail=detail,
            calculations=calculations,
        )


def describe_error(error: BaseException) -> str:
    """Returns in one line what a calculator or a function raised."""
    if isinstance(error, NotFiniteError):
        return NOT_FINITE
    return " ".join(f"{type(error).__name__}: {error}".split())[:_LONGEST_DETAIL]


def warn_of_failures(details: Sequence[str], stacklevel: int = 2) -> None:
    """Warns if calculations failed for some structures.

    Args:
        details: of all structures; "" where nothing failed.
        stacklevel: as for `warnings.warn`, counted from here.
    """
    failed = [detail for detail in details if detail]
    if failed:
        warnings.warn(
            f"calculations failed for {len(failed)} of {len(details)} structures, "
            f"last with: {failed[-1]}",
            TfgenWarning,
            stacklevel=stacklevel,
        )
