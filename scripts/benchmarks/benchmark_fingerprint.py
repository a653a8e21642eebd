"""Measures how many fingerprints are computed in a second, next to DScribe and the machine's peak.

The script prints a table for the functions of `fung2022` on clusters of several sizes, a bimetallic
cluster, a periodic cell and a short cutoff. It has the structures per second of DScribe's
`ACSF(...).create` (the best of its `n_jobs`), of `tfgen.ACSF(...).create` (both from `ase.Atoms` to
NumPy, in float64), and of the compiled fingerprint inside TensorFlow, forward and with its
gradient, in float64 and float32. "Of peak" compares `create` with the machine: the rates of G2's
exponentials, and of the operations that sum over triples, as shares of the rates of exp and of
matrix products that TensorFlow reaches. Compilation is not counted; both sides get the same
structures.

    python scripts/benchmark_fingerprint.py
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import click
import numpy as np
from _options import COUNT, POSITIVE
from ase import Atoms
from ase.neighborlist import neighbor_list

from tfgen._tensorflow import load_quietly

if TYPE_CHECKING:
    import tensorflow as tf

    from tfgen.fingerprints.fingerprint import Fingerprint
    from tfgen.structures.batch import StructureBatch

SEED = 0


class Case(NamedTuple):
    """Structures of one kind, and how they are fingerprinted."""

    name: str
    structures: list[Atoms]
    species: list[str]
    r_cut: float = 20.0
    periodic: bool = False


def cases(count: int, names: tuple[str, ...]) -> list[Case]:
    """Makes random structures of each size, and a rattled bulk cell."""
    from ase.build import bulk

    from tfgen.sampling.initial import random_structures
    from tfgen.structures.formulas import numbers_from_formula

    rng = np.random.default_rng(SEED)

    def clusters(formula: str, most: int) -> list[Atoms]:
        numbers = numbers_from_formula(formula)
        return [
            Atoms(numbers, positions=x) for x in random_structures(numbers, min(count, most), rng)
        ]

    def cells(most: int) -> list[Atoms]:
        bulk_cell = bulk("Pt", cubic=True) * (2, 2, 2)
        found = []
        for _ in range(min(count, most)):
            cell = bulk_cell.copy()
            cell.positions += rng.normal(scale=0.1, size=cell.positions.shape)
            found.append(cell)
        return found

    # Fewer of the large ones, so that DScribe takes seconds, not minutes.
    sizes = {10: 30_000, 13: 20_000, 20: 10_000, 38: 2_000, 55: 1_500, 147: 60}
    makers: dict[str, Callable[[], Case]] = {
        f"Pt{n}": lambda n=n, most=most: Case(f"Pt{n}", clusters(f"Pt{n}", most), ["Pt"])
        for n, most in sizes.items()
    }
    makers["Pt147, 6 Å"] = lambda: Case("Pt147, 6 Å", clusters("Pt147", 60), ["Pt"], 6.0)
    makers["Cu6Au7"] = lambda: Case("Cu6Au7", clusters("Cu6Au7", 15_000), ["Cu", "Au"])
    makers["Pt32 cell, 6 Å"] = lambda: Case("Pt32 cell, 6 Å", cells(100), ["Pt"], 6.0, True)
    unknown = set(names) - set(makers)
    if unknown:
        raise click.BadParameter(f"{unknown.pop()!r}; the cases are {', '.join(makers)}")
    return [make() for name, make in makers.items() if not names or name in names]


def seconds(run: Callable[[], object], repeats: int) -> float:
    """Returns the shortest of several timings."""
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        run()
        times.append(time.perf_counter() - began)
    return min(times)


def peaks(repeats: int) -> tuple[float, float]:
    """Exponentials per second and floating point operations per second, float64, all cores."""
    import tensorflow as tf

    x = tf.random.stateless_uniform([64, 4096], [0, 1], dtype=tf.float64)
    exp = tf.function(tf.exp, jit_compile=True, autograph=False)
    a = tf.random.stateless_uniform([1024, 1024], [0, 1], dtype=tf.float64)
    product = tf.function(lambda a: tf.matmul(a, a), jit_compile=True, autograph=False)
    exp(x), product(a)
    exps = 64 * 4096 / seconds(lambda: exp(x), 10 * repeats)
    return exps, 2 * 1024**3 / seconds(lambda: product(a), 5 * repeats)


def dscribe_rate(
    case: Case, functions: dict[str, list], budget: float, repeats: int
) -> tuple[float, np.ndarray]:
    """Structures per second, best of the numbers of jobs; and the features."""
    from dscribe.descriptors import ACSF

    acsf = ACSF(species=case.species, r_cut=case.r_cut, periodic=case.periodic, **functions)
    one = seconds(lambda: acsf.create(case.structures[:2]), 1) / 2
    jobs = range(1, (os.cpu_count() or 1) + 1)
    count = int(np.clip(budget / (one * repeats * len(jobs)), 2, len(case.structures)))
    some = case.structures[:count]
    best = min(seconds(lambda n=n: acsf.create(some, n_jobs=n), repeats) for n in jobs)
    return count / best, acsf.create(some[:2])


def tensorflow_rates(case: Case, fingerprint: Fingerprint, repeats: int) -> dict[str, float]:
    """Structures per second of the compiled fingerprint, forward and with its gradient."""
    import tensorflow as tf

    from tfgen.structures.batch import StructureBatch

    n_atoms = len(case.structures[0])
    some = case.structures[: max(1, 2_000_000 // (n_atoms**2 * (n_atoms + 200)))]
    rates = {}
    for dtype in ("float64", "float32"):
        batch = StructureBatch.from_ase(some, r_cut=case.r_cut, dtype=dtype, sparse=True)

        def forward(positions: tf.Tensor, batch: StructureBatch = batch) -> tf.Tensor:
            return fingerprint(batch._replace(positions=positions))

        def gradient(positions: tf.Tensor, forward: Callable = forward) -> tf.Tensor:
            with tf.GradientTape() as tape:
                tape.watch(positions)
                loss = tf.reduce_sum(tf.abs(forward(positions) - 1.0))
            return tape.gradient(loss, positions)

        for function in (forward, gradient):
            compiled = tf.function(function, jit_compile=True, autograph=False)
            compiled(batch.positions)
            took = seconds(lambda f=compiled, x=batch.positions: f(x), 10 * repeats)
            rates[f"{dtype} {function.__name__}"] = len(some) / took
    return rates


def work(case: Case, functions: dict[str, list]) -> tuple[float, float]:
    """Exponentials of G2, and operations of the sums over triples, of one structure."""
    neighbours = np.bincount(neighbor_list("i", case.structures[0], case.r_cut))
    triples = (neighbours * (neighbours - 1) // 2).sum()
    return neighbours.sum() * len(functions["g2_params"]), 2 * triples * len(functions["g5_params"])


@click.command()
@click.argument("names", nargs=-1)
@click.option(
    "--count",
    type=COUNT,
    default=100_000,
    show_default=True,
    help="Structures of a case, at most.",
)
@click.option(
    "--dscribe-seconds",
    type=POSITIVE,
    default=8.0,
    show_default=True,
    help="Time for DScribe.",
)
@click.option(
    "--repeats",
    type=COUNT,
    default=3,
    show_default=True,
    help="Number of timings, of which the best counts.",
)
def main(names: tuple[str, ...], count: int, dscribe_seconds: float, repeats: int) -> None:
    """Measure how fast fingerprints are computed: of all cases, or of those in NAMES."""
    load_quietly()
    from tfgen.descriptors.acsf import ACSF
    from tfgen.fingerprints.fingerprint import Fingerprint

    chosen = cases(count, names)
    exps, flops = peaks(repeats)
    click.echo(f"exp {exps / 1e9:.2f} G/s, matrix product {flops / 1e9:.0f} Gflop/s (float64)\n")
    click.echo(
        f"{'structures':14} {'from ase.Atoms':^23}   {'float64, 1/s':^23}   {'float32, 1/s':^23}  "
        f"{'of peak':^11} {'largest':>10}\n"
        f"{'per second':14} {'DScribe':>8} {'create':>8} {'':>5}   "
        + f"{'forward':>8} {'gradient':>8} {'':>5}   " * 2
        + f"{'exp':>4} {'matmul':>6} {'error':>10}"
    )
    preset = Fingerprint.preset("fung2022").descriptor
    functions = {"g2_params": preset.g2_params.tolist(), "g5_params": preset.g5_params.tolist()}
    for case in chosen:
        acsf = ACSF(case.species, case.r_cut, periodic=case.periodic, **functions)
        found = acsf.create(case.structures)  # compiles
        took = seconds(lambda a=acsf, c=case: a.create(c.structures), repeats)
        create = len(case.structures) / took
        theirs = dscribe_rate(case, functions, dscribe_seconds, repeats)
        rates = tensorflow_rates(case, Fingerprint(acsf), repeats)
        row = f"{case.name:14} {theirs[0]:8.0f} {create:8.0f} {create / theirs[0]:4.0f}×   "
        for dtype in ("float64", "float32"):
            forward, gradient = rates[f"{dtype} forward"], rates[f"{dtype} gradient"]
            row += f"{forward:8.0f} {gradient:8.0f} 1:{forward / gradient:3.1f}   "
        of_exp, of_matmul = work(case, functions)
        error = np.abs(found[: len(theirs[1])] - theirs[1]).max()
        click.echo(
            row + f"{create * of_exp / exps:4.0%} {create * of_matmul / flops:6.0%} {error:10.0e}"
        )


if __name__ == "__main__":
    main()
