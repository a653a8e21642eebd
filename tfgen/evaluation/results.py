"""What `evaluate` returns: the metrics of a set of generated structures, and of each target.

Every class here is a frozen dataclass, and `to_json` returns what `metrics.json` holds. A share, a
mean or a cost that would be of nothing is None.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from tfgen.evaluation.structure_results import StructureMetrics
from tfgen.generation.records import STAGES
from tfgen.targets import Target

# The stages at which there is a structure, of which something can be calculated.
CALCULATED_STAGES = STAGES[1:]
# What is measured at each stage.
MEASURES = ("hit_rate", "mae", "bias")

__all__ = [
    "CALCULATED_STAGES",
    "Acceptance",
    "Baseline",
    "Basin",
    "Coverage",
    "HitTolerance",
    "Metrics",
    "Shares",
    "StageMetrics",
    "TargetMetrics",
    "Thresholds",
    "VerifiedHits",
]


@dataclass(frozen=True, kw_only=True)
class Shares:
    """How many structures are valid, unique and new, each as a share of those before.

    Attributes:
        validity: share of all structures that are valid.
        uniqueness: share of the valid structures that equal no earlier valid one.
        novelty: share of the valid and unique structures that equal no training structure.
    """

    validity: float
    uniqueness: float | None
    novelty: float | None

    def to_json(self) -> dict[str, Any]:
        """Returns the shares as plain JSON types."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class StageMetrics:
    """How near the structures made for one target come to it at one stage.

    Attributes:
        hit_rate: share of all structures made for the target that are hits.
        mae: property -> mean distance to the target, in the property's unit.
        bias: property -> mean of value minus target, or minus the nearer end of a range.
    """

    hit_rate: float | None
    mae: Mapping[str, float | None]
    bias: Mapping[str, float | None]


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """What structures sampled at random from the training set score at one target.

    Attributes:
        count: training structures of the compositions made for the target.
        hit_rate: share of them that are hits.
        mae: property -> their mean distance to the target, in the property's unit.
        bias: property -> their mean of value minus target.
    """

    count: int
    hit_rate: float | None
    mae: Mapping[str, float | None]
    bias: Mapping[str, float | None]


@dataclass(frozen=True, kw_only=True)
class Basin:
    """How many structures lay near the minimum that they were relaxed to.

    Attributes:
        share: share of the structures that relaxing moved by at most `Thresholds.basin_rmsd`.
        count: structures of which the distance is known: relaxed, not periodic, valid before and
            after.
        median_rmsd: median of the distances, Å.
    """

    share: float | None
    count: int
    median_rmsd: float | None


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """How many structures of the test split were found again.

    Attributes:
        share: share of them that equal a valid generated structure.
        found: their number.
        count: structures of the test split that have a composition that was generated.
    """

    share: float | None
    found: int
    count: int


@dataclass(frozen=True, kw_only=True)
class VerifiedHits:
    """What hits cost that are valid, unique, new and, relaxed, on target.

    Attributes:
        hits: their number.
        share: their share of all structures of which it can be said.
        calculations: geometries that were calculated for all structures, those that failed
            included; None where a record does not say it.
        calculations_per_hit: calculations for each verified hit.
        proposed: relaxations on the neural-network potential, or inversions without one, likewise.
        proposed_per_hit: proposals for each verified hit.
    """

    hits: int
    share: float
    calculations: int | None
    calculations_per_hit: float | None
    proposed: int | None
    proposed_per_hit: float | None


@dataclass(frozen=True, kw_only=True)
class Acceptance:
    """How many of the candidates tried were on target in the end.

    Attributes:
        accepted: structures that are hits, of those whose records say how many candidates there
            were.
        candidates: candidates tried for all of these structures.
        rate: accepted structures for each candidate.
    """

    accepted: int
    candidates: int
    rate: float


@dataclass(frozen=True, kw_only=True)
class HitTolerance:
    """The tolerance of a property where a value is asked for.

    Attributes:
        value: largest distance to the target that is a hit.
        unit: the unit of the property.
    """

    value: float
    unit: str


@dataclass(frozen=True, kw_only=True)
class Thresholds:
    """Every threshold that was used.

    Attributes:
        overlap_factor: atoms closer than this times the sum of their covalent radii overlap.
        bond_factor: atoms within this times the sum of their covalent radii are bonded.
        training_pass_rate: share of the training structures that are valid by these two.
        duplicate_tolerance: structures are equal if all their sorted interatomic distances are
            within this, Å.
        basin_rmsd: a structure kept its basin if relaxing moved it by at most this, Å.
        hit_tolerance: property -> tolerance, for each property of which a value was asked for.
    """

    overlap_factor: float
    bond_factor: float
    training_pass_rate: float
    duplicate_tolerance: float
    basin_rmsd: float
    hit_tolerance: Mapping[str, HitTolerance]

    def to_json(self) -> dict[str, Any]:
        """Returns the thresholds as plain JSON types."""
        return {
            "overlap_factor": self.overlap_factor,
            "bond_factor": self.bond_factor,
            "training_pass_rate": self.training_pass_rate,
            "duplicate_tolerance": self.duplicate_tolerance,
            "duplicate_tolerance_unit": "Å",
            "basin_rmsd": self.basin_rmsd,
            "basin_rmsd_unit": "Å",
            "hit_tolerance": {name: asdict(found) for name, found in self.hit_tolerance.items()},
        }


@dataclass(frozen=True, kw_only=True)
class TargetMetrics:
    """How the structures did that were made for one target.

    Attributes:
        label: the target as the command line spells it.
        targets: what was asked for, one entry for each property.
        count: structures made for it.
        shares: how many of them are valid, unique and new.
        reconstructed, relaxed: how near they come to the target at that stage, by calculated
            values alone.
        surrogate: stage -> how near they would come if the word of the model's own network were
            taken, for every stage at which it has one: for decoded fingerprints, and for structures
            with a property that nothing has calculated.
        basin: how many lay near the minimum that they were relaxed to.
        verified: what verified hits cost; None if nothing was relaxed.
        acceptance: how many candidates were on target; None if no record says.
        baseline: what structures sampled at random from the training set score.
    """

    label: str
    targets: tuple[Target, ...]
    count: int
    shares: Shares
    reconstructed: StageMetrics
    relaxed: StageMetrics
    surrogate: Mapping[str, StageMetrics]
    basin: Basin
    verified: VerifiedHits | None
    acceptance: Acceptance | None
    baseline: Baseline

    @property
    def stages(self) -> dict[str, StageMetrics]:
        """Each of `CALCULATED_STAGES` -> how near the structures come to the target there."""
        return dict(zip(CALCULATED_STAGES, (self.reconstructed, self.relaxed), strict=True))

    def to_json(self) -> dict[str, Any]:
        """Returns the metrics of the target as plain JSON types."""
        stages = {name: asdict(found) for name, found in self.stages.items()}
        guessed = {name: asdict(found) for name, found in self.surrogate.items()}
        return {
            "label": self.label,
            "target": {target.name: target.to_json() for target in self.targets},
            "count": self.count,
            **self.shares.to_json(),
            **{
                key: {name: stages[name][key] if name in stages else None for name in STAGES}
                for key in MEASURES
            },
            "surrogate": {
                key: {name: found[key] for name, found in guessed.items()} for key in MEASURES
            },
            "basin": asdict(self.basin),
            "verified": _optional_json(self.verified),
            "acceptance": _optional_json(self.acceptance),
            "baseline": asdict(self.baseline),
        }


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """Metrics of a set of generated structures; see `tfgen.evaluate` for what each measures.

    Attributes:
        count: structures.
        shares: how many are valid, unique and new.
        raw: the same before relaxation; None if nothing was relaxed.
        status: status -> number of structures.
        coverage: how many structures of the test split were found again.
        basin: how many structures lay near the minimum that they were relaxed to.
        verified: what verified hits cost; None if nothing was asked for or relaxed.
        acceptance: how many candidates were on target; None if no record says.
        thresholds: every threshold that was used.
        seconds_per_structure: mean of the times recorded.
        training_structures: structures in the training split of the data set.
        units: property -> unit, for all properties that the records name.
        evaluated_by: property -> what calculated it, "file" where the records do not say, and
            "surrogate" where nothing did; several names are separated by commas.
        targets: one entry for each distinct target, in order of appearance.
        structures: one entry for each structure, in order.
    """

    count: int
    shares: Shares
    raw: Shares | None
    status: Mapping[str, int]
    coverage: Coverage
    basin: Basin
    verified: VerifiedHits | None
    acceptance: Acceptance | None
    thresholds: Thresholds
    seconds_per_structure: float | None
    training_structures: int
    units: Mapping[str, str]
    evaluated_by: Mapping[str, str]
    targets: tuple[TargetMetrics, ...]
    structures: tuple[StructureMetrics, ...]

    def __repr__(self) -> str:
        return f"Metrics(count={self.count}, {self.shares}, targets={len(self.targets)})"

    @property
    def properties(self) -> list[str]:
        """The properties asked for, or else all that the records name."""
        asked = {target.name: None for entry in self.targets for target in entry.targets}
        return list(asked or self.units)

    def to_json(self) -> dict[str, Any]:
        """Returns what `metrics.json` holds, as plain JSON types."""
        targets = [entry.to_json() for entry in self.targets]
        return {
            "count": self.count,
            **self.shares.to_json(),
            "raw": _optional_json(self.raw),
            "status": dict(self.status),
            **{
                key: {stage: {t["label"]: t[key][stage] for t in targets} for stage in STAGES}
                for key in MEASURES
            },
            "surrogate": {
                "description": "what the model's own network says, and nothing has calculated",
                **{
                    key: {
                        stage: {t["label"]: t["surrogate"][key].get(stage) for t in targets}
                        for stage in STAGES
                    }
                    for key in MEASURES
                },
            },
            "evaluated_by": dict(self.evaluated_by),
            "coverage": asdict(self.coverage),
            "basin": asdict(self.basin),
            "verified": _optional_json(self.verified),
            "acceptance": _optional_json(self.acceptance),
            "baseline": {
                "description": "training structures of the same compositions, sampled at random",
                "hit_rate": {t["label"]: t["baseline"]["hit_rate"] for t in targets},
                "mae": {t["label"]: t["baseline"]["mae"] for t in targets},
            },
            "thresholds": self.thresholds.to_json(),
            "seconds_per_structure": self.seconds_per_structure,
            "training_structures": self.training_structures,
            "units": dict(self.units),
            "targets": targets,
            "structures": [structure.to_json() for structure in self.structures],
        }


def _optional_json(found: Any) -> dict[str, Any] | None:
    return None if found is None else asdict(found)
