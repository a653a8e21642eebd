"""Settings of the CVAE compared on validation data: what is drawn, and what becomes of it.

Each line is one training on the training split of a data set of one composition, all but one
setting as they are by default. The columns: loss per feature of decoded fingerprints (val nll) and
KL divergence of the validation split; entries of the latent vector that carry something; error of
the energies that the surrogate sees in drawn fingerprints, meV/atom; then, for three targets (10,
50 and 90 % quantiles of the validation split), the share of drawn fingerprints whose structures,
inverted roughly and slid down a landscape, end in a minimum within 0.01 eV/atom of the target, and
how many different minima the whole lot ended in. No structure of the test split is seen, and no
target or seed of `benchmark_generation.py` is used.

    tfgen dataset build pt13 -o pt13.h5
    python scripts/tune_cvae.py pt13.h5
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np

from tfgen._tensorflow import load_quietly

QUANTILES = (0.1, 0.5, 0.9)
TOLERANCE = 0.01  # eV/atom
SEED = 70_000
VARIANTS: tuple[dict[str, Any], ...] = (
    {},
    {"latent": 5},
    {"latent": 20},
    {"kl_weight": 0.1},
    {"kl_weight": 0.3},
    {"kl_weight": 3.0},
    {"hidden": (128, 128)},
    {"hidden": (256, 256, 256)},
    {"learning_rate": 3e-3},
    {"batch_size": 128},
)


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--epochs", default=300, show_default=True)
@click.option("--count", default=48, show_default=True, help="Fingerprints for each target.")
@click.option("--variants", default=len(VARIANTS), show_default=True, help="The first so many.")
def main(file: Path, epochs: int, count: int, variants: int) -> None:
    """Compare settings on FILE, a data set of one composition with EMT's energies."""
    load_quietly()
    from tfgen import similarity
    from tfgen.candidates import FMAX, MAX_STEPS, sketch
    from tfgen.datasets.storage import Dataset
    from tfgen.landscape import LearnedPotential
    from tfgen.properties import ENERGY_PER_ATOM
    from tfgen.relaxation import relax
    from tfgen.training import train
    from tfgen.validity import valid

    dataset = Dataset.load(file)
    held = dataset.select("validation")
    if not len(held):
        raise click.ClickException(f"{file} has no validation split")
    numbers = np.sort(dataset.structures[0].numbers)
    if any(sorted(s.numbers) != numbers.tolist() for s in dataset.structures):
        raise click.ClickException(f"{file} holds more than one composition")
    targets = np.quantile(held.properties[ENERGY_PER_ATOM], QUANTILES)
    landscape = None
    shown = ", ".join(f"{t:.3f}" for t in targets)
    click.echo(
        f"{file.name}, {epochs} epochs, {count} fingerprints for each of {shown} eV/atom\n\n"
        f"{'setting':<26} {'CPU s':>6} {'val nll':>8} {'KL':>6} {'active':>6} {'drawn off':>9}"
        f"{'on target':>18} {'minima':>7}"
    )
    for variant in VARIANTS[:variants]:
        began = time.process_time()
        model = train(
            dataset,
            epochs=epochs,
            seed=SEED,
            # One landscape, that of the first, serves all.
            potential="auto" if landscape is None else None,
            **variant,
        )
        landscape = landscape or model.landscape
        model = replace(model, landscape=landscape)
        seconds = time.process_time() - began
        potential = LearnedPotential(model.fingerprint.descriptor, landscape)
        shares, off, structures = [], [], []
        for place, target in enumerate(targets):
            wanted = np.full([count, 1], target)
            drawn = model.sample(model.condition_vectors(wanted, numbers), SEED + place)
            off.append(np.abs(model.predict_properties(drawn)[:, 0] - target).mean())
            rough = sketch(model.fingerprint, drawn, numbers, model.scale, SEED + place)
            slid = relax(rough, potential, fmax=FMAX, max_steps=MAX_STEPS)
            fine = valid(slid.structures) & slid.converged
            energy = slid.energy / len(numbers)
            shares.append((fine & (np.abs(energy - target) <= TOLERANCE)).mean())
            structures += [s for s, good in zip(slid.structures, fine, strict=True) if good]
        first = similarity.duplicates(structures)
        name = ", ".join(f"{k} {v}" for k, v in variant.items()) or "default"
        last = model.provenance["history"]
        click.echo(
            f"{name:<26} {seconds:6.0f} {last['val_nll']:8.3f} {last['val_kl']:6.1f} "
            f"{last['val_active_units']:6.0f} {1e3 * np.mean(off):9.1f}"
            f"{'':>3}{' '.join(f'{s:4.0%}' for s in shares)} "
            f"{np.sum(first == np.arange(len(first))):7d}"
        )


if __name__ == "__main__":
    main()
