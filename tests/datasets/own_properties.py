"""Properties as a user writes them, for worker processes to import."""

from __future__ import annotations

import os

from ase import Atoms

NO_FUNCTION = "text"


def span(atoms: Atoms) -> float:
    return atoms.get_all_distances().max()


def stretched(atoms: Atoms) -> float:
    """What the energy becomes if all distances grow; the calculator has to work for it."""
    before = atoms.get_potential_energy()
    atoms.positions *= 1.05
    return atoms.get_potential_energy() - before


def only_of_four(atoms: Atoms) -> float:
    if len(atoms) != 4:
        raise RuntimeError("no\nSCF")
    return 1.0


def nothing(atoms: Atoms) -> float:
    return float("nan")


def text(atoms: Atoms) -> str:
    return "3"


def leave(atoms: Atoms) -> float:
    if len(atoms) == 5:
        os._exit(3)
    return 1.0
