"""Properties that a build computes on the structures it keeps, by functions or the calculator."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from tqdm import tqdm

from tfgen.datasets.minima import make_batched_potential
from tfgen.datasets.recipe import CALCULATOR, Recipe, Relax
from tfgen.execution.dask import dask_executor
from tfgen.execution.results import ResultStore, fingerprint_of
from tfgen.execution.worker_potential import WorkerPotential
from tfgen.potentials.ase import AsePotential
from tfgen.potentials.base import Potential
from tfgen.potentials.evaluation import evaluate, functions_for
from tfgen.potentials.properties import PropertyFunction, make_functions

__all__ = ["FMAX", "Compute", "Computer", "describe_compute", "find_compute", "open_computer"]

FMAX = "fmax"
"""Property that says how far from a minimum a structure is, where not all are minima."""

Compute = Mapping[str, Callable[[Atoms], Any] | str | None]
"""Property -> a function, its import path, or None for a property of the calculator."""


@dataclass(frozen=True, kw_only=True)
class Computer:
    """Computes properties of structures that have been relaxed.

    Attributes:
        functions: compute them.
        potential: of the recipe.
        results: has the results of an interrupted run, and keeps new ones.
        progress: show a progress bar.
    """

    functions: Sequence[PropertyFunction]
    potential: Potential | AsePotential
    results: ResultStore
    progress: bool

    def compute(self, structures: Sequence[Atoms]) -> tuple[dict[str, np.ndarray], list[str]]:
        """Computes the properties.

        Returns:
            Property -> [n], NaN where it failed; and for each structure what was said that failed,
            "" if nothing did.
        """
        with tqdm(
            desc="computing properties", total=len(structures), unit="", disable=not self.progress
        ) as bar:
            if isinstance(self.potential, AsePotential):
                found = evaluate(self.potential, structures, self.functions, advance=bar.update)
                return found.values, found.detail
            # One by one, for a function may take its time.
            rows = []
            for atoms in structures:
                rows.append(self._compute(atoms))
                bar.update()
        values = {f.name: np.array([row[f.name] for row, _ in rows]) for f in self.functions}
        return values, [detail for _, detail in rows]

    def _compute(self, atoms: Atoms) -> tuple[dict[str, float], str]:
        key = fingerprint_of(
            atoms, {"functions": [[f.name, f.source, f.code] for f in self.functions]}
        )
        if (kept := self.results.get(key)) is not None:
            return kept, ""
        found = evaluate(self.potential, [atoms], self.functions)
        values = {name: float(column[0]) for name, column in found.values.items()}
        if not found.detail[0]:
            self.results.add(key, values)
        return values, found.detail[0]


def find_compute(recipe: Recipe, compute: Compute | None) -> Compute:
    """Returns what computes properties, by the recipe and besides it.

    Raises:
        ValueError: if a property is in both, is one that builds have already, or has a function
            that cannot be imported or is none.
    """
    own = {name: None if path == CALCULATOR else path for name, path in recipe.compute.items()}
    for name in compute or {}:
        if name in own:
            raise ValueError(f"compute {name}: the recipe computes it already")
    both = {**own, **(compute or {})}
    if FMAX in both:
        raise ValueError(f"compute {FMAX}: tfgen computes {FMAX} itself; another name is needed")
    make_functions({name: function for name, function in both.items() if function is not None})
    return both


def describe_compute(relax: Relax, compute: Compute) -> dict[str, str]:
    """Returns property -> what records say computes it."""
    given = {name: function for name, function in compute.items() if function is not None}
    sources = {function.name: function.source for function in make_functions(given)}
    return {name: sources.get(name, relax.potential) for name in compute}


@contextlib.contextmanager
def open_computer(
    relax: Relax,
    compute: Compute,
    results: Path,
    *,
    workers: int,
    scheduler: str | None,
    tries: int,
    log: Path | None = None,
    progress: bool,
) -> Iterator[Computer | None]:
    """Yields what computes properties; None if there are none to compute.

    Args:
        relax: of the recipe.
        compute: the properties.
        results: the file of results.
        workers: processes for an ASE calculator, if there is no scheduler.
        scheduler: address of a Dask scheduler.
        tries: processes that get the same structure while they crash.
        log: a file to which what an ASE calculator prints is appended.
        progress: show a progress bar.

    Raises:
        ValueError: if the calculator cannot be made, or does not compute a property without a
            function.
    """
    if not compute:
        yield None
        return
    store = ResultStore(results)
    with contextlib.ExitStack() as stack:
        potential: Any
        if relax.batched:
            potential = make_batched_potential(relax)
        else:
            executor = scheduler and stack.enter_context(dask_executor(scheduler))
            potential = stack.enter_context(
                WorkerPotential(
                    relax.potential,
                    relax.arguments,
                    vacuum=relax.vacuum,
                    workers=workers,
                    time_limit=relax.time_limit,
                    executor=executor or None,
                    results=store,
                    log=log,
                    tries=tries,
                )
            )
        yield Computer(
            functions=functions_for(compute, potential),
            potential=potential,
            results=store,
            progress=progress,
        )
