"""What may be varied of generation."""

from __future__ import annotations

from dataclasses import dataclass, field

from tfgen._settings import check_kinds, check_number, check_whole
from tfgen.inversion.settings import SearchSettings

__all__ = ["GenerationSettings", "ProposalSettings"]


@dataclass(frozen=True, kw_only=True)
class ProposalSettings:
    """How proposals are made, ranked and screened with a neural-network potential (NNP).

    Attributes:
        per_candidate: proposals in one round for each promising candidate that is missing.
        max_per_structure: proposals at most for each structure asked for, so that a request comes
            to an end if nothing new lies near its target. Proposals beyond it are made only if
            there would be no candidate at all.
        initial_structures: random structures from which the coarse inversion of a fingerprint
            starts; the best of them is kept.
        descent_steps: steps of the coarse inversion.
        step_length: first step length of the coarse inversion, Å.
        batch_size: fingerprints that are inverted at once, at most.
        triples_per_batch: triples of atoms in the structures of such a batch, at most: so many take
            about 1 GB of memory. Large structures come in smaller batches.
        jit_compile: whether XLA compiles the coarse inversion. Compilation takes seconds for each
            number of atoms.
        energy_steps: steps to the target energy, for structures that are not to be minima.
        energy_step_length: how far an atom goes at most in one of these steps, Å.
        fmax: largest force at which the relaxation on the NNP stops, eV/Å. At 0.05 one structure in
            ten still sits on a flat saddle point, and the verifying potential takes it elsewhere.
        max_steps: steps of the relaxation on the NNP at most.
        promising_miss: largest predicted miss, in tolerances, at which a proposal counts as on
            target. What is left of the tolerance is for the error of the NNP.
        equal_tolerance: two structures are certainly the same minimum if all their sorted distances
            agree within this, Å.
        alike_tolerance: two structures may be the same minimum if all their sorted distances agree
            within this, Å. It is wider than the tolerance for relaxed structures, since the minima
            of the NNP are not exactly those of the potential. A relaxation has to tell.
        shift_rate: by which share of the energy that structures lost, or gained, in the last round
            the target energy of half of the sampled fingerprints is shifted.
        max_shift: bound of that shift, in standard deviations of the training energies.

    Raises:
        ValueError: if a field is out of range; the message names it.
    """

    per_candidate: int = 8
    max_per_structure: int = 64
    initial_structures: int = 4
    descent_steps: int = 100
    step_length: float = 0.5
    batch_size: int = 16
    triples_per_batch: int = 14_000_000
    jit_compile: bool = True
    energy_steps: int = 40
    energy_step_length: float = 0.1
    fmax: float = 0.005
    max_steps: int = 250
    promising_miss: float = 0.6
    equal_tolerance: float = 0.05
    alike_tolerance: float = 0.12
    shift_rate: float = 0.5
    max_shift: float = 2.0

    def __post_init__(self) -> None:
        check_whole(
            self, 1, "per_candidate", "max_per_structure", "initial_structures", "batch_size",
            "triples_per_batch",
        )  # fmt: skip
        check_whole(self, 0, "descent_steps", "energy_steps", "max_steps")
        check_number(self, "step_length", "energy_step_length", "fmax", "promising_miss", low=0.0)
        check_number(
            self,
            "equal_tolerance",
            "alike_tolerance",
            "shift_rate",
            "max_shift",
            low=0.0,
            included=True,
        )
        if self.equal_tolerance > self.alike_tolerance:
            raise ValueError(
                f"equal_tolerance is {self.equal_tolerance}; at most alike_tolerance, "
                f"{self.alike_tolerance}, is allowed"
            )

    def inverted_at_once(self, atoms: int) -> int:
        """Returns how many fingerprints of structures of so many atoms are inverted at once."""
        fit = self.triples_per_batch // (self.initial_structures * atoms**3)
        return min(self.batch_size, max(1, fit))


@dataclass(frozen=True, kw_only=True)
class GenerationSettings:
    """How structures are proposed and verified.

    Attributes:
        candidates: structures that may be relaxed and verified for each one asked for. Those off
            target are replaced until one is on target or this many have been tried; with 1, the
            first is taken. None means 10 where something computes the properties asked for, else 1.
        fmax: largest force at which the relaxation of a candidate stops, eV/Å.
        max_steps: steps of that relaxation at most.
        duplicate_tolerance: relaxed structures are the same if all their sorted distances agree
            within this, Å.
        max_failures: the request is given up if the calculations of this many candidates, the
            first ones, all fail.
        max_rounds: rounds of the inversion's search at most, without an NNP (see
            `tfgen.reconstruct`).
        search: how the inversion searches, without an NNP.
        proposals: how proposals are made with an NNP.

    Raises:
        ValueError: if a field is out of range; the message names it.
    """

    candidates: int | None = None
    fmax: float = 0.01
    max_steps: int = 2000
    duplicate_tolerance: float = 0.05
    max_failures: int = 10
    max_rounds: int = 3
    search: SearchSettings = field(default_factory=SearchSettings)
    proposals: ProposalSettings = field(default_factory=ProposalSettings)

    def __post_init__(self) -> None:
        if self.candidates is not None:
            check_whole(self, 1, "candidates")
        check_number(self, "fmax", low=0.0)
        check_whole(self, 1, "max_failures")
        check_whole(self, 0, "max_steps", "max_rounds")
        check_number(self, "duplicate_tolerance", low=0.0, included=True)
        check_kinds(self, proposals=ProposalSettings, search=SearchSettings)
