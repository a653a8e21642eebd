"""Properties of generated structures, calculated again by somebody else."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from ase import Atoms
from tqdm import tqdm

from tfgen.generation.records import Record
from tfgen.potentials.ase import AsePotential
from tfgen.potentials.base import Potential
from tfgen.potentials.evaluation import evaluate, potential_name
from tfgen.potentials.outcomes import warn_of_failures
from tfgen.potentials.properties import PropertyFunction, calculator_functions, check_units
from tfgen.structures.properties import ENERGIES, ENERGY_PER_ATOM, compute
from tfgen.structures.status import Status
from tfgen.warnings import TfgenWarning

__all__ = ["recalculate", "warn_of_changes"]


def recalculate(
    generated: Sequence[Atoms],
    records: Sequence[Record],
    potential: Potential | AsePotential | None,
    functions: Sequence[PropertyFunction],
    units: Mapping[str, str],
    progress: bool = False,
) -> list[Record]:
    """Calculates the properties of structures as they are, and puts the values into their records.

    Args:
        generated: n structures.
        records: their records.
        potential: computes energies; None: only functions are called.
        functions: compute further properties. Those of the potential's own calculator that the
            records name are computed in any case.
        units: of properties of the data set: the same name in another unit is another quantity.
        progress: show a progress bar.

    Returns:
        The records, with the new values at the last stage, what computed them, and the status of
        structures for which that failed. Values before relaxation that something else computed are
        left out. A structure whose property failed before has converged if nothing fails now.
    """
    check_units(functions, units, "the data set")
    asked = list(dict.fromkeys(name for record in records for name in _names(record)))
    given = [function.name for function in functions]
    own = [name for name in asked if name not in (*given, *ENERGIES)]
    functions = [
        *functions,
        *(f for f in calculator_functions(potential, own) if units.get(f.name, f.unit) == f.unit),
    ]
    plain = [Atoms(a.numbers, positions=a.positions, cell=a.cell, pbc=a.pbc) for a in generated]
    with tqdm(total=len(plain), desc="calculating", unit="", disable=not progress) as bar:
        found = evaluate(potential, plain, functions, advance=bar.update)
    values, sources = dict(found.values), {f.name: f.source for f in functions}
    if potential is not None:
        energies = [ENERGY_PER_ATOM, *(name for name in ENERGIES[1:] if name in asked)]
        values |= compute(plain, energies, found.energy)
        sources |= dict.fromkeys(energies, potential_name(potential))
    result = []
    for i, record in enumerate(records):
        new = {name: float(array[i]) for name, array in values.items()}
        known = {name: value if np.isfinite(value) else None for name, value in new.items()}
        stage = "relaxed" if record.relaxed else "reconstructed"
        changes: dict[str, Any] = {stage: {**record.stage(stage), **known}}
        if record.relaxed:
            # Values before relaxation are of who computed them then, of whom no record is left.
            changes["reconstructed"] = {
                name: value
                for name, value in record.reconstructed.items()
                if sources.get(name) in (None, record.evaluated_by.get(name))
            }
        if found.status[i] != Status.CONVERGED:
            changes |= {"status": str(found.status[i]), "status_detail": found.detail[i]}
        elif record.status == Status.PROPERTY_FAILED and all(
            known.get(target.name) is not None for target in record.targets
        ):
            changes |= {"status": str(Status.CONVERGED), "status_detail": None}
        result.append(replace(record, evaluated_by={**record.evaluated_by, **sources}, **changes))
    return result


def _names(record: Record) -> list[str]:
    return [*(target.name for target in record.targets), *record.final]


def warn_of_changes(before: Sequence[Record], after: Sequence[Record]) -> None:
    """Warns where calculations failed, or differ from what records say by more than the tolerance.

    Args:
        before: records as they were read.
        after: the same with new values, and with tolerances.
    """
    pairs = list(zip(before, after, strict=True))
    warn_of_failures(
        [(new.status_detail or "") if new.status != old.status else "" for old, new in pairs], 4
    )
    for name in dict.fromkeys(target.name for record in after for target in record.targets):
        differences = []
        for old, new in pairs:
            target, one, other = new.target(name), old.final.get(name), new.final.get(name)
            if target is None or target.tolerance is None or one is None or other is None:
                continue
            if old.is_calculated("relaxed", name) and abs(one - other) > target.tolerance:
                differences.append(abs(one - other))
        if differences:
            warnings.warn(
                f"{name} of {len(differences)} of {len(after)} structures differs from what the "
                f"file says by more than the tolerance, by {max(differences):.3g} at most",
                TfgenWarning,
                stacklevel=3,
            )
