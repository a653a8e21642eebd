"""The metrics of one generated structure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from tfgen.generation.records import STAGES
from tfgen.targets import Target

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
class StructureMetrics:
    """One generated structure: its record, and how it was judged.

    Attributes:
        formula: its composition.
        targets: what was asked for; none if that is not recorded.
        predicted, decoded, reconstructed, relaxed: property -> value at that stage; None where it
            is not a finite number.
        fingerprint_loss: how far its fingerprint is from the one that was decoded.
        seconds: how long it took.
        candidates: how many candidates it was chosen from.
        relaxations: how many relaxations were spent on it.
        status: how its generation ended.
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

    formula: str
    targets: tuple[Target, ...]
    predicted: Mapping[str, float | None]
    decoded: Mapping[str, float | None]
    reconstructed: Mapping[str, float | None]
    relaxed: Mapping[str, float | None]
    fingerprint_loss: float | None
    seconds: float | None
    candidates: int | None
    relaxations: int
    status: str | None
    valid_reconstructed: bool
    valid: bool
    unique: bool | None
    novel: bool | None
    nearest: Nearest | None
    basin_rmsd: float | None
    hit: bool | None
    verified: bool | None

    @property
    def final(self) -> Mapping[str, float | None]:
        """The properties of the structure as it is: relaxed if it was relaxed."""
        return self.relaxed or self.reconstructed

    def target(self, name: str) -> Target | None:
        """Returns what was asked for of a property, if anything."""
        return next((target for target in self.targets if target.name == name), None)

    def stage(self, name: str) -> Mapping[str, float | None]:
        """Returns property -> value at a stage: predicted, or one of `STAGES`."""
        stages = {
            "predicted": self.predicted,
            "decoded": self.decoded,
            "reconstructed": self.reconstructed,
            "relaxed": self.relaxed,
        }
        return stages[name]

    def to_json(self) -> dict[str, Any]:
        """Returns the structure's record and how it was judged as plain JSON types."""
        return {
            "formula": self.formula,
            "target": {t.name: t.to_json() for t in self.targets} or None,
            **{name: dict(self.stage(name)) for name in ("predicted", *STAGES)},
            "fingerprint_loss": self.fingerprint_loss,
            "seconds": self.seconds,
            "candidates": self.candidates,
            "relaxations": self.relaxations,
            "status": self.status,
            "valid_reconstructed": self.valid_reconstructed,
            "valid": self.valid,
            "unique": self.unique,
            "novel": self.novel,
            "nearest": None if self.nearest is None else asdict(self.nearest),
            "basin_rmsd": self.basin_rmsd,
            "hit": self.hit,
            "verified": self.verified,
        }
