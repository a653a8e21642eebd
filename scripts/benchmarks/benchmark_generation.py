"""Measures generation on target, next to rivals: every stage, and what a verified hit costs.

For each case a model is trained on the training split of a data set, and structures are generated
for five targets, the 5, 25, 50, 75 and 95 % quantiles of the energy per atom of its training
structures of one composition. The same code assesses all methods:

- one shot: each structure relaxed once, nothing chosen by a calculation.
- chosen: up to 10 relaxations for a structure, those off target replaced.
- training: training structures, sampled at random.
- rattled: the training structures nearest to the target, rattled by 0.3 Å and relaxed.
- random: random structures, relaxed.
- paper (with --paper): the recipe of the source paper: its fingerprint, networks and inversion.

A verified hit is valid, equal to no training structure and to no hit before it for the same
target, and has the property within 0.01 eV/atom. Where the training structures are no minima
(pt10) the structures of "one shot", "chosen" and "paper" stay unrelaxed, and "relaxations" are
single calculations; there is one more rival then:

- halted: random structures, their relaxation halted where the energy is nearest to the target.

Hits of few structures say little of what one costs: "rattled", "random" and "halted", for which
calculations are all the work, continue for each target until there are 20 verified hits or `--most`
relaxations are spent. Their hit rates and other shares are of the first `count`, like all others'.

The NNP's single calculations are spread over the verified hits of the five targets, though
they serve all other targets, too.

    tfgen dataset build pt13 -o pt13.h5
    python scripts/benchmark_generation.py pt13.h5 --formula Pt13
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np

from tfgen._tensorflow import load_quietly

if TYPE_CHECKING:
    from ase import Atoms
    from generation_methods import Made, Method, Workshop

    from tfgen.datasets.storage import Dataset
    from tfgen.models.model import Model

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
TOLERANCE = 0.01  # eV/atom, of a hit
SAME_BASIN = 0.2  # Å, RMSD from raw to relaxed
# Of the generation; development uses other seeds.
SEED = 2_026_112
METHODS = ("one shot", "chosen", "training", "rattled", "random", "halted", "paper")


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How long rivals continue for each target.

    Attributes:
        hits: verified hits that are enough.
        relaxations: relaxations at most.
        batch: relaxations between two looks at the hits.
    """

    hits: int = 20
    relaxations: int = 2000
    batch: int = 200

    def next_batch(self, row: Row) -> int:
        """How many relaxations are to follow; none if there are enough."""
        if row.verified >= self.hits:
            return 0
        return max(0, min(self.batch, self.relaxations - row.relaxations))


@dataclass
class Row:
    """Figures of one method at one target; shares are of the first structures asked for."""

    target: float
    stages: dict[str, dict[str, float]]
    valid: float
    unique: float
    new: float
    basin: float
    seconds: float
    relaxations: int = 0
    calculations: float = 0.0
    verified: int = 0
    cpu: float = 0.0
    hits: list[Atoms] = field(default_factory=list)
    structures: list[Atoms] = field(default_factory=list)

    @property
    def per_hit(self) -> float:
        """Relaxations per verified hit."""
        return self.relaxations / self.verified if self.verified else np.inf


def displacement(a: Atoms, b: Atoms) -> float:
    """RMSD after the best rotation; atoms keep their places in the list."""
    x, y = (s.positions - s.positions.mean(axis=0) for s in (a, b))
    u, _, vt = np.linalg.svd(x.T @ y)
    u[:, -1] *= np.sign(np.linalg.det(u @ vt))
    return float(np.sqrt(((x @ u @ vt - y) ** 2).sum(axis=1).mean()))


def assess(made: Made, target: float, known: list[Atoms]) -> Row:
    """Shares and errors of what was made for a target."""
    from generation_methods import STAGES

    from tfgen.structures.similarity import equality
    from tfgen.structures.validity import valid

    sound = valid(made.structures)
    kept = [s for s, good in zip(made.structures, sound, strict=True) if good]
    unique, new = np.zeros(len(kept), bool), np.zeros(len(kept), bool)
    if kept:
        unique = equality.duplicates(kept) == np.arange(len(kept))
        new = equality.match(kept, known) < 0
    stages = {}
    for name in STAGES:
        energies = made.energies.get(name)
        if energies is None:
            stages[name] = dict.fromkeys(("mae", "bias", "hits"), np.nan)
            continue
        off = energies - target
        good = np.isfinite(off) & (sound if name == made.final else True)
        hit = good & (np.abs(np.where(good, off, np.inf)) <= TOLERANCE)
        stages[name] = {
            "mae": 1e3 * float(np.abs(off[good]).mean()) if good.any() else np.nan,
            "bias": 1e3 * float(off[good].mean()) if good.any() else np.nan,
            "hits": float(hit.mean()),
        }
    moved = [displacement(a, b) for a, b in zip(made.raw, made.structures, strict=True)]
    row = Row(
        target=target,
        stages=stages,
        valid=float(sound.mean()),
        unique=unique.sum() / max(1, len(kept)),
        new=(unique & new).sum() / max(1, unique.sum()),
        basin=float(np.mean(np.array(moved) < SAME_BASIN)),
        seconds=made.seconds / len(made.structures),
        structures=kept,
    )
    add(row, made, known)
    return row


def add(row: Row, made: Made, known: list[Atoms]) -> None:
    """Adds what was spent and the verified hits to a row."""
    from tfgen.structures.similarity import equality
    from tfgen.structures.validity import valid

    near = np.abs(np.nan_to_num(made.energies[made.final], nan=np.inf) - row.target) <= TOLERANCE
    hits = [made.structures[i] for i in np.flatnonzero(near & valid(made.structures))]
    if hits:
        old = equality.match(hits, known) >= 0
        everyone = [*row.hits, *(s for s, seen in zip(hits, old, strict=True) if not seen)]
        first = equality.duplicates(everyone) == np.arange(len(everyone))
        row.hits = [s for s, own in zip(everyone, first, strict=True) if own]
    row.verified = len(row.hits)
    row.relaxations += made.relaxations
    row.calculations += made.calculations
    row.cpu += made.cpu


def timed(method: Method, *arguments: float) -> Made:
    """What a method made, with its times if it does not say them itself."""
    began, cpu = time.perf_counter(), time.process_time()
    made = method(*arguments)  # type: ignore[arg-type]
    if not made.seconds:
        made.seconds, made.cpu = time.perf_counter() - began, time.process_time() - cpu
    return made


def rows_of(
    name: str,
    method: Method,
    targets: list[float],
    count: int,
    workshop: Workshop,
    effort: Effort,
) -> Iterator[Row]:
    """A row for each target."""
    method(targets[2], 99, min(count, 8), 0)  # compiles
    for place, target in enumerate(targets):
        row = assess(timed(method, target, place, count, 0), target, workshop.structures)
        batch = 1
        while name in workshop.endless and (size := effort.next_batch(row)):
            add(row, timed(method, target, place, size, batch), workshop.structures)
            batch += 1
        yield row


def number(value: float, form: str) -> str:
    """A number or, where there is none, a dash; in the width of the form."""
    width = int(form.lstrip("+").split(".")[0])
    return format(value, form) if np.isfinite(value) else f"{'-':>{width}}"


HEAD = (
    f"\n{'':<9}{'target':>8} |{'decoded':^12}|{'reconstructed':^19}|{'relaxed':^19}|\n"
    f"{'':<9}{'eV/atom':>8} |{'MAE':>6}{'hits':>6}|{'MAE':>6}{'bias':>7}{'hits':>6}|"
    f"{'MAE':>6}{'bias':>7}{'hits':>6}| valid uniq  new basin s/struct| relax. verif. per hit"
)


def line(name: str, row: Row) -> str:
    """A row as text."""
    cells = []
    for stage, r in row.stages.items():
        bias = "" if stage == "decoded" else number(r["bias"], "+7.1f")
        cells.append(number(r["mae"], "6.1f") + bias + number(r["hits"], "6.0%"))
    return (
        f"{name:<9}{row.target:8.4f} |{'|'.join(cells)}|{row.valid:6.0%}{row.unique:5.0%}"
        f"{row.new:5.0%}{row.basin:6.0%}{row.seconds:9.3f}|{row.relaxations:7d}"
        f"{row.verified:7d}{number(row.per_hit, '8.2f')}"
    )


def summary(
    tables: dict[str, list[Row]],
    workshop: Workshop,
    single_points: int,
    length: float,
    test: list[Atoms],
) -> str:
    """One line for each method."""
    from tfgen.structures.similarity.equality import match

    head = (
        f"{'':<9} {'hits':^11}|{'relaxations':^43}|{'calculations':^24}| hits per  test split\n"
        f"{'':<9} {'mean':>5} {'worst':>5}|{'all':>6} {'verified':>8} {'per hit':>7} "
        f"{'5 %, 95 %':>12} {'total':>6}|{'a relax.':>8} {'per hit':>7} {'total':>7}"
        "| CPU-min.     covered"
    )
    lines = [head]
    for name, rows in tables.items():
        hits = [
            r.stages[workshop.final if name not in workshop.relaxes else "relaxed"]["hits"]
            for r in rows
        ]
        total, spent = sum(r.verified for r in rows), sum(r.relaxations for r in rows)
        calculations, cpu = sum(r.calculations for r in rows), sum(r.cpu for r in rows)
        learned = single_points if name in ("one shot", "chosen") else 0
        # Where nothing is relaxed, "relaxations" are single calculations.
        each = length if workshop.final == "relaxed" else 1.0
        cost = [spent, spent + learned / each, calculations, calculations + learned]
        relax, relax_all, single, single_all = (c / total if total else np.inf for c in cost)
        ends = f"{number(rows[0].per_hit, '5.1f')}, {number(rows[-1].per_hit, '5.1f')}"
        made = [s for r in rows for s in r.structures]
        covered = float(np.mean(match(test, made) >= 0)) if test and made else 0.0
        lines.append(
            f"{name:<9} {np.mean(hits):5.0%} {min(hits):5.0%}|{spent:6d} {total:8d} "
            f"{number(relax, '7.2f')} {ends:>12} {number(relax_all, '6.2f')}|"
            f"{number(calculations / spent if spent else np.inf, '8.1f')} "
            f"{number(single, '7.0f')} {number(single_all, '7.0f')}|"
            f"{number(60 * total / cpu if cpu else np.inf, '9.0f')}{covered:12.0%}"
        )
    return "\n".join(lines)


def model_of(dataset: Dataset, folder: Path | None, epochs: int, seed: int) -> Model:
    """Loads a model or trains it, and says what it cost."""
    from tfgen.models.model import Model
    from tfgen.models.training import train

    began, cpu = time.perf_counter(), time.process_time()
    if folder is not None and folder.exists():
        model = Model.load(folder)
    else:
        model = train(dataset, epochs=epochs, seed=seed, progress=True)
        if folder is not None:
            model.save(folder)
    learned = model.provenance["nnp"] or {}
    click.echo(
        f"model of {model.provenance['epochs']} epochs in {time.perf_counter() - began:.0f} s "
        f"({time.process_time() - cpu:.0f} of CPU); NNP from "
        f"{learned.get('single_points', 0)} single calculations, off by "
        f"{1e3 * learned.get('energy_error', np.nan):.1f} meV/atom where held out"
    )
    return model


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--formula", required=True, help="Composition to generate.")
@click.option("--count", default=40, show_default=True, help="Structures for each target.")
@click.option(
    "--most", default=Effort.relaxations, show_default=True,
    help="Relaxations at most for each target, of rivals that continue to enough hits.",
)  # fmt: skip
@click.option("--epochs", default=300, show_default=True, help="Of the training.")
@click.option("--seed", default=1, show_default=True, help="Of the training.")
@click.option(
    "--generation-seed", default=SEED, show_default=True,
    help="Of what is generated; take another for development.",
)  # fmt: skip
@click.option(
    "--model", "model_folder", type=click.Path(path_type=Path),
    help="Takes the model from here; trains it and saves it here if there is none.",
)  # fmt: skip
@click.option(
    "--only", multiple=True, type=click.Choice(METHODS), help="Of the methods; may be repeated."
)
@click.option("--paper", is_flag=True, help="The source paper's recipe, too: some minutes.")
def main(
    file: Path,
    formula: str,
    count: int,
    most: int,
    epochs: int,
    seed: int,
    generation_seed: int,
    model_folder: Path | None,
    only: tuple[str, ...],
    paper: bool,
) -> None:
    """Benchmark generation on FILE, a data set with EMT's energies."""
    load_quietly()
    from generation_methods import Workshop

    from tfgen.datasets.storage import Dataset
    from tfgen.structures.formulas import formula_of, numbers_from_formula
    from tfgen.structures.properties import ENERGY_PER_ATOM

    try:
        numbers = numbers_from_formula(formula)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    formula = formula_of(numbers)
    dataset = Dataset.load(file)

    def of_formula(part: Dataset) -> list[int]:
        return [i for i, s in enumerate(part.structures) if formula_of(s.numbers) == formula]

    training, testing = dataset.select("train"), dataset.select("test")
    rows = of_formula(training)
    if not rows:
        raise click.ClickException(f"no training structure is {formula}")
    known = [training.structures[i] for i in rows]
    test = [testing.structures[i] for i in of_formula(testing)]
    energies = training.properties[ENERGY_PER_ATOM][rows]
    targets = np.quantile(energies, QUANTILES).tolist()
    click.echo(
        f"{file.name}: {len(training)} training structures, {len(energies)} of {formula}; "
        f"{count} structures for each target"
    )
    model = model_of(dataset, model_folder, epochs, seed)
    workshop = Workshop(model, known, energies, numbers, generation_seed)
    methods = workshop.methods()
    if paper and (not only or "paper" in only):
        methods["paper"] = workshop.paper(seed)
    click.echo(f"structures of our own are assessed as {workshop.final}\n{HEAD}")
    tables: dict[str, list[Row]] = {}
    for name, method in methods.items():
        if only and name not in only:
            continue
        tables[name] = []
        for row in rows_of(name, method, targets, count, workshop, Effort(relaxations=most)):
            click.echo(line(name, row))
            tables[name].append(row)
    random = workshop.random(targets[2], 99, 40, 0)
    length = random.calculations / random.relaxations
    single_points = (model.provenance["nnp"] or {}).get("single_points", 0)
    click.echo(
        "\n(MAE and bias in meV/atom. Total: with the NNP's single calculations; as "
        f"relaxations, of {length:.0f} calculations each, as those of random structures.)\n\n"
        + summary(tables, workshop, single_points, length, test)
    )


if __name__ == "__main__":
    main()
