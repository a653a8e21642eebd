"""The gap between the highest occupied and the lowest unoccupied orbital, in GFN-xTB."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.units import Hartree

__all__ = ["gap"]


def gap(atoms: Atoms) -> float:
    """Computes the HOMO-LUMO gap of a structure with tblite's calculator, eV."""
    atoms.get_potential_energy()
    # tblite's calculator for ASE has no public way to the orbitals.
    results = atoms.calc._res
    energies = np.sort(np.ravel(results.get("orbital-energies")))
    occupied = round(float(np.sum(results.get("orbital-occupations"))) / 2.0)
    return float(energies[occupied] - energies[occupied - 1]) * Hartree
