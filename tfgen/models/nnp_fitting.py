"""Learns a neural-network potential from single-point calculations around structures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

import numpy as np
import tensorflow as tf
from ase import Atoms
from ase.data import atomic_numbers
from tqdm import tqdm

from tfgen.descriptors.base import Descriptor
from tfgen.descriptors.evaluator import Evaluator
from tfgen.models._keras import keras
from tfgen.models.batches import choose_steps_per_execution, make_batches
from tfgen.models.neural_potential import EnergyNetwork, select_broad
from tfgen.models.settings import NNPSettings
from tfgen.models.single_points import Calculate, Calculated, FewUsableError, gather
from tfgen.models.usable_points import find_usable, measure_spread

__all__ = ["NNPRecord", "fit_nnp"]

Arrays: TypeAlias = Mapping[str, np.ndarray]

# Calculations without which there is nothing to learn from, whatever the settings.
FEWEST_USABLE = 20


@dataclass(frozen=True)
class NNPRecord:
    """What an NNP was learned from, and how exact it is.

    Attributes:
        single_points: number of new single-point calculations.
        stored: number of calculations that the data set had.
        minima: share of the structures, their copies apart, that are minima by the forces on them.
        usable: number of calculations that succeeded, with a plausible energy.
        failed: number of those without an energy, or with a force that is not finite or above
            `NNPSettings.max_force`.
        too_high: number of those with an energy that is too high, see `NNPSettings`.
        too_low: number of those with an energy that is too low.
        energy_error: mean absolute error on those that were held out, eV/atom.
        energy_spread: what it is to be compared with, eV/atom: the mean absolute deviation of the
            structures' energies, copies apart, from the median of their composition.
        force_error: mean absolute error of the force along a random direction, eV/Å.
    """

    single_points: int
    stored: int
    minima: float
    usable: int
    failed: int
    too_high: int
    too_low: int
    energy_error: float
    energy_spread: float
    force_error: float

    def to_json(self) -> dict[str, Any]:
        """Returns the fields, JSON-able."""
        return asdict(self)

    def tells_apart(self, max_relative_error: float) -> bool:
        """Whether the error is at most that part of the spread."""
        return self.energy_error <= max_relative_error * self.energy_spread


def fit_nnp(
    descriptor: Descriptor,
    structures: Sequence[Atoms],
    calculate: Calculate | None,
    *,
    known: Calculated | None = None,
    seed: int = 0,
    settings: NNPSettings | None = None,
    progress: bool = False,
) -> tuple[EnergyNetwork, NNPRecord]:
    """Learns the NNP around structures, from what is known of them and from new calculations.

    Args:
        descriptor: of the atoms; `select_broad` says which part of it is used.
        structures: clusters, minima above all; if they are more than enough, a random sample of
            them is used.
        calculate: maps a list of structures to energies [n], eV, NaN where a calculation failed,
            and forces, a list of [atoms, 3], eV/Å; it shows progress itself. None: nothing can be
            calculated.
        known: energies and forces of the structures, likewise, NaN where they are not known; None:
            none are. See `tfgen.models.single_points.gather` for what is calculated then.
        seed: of the sample, the displacements and the network.
        settings: how it is learned; the defaults if None.
        progress: show a progress bar.

    Returns:
        The network and what it was learned from.

    Raises:
        FewUsableError: if fewer than 20 calculations are usable, or those of a single structure,
            or nothing can be calculated and too few structures that are no minima are known.
        OtherPotentialError: if what is known differs from what is calculated.
        ArithmeticError: if the training diverges.
    """
    settings = settings or NNPSettings()
    descriptor = select_broad(descriptor)
    rng = np.random.default_rng([seed, 11])
    points = gather(structures, calculate, known, settings, rng)
    rows, left_out = find_usable(points, settings)
    held_out = _hold_out(points.family[rows], settings.held_out, rng)
    with tqdm(total=settings.epochs, desc="nnp", unit=" epochs", disable=not progress) as bar:
        inputs, labels = _make_examples(
            descriptor,
            [points.structures[i] for i in rows],
            points.energy[rows],
            [points.forces[i] for i in rows],
            rng,
            settings.step,
        )
        network = EnergyNetwork(
            descriptor.size,
            len(descriptor.species),
            settings.hidden,
            step=settings.step,
            slope_weight=settings.slope_weight,
            seed=seed,
            name="nnp",
        )
        _adapt(network, inputs, labels)
        _fit(network, _select((inputs, labels), ~held_out), settings, bar, seed)
        checked = tf.data.Dataset.from_tensors(_select((inputs, labels), held_out))
        errors = network.evaluate(checked, verbose=0, return_dict=True)
    if not np.isfinite(errors["loss"]):
        raise ArithmeticError(
            "the training of the neural-network potential diverged: its loss is not finite; a "
            "lower learning rate may help"
        )
    record = NNPRecord(
        single_points=points.calculated,
        stored=points.stored,
        minima=points.minima,
        usable=len(rows),
        **left_out,
        energy_error=float(errors["energy_error"]),
        energy_spread=measure_spread(
            points.structures, points.energy, rows[rows < points.originals]
        ),
        force_error=float(errors["slope_error"]),
    )
    trained = EnergyNetwork.from_config(network.get_config())  # needs no optimiser
    trained.build()
    trained.set_weights(network.get_weights())
    return trained, record


def _hold_out(family: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """Returns which calculations are held out: each structure with all of its copies, or not.

    Args:
        family: of each usable calculation, the structure that it belongs to.
        share: of the structures; at least one is held out, and at least one is not.
        rng: source of randomness.
    """
    members = np.unique(family)
    if len(family) < FEWEST_USABLE or len(members) < 2:
        raise FewUsableError(
            f"only {len(family)} single-point calculations, of {len(members)} training structures "
            f"and their copies, are usable; the neural-network potential needs at least "
            f"{FEWEST_USABLE}, of 2"
        )
    count = np.clip(round(share * len(members)), 1, len(members) - 1)
    return np.isin(family, rng.permutation(members)[:count])


def _make_examples(
    descriptor: Descriptor,
    structures: Sequence[Atoms],
    energy: np.ndarray,
    forces: Sequence[np.ndarray],
    rng: np.random.Generator,
    step: float,
) -> tuple[Arrays, Arrays]:
    """Returns inputs and labels of the network, float32."""
    width = max(len(s) for s in structures)
    features = np.zeros([len(structures), 2, width, descriptor.size], np.float32)
    numbers = np.zeros([len(structures), width], int)
    slope = np.empty(len(structures))
    pairs: list[Atoms] = []
    for i, (structure, force) in enumerate(zip(structures, forces, strict=True)):
        direction = rng.standard_normal(force.shape)
        direction /= np.linalg.norm(direction)
        slope[i] = -(force * direction).sum()
        numbers[i, : len(structure)] = structure.numbers
        for sign in (-0.5, 0.5):
            pairs.append(structure.copy())
            pairs[-1].positions += sign * step * direction
    for members, values in Evaluator(descriptor, descriptor.r_cut)(pairs):
        features[members // 2, members % 2, : values.shape[1]] = values[:, :width]
    known = np.array([atomic_numbers[symbol] for symbol in descriptor.species])
    sizes = (numbers > 0).sum(axis=1)
    elements = (numbers[..., None] == known).astype(np.float32)
    features *= (numbers > 0)[:, None, :, None]  # padding may hold any value
    return (
        {"features": features, "elements": elements},
        {"energy": (energy / sizes).astype(np.float32), "slope": slope.astype(np.float32)},
    )


def _adapt(network: EnergyNetwork, inputs: Arrays, labels: Arrays) -> None:
    """Sets the scaling of the features, and the elements' shares of the energy."""
    network.build()
    real = inputs["elements"].any(axis=-1)
    atoms = inputs["features"][:, 0][real].astype(np.float64)
    spread = atoms.std(axis=0)
    network.feature_mean.assign(atoms.mean(axis=0))
    network.feature_scale.assign(np.maximum(spread, 1e-3 * spread.max() or 1.0))
    shares = inputs["elements"].sum(axis=1, dtype=np.float64)
    shares /= shares.sum(axis=1, keepdims=True)
    baseline = np.linalg.lstsq(shares, labels["energy"], rcond=None)[0]
    network.baseline.assign(baseline)
    rest = (labels["energy"] - shares @ baseline).std()
    network.energy_scale.assign(rest or 1.0)


def _fit(
    network: EnergyNetwork, data: tuple[Arrays, Arrays], settings: NNPSettings, bar: tqdm, seed: int
) -> None:
    examples, steps = make_batches(data, settings.batch_size, seed)
    schedule = keras.optimizers.schedules.CosineDecay(
        settings.learning_rate, settings.epochs * steps
    )
    network.compile(
        optimizer=keras.optimizers.Adam(schedule),
        steps_per_execution=choose_steps_per_execution(steps),
    )
    # Built by `fit`, while it traces a step, the optimiser makes TensorFlow trace the step twice.
    network.optimizer.build(network.trainable_variables)
    network.fit(
        examples,
        steps_per_epoch=steps,
        epochs=settings.epochs,
        shuffle=False,  # they are already
        callbacks=[keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: bar.update())],
        verbose=0,
    )


def _select(data: tuple[Arrays, Arrays], rows: np.ndarray) -> tuple[Arrays, Arrays]:
    inputs, labels = data
    return {k: v[rows] for k, v in inputs.items()}, {k: v[rows] for k, v in labels.items()}
