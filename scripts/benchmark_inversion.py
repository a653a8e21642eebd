"""How often, and how fast, fingerprints of unique EMT minima are inverted to their structures.

Prints a table: for each composition and preset the share of targets solved (every sorted
interatomic distance within 0.05 Å; for alloys between the right elements), the share whose
fingerprint was reached, the median loss, and seconds per target (compilation apart). The targets
come from random packings relaxed with EMT, with seeds of their own.

    python scripts/benchmark_inversion.py --targets 20 Pt10 Pt13
"""

from __future__ import annotations

import time

import click
import numpy as np
from ase import Atoms

from tfgen._tensorflow import load_quietly

TARGET_SEED = 20_000


def minima(formula: str, count: int) -> list[Atoms]:
    """Unique EMT minima of a formula, drawn at random from all that random packings lead to."""
    from tfgen.datasets.sampling import pack
    from tfgen.relaxation import relax
    from tfgen.similarity import duplicates
    from tfgen.structures import numbers_from_formula
    from tfgen.validity import connected

    rng = np.random.default_rng(TARGET_SEED)
    numbers = numbers_from_formula(formula)
    starts = [Atoms(numbers, positions=x) for x in pack(numbers, 10 * count, rng)]
    relaxed = relax(starts, fmax=0.005)
    usable = relaxed.converged & connected(relaxed.structures)
    found = [s for s, ok in zip(relaxed.structures, usable, strict=True) if ok]
    unique = np.flatnonzero(duplicates(found) == np.arange(len(found)))
    return [found[i] for i in rng.permutation(unique)[:count]]


@click.command()
@click.argument("formulas", nargs=-1, default=("Pt10", "Pt13"))
@click.option("--targets", default=20, show_default=True, help="Targets for each composition.")
@click.option("--preset", "presets", multiple=True, default=("default", "fung2022"))
@click.option("--max-rounds", default=12, show_default=True)
@click.option("--seed", default=0, show_default=True)
def main(
    formulas: tuple[str, ...], targets: int, presets: tuple[str, ...], max_rounds: int, seed: int
) -> None:
    """Measure how often and how fast fingerprints are inverted."""
    load_quietly()
    from tfgen.fingerprint import Fingerprint
    from tfgen.reconstruction import CONVERGED, reconstruct
    from tfgen.similarity import deviations

    click.echo(
        f"{'formula':8} {'preset':9} {'targets':>7} {'solved':>7} {'reached':>8} "
        f"{'median loss':>11} {'s/target':>9}"
    )
    for formula in formulas:
        structures = minima(formula, targets)
        elements = sorted({str(e) for e in structures[0].symbols})
        for preset in presets:
            fingerprint = Fingerprint.preset(preset, elements)
            vectors = fingerprint.create(structures)
            # The first call compiles; its time is not the search's.
            reconstruct(fingerprint, vectors[:8], formula, seed=seed, max_rounds=1, tolerance=1e-9)
            began = time.perf_counter()
            result = reconstruct(fingerprint, vectors, formula, seed=seed, max_rounds=max_rounds)
            seconds = (time.perf_counter() - began) / len(structures)
            solved = (deviations(result.structures, structures) <= 0.05).mean()
            reached = np.mean([status == CONVERGED for status in result.status])
            click.echo(
                f"{formula:8} {preset:9} {len(structures):7d} {solved:7.0%} {reached:8.0%} "
                f"{np.median(result.loss):11.2g} {seconds:9.2f}"
            )


if __name__ == "__main__":
    main()
