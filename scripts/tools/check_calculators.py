"""Runs the whole path with each calculator of ASE's kind that is installed, and prints a table.

A small set of clusters is built by a recipe with the calculator, a model is trained, structures are
generated, relaxed and verified, all with the calculator in worker processes. Then each structure
that came out is computed by a calculator made for it alone. The columns are

- seconds: of one calculation of energy and forces, in a worker process;
- minima: structures of the data set;
- NNP: error of the neural-network potential on calculations held out, eV/atom, and whether the
  model uses it;
- statuses: of the structures generated;
- calculations: of all steps;
- difference: the largest between an energy that tfgen reports and that of a fresh calculator,
  eV/atom.

    python scripts/check_calculators.py --workers 2
    python scripts/check_calculators.py chgnet
"""

from __future__ import annotations

import importlib.util
import json
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ase import Atoms

COUNT = click.IntRange(min=1)


class Case(NamedTuple):
    """A calculator, and clusters that it is asked for."""

    package: str
    path: str
    arguments: dict[str, Any]
    formula: str
    fmax: float
    vacuum: float = 0.0


CASES = {
    "ase": Case("ase", "ase.calculators.emt:EMT", {}, "Pt9", 0.01),
    "tblite": Case("tblite", "tblite.ase:TBLite", {"method": "GFN2-xTB", "verbosity": 0}, "Si7",
                   0.05),
    "chgnet": Case("chgnet", "chgnet.model.dynamics:CHGNetCalculator", {"use_device": "cpu"},
                   "Pt9", 0.05, 6.0),
    "sevenn": Case("sevenn", "sevenn.calculator:SevenNetCalculator",
                   {"model": "7net-0", "device": "cpu"}, "Pt9", 0.05, 6.0),
}  # fmt: skip


def recipe_of(case: Case, count: int, folder: Path) -> Path:
    """Writes the recipe of a small data set."""
    arguments = ", ".join(f"{k} = {json.dumps(v)}" for k, v in case.arguments.items())
    path = folder / "recipe.toml"
    path.write_text(
        f'name = "small"\n[sample]\nformula = "{case.formula}"\ncount = {count}\n'
        f'[relax]\npotential = "{case.path}"\narguments = {{ {arguments} }}\n'
        f"vacuum = {case.vacuum}\nfmax = {case.fmax}\nmax_steps = 300\nrattle = 0.0\n",
        "utf-8",
    )
    return path


def largest_difference(structures: Sequence[Atoms], case: Case) -> float:
    """Compares energies in the records with those of calculators made for one structure each."""
    from tfgen.potentials.ase import AsePotential

    differences = [0.0]
    for atoms in structures:
        reported = atoms.info["relaxed"]["energy_per_atom"]
        potential = AsePotential.from_path(case.path, case.arguments, vacuum=case.vacuum)
        fresh = potential.compute(atoms)["energy"][0]
        if reported is not None:
            differences.append(abs(reported - fresh / len(atoms)))
    return max(differences)


def run(case: Case, options: dict[str, int], folder: Path) -> str:
    """Runs the whole path and returns the row of the table."""
    import tfgen

    workers, count = options["workers"], options["count"]
    dataset = tfgen.build(recipe_of(case, count, folder), folder / "set.h5", workers=workers)
    middle = float(sorted(dataset.properties["energy_per_atom"])[len(dataset) // 2])
    with tfgen.WorkerPotential(
        case.path, case.arguments, vacuum=case.vacuum, workers=workers, time_limit=600.0
    ) as potential:
        began = time.perf_counter()
        potential.compute(dataset.structures)
        seconds = (time.perf_counter() - began) * workers / len(dataset)
        model = tfgen.train(
            dataset,
            epochs=options["epochs"],
            nnp=tfgen.NNPSettings(min_calculations=options["calculations"]),
            potential=potential,
        )
        settings = tfgen.GenerationSettings(candidates=2, fmax=case.fmax, max_steps=300)
        generated = tfgen.generate(
            model, case.formula, {"energy_per_atom": middle}, options["structures"],
            potential=potential, settings=settings,
        )  # fmt: skip
        spent = potential.calculations
    learned = model.provenance["nnp"] or {}
    statuses = Counter(atoms.info["status"] for atoms in generated)
    verified = sum(atoms.info["verified"] for atoms in generated)
    error = learned.get("energy_error")
    used = "used" if model.nnp is not None else "not used"
    return (
        f"{seconds:8.3f} {len(dataset):6d} {'-' if error is None else f'{error:.4f}':>7} {used:8} "
        f"{spent:12d} {largest_difference(generated, case):10.1e} {verified:8d}  "
        + ", ".join(f"{number} {status}" for status, number in statuses.most_common())
    )


@click.command()
@click.argument("names", nargs=-1, type=click.Choice(list(CASES)))
@click.option("--workers", type=COUNT, default=1, show_default=True)
@click.option("--count", type=COUNT, default=40, show_default=True, help="Random structures.")
@click.option("--calculations", type=COUNT, default=600, show_default=True, help="For the NNP.")
@click.option("--structures", type=COUNT, default=6, show_default=True, help="To generate.")
@click.option("--epochs", type=COUNT, default=100, show_default=True, help="Of the CVAE.")
def main(names: tuple[str, ...], **options: int) -> None:
    """Run the whole path with the calculators NAMES, or with all that are installed."""
    from tfgen._tensorflow import load_quietly

    load_quietly()
    missing = [n for n, case in CASES.items() if importlib.util.find_spec(case.package) is None]
    if asked := [name for name in names if name in missing]:
        raise click.ClickException(f"{', '.join(asked)} is not installed")
    click.echo(
        f"{'calculator':10} {'cluster':8} {'seconds':>8} {'minima':>6} {'NNP':>7} {'':8} "
        f"{'calculations':>12} {'difference':>10} {'verified':>8}  statuses"
    )
    for name, case in CASES.items():
        if name in missing or (names and name not in names):
            continue
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            row = run(case, options, Path(folder))
        click.echo(f"{name:10} {case.formula:8} {row}")
    if missing and not names:
        click.echo(f"not installed: {', '.join(missing)}")


if __name__ == "__main__":
    main()
