"""Settings of relaxations."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tfgen._settings import check_number, check_whole

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
        check_whole(self, 1, "pairs")
        check_whole(self, 8, "smallest", "largest", multiple_of=8)
        if self.largest < self.smallest:
            raise ValueError(
                f"largest is {self.largest!r}; at least smallest, {self.smallest!r}, is needed"
            )
        check_number(self, "empty", low=0.0, high=1.0, included=True)

    def batch_size(self, atoms: int) -> int:
        """Returns how many structures of that many atoms, padding included, relax at once."""
        return int(np.clip(self.pairs // atoms**2, self.smallest, self.largest)) // 8 * 8
