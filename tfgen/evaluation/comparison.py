"""Which structures are valid, unique and new, how far relaxing moved them, and what they cover."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from ase import Atoms

from tfgen.evaluation.results import Coverage, Shares
from tfgen.structures.similarity import equality
from tfgen.structures.validity import ValidityThresholds

if TYPE_CHECKING:
    from tfgen.datasets.storage import Dataset

__all__ = ["Comparison", "compare", "measure_coverage", "measure_displacements"]


@dataclass(frozen=True)
class Comparison:
    """How structures compare with each other and with the training structures.

    What is not valid is not unique or novel either, and has no nearest training structure.

    Attributes:
        valid: [n] bool.
        unique: [n] bool, whether no earlier valid structure equals it.
        novel: [n] bool, whether no training structure equals it.
        nearest: [n] int, the place of the most similar training structure; -1 if there is none.
        distance: [n] Å, the largest difference to it of any sorted distance; infinite likewise.
    """

    valid: np.ndarray
    unique: np.ndarray
    novel: np.ndarray
    nearest: np.ndarray
    distance: np.ndarray

    def shares(self, members: Sequence[int] | None = None) -> Shares:
        """Returns the shares of some structures, or of all."""
        keep = slice(None) if members is None else np.array(members)
        total = len(self.valid[keep])
        n_valid, n_unique = int(self.valid[keep].sum()), int(self.unique[keep].sum())
        n_novel = int((self.unique & self.novel)[keep].sum())
        return Shares(
            validity=n_valid / total,
            uniqueness=n_unique / n_valid if n_valid else None,
            novelty=n_novel / n_unique if n_unique else None,
        )


def compare(
    structures: Sequence[Atoms], training: list[Atoms], limits: ValidityThresholds, tolerance: float
) -> Comparison:
    """Compares structures with each other and with the training structures.

    Args:
        structures: n structures.
        training: the training structures.
        limits: what is valid.
        tolerance: structures are equal if all their sorted distances are within this, Å.
    """
    is_valid = limits.valid(structures)
    unique = np.zeros_like(is_valid)
    nearest, distance = np.full(len(is_valid), -1), np.full(len(is_valid), np.inf)
    members = np.flatnonzero(is_valid)
    if len(members):
        kept = [structures[m] for m in members.tolist()]
        first = equality.duplicates(kept, tolerance=tolerance)
        unique[members] = first == np.arange(len(members))
        nearest[members], distance[members] = equality.nearest(kept, training)
    return Comparison(is_valid, unique, is_valid & (distance > tolerance), nearest, distance)


def measure_displacements(
    generated: Sequence[Atoms], raw: Sequence[Atoms], both_valid: np.ndarray
) -> np.ndarray:
    """Measures how far relaxing moved each structure, root mean square over the atoms.

    Args:
        generated: n structures.
        raw: the same before relaxation.
        both_valid: [n] bool, which are valid before and after.

    Returns:
        [n] Å; NaN where a structure was not relaxed, is periodic or is not valid.
    """
    result = np.full(len(generated), np.nan)
    relaxed = ["reconstructed_positions" in a.arrays and not a.pbc.any() for a in generated]
    members = np.flatnonzero(both_valid & relaxed)
    result[members] = equality.displacements(
        [raw[m] for m in members.tolist()], [generated[m] for m in members.tolist()]
    )
    return result


def measure_coverage(
    generated: Sequence[Atoms], is_valid: np.ndarray, dataset: Dataset, tolerance: float
) -> Coverage:
    """Counts the structures of the test split that are found again among the valid ones.

    Args:
        generated: n structures.
        is_valid: [n] bool.
        dataset: with its test split.
        tolerance: as of `compare`.
    """
    made = {atoms.get_chemical_formula("metal") for atoms in generated}
    test = [
        atoms
        for atoms in dataset.select("test").structures
        if atoms.get_chemical_formula("metal") in made
    ]
    good = [generated[k] for k in np.flatnonzero(is_valid).tolist()]
    found = int((equality.match(test, good, tolerance=tolerance) >= 0).sum()) if good else 0
    share = found / len(test) if test else None
    return Coverage(share=share, found=found, count=len(test))
