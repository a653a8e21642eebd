"""What may be varied in an evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tfgen._settings import check_number
from tfgen.structures.factors import BOND_FACTOR, OVERLAP_FACTOR
from tfgen.targets import check_tolerance

__all__ = ["EvaluationSettings"]


@dataclass(frozen=True, kw_only=True)
class EvaluationSettings:
    """Settings of `tfgen.evaluate`.

    Attributes:
        hit_tolerance: property -> largest distance to a target value that is a hit, in the unit of
            the property. Default: 0.01 eV/atom for `energy_per_atom`; for any other property 5 % of
            its range in the training split, which is also what 0.01 eV/atom is for Pt13.
        duplicate_tolerance: structures are equal if all their sorted interatomic distances are
            within this, Å.
        basin_rmsd: a structure kept its basin if relaxing moved it by at most this, root mean
            square over the atoms, Å. A structure this near to a minimum is nearer to it than to any
            other: the nearest minima of Pt13 are 0.56 Å apart.
        overlap_factor: atoms closer than this times the sum of their covalent radii overlap; less
            where the training structures demand it.
        bond_factor: atoms within this times the sum of their covalent radii are bonded; more where
            the training structures demand it.
        pass_rate: share of the training structures (0 to 1) that must be valid: the two factors are
            widened until they are.

    Raises:
        ValueError: if a value is out of its range.
    """

    hit_tolerance: Mapping[str, float] = field(default_factory=dict)
    duplicate_tolerance: float = 0.05
    basin_rmsd: float = 0.25
    overlap_factor: float = OVERLAP_FACTOR
    bond_factor: float = BOND_FACTOR
    pass_rate: float = 0.99

    def __post_init__(self) -> None:
        if not isinstance(self.hit_tolerance, Mapping):
            raise ValueError(
                f"hit_tolerance is {self.hit_tolerance!r}; a mapping of properties to numbers is "
                "needed"
            )
        for name, value in self.hit_tolerance.items():
            check_tolerance(f"hit_tolerance of {name}", value)
        check_number(self, "duplicate_tolerance", "basin_rmsd", low=0.0)
        check_number(self, "overlap_factor", low=0.0, included=True)
        check_number(self, "bond_factor", low=self.overlap_factor)
        check_number(self, "pass_rate", low=0.0, high=1.0, included=True)
