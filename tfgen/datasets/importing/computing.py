"""Properties that functions compute on structures as they were read."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from ase import Atoms
from tqdm import tqdm

from tfgen.datasets.importing.collecting import Collected, part
from tfgen.execution.results import ResultStore, array_digest, fingerprint_of
from tfgen.potentials.properties import (
    PropertyFunction,
    make_functions,
    own_function,
    run_functions,
)
from tfgen.structures.status import Status

__all__ = ["FILE", "compute_properties", "find_functions"]

FILE = "file"
"""What records say computed a property that a file gave."""


def find_functions(
    compute: Mapping[str, Callable[[Atoms], Any] | str | None], asked: Sequence[str]
) -> list[PropertyFunction]:
    """Returns what computes properties of structures as they are read.

    Args:
        compute: property -> a function, its import path, or None for what a calculator's results in
            a file say.
        asked: properties that are taken from the files.

    Raises:
        ValueError: if a property is in both, or what computes it is no function.
    """
    for name in compute:
        if name in asked:
            raise ValueError(
                f"{name!r} is both asked for from the files and computed; one is needed"
            )
    own = [own_function(name, FILE) for name, function in compute.items() if function is None]
    given = {name: function for name, function in compute.items() if function is not None}
    return [*make_functions(given), *own]


def compute_properties(
    source: Collected,
    functions: Sequence[PropertyFunction],
    *,
    skip: bool,
    results: ResultStore | None = None,
    progress: bool,
) -> Collected:
    """Adds the properties that functions compute.

    Args:
        source: with the structures as they were read.
        functions: called with these, and with the results of a file as `calc`.
        skip: whether structures for which one fails are skipped and counted.
        results: keeps values as they come, and has those of an interrupted import, which are not
            computed again.
        progress: show a progress bar.

    Raises:
        ValueError: if a function fails, and `skip` is false or it does so for all structures; names
            file and row.
    """
    results = ResultStore() if results is None else results
    rows, details = [], []
    with tqdm(source.raw, desc="computing properties", unit="", disable=not progress) as bar:
        for place, atoms in enumerate(bar):
            key = _key(atoms, functions)
            values, detail = results.get(key), ""
            if values is None:
                values, detail = run_functions(functions, atoms)
                if not detail:
                    results.add(key, values)
            if detail and not skip:
                raise ValueError(f"{source.rows[place]}: compute {detail}")
            rows.append(values)
            details.append(detail)
    good = np.array([not detail for detail in details])
    if not good.any():
        said = Counter(details).most_common(1)[0][0]
        raise ValueError(f"no structures are left: for all {len(good)}, compute {said}")
    computed = {f.name: np.array([row[f.name] for row in rows]) for f in functions}
    found = part(dataclasses.replace(source, properties={**source.properties, **computed}), good)
    failed = {str(Status.PROPERTY_FAILED): int((~good).sum())} if not good.all() else {}
    units = {f.name: f.unit for f in functions if f.unit != "unknown"}
    return dataclasses.replace(
        found, units={**found.units, **units}, skipped={**found.skipped, **failed}, raw=[]
    )


def _key(atoms: Atoms, functions: Sequence[PropertyFunction]) -> str:
    """Names the values of a structure: of all that a function is given, and of its code."""
    known = {} if atoms.calc is None else atoms.calc.results
    given = [
        [name, array_digest(value) if isinstance(value, np.ndarray) else repr(value)]
        for values in (atoms.arrays, atoms.info, known)
        for name, value in sorted(values.items(), key=lambda item: str(item[0]))
    ]
    return fingerprint_of(
        atoms, {"functions": [[f.name, f.source, f.code] for f in functions], "given": given}
    )
