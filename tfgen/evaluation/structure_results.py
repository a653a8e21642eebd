"""The metrics of one generated structure."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from tfgen.generation.records import Record

__all__ = ["Nearest", "StructureMetrics"]


@dataclass(frozen=True, kw_only=True)
class Nearest:
    """The most similar training structure of a structure.

    Attributes:
        index: its place in the data set.
        distance: the largest difference of any sorted interatomic distance, Å.
    """

    index: int
    distance: float


@dataclass(frozen=True, kw_only=True)
class StructureMetrics(Record):
    """The record of one generated structure, and how it was judged.

    Attributes:
        valid_reconstructed: whether it was valid before it was relaxed.
        valid: whether it is valid.
        unique: whether it equals no earlier structure; None if it is not valid.
        novel: whether it equals no training structure; None if it is not valid.
        nearest: the most similar training structure; None if it is not valid, or there is none of
            its composition.
        basin_rmsd: how far relaxing moved it, Å, root mean square; None where that is not known.
        hit: whether it is on target in the end; None where that is not known.
        verified: whether it is a hit when relaxed, and unique and new; likewise.
    """

    valid_reconstructed: bool
    valid: bool
    unique: bool | None
    novel: bool | None
    nearest: Nearest | None
    basin_rmsd: float | None
    hit: bool | None
    verified: bool | None

    def to_json(self) -> dict[str, Any]:
        """Returns the structure's record and how it was judged as plain JSON types."""
        return {
            **super().to_json(),
            "valid_reconstructed": self.valid_reconstructed,
            "valid": self.valid,
            "unique": self.unique,
            "novel": self.novel,
            "nearest": None if self.nearest is None else asdict(self.nearest),
            "basin_rmsd": self.basin_rmsd,
            "hit": self.hit,
            "verified": self.verified,
        }
