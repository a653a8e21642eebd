"""What of the inversion can be varied: frozen dataclasses with a documented field for each number.

The defaults are those that find most structures in the least time (`docs/inversion.md`); all were
measured with `scripts/benchmarks/benchmark_inversion.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

from tfgen._settings import check_flag, check_kinds, check_number, check_whole, is_number

__all__ = [
    "AlternationSettings",
    "Descent",
    "GaussNewtonSettings",
    "GraphSearchSettings",
    "MoveWeights",
    "PopulationSettings",
    "ProposalMoves",
    "RefinementSettings",
    "ScreeningSettings",
    "SearchSettings",
]


@dataclass(frozen=True, kw_only=True)
class Descent:
    """A descent along the gradient of the loss by Adam.

    Attributes:
        steps: number of steps.
        step_length: length of the first step, Å; step t has the length step_length (1 - t/steps)².
    """

    steps: int
    step_length: float

    def __post_init__(self) -> None:
        check_whole(self, 0, "steps")
        check_number(self, "step_length", low=0.0)


@dataclass(frozen=True, kw_only=True)
class MoveWeights:
    """How often each move (see `tfgen.sampling.moves.propose`) is chosen: shares of their sum.

    Attributes:
        relocate: one to three atoms go to other places on the surface.
        splice: halves of two candidates are joined.
        twist: one half turns against the other.
        rattle: every atom moves a little.
        exchange: atoms of different elements change places; only in structures of several elements.
    """

    relocate: int = 3
    splice: int = 1
    twist: int = 1
    rattle: int = 1
    exchange: int = 4

    def __post_init__(self) -> None:
        check_whole(self, 0, "relocate", "splice", "twist", "rattle", "exchange")
        if self.relocate + self.splice + self.twist + self.rattle == 0:
            raise ValueError(
                "relocate, splice, twist and rattle are all 0; at least one must be above 0, as "
                "structures of one element have no other move"
            )

    def names(self, several_elements: bool) -> list[str]:
        """Returns the names of the moves, each as often as its weight says."""
        names = ["relocate"] * self.relocate + ["splice"] * self.splice
        names += ["twist"] * self.twist + ["rattle"] * self.rattle
        return names + ["exchange"] * (self.exchange * several_elements)


@dataclass(frozen=True, kw_only=True)
class PopulationSettings:
    """The candidates that a search keeps, and those that it begins with.

    Attributes:
        size: candidates that survive a generation.
        initial: structures of the first generation that are followed downhill.
        sampled_per_squared_atoms: for a cluster of N atoms, this times N² random structures are
            sampled, and the best `initial` of them make up the first generation.
        max_sampled: bound on that number.
        flattened: members of the first generation that are taken from random structures flattened
            to sheets or stretched to rods, because the structure sought may not be round; at most
            half of the generation, and none in cells or with fixed atoms.
        flattened_sampled: flattened structures that are sampled, of which the best are taken.
        descent: the descent of each structure of a generation, on the cheap part of the
            fingerprint if it has one.
        distinct_distance: structures whose sorted neighbour distances (`separation`) all differ by
            less than this are one candidate, Å. Moving the atoms of a structure by 0.05 Å (standard
            deviation of a coordinate) changes the distances by 0.2 Å; other structures with
            similar fingerprints differ by 0.4 to 1 Å.
    """

    size: int = 16
    initial: int = 48
    sampled_per_squared_atoms: float = 1.7
    max_sampled: int = 2500
    flattened: int = 8
    flattened_sampled: int = 100
    descent: Descent = Descent(steps=60, step_length=0.15)
    distinct_distance: float = 0.3

    def __post_init__(self) -> None:
        check_kinds(self, descent=Descent)
        check_whole(self, 1, "size", "initial", "max_sampled", "flattened_sampled")
        check_whole(self, 0, "flattened")
        check_number(self, "sampled_per_squared_atoms", "distinct_distance", low=0.0)


@dataclass(frozen=True, kw_only=True)
class ProposalMoves:
    """The structures that are made of a population's candidates in each round.

    Attributes:
        children: structures of a round that are followed downhill.
        single_relocations: of these, how many have one atom of a candidate in another place.
        pair_relocations: of these, how many have two atoms of a candidate in other places. The
            rest of the children come from moves that are chosen at random.
        per_child: moved structures that are proposed for each child; screening keeps the best.
        weights: how often each move is chosen.
        min_distance: least distance of two atoms after a move, in sums of covalent radii.
        places: places on the surface that each atom of a candidate is offered.
        max_relocations: bound on the structures with one atom in another place.
        combined: of these, how many of the best are combined to pairs.
        max_pairs: pairs, the most promising ones, whose fingerprints are computed.
    """

    children: int = 24
    single_relocations: int = 9
    pair_relocations: int = 6
    per_child: int = 15
    weights: MoveWeights = MoveWeights()
    min_distance: float = 0.75
    places: int = 75
    max_relocations: int = 3000
    combined: int = 600
    max_pairs: int = 360

    def __post_init__(self) -> None:
        check_kinds(self, weights=MoveWeights)
        check_whole(
            self, 1, "children", "per_child", "places", "max_relocations", "combined", "max_pairs"
        )
        check_whole(self, 0, "single_relocations", "pair_relocations")
        check_number(self, "min_distance", low=0.0)
        if self.children <= self.single_relocations + self.pair_relocations:
            raise ValueError(
                f"children is {self.children}; more than single_relocations + pair_relocations = "
                f"{self.single_relocations + self.pair_relocations} are needed"
            )


@dataclass(frozen=True, kw_only=True)
class ScreeningSettings:
    """How proposals are ranked by their errors, before any is followed downhill.

    Attributes:
        features_per_coordinate: with at least this many features for each free coordinate, errors
            are whitened (`WhitenedError`); with fewer, displacements can explain any error, and
            the plain loss ranks.
        rattle: standard deviation of the displacements that tell what errors they explain, Å.
        rattles: displaced copies of each candidate.
        rounds: rounds after which the displacements are sampled again.
        noise: standard deviation of the error that no displacement explains, in units of the
            scale.
        min_change: directions in which displacements change fingerprints by less than this times
            `noise` (standard deviation) are treated as if they did not change.
    """

    features_per_coordinate: float = 2.0
    rattle: float = 0.1
    rattles: int = 25
    rounds: int = 5
    noise: float = 0.05
    min_change: float = 0.1

    def __post_init__(self) -> None:
        check_whole(self, 1, "rattles", "rounds")
        check_number(self, "rattle", "noise", low=0.0)
        check_number(self, "features_per_coordinate", "min_change", low=0.0, included=True)


@dataclass(frozen=True, kw_only=True)
class GaussNewtonSettings:
    """Damped least squares in float64 (`tfgen.inversion.gauss_newton`).

    Attributes:
        max_iterations: bound on the iterations, each with one Jacobian.
        max_trials: bound on the trials of an iteration, each with five times the damping of the
            one before.
        damping: the first one, as a share of the mean diagonal of JᵀJ, J being the Jacobian.
        max_step: longest step of a coordinate, Å.
        sufficient_decrease: an iteration that leaves more than this share of the error's norm is
            the last one.
        exact_loss: with a smaller loss nothing is left to gain.
    """

    max_iterations: int = 20
    max_trials: int = 6
    damping: float = 1e-3
    max_step: float = 0.15
    sufficient_decrease: float = 0.97
    exact_loss: float = 1e-7

    def __post_init__(self) -> None:
        check_whole(self, 1, "max_trials")
        check_whole(self, 0, "max_iterations")
        check_number(self, "damping", "max_step", low=0.0)
        check_number(self, "sufficient_decrease", low=0.0, high=1.0)
        check_number(self, "exact_loss", low=0.0, included=True)


@dataclass(frozen=True, kw_only=True)
class AlternationSettings:
    """Descents in alternation with Gauss-Newton steps.

    A fingerprint with maxima or minima over atoms is not differentiable everywhere; there, neither
    method reaches the exact solution alone.

    Attributes:
        steps: steps of each descent.
        step_lengths: first step lengths of the descents, Å, used in turn; the first one alone
            where all features are differentiable.
        max_alternations: bound for the structure that has reached the tolerance.
        max_attempts: bound for structures that may still reach it, where features are not
            differentiable.
        patience: alternations without progress after which the refinement ends; 1 where all
            features are differentiable.
    """

    steps: int = 300
    step_lengths: tuple[float, ...] = (0.02, 0.05, 0.01)
    max_alternations: int = 12
    max_attempts: int = 4
    patience: int = 6

    def __post_init__(self) -> None:
        check_whole(self, 1, "patience")
        check_whole(self, 0, "steps", "max_alternations", "max_attempts")
        lengths = self.step_lengths
        if not isinstance(lengths, tuple) or not lengths:
            raise ValueError(f"step_lengths is {lengths!r}; a tuple of numbers above 0 is needed")
        for length in lengths:
            if not is_number(length) or length <= 0:
                raise ValueError(f"step_lengths is {lengths!r}; numbers above 0 are needed")


@dataclass(frozen=True, kw_only=True)
class RefinementSettings:
    """How the best candidates are brought to the target, with the whole fingerprint.

    Attributes:
        promoted: candidates of a generation, the best of those not yet promoted, that are refined.
        descent: the first descent of each.
        polish: the descent that follows if the loss is below `promising_loss`.
        promising_loss: loss below which the best of the promoted may be the structure sought.
        near: loss, in tolerances, up to which Gauss-Newton steps are tried.
        retry_gain: a candidate that is the same structure as one tried before is tried again if its
            loss is at most this share of the earlier one's.
        complete: loss, in tolerances, at which a structure counts as exact.
        rivals: candidates besides the best whose fingerprints may be the target's, too, and that
            are refined once the best has reached it.
        rival_loss: loss, in tolerances, up to which a polished rival is completed if all features
            are differentiable (`near` if not).
        alternation: descents in alternation with Gauss-Newton steps.
        gauss_newton: the steps in float64.
    """

    promoted: int = 2
    descent: Descent = Descent(steps=80, step_length=0.1)
    polish: Descent = Descent(steps=300, step_length=0.05)
    promising_loss: float = 0.05
    near: float = 5.0
    retry_gain: float = 0.8
    complete: float = 0.01
    rivals: int = 3
    rival_loss: float = 2.0
    alternation: AlternationSettings = AlternationSettings()
    gauss_newton: GaussNewtonSettings = GaussNewtonSettings()

    def __post_init__(self) -> None:
        check_kinds(
            self,
            descent=Descent,
            polish=Descent,
            alternation=AlternationSettings,
            gauss_newton=GaussNewtonSettings,
        )
        check_whole(self, 1, "promoted")
        check_whole(self, 0, "rivals")
        check_number(self, "promising_loss", "near", "rival_loss", "complete", low=0.0)
        check_number(self, "retry_gain", low=0.0, high=1.0, included=True)


@dataclass(frozen=True, kw_only=True)
class SearchSettings:
    """Settings of `tfgen.reconstruct`.

    Attributes:
        population: the candidates that are kept, and the first generation.
        moves: what is made of them in each round.
        screening: how proposals are ranked.
        refinement: how the best candidates are brought to the target.
        patience: rounds without progress after which a population is replaced by a new one.
        progress: a round makes progress if it lowers the best loss to less than this share.
        repeats: populations that have to end in the same best structure before the search
            concludes that no structure is better. Periodic searches do not conclude so.
        candidates: structures that are returned for each target, at most.
        periodic_distance: periodic candidates whose sorted distances all differ by less, Å, are
            returned as one (`tfgen.structures.similarity.equality.duplicates`).
        ambiguous_ratio: candidates with losses up to this times the best one's fit as well as it.
        ambiguous_loss: so do all with losses up to this, in tolerances.
        unreachable_loss: a target whose best structure has a larger loss is farther from it than
            structures are from each other, and counts as unreachable.
        scale_structures: random structures whose fingerprints give the scale if none is given.
        jit_compile: whether XLA compiles the descents of clusters. Compilation takes seconds for
            each fingerprint and number of atoms, and makes descents several times as fast.
        compile_from: XLA compiles only where a target has at least this much time, s.
        list_steps: steps of a periodic descent for which one neighbour list serves.
        list_skin: what neighbour lists add to the cutoff radius, Å: atoms may come within the
            cutoff while a list is in use.
    """

    population: PopulationSettings = PopulationSettings()
    moves: ProposalMoves = ProposalMoves()
    screening: ScreeningSettings = ScreeningSettings()
    refinement: RefinementSettings = RefinementSettings()
    patience: int = 10
    progress: float = 0.99
    repeats: int = 3
    candidates: int = 4
    periodic_distance: float = 0.15
    ambiguous_ratio: float = 10.0
    ambiguous_loss: float = 0.05
    unreachable_loss: float = 0.5
    scale_structures: int = 256
    jit_compile: bool = True
    compile_from: float = 60.0
    list_steps: int = 10
    list_skin: float = 1.0

    def __post_init__(self) -> None:
        check_kinds(
            self,
            population=PopulationSettings,
            moves=ProposalMoves,
            screening=ScreeningSettings,
            refinement=RefinementSettings,
        )
        check_whole(self, 1, "patience", "repeats", "candidates", "scale_structures", "list_steps")
        check_number(self, "progress", low=0.0, high=1.0)
        check_number(self, "periodic_distance", "unreachable_loss", low=0.0)
        check_number(self, "ambiguous_ratio", low=1.0, included=True)
        check_number(self, "ambiguous_loss", "list_skin", "compile_from", low=0.0, included=True)
        check_flag(self, "jit_compile")


@dataclass(frozen=True, kw_only=True)
class GraphSearchSettings:
    """Settings of the search that an exported SavedModel holds (`tfgen.export`).

    Attributes:
        initial: random structures for each target.
        initial_descent: the descent of each.
        filled: share of space that spheres of the covalent radii fill in a random structure.
        population: distinct candidates that survive a round.
        children: structures of a round that are followed downhill.
        descent: the descent of each.
        rounds: rounds of moves, descents and selection.
        distinct_loss: candidates whose losses differ by less than this share are taken for one
            structure.
        jit_compile: whether XLA compiles the search when the SavedModel runs it.
    """

    initial: int = 24
    initial_descent: Descent = Descent(steps=300, step_length=0.5)
    filled: float = 0.55
    population: int = 8
    children: int = 24
    descent: Descent = Descent(steps=150, step_length=0.3)
    rounds: int = 3
    distinct_loss: float = 1e-3
    jit_compile: bool = True

    def __post_init__(self) -> None:
        check_kinds(self, initial_descent=Descent, descent=Descent)
        check_whole(self, 1, "initial", "population", "children")
        check_whole(self, 0, "rounds")
        check_number(self, "filled", low=0.0)
        check_number(self, "distinct_loss", low=0.0, included=True)
        check_flag(self, "jit_compile")
        if self.initial < self.population:
            raise ValueError(
                f"initial is {self.initial}; at least population = {self.population} are needed"
            )
