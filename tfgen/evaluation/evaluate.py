"""Metrics of generated structures: valid, unique, new, on target, and at what cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import BaseCalculator
from tqdm import tqdm

from tfgen.evaluation.comparison import (
    Comparison,
    compare,
    measure_coverage,
    measure_displacements,
)
from tfgen.evaluation.recalculation import recalculate, warn_of_changes
from tfgen.evaluation.results import (
    CALCULATED_STAGES,
    Acceptance,
    Basin,
    HitTolerance,
    Metrics,
    StageMetrics,
    TargetMetrics,
    Thresholds,
    VerifiedHits,
)
from tfgen.evaluation.settings import EvaluationSettings
from tfgen.evaluation.structure_results import Nearest, StructureMetrics
from tfgen.evaluation.target_rates import TargetGroup, find_hits, rate_targets, set_tolerances
from tfgen.generation.records import STAGES, Record, raw_structures, read_record
from tfgen.potentials.ase import AsePotential
from tfgen.potentials.base import Potential
from tfgen.potentials.evaluation import adapt_potential, functions_for
from tfgen.structures import validity
from tfgen.structures.status import Status
from tfgen.targets import is_verified

if TYPE_CHECKING:
    from tfgen.datasets.storage import Dataset

__all__ = ["evaluate"]


def evaluate(
    generated: Sequence[Atoms],
    dataset: Dataset,
    *,
    potential: Potential | AsePotential | BaseCalculator | None = None,
    compute: Mapping[str, Callable[[Atoms], Any] | str | None] | None = None,
    settings: EvaluationSettings | None = None,
    progress: bool = False,
) -> Metrics:
    """Measures generated structures against what was asked for and against the training set.

    - validity: share of all structures that are finite, free of overlaps and one connected
      piece, by thresholds that at least 99 % of the training structures pass.
    - uniqueness: share of the valid ones that equal no earlier valid one.
    - novelty: share of the valid and unique ones that equal no training structure.
    - hit rate, per stage and target: share of *all* structures made for the target that are valid
      at that stage and have every property in the target's range, or within its tolerance:

          |value - target| <= tolerance

      Only calculated values count. What the model's own network says of decoded fingerprints, and
      of properties that nothing has calculated, stands apart (`surrogate`) and is never a hit.
    - mae and bias, per stage and target: mean distance of each property to the target, and mean of
      value minus target, or to the nearer end of its range (0 inside); over the structures that
      are valid and have the value.
    - baseline: the same for structures sampled at random from the training structures of the
      compositions made for the target, which needs no model at all.
    - coverage: share of the test split's structures of the compositions made that are found again
      among the valid ones; it grows with the number of structures generated.
    - basin: share of structures whose relaxation converged and moved them by at most `basin_rmsd`,
      root mean square: they lay near the minimum that they were relaxed to.
    - verified: structures that are valid, unique, novel and, relaxed, on target, and how many
      calculations and proposals each took: the cost that counts where a calculation is expensive.
    - acceptance: share of the candidates tried that were on target in the end; where records say
      how many `candidates` a structure was chosen from.

    "Equal" is up to rotation, reflection and permutation. Final positions are judged: relaxed
    where the structure was relaxed; `raw` has the three shares for the reconstructed positions.

    Args:
        generated: structures with their records in `atoms.info` (see `tfgen.generate`); records
            may be missing, for all structures or some.
        dataset: the data set the model was trained on.
        potential: calculates the energies of the structures as they are again; None: the records'
            values count.
        compute: property -> what calculates it again, as for `tfgen.generate`.
        settings: the tolerances and thresholds. Default: `EvaluationSettings()`.
        progress: show a progress bar on stderr.

    Returns:
        The metrics, with an entry for each target and for each structure. None stands where a share
        of nothing would be needed.

    Warns:
        TfgenWarning: if calculations fail, or differ from what the records say by more than the
            tolerance of a hit.

    Raises:
        ValueError: if there are no structures, the data set has no training structures, a record
            is malformed, a tolerance is missing or of an unknown property, or something cannot be
            calculated as asked.
    """
    settings = settings or EvaluationSettings()
    read = [
        read_record(atoms, f"structure {i}") for i, atoms in enumerate(_check_structures(generated))
    ]
    train = dataset.select("train")
    if len(train) == 0:
        raise ValueError("dataset has no training structures to compare with")
    calculating = adapt_potential("potential", potential)
    functions = functions_for(compute or {}, calculating)
    records = read
    if calculating is not None or functions:
        records = recalculate(generated, read, calculating, functions, dataset.units, progress)
    records, tolerances = set_tolerances(records, train, settings)
    warn_of_changes(read, records)

    with tqdm(total=5, desc="evaluating", disable=not progress, leave=False) as bar:
        limits = validity.thresholds_from(
            train.structures,
            overlap_factor=settings.overlap_factor,
            bond_factor=settings.bond_factor,
            pass_rate=settings.pass_rate,
        )
        bar.update()
        tolerance = settings.duplicate_tolerance
        final = compare(generated, train.structures, limits, tolerance)
        bar.update()
        raw, before = raw_structures(generated), final
        relaxed = any("reconstructed_positions" in atoms.arrays for atoms in generated)
        if relaxed:
            before = compare(raw, train.structures, limits, tolerance)
        bar.update()
        ended = np.array([record.status in (None, Status.CONVERGED) for record in records])
        moved = measure_displacements(generated, raw, final.valid & before.valid & ended)
        bar.update()
        groups = rate_targets(records, final.valid, before.valid, train)
        structures = _join_records(records, groups, final, before.valid, moved, dataset)
        coverage = measure_coverage(generated, final.valid, dataset, tolerance)
        bar.update()

    seconds = [found.seconds for found in structures if found.seconds is not None]
    return Metrics(
        count=len(structures),
        shares=final.shares(),
        raw=before.shares() if relaxed else None,
        status=dict(Counter(found.status or "not recorded" for found in structures)),
        coverage=coverage,
        basin=_count_in_basin(structures, settings.basin_rmsd),
        verified=_count_verified(structures),
        acceptance=_count_accepted(structures),
        thresholds=Thresholds(
            overlap_factor=limits.overlap_factor,
            bond_factor=limits.bond_factor,
            training_pass_rate=limits.pass_rate,
            duplicate_tolerance=float(tolerance),
            basin_rmsd=float(settings.basin_rmsd),
            hit_tolerance={
                name: HitTolerance(value=value, unit=dataset.units.get(name, ""))
                for name, value in tolerances.items()
            },
        ),
        seconds_per_structure=float(np.mean(seconds)) if seconds else None,
        training_structures=len(train),
        units={name: dataset.units.get(name, "") for name in _list_properties(structures)},
        evaluated_by=_find_sources(structures),
        targets=tuple(
            _summarise_target(group, structures, final, settings.basin_rmsd) for group in groups
        ),
        structures=tuple(structures),
    )


def _check_structures(generated: Sequence[Atoms]) -> Sequence[Atoms]:
    if isinstance(generated, Atoms) or len(generated) == 0:
        raise ValueError("generated is not a list with at least one structure")
    for i, atoms in enumerate(generated):
        if not isinstance(atoms, Atoms):
            raise ValueError(f"generated[{i}] is a {type(atoms).__name__}, not an ase.Atoms")
    return generated


def _list_properties(structures: Sequence[StructureMetrics]) -> list[str]:
    """Returns all properties that the records name, in order of appearance."""
    names: dict[str, None] = {}
    for found in structures:
        names |= dict.fromkeys(target.name for target in found.targets)
        for stage in STAGES:
            names |= dict.fromkeys(found.stage(stage))
    return list(names)


def _find_sources(structures: Sequence[StructureMetrics]) -> dict[str, str]:
    """Returns property -> what calculated it."""
    found: dict[str, dict[str, None]] = {}
    for structure in structures:
        for stage in CALCULATED_STAGES:
            for name in structure.stage(stage):
                source = structure.evaluated_by.get(name, "file")
                found.setdefault(name, {})[source] = None
    return {name: ", ".join(sources) for name, sources in found.items()}


def _summarise_target(
    group: TargetGroup, structures: Sequence[StructureMetrics], final: Comparison, basin_rmsd: float
) -> TargetMetrics:
    made = [structures[k] for k in group.members]
    stages, guessed = (
        {
            stage: StageMetrics(hit_rate=rates.hit_rate, mae=rates.mae, bias=rates.bias)
            for stage, rates in found.items()
        }
        for found in (group.rates, group.surrogate)
    )
    return TargetMetrics(
        label=group.label,
        targets=group.targets,
        count=len(made),
        shares=final.shares(group.members),
        **stages,
        surrogate=guessed,
        basin=_count_in_basin(made, basin_rmsd),
        verified=_count_verified(made),
        acceptance=_count_accepted(made),
        baseline=group.baseline,
    )


# --- Each structure, and what they cost ---------------------------------------------------------


def _join_records(
    records: Sequence[Record],
    groups: Sequence[TargetGroup],
    final: Comparison,
    valid_raw: np.ndarray,
    moved: np.ndarray,
    dataset: Dataset,
) -> list[StructureMetrics]:
    """Joins the record of each structure and how it was judged."""
    relaxed_hits, hits = find_hits(groups, len(records))
    training = np.flatnonzero(dataset.split == 0)
    result = []
    for k, record in enumerate(records):
        # A structure that is not valid is neither unique nor novel, nor the opposite.
        is_valid, nearest = bool(final.valid[k]), int(final.nearest[k])
        unique = bool(final.unique[k]) if is_valid else None
        novel = bool(final.novel[k]) if is_valid else None
        sound = is_valid and record.status in (None, Status.CONVERGED)
        result.append(
            StructureMetrics(
                **vars(record),
                valid_reconstructed=bool(valid_raw[k]),
                valid=is_valid,
                unique=unique,
                novel=novel,
                nearest=None
                if nearest < 0
                else Nearest(index=int(training[nearest]), distance=float(final.distance[k])),
                basin_rmsd=None if np.isnan(moved[k]) else float(moved[k]),
                hit=hits[k],
                verified=is_verified(
                    relaxed_hits[k], sound=sound, new=bool(unique) and bool(novel)
                ),
            )
        )
    return result


def _count_in_basin(structures: Sequence[StructureMetrics], basin_rmsd: float) -> Basin:
    known = [found.basin_rmsd for found in structures if found.basin_rmsd is not None]
    moved = np.array(known, float)
    return Basin(
        share=float((moved <= basin_rmsd).mean()) if len(moved) else None,
        count=len(moved),
        median_rmsd=float(np.median(moved)) if len(moved) else None,
    )


def _count_verified(structures: Sequence[StructureMetrics]) -> VerifiedHits | None:
    """Returns the cost of verified hits; None where nothing was asked for or relaxed."""
    judged = [found for found in structures if found.verified is not None]
    if not judged:
        return None
    hits = sum(bool(found.verified) for found in judged)
    calculations = _total([found.calculations for found in judged])
    proposed = _total([found.proposed for found in judged])
    return VerifiedHits(
        hits=hits,
        share=hits / len(judged),
        calculations=calculations,
        calculations_per_hit=None if calculations is None or not hits else calculations / hits,
        proposed=proposed,
        proposed_per_hit=None if proposed is None or not hits else proposed / hits,
    )


def _total(counts: Sequence[int | None]) -> int | None:
    """Returns a sum; None where a part is not known."""
    known = [count for count in counts if count is not None]
    return sum(known) if len(known) == len(counts) else None


def _count_accepted(structures: Sequence[StructureMetrics]) -> Acceptance | None:
    judged = [f for f in structures if f.candidates is not None and f.hit is not None]
    if not judged:
        return None
    accepted = sum(bool(found.hit) for found in judged)
    tried = sum(found.candidates or 0 for found in judged)
    return Acceptance(accepted=accepted, candidates=tried, rate=accepted / tried)
