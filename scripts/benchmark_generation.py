"""Generation on target, next to its rivals: every stage, and what a verified hit costs.

For each case a model is trained on the training split of a data set, and structures are generated
for five targets, the 5, 25, 50, 75 and 95 % quantiles of the energy per atom of its training
structures of one composition. All methods are judged by the same code:

- one shot: each structure relaxed once, nothing chosen by a calculation.
- chosen: up to 10 relaxations for a structure, those off target replaced.
- draws: training structures, drawn at random.
- rattled: the training structures nearest to the target, rattled by 0.3 Å and relaxed.
- packings: random packings, relaxed.
- paper (with --paper): the recipe of the source paper: its fingerprint, networks and inversion.

A verified hit is valid, equal to no training structure and to none before it for the same target,
and has the property within 0.01 eV/atom. Where the training structures are no minima (pt10) the
structures of "one shot" and "chosen" stay unrelaxed, and "relaxations" are single calculations.

    tfgen dataset build pt13 -o pt13.h5
    python scripts/benchmark_generation.py pt13.h5 --formula Pt13 --count 40
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np

from tfgen._tensorflow import load_quietly

if TYPE_CHECKING:
    from ase import Atoms

    from tfgen.datasets.storage import Dataset

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
TOLERANCE = 0.01  # eV/atom, of a hit
RATTLE = 0.3  # Å, standard deviation of a coordinate
SAME_BASIN = 0.2  # Å, RMSD from raw to relaxed
SEED = 90_000  # of what is generated; tuning uses others
STAGES = ("decoded", "reconstructed", "relaxed")


@dataclass
class Made:
    """What a method made for one target.

    Attributes:
        structures: in their final state.
        raw: before relaxation.
        energies: stage -> [n], eV/atom; a stage may be missing.
        calculations: relaxations spent (single calculations where nothing is relaxed).
        seconds, cpu: elapsed, and of the processors.
    """

    structures: list[Atoms]
    raw: list[Atoms]
    energies: dict[str, np.ndarray]
    calculations: int
    seconds: float = 0.0
    cpu: float = 0.0


@dataclass
class Tally:
    """Sums over the targets of one method."""

    hits: dict[str, list[float]] = field(default_factory=dict)
    verified: list[int] = field(default_factory=list)
    calculations: list[int] = field(default_factory=list)
    structures: list[Atoms] = field(default_factory=list)
    cpu: float = 0.0


def displacement(a: Atoms, b: Atoms) -> float:
    """RMSD after the best turn; atoms keep their places in the list."""
    x, y = (s.positions - s.positions.mean(axis=0) for s in (a, b))
    u, _, vt = np.linalg.svd(x.T @ y)
    u[:, -1] *= np.sign(np.linalg.det(u @ vt))
    return float(np.sqrt(((x @ u @ vt - y) ** 2).sum(axis=1).mean()))


def per_atom(structures: Sequence[Atoms]) -> np.ndarray:
    """EMT's energies, eV/atom, of structures of one size."""
    from tfgen.potentials.emt import EMT

    return EMT().compute(structures)["energy"] / len(structures[0])


def relaxed(raw: list[Atoms]) -> Made:
    """Relaxes what a rival made."""
    from tfgen.relaxation import relax

    found = relax(raw)
    energies = {"reconstructed": per_atom(raw), "relaxed": found.energy / len(raw[0])}
    return Made(found.structures, raw, energies, len(raw))


def methods(
    dataset: Dataset,
    formula: str,
    count: int,
    *,
    epochs: int,
    seed: int,
    folder: Path | None,
    paper: bool,
) -> dict[str, Callable[[float, int], Made]]:
    """Returns name -> method of (target, number of the target)."""
    from ase import Atoms

    from tfgen.datasets.sampling import pack
    from tfgen.generation import generate
    from tfgen.model import Model
    from tfgen.properties import ENERGY_PER_ATOM
    from tfgen.records import raw_structures
    from tfgen.structures import formula_of, numbers_from_formula
    from tfgen.training import train

    training = dataset.select("train")
    numbers = numbers_from_formula(formula)
    own = [i for i, s in enumerate(training.structures) if formula_of(s.numbers) == formula]
    structures = [training.structures[i] for i in own]
    known = training.properties[ENERGY_PER_ATOM][own]
    began, cpu = time.perf_counter(), time.process_time()
    if folder is not None and folder.exists():
        model = Model.load(folder)
    else:
        model = train(dataset, epochs=epochs, seed=seed, progress=True)
        if folder is not None:
            model.save(folder)
    learned = model.provenance["landscape"] or {}
    click.echo(
        f"model in {time.perf_counter() - began:.0f} s ({time.process_time() - cpu:.0f} of CPU); "
        f"landscape from {learned.get('single_points', 0)} single calculations, off by "
        f"{1e3 * learned.get('energy_error', np.nan):.1f} meV/atom where held out"
    )

    def ours(candidates: int) -> Callable[[float, int], Made]:
        def run(target: float, place: int) -> Made:
            made = generate(
                model,
                formula,
                {ENERGY_PER_ATOM: target},
                count,
                seed=SEED + place,
                relax=model.minima,
                candidates=candidates,
            )
            energies = {
                stage: np.array([np.nan if v is None else v for v in column])
                for stage in STAGES
                if (column := [a.info[stage].get(ENERGY_PER_ATOM) for a in made])
                and (model.minima or stage != "relaxed")
            }
            raw = raw_structures(made)
            return Made(made, raw, energies, sum(a.info["candidates"] for a in made))

        return run

    def draws(_: float, place: int) -> Made:
        picked = np.random.default_rng([SEED, place]).integers(len(own), size=count)
        chosen = [structures[i] for i in picked]
        return Made(chosen, chosen, {"relaxed": known[picked]}, 0)

    def rattled(target: float, place: int) -> Made:
        rng = np.random.default_rng([SEED, place])
        nearest = np.resize(np.argsort(np.abs(known - target)), count)
        raw = [structures[i].copy() for i in nearest]
        for atoms in raw:
            atoms.positions += RATTLE * rng.standard_normal(atoms.positions.shape)
        return relaxed(raw)

    def packings(_: float, place: int) -> Made:
        rng = np.random.default_rng([SEED, place])
        return relaxed([Atoms(numbers, positions=x) for x in pack(numbers, count, rng)])

    result = {
        "one shot": ours(1),
        "chosen": ours(10),
        "draws": draws,
        "rattled": rattled,
        "packings": packings,
    }
    if paper:
        result["paper"] = _paper(dataset, numbers, count, seed)
    return result


def _paper(
    dataset: Dataset, numbers: np.ndarray, count: int, seed: int
) -> Callable[[float, int], Made]:
    from ase import Atoms
    from paper_inversion import invert
    from paper_network import fit

    from tfgen.fingerprint import Fingerprint

    training = dataset.select("train")
    fingerprint = Fingerprint.preset("fung2022", sorted({*Atoms(numbers).get_chemical_symbols()}))
    totals = training.properties["energy_per_atom"] * len(numbers)
    zero = totals.min() - 1.0  # its networks want energies of a few units
    networks = fit(fingerprint.create(training.structures), totals - zero, seed=seed)

    def run(target: float, place: int) -> Made:
        drawn = networks.sample(target * len(numbers) - zero, count, SEED + place)
        decoded = (networks.energies(drawn) + zero) / len(numbers)
        found = invert(fingerprint, drawn, numbers, seed=SEED + place)
        raw = [Atoms(numbers, positions=x) for x in found.positions]
        made = relaxed(raw)
        made.energies["decoded"] = decoded
        return made

    return run


def judge(
    made: Made, target: float, library: list[Atoms], tally: Tally, final: str
) -> dict[str, float]:
    """Figures of one method at one target; adds to the tally."""
    from tfgen import similarity
    from tfgen.validity import valid

    stage = final if final in made.energies else "relaxed"
    is_valid = valid(made.structures)
    fine = np.flatnonzero(is_valid)
    kept = [made.structures[i] for i in fine]
    unique, new = np.zeros(len(is_valid), bool), np.zeros(len(is_valid), bool)
    if kept:
        unique[fine] = similarity.duplicates(kept) == np.arange(len(kept))
        new[fine] = similarity.match(kept, library) < 0
    row: dict[str, float] = {}
    for name in STAGES:
        energies = made.energies.get(name)
        if energies is None:
            row[f"{name} mae"] = row[f"{name} hits"] = row[f"{name} bias"] = np.nan
            continue
        off = energies - target
        good = np.isfinite(off) & (is_valid if name == stage else True)
        hit = good & (np.abs(np.nan_to_num(off, nan=np.inf)) <= TOLERANCE)
        row[f"{name} mae"] = float(np.abs(off[good]).mean()) if good.any() else np.nan
        row[f"{name} bias"] = float(off[good].mean()) if good.any() else np.nan
        row[f"{name} hits"] = float(hit.mean())
        tally.hits.setdefault(name, []).append(float(hit.mean()))
        if name == stage:
            verified = int((hit & unique & new).sum())
    moved = [displacement(a, b) for a, b in zip(made.raw, made.structures, strict=True)]
    tally.verified.append(verified)
    tally.calculations.append(made.calculations)
    tally.structures += kept
    tally.cpu += made.cpu
    row.update(
        {
            "valid": float(is_valid.mean()),
            "unique": unique.sum() / max(1, len(kept)),
            "new": (unique & new).sum() / max(1, unique.sum()),
            "basin kept": float(np.mean(np.array(moved) < SAME_BASIN)),
            "per hit": made.calculations / verified if verified else np.inf,
            "verified": verified,
            "s": made.seconds / len(made.structures),
        }
    )
    return row


def number(value: float, form: str) -> str:
    """A number or, where there is none, a dash."""
    return format(value, form) if np.isfinite(value) else "-"


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--formula", required=True, help="Composition to generate.")
@click.option("--count", default=40, show_default=True, help="Structures for each target.")
@click.option("--epochs", default=300, show_default=True, help="Of the training.")
@click.option("--seed", default=1, show_default=True, help="Of the training.")
@click.option(
    "--model", "model_folder", type=click.Path(path_type=Path),
    help="Takes the model from here; trains it and saves it here if there is none.",
)  # fmt: skip
@click.option("--only", multiple=True, help="Of the methods; may be repeated.")
@click.option("--paper", is_flag=True, help="The source paper's recipe, too: minutes to an hour.")
def main(
    file: Path,
    formula: str,
    count: int,
    epochs: int,
    seed: int,
    model_folder: Path | None,
    only: tuple[str, ...],
    paper: bool,
) -> None:
    """Benchmark generation on FILE, a data set with EMT's energies."""
    load_quietly()
    from tfgen.datasets.storage import Dataset
    from tfgen.properties import ENERGY_PER_ATOM
    from tfgen.similarity import match
    from tfgen.structures import formula_of, numbers_from_formula

    dataset = Dataset.load(file)
    formula = formula_of(numbers_from_formula(formula))
    split = {}
    for name in ("train", "test"):
        part = dataset.select(name)
        rows = [i for i, s in enumerate(part.structures) if formula_of(s.numbers) == formula]
        split[name] = [part.structures[i] for i in rows]
        if name == "train":
            energies = part.properties[ENERGY_PER_ATOM][rows]
    if not split["train"]:
        raise click.ClickException(f"no training structure is {formula}")
    forces = [np.linalg.norm(f, axis=1).max() for f in _forces(split["train"])]
    final = "relaxed" if np.mean(np.array(forces) <= 0.1) >= 0.8 else "reconstructed"
    targets = np.quantile(energies, QUANTILES)
    click.echo(
        f"{file.name}: {len(dataset.select('train'))} training structures, {len(energies)} of "
        f"{formula}; {count} structures for each target; judged as {final}\n"
    )
    tried = methods(
        dataset, formula, count, epochs=epochs, seed=seed, folder=model_folder, paper=paper
    )
    tried = {name: method for name, method in tried.items() if not only or name in only}
    click.echo(
        f"\n{'':<9}{'target':>8} |{'decoded':^12}|{'reconstructed':^19}|{'relaxed':^19}|\n"
        f"{'':<9}{'eV/atom':>8} |{'MAE':>6}{'hits':>6}|{'MAE':>6}{'bias':>7}{'hits':>6}|"
        f"{'MAE':>6}{'bias':>7}{'hits':>6}| valid uniq  new basin  calc. verif. per hit s/struct"
    )
    tallies: dict[str, Tally] = {}
    for name, method in tried.items():
        tally = tallies[name] = Tally()
        method(float(targets[2]), 99)  # compiles
        for place, target in enumerate(targets.tolist()):
            began, cpu = time.perf_counter(), time.process_time()
            made = method(target, place)
            made.seconds, made.cpu = time.perf_counter() - began, time.process_time() - cpu
            r = judge(made, target, split["train"], tally, final)
            stages = "|".join(
                f"{number(1e3 * r[f'{s} mae'], '6.1f')!s:>6}"
                + ("" if s == "decoded" else f"{number(1e3 * r[f'{s} bias'], '+7.1f')!s:>7}")
                + f"{number(r[f'{s} hits'], '6.0%')!s:>6}"
                for s in STAGES
            )
            click.echo(
                f"{name:<9}{target:8.4f} |{stages}|{r['valid']:6.0%}{r['unique']:5.0%}"
                f"{r['new']:5.0%}{r['basin kept']:6.0%}{made.calculations:7d}{r['verified']:7.0f}"
                f"{number(r['per hit'], '8.2f')!s:>8}{r['s']:9.3f}"
            )
    click.echo(
        "\n(MAE and bias in meV/atom)\n\n"
        f"{'method':<9} mean hits worst | verified calculations per hit (5 %, 95 %)"
        "   hits per CPU-minute  test split covered"
    )
    for name, tally in tallies.items():
        stage = final if final in tally.hits else "relaxed"
        hits = tally.hits[stage]
        total, spent = sum(tally.verified), sum(tally.calculations)
        ends = ", ".join(
            number(
                tally.calculations[k] / tally.verified[k] if tally.verified[k] else np.inf, ".1f"
            )
            for k in (0, -1)
        )
        covered = 0.0
        if split["test"] and tally.structures:
            covered = float(np.mean(match(split["test"], tally.structures) >= 0))
        click.echo(
            f"{name:<9} {np.mean(hits):9.0%} {min(hits):5.0%} | {total:8d} {spent:12d} "
            f"{number(spent / total if total else np.inf, '7.2f')!s:>7} ({ends})"
            f"{60 * total / tally.cpu if tally.cpu else 0:17.0f}{covered:20.0%}"
        )


def _forces(structures: list[Atoms]) -> list[np.ndarray]:
    from tfgen.potentials.emt import EMT

    return EMT().compute(structures)["forces"]


if __name__ == "__main__":
    main()
