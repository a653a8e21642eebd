"""Checks whether data sets hold the lowest minima that long, independent searches find.

The searches are ASE's own: `ase.optimize.basin.BasinHopping` with `ase.calculators.emt.EMT`, one
structure at a time, from random structures. Their results are written to a file after every run, so
that they can be continued and need not be repeated. The script prints a table, and exits with 1 if
a data set lacks a minimum.

    nice python scripts/benchmarks/check_depth.py pt10.h5 pt13.h5 --searches searches.extxyz
"""

from __future__ import annotations

import sys
import time
import warnings
from pathlib import Path

import click
import numpy as np
from _options import COUNT, POSITIVE, check_formulas
from ase import Atoms

from tfgen._tensorflow import load_quietly

# Two energies of one minimum, both relaxed to 0.01 eV/Å, differ by at most this, eV.
SAME_ENERGY = 0.001
# Steps after which a relaxation is given up; most take less than 100.
MAX_STEPS = 500


def search(formula: str, seed: int, hops: int, step: float, temperature: float) -> Atoms:
    """Runs ASE's basin hopping once; returns the lowest minimum, with its history in `info`."""
    from ase.calculators.emt import EMT
    from ase.optimize import BFGS
    from ase.optimize.basin import BasinHopping

    from tfgen.sampling.initial import random_structures
    from tfgen.structures.formulas import numbers_from_formula

    class Bounded(BFGS):
        """Stops after some steps: atoms that have flown apart would never come to rest."""

        def run(self, fmax: float = 0.01, steps: int = MAX_STEPS) -> bool:
            return super().run(fmax, steps)

    start = time.perf_counter()
    numbers = numbers_from_formula(formula)
    atoms = Atoms(
        numbers, random_structures(numbers, 1, np.random.default_rng(seed))[0], calculator=EMT()
    )
    # ASE's basin hopping uses NumPy's global generator.
    np.random.seed(seed)  # noqa: NPY002
    # ASE's optimisers say that they do not know whether a step makes the run converge.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with BasinHopping(
            atoms,
            temperature=temperature,
            optimizer=Bounded,
            fmax=0.01,
            dr=step,
            logfile=None,
            trajectory=None,
            optimizer_logfile=None,
            local_minima_trajectory=None,
        ) as hopping:
            hopping.run(hops)
            energy, lowest = hopping.get_minimum()
    lowest.calc = None
    lowest.info = {
        "formula": formula,
        "seed": seed,
        "hops": hops,
        "lowest": float(energy),
        "seconds": time.perf_counter() - start,
    }
    return lowest


def searched(
    path: Path, formulas: tuple[str, ...], runs: int, hops: int, step: float, temperature: float
) -> list[Atoms]:
    """Returns all runs: those in the file, and new ones, which are added to it one by one."""
    from ase.io import read, write

    from tfgen._files import new_file

    found = read(path, index=":") if path.exists() else []
    known = {(a.info["formula"], a.info["seed"], a.info["hops"]) for a in found}
    for seed in range(runs):
        for formula in formulas:
            if (formula, seed, hops) in known:
                continue
            found.append(search(formula, seed, hops, step, temperature))
            text = "{formula} seed {seed}: {lowest:.4f} eV, {hops} hops in {seconds:.0f} s"
            click.echo(text.format(**found[-1].info), err=True)
            with new_file(path, overwrite=True) as temporary:
                write(temporary, found, format="extxyz")
    return [a for a in found if a.info["formula"] in formulas]


@click.command()
@click.argument("datasets", nargs=-1, type=click.Path(path_type=Path, exists=True))
@click.option("--formula", "formulas", multiple=True, default=("Pt10", "Pt13", "Pt20"))
@click.option("--searches", required=True, type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--runs",
    type=COUNT,
    default=4,
    show_default=True,
    help="Independent searches for a formula.",
)
@click.option("--hops", type=COUNT, default=250, show_default=True, help="Relaxations in a search.")
@click.option(
    "--step",
    type=POSITIVE,
    default=0.5,
    show_default=True,
    help="Half width of a hop's moves, Å.",
)
@click.option(
    "--temperature",
    type=POSITIVE,
    default=0.3,
    show_default=True,
    help="Of the acceptance, eV.",
)
def main(
    datasets: tuple[Path, ...],
    formulas: tuple[str, ...],
    searches: Path,
    runs: int,
    hops: int,
    step: float,
    temperature: float,
) -> None:
    """Compare the lowest energies of data sets with those of ASE's basin hopping."""
    load_quietly()
    from tfgen.datasets.storage import Dataset
    from tfgen.structures.similarity.equality import deviations

    check_formulas(formulas)
    found = searched(searches, formulas, runs, hops, step, temperature)
    sets = {path: Dataset.load(path) for path in datasets}
    missed = False
    click.echo(
        f"{'formula':8} {'runs':>4} {'hops':>6} {'s/hop':>6} {'ASE, eV':>10} {'hits':>5}  "
        f"{'data set':16} {'lowest, eV':>10} {'above, eV':>10} {'distances, Å':>12}"
    )
    for formula in formulas:
        own = [a for a in found if a.info["formula"] == formula]
        energy = np.array([a.info["lowest"] for a in own])
        best = own[int(energy.argmin())]
        hits = int((energy <= energy.min() + SAME_ENERGY).sum())
        total, seconds = (sum(a.info[key] for a in own) for key in ("hops", "seconds"))
        row = (
            f"{formula:8} {len(own):4} {total:6} {seconds / total:6.2f} "
            f"{energy.min():10.4f} {hits:5}  "
        )
        held = False
        for path, dataset in sets.items():
            same = [i for i, s in enumerate(dataset.structures) if _same(s, best)]
            if not same:
                continue
            held = True
            total_energy = dataset.properties["energy_per_atom"][same] * len(best)
            lowest = same[int(total_energy.argmin())]
            above = total_energy.min() - energy.min()
            missed |= bool(above > SAME_ENERGY)
            apart = deviations([dataset.structures[lowest]], [best])[0]
            click.echo(
                f"{row}{path.stem:16} {total_energy.min():10.4f} {above:10.4f} {apart:12.3f}"
            )
            row = " " * len(row)
        missed |= bool(sets) and not held  # no set has the formula at all
        if row.strip():
            click.echo(row)
    sys.exit(1 if missed else 0)


def _same(a: Atoms, b: Atoms) -> bool:
    return len(a) == len(b) and sorted(a.numbers) == sorted(b.numbers)


if __name__ == "__main__":
    main()
