"""Measures generation for a property that is not the energy: the HOMO-LUMO gap of Si8 in GFN2-xTB.

A data set is built by a recipe, a model is trained on energy and gap, and structures are generated
for quantiles of the gap, relaxed and judged. Then every structure is judged again by a calculator
made for it alone: the hits that tfgen reports and those that are calculated must be the same. The
rival is a random structure, relaxed with the same potential. Each row of the table has

- hits: structures that are converged and, by the fresh calculators, within the tolerance;
- reported: the same by tfgen's records; difference: the largest between the two values of one
  structure, in the property's unit;
- raw: structures that were within the tolerance before they were relaxed;
- new: hits that are valid, and equal to no training structure and to no other;
- calculations: of all structures asked for, and for each new hit;
- random, training: share of random relaxed structures, and of the training set, that are hits, and
  the calculations that a random one takes.

Data set, model and structures stay in the folder, and what is there is not made again.

    python scripts/benchmark_property.py --folder property --workers 2
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click
from _options import COUNT, POSITIVE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ase import Atoms

    import tfgen
    from tfgen.targets import Target

HERE = Path(__file__).resolve().parent


class Judged(NamedTuple):
    """What fresh calculators say of structures: [n] values, NaN where one failed."""

    values: Any
    reported: Any
    converged: Any


def build(recipe: Path, folder: Path, compute: dict[str, str], workers: int) -> tfgen.Dataset:
    """Returns the data set, which is built if it is not there."""
    import tfgen

    path = folder / "set.h5"
    if path.exists():
        return tfgen.Dataset.load(path)
    return tfgen.build(recipe, path, workers=workers, compute=compute, progress=True)


def train(
    dataset: tfgen.Dataset, folder: Path, name: str, potential: tfgen.WorkerPotential, epochs: int
) -> tfgen.Model:
    """Returns the model, which is trained if it is not there."""
    import tfgen

    path = folder / "model"
    if path.exists():
        return tfgen.Model.load(path)
    model = tfgen.train(
        dataset, ["energy_per_atom", name], epochs=epochs, potential=potential, progress=True
    )
    model.save(path)
    return model


def judge(structures: Sequence[Atoms], name: str, relax: Any, function: str) -> Judged:
    """Calculates each structure by a calculator of its own."""
    import numpy as np

    from tfgen.potentials.ase import AsePotential
    from tfgen.potentials.evaluation import evaluate
    from tfgen.potentials.properties import make_functions

    functions = make_functions({name: function})
    values = [
        evaluate(
            AsePotential.from_path(relax.potential, relax.arguments), [atoms], functions
        ).values[name][0]
        for atoms in structures
    ]
    reported = [atoms.info["relaxed"][name] for atoms in structures]
    return Judged(
        values=np.array(values),
        reported=np.array([np.nan if value is None else value for value in reported]),
        converged=np.array([atoms.info["status"] == "converged" for atoms in structures]),
    )


def sample_random(
    formula: str, count: int, potential: tfgen.WorkerPotential, compute: dict[str, str], fmax: float
) -> tuple[Any, int]:
    """Relaxes random structures.

    Returns:
        Their values, [count], NaN where one failed, and the number of calculations.
    """
    import numpy as np
    from ase import Atoms

    import tfgen
    from tfgen.potentials.evaluation import evaluate
    from tfgen.potentials.properties import make_functions
    from tfgen.sampling.initial import random_structures
    from tfgen.structures.formulas import numbers_from_formula

    numbers = numbers_from_formula(formula)
    positions = random_structures(numbers, count, np.random.default_rng(1))
    structures = [Atoms(numbers, positions=x) for x in positions]
    relaxed = tfgen.relax(structures, potential, fmax=fmax, max_steps=300, progress=True)
    found = evaluate(potential, relaxed.structures, make_functions(compute))
    (values,) = found.values.values()
    values = np.where(relaxed.converged, values, np.nan)
    return values, int(relaxed.calculations.sum() + found.calculations.sum())


def print_row(target: Target, structures: Sequence[Atoms], judged: Judged, rival: Any) -> None:
    """Prints the row of one target."""
    import numpy as np

    random, cost, training = rival
    hits = judged.converged & target.hit(judged.values)
    reported = judged.converged & target.hit(judged.reported)
    raw = [atoms.info["reconstructed"][target.name] for atoms in structures]
    raw_hits = [value is not None and bool(target.hit(value)) for value in raw]
    new = sum(atoms.info["verified"] for atoms in structures)
    spent = sum(atoms.info["calculations"] for atoms in structures)
    chance = float(target.hit(random).mean())
    difference = np.nanmax(np.abs(judged.values - judged.reported), initial=0.0)
    click.echo(
        f"{target.low:8.3f} {hits.sum():4d} of {len(hits):<3d} {reported.sum():8d} "
        f"{difference:10.1e} {sum(raw_hits):4d} {new:4d} {spent:12d} "
        f"{spent / new if new else float('inf'):8.0f} {chance:7.1%} "
        f"{cost / len(random) / chance if chance else float('inf'):8.0f} "
        f"{float(target.hit(training).mean()):9.1%}"
    )


@click.command()
@click.option("--folder", type=click.Path(path_type=Path), default=Path("property"),
              show_default=True, help="Keeps data set, model and structures.")  # fmt: skip
@click.option("--recipe", type=click.Path(path_type=Path, exists=True), default=HERE / "si8.toml",
              help="Of the data set; one composition.  [default: Si8 in GFN2-xTB]")  # fmt: skip
@click.option("--property", "name", default="gap", show_default=True)
@click.option("--function", default="xtb_gap:gap", show_default=True, metavar="MODULE:FUNCTION")
@click.option("--tolerance", type=POSITIVE, default=0.04, show_default=True)
@click.option("--quantile", "quantiles", type=click.FloatRange(0, 1), multiple=True,
              default=(0.05, 0.5, 0.95), show_default=True)  # fmt: skip
@click.option("--count", type=COUNT, default=20, show_default=True, help="For each quantile.")
@click.option("--candidates", type=COUNT, default=10, show_default=True)
@click.option("--random", "random_count", type=COUNT, default=100, show_default=True)
@click.option("--epochs", type=COUNT, default=300, show_default=True)
@click.option("--fmax", type=POSITIVE, default=0.05, show_default=True, help="eV/Å.")
@click.option("--workers", type=COUNT, default=1, show_default=True)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
def main(
    folder: Path, recipe: Path, name: str, function: str, tolerance: float,
    quantiles: tuple[float, ...], count: int, candidates: int, random_count: int, epochs: int,
    fmax: float, workers: int, seed: int,
) -> None:  # fmt: skip
    """Measure generation for a property that a function computes."""
    from tfgen._tensorflow import load_quietly

    load_quietly()
    import numpy as np

    import tfgen
    from tfgen.datasets.recipe import load_recipe
    from tfgen.generation.records import read_generated, write
    from tfgen.targets import Target

    folder.mkdir(exist_ok=True)
    relax = load_recipe(recipe).relax
    dataset = build(recipe, folder, {name: function}, workers)
    training = dataset.select("train").properties[name]
    with tfgen.WorkerPotential(relax.potential, relax.arguments, workers=workers,
                               time_limit=600.0) as potential:  # fmt: skip
        model = train(dataset, folder, name, potential, epochs)
        (formula,) = model.formulas
        random, cost = sample_random(formula, random_count, potential, {name: function}, fmax)
        learned = (model.provenance["nnp"] or {}).get("single_points", 0)
        click.echo(
            f"{formula}: {len(dataset)} structures, {len(training)} to train on; "
            f"{learned} single points for the NNP; a hit is within {tolerance:g}"
        )
        click.echo(
            f"{name:>8} {'hits':>11} {'reported':>8} {'difference':>10} {'raw':>4} {'new':>4} "
            f"{'calculations':>12} {'each new':>8} {'random':>7} {'each':>8} {'training':>9}"
        )
        settings = tfgen.GenerationSettings(candidates=candidates, fmax=fmax, max_steps=300)
        for quantile in quantiles:
            value = float(np.quantile(training, quantile))
            path = folder / f"{quantile:g}.extxyz"
            if path.exists():
                generated = read_generated(path)
            else:
                generated = tfgen.generate(
                    model, formula, {name: value}, count, seed=seed, potential=potential,
                    compute={name: function}, tolerance={name: tolerance}, settings=settings,
                    progress=True,
                )  # fmt: skip
                write(generated, path)
            judged = judge(generated, name, relax, function)
            target = Target.of(name, value, tolerance)
            print_row(target, generated, judged, (random, cost, training))


if __name__ == "__main__":
    main()
