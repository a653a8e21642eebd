"""Reproduces the source paper on a data set of Pt10, and prints the paper's quantities.

The paper is V. Fung et al., Mach. Learn.: Sci. Technol. 3, 045018 (2022), 10.1088/2632-2153/aca1f7:
380 features (`fung2022`), its CVAE and surrogate (`paper_network.py`), its inversion
(`paper_inversion.py`). Its data, 300 Pt10 from density functional theory, are not ours (EMT).

    tfgen dataset build pt10 -o pt10.h5
    python scripts/paper/reproduce_paper.py pt10.h5
"""

from __future__ import annotations

import time
from pathlib import Path

import click
import numpy as np
from ase import Atoms

from tfgen._tensorflow import load_quietly

# The paper's property is a total energy (eV) from a zero of its own; its targets are evenly spaced
# over the range of its data, and a hit is within 0.1 eV.
PAPER_RANGE, PAPER_TOLERANCE = (1.9, 3.7), 0.1
# Counted from its public outputs (1,000 fingerprints a target), lowest target first.
PAPER_HITS = (0.69, 0.95, 0.98, 0.93, 0.80, 0.88, 0.58)


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--samples", default=1000, show_default=True, help="Fingerprints for each target.")
@click.option("--inverted", default=20, show_default=True, help="How many of them are inverted.")
@click.option("--epochs", default=1000, show_default=True)
@click.option("--seed", default=0, show_default=True)
def main(file: Path, samples: int, inverted: int, epochs: int, seed: int) -> None:
    """Reproduce the paper on FILE, a data set of one composition with energies."""
    load_quietly()
    from paper_inversion import invert
    from paper_network import fit

    from tfgen.datasets.storage import Dataset
    from tfgen.fingerprints.fingerprint import Fingerprint
    from tfgen.potentials.emt import EMT
    from tfgen.structures.similarity.equality import deviations
    from tfgen.structures.validity import thresholds_from, valid

    dataset = Dataset.load(file)
    structures = dataset.structures
    numbers = structures[0].numbers
    if any(sorted(s.numbers) != sorted(numbers) for s in structures):
        raise click.ClickException(f"{file} holds more than one composition")
    fingerprint = Fingerprint.preset("fung2022", sorted({str(e) for e in structures[0].symbols}))
    vectors = fingerprint.create(structures)
    # A zero like the paper's: the networks see energies unscaled, so it matters.
    total = dataset.properties["energy_per_atom"] * len(numbers)
    zero = total.min() - PAPER_RANGE[0]
    energies = total - zero
    width = float(np.ptp(energies))
    share = PAPER_TOLERANCE / (PAPER_RANGE[1] - PAPER_RANGE[0])
    relative = share * width
    formula = structures[0].get_chemical_formula()
    click.echo(
        f"{len(structures)} {formula}; total energies span {width:.2f} eV, in the paper "
        f"{PAPER_RANGE[1] - PAPER_RANGE[0]:.2f} eV. Its ±{PAPER_TOLERANCE} eV is {share:.1%} of "
        f"its range;\nthe same share of ours is ±{relative:.2f} eV. The lowest structure is put at "
        f"{PAPER_RANGE[0]} eV, as there.\n"
    )
    began = time.perf_counter()
    networks = fit(vectors, energies, seed=seed, epochs=epochs, progress=True)
    click.echo(
        f"trained for {epochs} epochs in {time.perf_counter() - began:.0f} s; held out: CVAE loss "
        f"{networks.test_loss[0]:.2f}, surrogate off by {networks.test_loss[1] ** 0.5:.2f} eV (RMS)"
    )

    targets = np.linspace(energies.min(), energies.max(), len(PAPER_HITS))
    click.echo(f"\ndecoded, {samples} for each target; energies (eV) by the surrogate")
    click.echo(
        f"{'target':>7} {'mean':>7} {'std':>6} {'±' + format(PAPER_TOLERANCE, 'g') + ' eV':>8} "
        f"{'±' + format(share, '.1%'):>7} {'paper':>6}"
    )
    chosen, hits = [], []
    for k, target in enumerate(targets):
        sample = networks.sample(float(target), samples, seed=seed + k)
        found = networks.energies(sample)
        near = np.abs(found - target) < relative
        hits.append((np.mean(np.abs(found - target) < PAPER_TOLERANCE), np.mean(near)))
        # The paper inverts what is within its tolerance; if there is nothing, the nearest.
        chosen.append(sample[np.argsort(~near, kind="stable")[:inverted]])
        click.echo(
            f"{target:7.2f} {found.mean():7.2f} {found.std():6.2f} {hits[-1][0]:8.0%} "
            f"{hits[-1][1]:7.0%} {PAPER_HITS[k]:6.0%}"
        )
    absolute, scaled = np.mean(hits, axis=0)
    click.echo(f"{'mean':>22} {absolute:8.0%} {scaled:7.0%} {np.mean(PAPER_HITS):6.0%}")

    # The same search on fingerprints that certainly have a structure.
    known = dataset.select("test").structures or structures
    known = known[:inverted]
    found = invert(fingerprint, fingerprint.create(known), numbers, seed=seed + 100, progress=True)
    solved = deviations([Atoms(numbers, positions=x) for x in found.positions], known) <= 0.05
    click.echo(
        f"\ninverted, {len(known)} fingerprints of structures of the test split: median loss "
        f"{np.median(found.loss):.2g}, {solved.mean():.0%} found again (every distance within "
        "0.05 Å)"
    )

    rows = np.concatenate(chosen)
    owner = np.repeat(targets, [len(c) for c in chosen])
    began = time.perf_counter()
    found = invert(fingerprint, rows, numbers, seed=seed, progress=True)
    seconds = (time.perf_counter() - began) / len(rows)
    made = [Atoms(numbers, positions=x) for x in found.positions]
    limits = thresholds_from(dataset.select("train").structures)
    judged = valid(made, limits.overlap_factor, limits.bond_factor)
    seen = networks.energies(fingerprint.create(made))
    true = EMT().compute(made)["energy"] - zero
    click.echo(
        f"\ninverted, up to {inverted} decoded fingerprints within ±{share:.1%} of each target, "
        f"all at once ({seconds:.2f} s each);\nenergies (eV) of what was found, by the surrogate "
        "and by EMT (median and hits of the valid ones among all)"
    )
    click.echo(
        f"{'target':>7} {'n':>4} {'loss: median':>13} {'90 %':>7} {'valid':>6} {'surrogate':>10} "
        f"{'hits':>5} {'EMT':>10} {'hits':>5}"
    )
    for target in targets:
        mine = owner == target
        good = mine & judged
        cells = ""
        for energy in (seen, true):
            near = good & (np.abs(energy - target) < relative)
            middle = np.median(energy[good]) if good.any() else np.nan
            cells += f" {middle:10.2f} {near.sum() / mine.sum():5.0%}"
        click.echo(
            f"{target:7.2f} {mine.sum():4d} {np.median(found.loss[mine]):13.2g} "
            f"{np.quantile(found.loss[mine], 0.9):7.2g} {judged[mine].mean():6.0%}" + cells
        )
    click.echo(
        f"{'all':>7} {len(rows):4d} {np.median(found.loss):13.2g} "
        f"{np.quantile(found.loss, 0.9):7.2g} {judged.mean():6.0%}"
    )

    row = chosen[0][:1]
    invert(fingerprint, row, numbers, seed=seed)  # compiles
    began = time.perf_counter()
    alone = invert(fingerprint, row, numbers, seed=seed)
    click.echo(
        f"\none target alone, as the method is published: {time.perf_counter() - began:.2f} s "
        f"({alone.steps[0]} gradients), compilation apart"
    )


if __name__ == "__main__":
    main()
