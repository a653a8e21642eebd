"""Measures how often, and how fast, fingerprints of unique EMT minima are inverted.

The script prints a table. For each composition and preset it has the share of targets solved (every
sorted interatomic distance within 0.05 Å; for alloys between the right elements), the share within
0.15 Å, the share whose fingerprint was reached, the median loss, and the seconds that a target
takes on this machine, without compilation. The targets are random structures relaxed with EMT, with
seeds of their own; Pt55 also has the icosahedron and other symmetric structures. With --reference
the source paper's published algorithm (`paper_inversion.py`, on tfgen's fingerprints) inverts the
same targets.

    python scripts/benchmarks/benchmark_inversion.py --targets 20 Pt10 Pt13
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import click
import numpy as np
from ase import Atoms
from ase.cluster import Decahedron, Icosahedron, Octahedron

from tfgen._tensorflow import load_quietly

sys.path.append(str(Path(__file__).resolve().parents[1] / "paper"))

TARGET_SEED = 20_000
COMPOSITIONS = ("Pt8", "Pt10", "Pt13", "Pt16", "Pt20", "Pt26", "Pt38", "Pt55", "Cu6Au7")
# Seconds that the search for a target may take on this machine.
LIMITS = {8: 5.0, 10: 5.0, 13: 10.0, 16: 30.0, 20: 30.0, 26: 30.0, 38: 120.0, 55: 300.0}
SYMMETRIC = {55: (Icosahedron("Pt", 3), Octahedron("Pt", 5, 2), Decahedron("Pt", 3, 2, 0))}


def minima(formula: str, count: int) -> list[Atoms]:
    """Unique EMT minima of a formula, sampled from all to which random structures relax."""
    from tfgen.relaxation.relax import relax
    from tfgen.sampling.initial import random_structures
    from tfgen.structures.formulas import numbers_from_formula
    from tfgen.structures.similarity.equality import duplicates
    from tfgen.structures.validity import connected

    rng = np.random.default_rng(TARGET_SEED)
    numbers = numbers_from_formula(formula)
    given = [
        Atoms(s.numbers, positions=s.positions)
        for s in SYMMETRIC.get(len(numbers), ())
        if np.array_equal(s.numbers, numbers)
    ]
    packed = [Atoms(numbers, positions=x) for x in random_structures(numbers, 10 * count, rng)]
    relaxed = relax([*given, *packed], fmax=0.001)
    usable = relaxed.converged & connected(relaxed.structures)
    found = [s for s, ok in zip(relaxed.structures, usable, strict=True) if ok]
    unique = np.flatnonzero(duplicates(found) == np.arange(len(found)))
    symmetric = [i for i in unique.tolist() if i < usable[: len(given)].sum()]
    others = rng.permutation([i for i in unique.tolist() if i not in symmetric]).tolist()
    return [found[i] for i in [*symmetric, *others][:count]]


def row(name: str, preset: str, deviation: np.ndarray, seconds: np.ndarray, rest: str) -> str:
    """One line of the table."""
    late = np.quantile(seconds, 0.9)
    return (
        f"{name:8} {preset:9} {len(deviation):7} {(deviation <= 0.05).mean():7.0%} "
        f"{(deviation <= 0.15).mean():7.0%} {rest} {np.median(seconds):8.2f} {late:8.2f}"
    )


def published(formula: str, structures: list[Atoms], seed: int) -> str:
    """The published algorithm, one target at a time."""
    from paper_inversion import invert

    from tfgen.fingerprints.fingerprint import Fingerprint
    from tfgen.structures.similarity.equality import deviations

    numbers = structures[0].numbers
    fingerprint = Fingerprint.preset("fung2022", sorted(set(structures[0].symbols)))
    vectors = fingerprint.create(structures)
    invert(fingerprint, vectors[:1], numbers, seed=seed)  # compiles
    positions, loss, seconds = [], [], []
    for i, vector in enumerate(vectors):
        began = time.perf_counter()
        found = invert(fingerprint, vector[None], numbers, seed=seed + i)
        seconds.append(time.perf_counter() - began)
        positions.append(found.positions[0])
        loss.append(found.loss[0])
    deviation = deviations([Atoms(numbers, positions=x) for x in positions], structures)
    rest = f"{'':>8} {np.median(loss):11.2g}"
    total = np.sum(seconds) / max((deviation <= 0.05).sum(), 1)
    return (
        row(formula, "published", deviation, np.array(seconds), rest)
        + f"   {total:.1f} s for each one solved"
    )


@click.command()
@click.argument("formulas", nargs=-1)
@click.option("--targets", type=click.IntRange(1), default=50, show_default=True)
@click.option(
    "--preset", "presets", multiple=True, default=("default", "fung2022"),
    type=click.Choice(["default", "fung2022"]),
)  # fmt: skip
@click.option("--max-rounds", type=click.IntRange(0), default=100_000, show_default=True)
@click.option(
    "--time-limit", type=click.FloatRange(0, min_open=True),
    help="Seconds for each target; if not given, by the number of atoms, 5 to 300.",
)  # fmt: skip
@click.option("--reference/--no-reference", default=False, help="The published algorithm, too.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
def main(
    formulas: tuple[str, ...],
    targets: int,
    presets: tuple[str, ...],
    max_rounds: int,
    time_limit: float | None,
    reference: bool,
    seed: int,
) -> None:
    """Measure how often and how fast fingerprints are inverted."""
    load_quietly()
    from tfgen._tensorflow import threads
    from tfgen.fingerprints.fingerprint import Fingerprint
    from tfgen.inversion.reconstruct import reconstruct
    from tfgen.structures.formulas import numbers_from_formula
    from tfgen.structures.similarity.equality import deviations
    from tfgen.structures.status import Status

    try:
        sizes = {f: len(numbers_from_formula(f)) for f in formulas or COMPOSITIONS}
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    click.echo(
        f"{'formula':8} {'preset':9} {'targets':>7} {'0.05 Å':>7} {'0.15 Å':>7} {'reached':>8} "
        f"{'median loss':>11} {'s/target':>8} {'90 %':>8}"
    )
    for formula, size in sizes.items():
        structures = minima(formula, targets)
        elements = sorted({str(e) for e in structures[0].symbols})
        limit = time_limit or LIMITS[min((n for n in LIMITS if n >= size), default=max(LIMITS))]
        for preset in presets:
            fingerprint = Fingerprint.preset(preset, elements)
            vectors = fingerprint.create(structures)
            # The first call compiles; its time is not the search's.
            reconstruct(fingerprint, vectors[:1], formula, seed=seed, max_rounds=0)
            # So many share the processors at a time: each has its share of the time, too.
            at_once = min(threads(), len(structures))
            result = reconstruct(
                fingerprint, vectors, formula,
                seed=seed, max_rounds=max_rounds, time_limit=at_once * limit, progress=True,
            )  # fmt: skip
            deviation = deviations(result.structures, structures)
            converged = Status.CONVERGED, Status.AMBIGUOUS
            reached = np.mean([status in converged for status in result.status])
            rest = f"{reached:8.0%} {np.median(result.loss):11.2g}"
            seconds = result.seconds / at_once
            total = seconds.sum() / max((deviation <= 0.05).sum(), 1)
            click.echo(
                row(formula, preset, deviation, seconds, rest)
                + f"   {total:.2f} s for each one solved"
            )
        if reference:
            click.echo(published(formula, structures, seed))


if __name__ == "__main__":
    main()
