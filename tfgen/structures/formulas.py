"""Chemical formulas and elements, as text and as atomic numbers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers, chemical_symbols
from ase.formula import Formula

__all__ = [
    "MAX_ATOMS",
    "MAX_SOUGHT",
    "atomic_numbers_of",
    "check_size",
    "formula_of",
    "numbers_from_formula",
]

MAX_ATOMS = 1000
"""A formula of more atoms is taken for a typing error."""

MAX_SOUGHT = 200
"""Most atoms of a structure that is sought by its fingerprint, whose memory and time grow with the
cube of their number."""

# Characters of a formula, which a message about it quotes.
_LONGEST = 1000


def check_size(atoms: int, what: str, most: int = MAX_ATOMS) -> None:
    """Checks a number of atoms.

    Raises:
        ValueError: if it is above `most`.
    """
    if atoms > most:
        raise ValueError(f"{what} has {atoms} atoms; at most {most} are allowed")


def numbers_from_formula(formula: str, name: str = "formula", most: int = MAX_ATOMS) -> np.ndarray:
    """Returns the atomic numbers of a formula such as "Pt13" or "Cu6Au7", sorted by element.

    Raises:
        ValueError: if it is not a formula, is very long, has no atoms or more than `most`.
    """
    if isinstance(formula, str) and len(formula) > _LONGEST:
        raise ValueError(
            f"{name} of {len(formula)} characters is not a formula; at most {_LONGEST} are allowed"
        )
    try:
        counts = Formula(formula, strict=True).count()
    except (KeyError, ValueError, IndexError, TypeError, RecursionError):
        counts = {}
    counts = {symbol: count for symbol, count in counts.items() if count}
    if not counts or not set(counts) <= set(chemical_symbols[1:]):
        raise ValueError(
            f"{name} {formula!r} is not a formula; write elements with counts, like Pt13 or Cu6Au7"
        )
    check_size(sum(counts.values()), f"{name} {formula!r}", most)
    numbers = [atomic_numbers[symbol] for symbol in counts]
    return np.sort(np.repeat(numbers, list(counts.values())))


def formula_of(numbers: np.ndarray) -> str:
    """Returns the chemical formula (metals first, as in ASE's "metal" mode) of atomic numbers."""
    return Atoms(numbers[numbers > 0]).get_chemical_formula("metal")


def atomic_numbers_of(species: Sequence[str | int], name: str = "species") -> list[int]:
    """Returns the sorted atomic numbers of elements given by symbol or number.

    Raises:
        ValueError: on an unknown element, an empty list or one that repeats itself.
    """
    if isinstance(species, str | bytes) or not isinstance(species, Sequence | np.ndarray):
        raise ValueError(f"{name} is {species!r}; a list of elements like ['Pt'] is needed")
    numbers = []
    for element in species:
        if isinstance(element, str) and element in chemical_symbols[1:]:
            numbers.append(chemical_symbols.index(element))
        elif (
            isinstance(element, int | np.integer)
            and not isinstance(element, bool)
            and 0 < element < len(chemical_symbols)
        ):
            numbers.append(int(element))
        else:
            raise ValueError(f"{name} holds {element!r}, which is not a chemical element")
    if not numbers or len(set(numbers)) < len(numbers):
        raise ValueError(f"{name} is {list(species)!r}; at least one element, none twice")
    return sorted(numbers)
