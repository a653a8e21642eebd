"""Settings of relaxations."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["RelaxationSettings"]


@dataclass(frozen=True, kw_only=True)
class RelaxationSettings:
    """How many structures of one padded size relax at once; the results do not depend on it.

    Attributes:
        pairs: pairs of atoms in a batch: as many as a processor keeps in its cache.
        smallest, largest: bounds on the structures in a batch, multiples of 8.
        empty: share of the places in a batch that may be empty before more structures move in.
    """

    pairs: int = 48_000
    smallest: int = 8
    largest: int = 64
    empty: float = 0.25

    def __post_init__(self) -> None:
        if self.pairs < 1:
            raise ValueError(f"pairs is {self.pairs!r}; a whole number of at least 1 is needed")
        for name in ("smallest", "largest"):
            value = getattr(self, name)
            if value < 8 or value % 8:
                raise ValueError(f"{name} is {value!r}; a multiple of 8, at least 8, is needed")
        if self.largest < self.smallest:
            raise ValueError(
                f"largest is {self.largest!r}; at least smallest, {self.smallest!r}, is needed"
            )
        if not 0.0 <= self.empty <= 1.0:
            raise ValueError(f"empty is {self.empty!r}; a number from 0 to 1 is needed")

    def batch_size(self, atoms: int) -> int:
        """Returns how many structures of that many atoms, padding included, relax at once."""
        return int(np.clip(self.pairs // atoms**2, self.smallest, self.largest)) // 8 * 8
