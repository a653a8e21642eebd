"""Compares settings of the CVAE on validation data: what is sampled, and what becomes of it.

Each line is one training on the training split of a data set of one composition, all but one
setting as they are by default. The columns:

- sampled off: error of the energies that the surrogate predicts for sampled fingerprints, meV/atom;
- active: entries of the latent vector that carry information, and KL: the KL divergence, nats, both
  on the validation split;
- decoded off: distance of decoded fingerprints of the validation split to the encoded ones, in the
  inversion's loss;
- strain: energy of the coarsely inverted structures above that of the minima that they relax to on
  the neural-network potential, meV/atom;
- on target: for each of three targets (10, 50 and 90 % quantiles of the validation split), the
  share that relaxes to a minimum within 0.006 eV/atom of the target;
- new: number of different minima on target that are no training structures, which is what
  generation needs.

No structure of the test split is used, and no target or seed of `benchmark_generation.py`.

    tfgen dataset build pt13 -o pt13.h5
    python scripts/tools/tune_cvae.py pt13.h5
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np

from tfgen._tensorflow import load_quietly
from tfgen.models.settings import TrainingSettings

if TYPE_CHECKING:
    from tfgen.fingerprints.fingerprint import Fingerprint
    from tfgen.models.model import Model
    from tfgen.potentials.base import Potential

QUANTILES = (0.1, 0.5, 0.9)
TOLERANCE = 0.006  # eV/atom: what `tfgen.generation.proposers` takes to be on target
SEED = 70_000


@dataclass(frozen=True)
class Variant:
    """A setting to try.

    Attributes:
        name: as shown.
        settings: of `tfgen.train`; the defaults if None.
        scale: maps fingerprints [n, features] to the scale of each feature, [features], instead of
            `Fingerprint.scale`.
    """

    name: str
    settings: TrainingSettings | None = None
    scale: Callable[[np.ndarray], np.ndarray] | None = None


def by_range(vectors: np.ndarray) -> np.ndarray:
    """The range of each feature, as in the source paper."""
    spread = np.ptp(vectors, axis=0)
    return np.where(spread > 1e-6, spread, 1.0)


def by_largest(vectors: np.ndarray) -> np.ndarray:
    """Standard deviations, none below a thousandth of the largest."""
    spread = vectors.std(axis=0)
    return np.maximum(spread, 1e-3 * spread.max())


def by_deviation(vectors: np.ndarray) -> np.ndarray:
    """Standard deviations, but for rounding."""
    spread = vectors.std(axis=0)
    return np.where(spread > 1e-6, spread, 1.0)


VARIANTS = (
    Variant("default"),
    Variant("likelihood Laplace", TrainingSettings(likelihood_family="laplace")),
    Variant("likelihood Normal, sigma 1", TrainingSettings(likelihood_family="unit_normal")),
    Variant("latent 5", TrainingSettings(latent=5)),
    Variant("latent 20", TrainingSettings(latent=20)),
    Variant("KL weight 0.1", TrainingSettings(kl_weight=0.1)),
    Variant("KL weight 0.3", TrainingSettings(kl_weight=0.3)),
    Variant("KL weight 3", TrainingSettings(kl_weight=3.0)),
    Variant("KL weight 10", TrainingSettings(kl_weight=10.0)),
    Variant("no KL warm-up", TrainingSettings(kl_warm_up=0.0)),
    Variant("KL warm-up 60 %", TrainingSettings(kl_warm_up=0.6)),
    Variant("scaled, floor of largest", scale=by_largest),
    Variant("scaled by deviation alone", scale=by_deviation),
    Variant("scaled by range", scale=by_range),
)


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--epochs", default=300, show_default=True)
@click.option("--count", default=160, show_default=True, help="Fingerprints for each target.")
@click.option(
    "--only", multiple=True, type=click.Choice([v.name for v in VARIANTS]),
    help="Of the settings; may be repeated.",
)  # fmt: skip
@click.option("--seed", default=SEED, show_default=True, help="Another seed shows what is chance.")
def main(file: Path, epochs: int, count: int, only: tuple[str, ...], seed: int) -> None:
    """Compare settings on FILE, a data set of one composition with EMT's energies."""
    load_quietly()
    from tfgen.datasets.storage import Dataset
    from tfgen.fingerprints.fingerprint import Fingerprint
    from tfgen.models.training import train
    from tfgen.structures.properties import ENERGY_PER_ATOM

    dataset = Dataset.load(file)
    held = dataset.select("validation")
    if not len(held):
        raise click.ClickException(f"{file} has no validation split")
    numbers = np.sort(dataset.structures[0].numbers)
    if any(sorted(s.numbers) != numbers.tolist() for s in dataset.structures):
        raise click.ClickException(f"{file} holds more than one composition")
    targets = np.quantile(held.properties[ENERGY_PER_ATOM], QUANTILES)
    preset = Fingerprint.preset("default", sorted(set(dataset.structures[0].symbols)))
    potential = None
    shown = ", ".join(f"{t:.3f}" for t in targets)
    click.echo(
        f"{file.name}, {epochs} epochs, {count} fingerprints for each of {shown} eV/atom\n\n"
        f"{'setting':<27}{'CPU s':>6}{'sampled off':>12}{'active':>7}{'KL':>6}{'decoded off':>12}"
        f"{'strain':>7}{'on target':>18}{'new':>5}"
    )
    for variant in VARIANTS:
        if only and variant.name not in only:
            continue
        began = time.process_time()
        model = train(
            dataset,
            fingerprint=with_scale(preset, variant.scale) if variant.scale else preset,
            epochs=epochs,
            seed=seed,
            settings=variant.settings,
            # One NNP, that of the first, serves all.
            potential="auto" if potential is None else None,
        )
        if potential is None:
            if model.neural_potential is None:
                raise click.ClickException(f"{file}: no NNP, as its energies are not EMT's")
            potential = model.neural_potential
        seconds = time.process_time() - began
        off, strain, shares, new = judge_samples(model, potential, numbers, targets, count, seed)
        last = model.provenance["history"]
        click.echo(
            f"{variant.name:<27}{seconds:6.0f}{off:12.1f}{last['val_active_units']:7.0f}"
            f"{last['val_kl']:6.1f}{model.provenance['decoder_error']:12.3f}{strain:7.0f}"
            f"{'':>3}{' '.join(f'{s:4.0%}' for s in shares)}{new:5d}"
        )


def with_scale(fingerprint: Fingerprint, scale: Callable[[np.ndarray], np.ndarray]) -> Fingerprint:
    """Returns the fingerprint with another scale of its features."""

    class Scaled(type(fingerprint)):  # type: ignore[misc]
        def scale(self, vectors: np.ndarray) -> np.ndarray:
            return scale(vectors)

    return Scaled(fingerprint.descriptor, fingerprint.pooling, fingerprint.per_species)


def judge_samples(
    model: Model,
    potential: Potential | None,
    numbers: np.ndarray,
    targets: np.ndarray,
    count: int,
    seed: int,
) -> tuple[float, float, list[float], int]:
    """Returns what becomes of samples: sampled off, strain, shares on target, new minima."""
    from tfgen.generation.coarse_inversion import centred_structures, invert_coarsely
    from tfgen.generation.settings import ProposalSettings
    from tfgen.relaxation.relax import relax
    from tfgen.structures.similarity import equality
    from tfgen.structures.validity import valid

    settings = ProposalSettings()
    same = settings.alike_tolerance
    off, strain, shares, found = [], [], [], []
    for place, target in enumerate(targets):
        wanted = np.full([count, 1], target)
        vectors = model.sample(model.condition_vectors(wanted, numbers), seed + place)
        off.append(np.abs(model.predict_properties(vectors)[:, 0] - target).mean())
        positions = invert_coarsely(
            model.fingerprint, vectors, numbers, model.scale, seed=seed + place, settings=settings
        )
        inverted = centred_structures(numbers, positions)
        relaxed = relax(inverted, potential, fmax=settings.fmax, max_steps=settings.max_steps)
        strain.append(np.nanmedian(relax(inverted, potential, max_steps=0).energy - relaxed.energy))
        near = np.abs(relaxed.energy / len(numbers) - target) <= TOLERANCE
        near &= valid(relaxed.structures) & relaxed.converged
        shares.append(float(near.mean()))
        found += [s for s, good in zip(relaxed.structures, near, strict=True) if good]
    new = 0
    if found:
        unique = equality.duplicates(found, same) == np.arange(len(found))
        new = int((unique & (equality.match(found, model.training_structures, same) < 0)).sum())
    mean_strain = 1e3 * float(np.mean(strain)) / len(numbers)
    return 1e3 * float(np.mean(off)), mean_strain, shares, new


if __name__ == "__main__":
    main()
