"""Settings of the CVAE compared on validation data: what is drawn, and what becomes of it.

Each line is one training on the training split of a data set of one composition, all but one
setting as they are by default. The columns: error of the energies that the surrogate sees in drawn
fingerprints, meV/atom (drawn off); entries of the latent vector that carry something (active) and
the KL divergence (nats) of the validation split; how far decoded fingerprints of the validation
split are from the encoded ones, in the inversion's loss (decoded off); energy of the roughly
inverted structures above that of their minima on the NNP, meV/atom (strain); then, for three
targets (10, 50 and 90 % quantiles of the validation split), the share that ends in a minimum within
0.006 eV/atom of the target, and how many different minima on target that are no training structures
the whole lot ended in: what generation lives on. No structure of the test split is seen, and no
target or seed of `benchmark_generation.py` is used.

    tfgen dataset build pt13 -o pt13.h5
    python scripts/tools/tune_cvae.py pt13.h5
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import click
import numpy as np

from tfgen._tensorflow import load_quietly

if TYPE_CHECKING:
    from tfgen.fingerprints.fingerprint import Fingerprint
    from tfgen.models.model import Model
    from tfgen.potentials.base import Potential

QUANTILES = (0.1, 0.5, 0.9)
TOLERANCE = 0.006  # eV/atom: what `tfgen.generation.proposals` takes to be on target
SEED = 70_000


@dataclass(frozen=True)
class Variant:
    """A setting to try.

    Attributes:
        name: as shown.
        arguments: of `tfgen.train`.
        warm_up: share of the epochs over which the KL term rises.
        scale: what stands for `Fingerprint.scale`.
        network: "Laplace" or "unit" instead of the normal likelihood with one learned σ a feature.
    """

    name: str
    arguments: dict[str, Any] = field(default_factory=dict)
    warm_up: float | None = None
    scale: Callable[[Fingerprint, np.ndarray], np.ndarray] | None = None
    network: str | None = None


def by_range(_: Fingerprint, vectors: np.ndarray) -> np.ndarray:
    """The range of each feature, as in the source paper."""
    spread = np.ptp(vectors, axis=0)
    return np.where(spread > 1e-6, spread, 1.0)


def by_largest(_: Fingerprint, vectors: np.ndarray) -> np.ndarray:
    """Standard deviations, none below a thousandth of the largest."""
    spread = vectors.std(axis=0)
    return np.maximum(spread, 1e-3 * spread.max())


def by_deviation(_: Fingerprint, vectors: np.ndarray) -> np.ndarray:
    """Standard deviations, but for rounding."""
    spread = vectors.std(axis=0)
    return np.where(spread > 1e-6, spread, 1.0)


VARIANTS = (
    Variant("default"),
    Variant("likelihood Laplace", network="Laplace"),
    Variant("likelihood Normal, sigma 1", network="unit"),
    Variant("latent 5", {"latent": 5}),
    Variant("latent 20", {"latent": 20}),
    Variant("KL weight 0.1", {"kl_weight": 0.1}),
    Variant("KL weight 0.3", {"kl_weight": 0.3}),
    Variant("KL weight 3", {"kl_weight": 3.0}),
    Variant("KL weight 10", {"kl_weight": 10.0}),
    Variant("no KL warm-up", warm_up=0.0),
    Variant("KL warm-up 60 %", warm_up=0.6),
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
@click.option("--seed", default=SEED, show_default=True, help="Another shows what is luck.")
def main(file: Path, epochs: int, count: int, only: tuple[str, ...], seed: int) -> None:
    """Compare settings on FILE, a data set of one composition with EMT's energies."""
    load_quietly()
    from tfgen.datasets.storage import Dataset
    from tfgen.fingerprints.fingerprint import Fingerprint
    from tfgen.models import training
    from tfgen.models.neural_potential import NeuralPotential
    from tfgen.structures.properties import ENERGY_PER_ATOM

    dataset = Dataset.load(file)
    held = dataset.select("validation")
    if not len(held):
        raise click.ClickException(f"{file} has no validation split")
    numbers = np.sort(dataset.structures[0].numbers)
    if any(sorted(s.numbers) != numbers.tolist() for s in dataset.structures):
        raise click.ClickException(f"{file} holds more than one composition")
    targets = np.quantile(held.properties[ENERGY_PER_ATOM], QUANTILES)
    potential = None
    shown = ", ".join(f"{t:.3f}" for t in targets)
    click.echo(
        f"{file.name}, {epochs} epochs, {count} fingerprints for each of {shown} eV/atom\n\n"
        f"{'setting':<27}{'CPU s':>6}{'drawn off':>10}{'active':>7}{'KL':>6}{'decoded off':>12}"
        f"{'strain':>7}{'on target':>18}{'new':>5}"
    )
    for variant in VARIANTS:
        if only and variant.name not in only:
            continue
        began = time.process_time()
        with ExitStack() as stack:
            if variant.warm_up is not None:
                stack.enter_context(mock.patch.object(training, "WARM_UP", variant.warm_up))
            if variant.scale:
                stack.enter_context(mock.patch.object(Fingerprint, "scale", variant.scale))
            if variant.network:
                stack.enter_context(mock.patch.object(training, "CVAE", network(variant.network)))
            model = training.train(
                dataset,
                epochs=epochs,
                seed=seed,
                # One NNP, that of the first, serves all.
                potential="auto" if potential is None else None,
                **variant.arguments,
            )
        if potential is None:
            if model.nnp is None:
                raise click.ClickException(f"{file}: no NNP, as its energies are not EMT's")
            potential = NeuralPotential(model.fingerprint.descriptor, model.nnp)
        seconds = time.process_time() - began
        off, strain, shares, new = drawn(model, potential, numbers, targets, count, seed)
        last = model.provenance["history"]
        click.echo(
            f"{variant.name:<27}{seconds:6.0f}{off:10.1f}{last['val_active_units']:7.0f}"
            f"{last['val_kl']:6.1f}{model.provenance['decoder_error']:12.3f}{strain:7.0f}"
            f"{'':>3}{' '.join(f'{s:4.0%}' for s in shares)}{new:5d}"
        )


def network(kind: str) -> Callable[..., Any]:
    """The CVAE with another likelihood."""
    import tensorflow as tf
    import tensorflow_probability as tfp

    from tfgen.models.cvae import CVAE, SIGMA_FLOOR

    class Other(CVAE):
        def _likelihood(self, loc: tf.Tensor) -> Any:
            if kind == "unit":
                return tfp.distributions.MultivariateNormalDiag(loc, tf.ones_like(loc))
            width = tf.nn.softplus(self.raw_sigma) + SIGMA_FLOOR
            return tfp.distributions.Independent(tfp.distributions.Laplace(loc, width), 1)

    return Other


def drawn(
    model: Model,
    potential: Potential | None,
    numbers: np.ndarray,
    targets: np.ndarray,
    count: int,
    seed: int,
) -> tuple[float, float, list[float], int]:
    """What becomes of drawn fingerprints: drawn off, strain, shares on target, new minima."""
    from tfgen.generation.coarse_inversion import centred_structures, invert_coarsely
    from tfgen.generation.settings import ProposalSettings
    from tfgen.relaxation.relax import relax
    from tfgen.structures import similarity
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
        unique = similarity.duplicates(found, same) == np.arange(len(found))
        new = int((unique & (similarity.match(found, model.library, same) < 0)).sum())
    mean_strain = 1e3 * float(np.mean(strain)) / len(numbers)
    return 1e3 * float(np.mean(off)), mean_strain, shares, new


if __name__ == "__main__":
    main()
