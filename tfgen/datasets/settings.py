"""Settings of builds that a recipe leaves out: they seldom change."""

from __future__ import annotations

from dataclasses import dataclass

from tfgen._settings import check_number, check_whole

__all__ = ["BuildSettings"]


@dataclass(frozen=True, kw_only=True)
class BuildSettings:
    """How a build cuts its work into tasks, and how it leaves saddle points.

    Relaxed structures are rattled and relaxed again until they have come back to their energy
    several times in a row: forces vanish at saddle points, too, but few saddle points survive two
    rattlings.

    Attributes:
        structures_per_task: most structures of a task with a batched potential: enough to fill the
            batches of the relaxation until the last ones have converged, few enough to lose little
            by an interruption and to share the work out.
        pairs_per_task: most pairs of atoms in the structures of a task, so that large structures
            come in smaller tasks.
        parents_per_task: least parents that a task of few structures is given, so that
            cut-and-splice has a choice of mates.
        parent_tolerance: minima whose sorted distances differ by no more are one minimum for the
            choice of parents, Å. It is not the recipe's tolerance: another selection from the same
            minima must not change what is explored.
        rattlings: most rattlings of a structure.
        returns: rattlings in a row from which a structure has to come back.
        return_tolerance: largest change of the energy of a structure that has come back, eV.
        rattled_once_tolerance: relaxed structures of a task whose sorted distances differ by no
            more are one minimum, of which one structure is rattled for all, Å.
        tries: worker processes that get the same structure, one after the other, while they crash.
    """

    structures_per_task: int = 600
    pairs_per_task: int = 2_000_000
    parents_per_task: int = 16
    parent_tolerance: float = 0.05
    rattlings: int = 6
    returns: int = 2
    return_tolerance: float = 0.002
    rattled_once_tolerance: float = 0.02
    tries: int = 3

    def __post_init__(self) -> None:
        check_whole(
            self, 1, "structures_per_task", "pairs_per_task", "parents_per_task", "returns", "tries"
        )
        check_whole(self, 0, "rattlings")
        check_number(
            self,
            "parent_tolerance",
            "return_tolerance",
            "rattled_once_tolerance",
            low=0.0,
            included=True,
        )
