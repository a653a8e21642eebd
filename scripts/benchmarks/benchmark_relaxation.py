"""Measures how fast clusters are relaxed with EMT, next to ASE's EMT with BFGS and FIRE.

All optimisers relax the same random structures to the same fmax in the same run; ASE relaxes only
the first of them, because it is slow. For each composition and optimiser the script prints the
seconds and steps that a structure takes, how much faster `tfgen.relax` is, and the lowest energy
found from the structures that all optimisers had. Compilation is shown separately. Then ASE's BFGS
continues from the minima of `tfgen.relax` to the same fmax; the largest change of an energy is
shown.

ASE's BFGS diagonalises small matrices, for which several threads slow each other down. It gets one
thread, with which it is fastest, unless OPENBLAS_NUM_THREADS is set.

    python scripts/benchmarks/benchmark_relaxation.py --count 2000 --ase-count 10 Pt13 Pt20
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, NamedTuple

import click
from _options import COUNT, POSITIVE, check_formulas

if TYPE_CHECKING:
    from ase import Atoms

SEED = 30_000
FORMULAS = ("Pt10", "Pt13", "Pt20", "Pt38", "Cu6Au7")


class Measured(NamedTuple):
    """What one optimiser did: seconds and mean steps a structure, energies of the minima, eV."""

    count: int
    seconds: float
    steps: float
    converged: int
    energies: list[float]


def with_ase(structures: list[Atoms], optimizer: type, fmax: float, max_steps: int) -> Measured:
    """Relaxes one structure after the other with ASE."""
    from ase.calculators.emt import EMT

    steps, converged, energies = 0, 0, []
    began = time.perf_counter()
    for structure in structures:
        atoms = structure.copy()
        atoms.calc = EMT()
        with optimizer(atoms, logfile=None) as optimization:
            converged += bool(optimization.run(fmax=fmax, steps=max_steps))
            steps += optimization.get_number_of_steps()
        energies.append(atoms.get_potential_energy())
    seconds = time.perf_counter() - began
    count = len(structures)
    return Measured(count, seconds / count, steps / count, converged, energies)


def report(name: str, optimizer: str, result: Measured, ours: Measured) -> None:
    """Prints a line of the table."""
    same = len(result.energies)
    click.echo(
        f"{name:8} {optimizer:12} {result.count:6d} {result.converged / result.count:9.1%} "
        f"{result.steps:7.1f} {result.seconds * 1e3:12.3f} {result.seconds / ours.seconds:8.0f} "
        f"{min(result.energies):10.4f} (of {same})"
    )


@click.command()
@click.argument("formulas", nargs=-1, default=FORMULAS)
@click.option(
    "--count",
    type=COUNT,
    default=2000,
    show_default=True,
    help="Structures for tfgen.relax.",
)
@click.option(
    "--ase-count",
    type=COUNT,
    default=10,
    show_default=True,
    help="How many of them ASE relaxes.",
)
@click.option("--fmax", type=POSITIVE, default=0.01, show_default=True, help="eV/Å.")
@click.option("--max-steps", type=COUNT, default=2000, show_default=True)
@click.option("--seed", type=click.IntRange(min=0), default=SEED, show_default=True)
def main(
    formulas: tuple[str, ...], count: int, ase_count: int, fmax: float, max_steps: int, seed: int
) -> None:
    """Measure relaxation with EMT next to ASE."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # read when NumPy is first imported
    from tfgen._tensorflow import load_quietly

    load_quietly()
    import numpy as np
    from ase import Atoms
    from ase.calculators.emt import EMT
    from ase.optimize import BFGS, FIRE

    from tfgen.relaxation.relax import relax
    from tfgen.sampling.initial import random_structures
    from tfgen.structures.formulas import numbers_from_formula

    check_formulas(formulas)
    click.echo(
        f"{'cluster':8} {'optimiser':12} {'count':>6} {'converged':>9} {'steps':>7} "
        f"{'ms/structure':>12} {'ratio':>8} {'lowest/eV':>10}"
    )
    for formula in formulas:
        numbers = numbers_from_formula(formula)
        positions = random_structures(numbers, count, np.random.default_rng(seed))
        structures = [Atoms(numbers, positions=x) for x in positions]
        began = time.perf_counter()
        relax(structures[:1], fmax=fmax, max_steps=1)
        compilation = time.perf_counter() - began
        began = time.perf_counter()
        found = relax(structures, fmax=fmax, max_steps=max_steps)
        seconds = (time.perf_counter() - began) / count
        ours = Measured(
            count,
            seconds,
            float(found.steps.mean()),
            int(found.converged.sum()),
            found.energy[:ase_count].tolist(),
        )
        report(formula, "tfgen.relax", ours, ours)
        for optimizer in (BFGS, FIRE):
            result = with_ase(structures[:ase_count], optimizer, fmax, max_steps)
            report("", f"ASE {optimizer.__name__}", result, ours)
        change = 0.0
        for atoms, energy in zip(found.structures[:ase_count], found.energy, strict=False):
            atoms.calc = EMT()
            with BFGS(atoms, logfile=None) as optimization:
                optimization.run(fmax=fmax, steps=max_steps)
            change = max(change, abs(atoms.get_potential_energy() - energy))
        click.echo(
            f"{'':8} compiled in {compilation:.1f} s; lowest of all {found.energy.min():.4f} eV; "
            f"relaxing further with ASE's BFGS changes at most {change * 1e3:.2f} meV"
        )


if __name__ == "__main__":
    main()
