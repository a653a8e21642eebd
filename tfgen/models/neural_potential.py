"""A neural-network potential: what a model knows of structures that are no minima.

The network that draws fingerprints has seen minima only. What it draws lies between them, and a
structure with such a fingerprint slides down into a basin nobody asked for. An NNP learned
from the data set's structures and rattled copies of them lets candidates slide before any
expensive calculation, so that the energies of the minima they end in are known in advance.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from ase import Atoms
from ase.data import atomic_numbers, covalent_radii
from tqdm import tqdm

from tfgen.descriptors.base import Descriptor, check_structures
from tfgen.descriptors.evaluator import Evaluator
from tfgen.models.batches import batches, steps_per_call
from tfgen.potentials.base import compiled
from tfgen.structures.batch import StructureBatch

__all__ = ["EnergyNetwork", "NeuralPotential", "fit_nnp", "rattled", "seen"]

# Rattled copies of each structure at least, and their standard deviation of a coordinate, in
# covalent radii.
COPIES, AMPLITUDES = 3, (0.015, 0.18)
# Structures to learn from, copies included: small sets get more copies, of large ones a sample is
# drawn.
LEAST, MOST = 3000, 8000
# Largest force, eV/Å, up to which a structure counts as a minimum.
MINIMUM = 0.1
# Copies whose energy is this far above their original's, eV/atom, are on no way to a minimum.
EXCESS = 0.8
# Distance of the two points between which a slope is learned, Å.
STEP = 0.02
# Weight of the squared error of slopes (of the total energy, per Å) next to that of energies.
SLOPE_WEIGHT = 0.1
EPOCHS, BATCH, RATE = 60, 64, 3e-3


@keras.saving.register_keras_serializable(package="tfgen")
class EnergyNetwork(keras.Model):
    """Energy per atom of a structure as the mean of what one network says of each atom.

    E / N = 1/N Σ_i [b_{Z_i} + s n(d_i, Z_i)]

    d_i being the descriptor's features of atom i, scaled, b the elements' share of the energy by
    least squares, s the spread of what is left, n a network with smooth activations.

    It learns from pairs of points x ± v h/2 on a line through a structure: their mean energy, and
    the slope between them, so that a single calculation with its forces teaches both:

    loss = (ē - E/N)² / s² + w (ΔE/h + F·v)² / s²

    Args:
        features: length of d_i.
        elements: number of elements.
        hidden: widths of the hidden layers.
        seed: of the initial weights.

    Call arguments:
        inputs: {"features": [batch, 2, atoms, features], "elements": [batch, atoms, elements]};
            elements are one-hot, zero where padded.

    References:
        J. Behler, M. Parrinello, Phys. Rev. Lett. 98, 146401 (2007).
        DOI 10.1103/PhysRevLett.98.146401
    """

    def __init__(
        self,
        features: int,
        elements: int,
        hidden: Sequence[int] = (64, 64),
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if min(features, elements, *hidden) < 1:
            raise ValueError(
                f"features, elements, hidden are {features}, {elements}, {hidden}; all must be >= 1"
            )
        self.features, self.elements = features, elements
        self.hidden, self.seed = tuple(hidden), seed
        seeds = np.random.SeedSequence(seed).generate_state(len(self.hidden) + 1) // 2
        widths = [*((w, "silu") for w in self.hidden), (1, None)]
        self.stack = [
            keras.layers.Dense(
                width, activation, kernel_initializer=keras.initializers.GlorotUniform(int(s))
            )
            for (width, activation), s in zip(widths, seeds, strict=True)
        ]
        self._trackers = [
            keras.metrics.Mean(name=name) for name in ("loss", "energy_error", "slope_error")
        ]

    def build(self, input_shape: Any = None) -> None:
        """Creates all weights, those of the scaling included."""

        def constant(name: str, shape: tuple[int, ...], value: float) -> keras.Variable:
            initializer = keras.initializers.Constant(value)
            return self.add_weight(shape=shape, initializer=initializer, trainable=False, name=name)

        self.feature_mean = constant("feature_mean", (self.features,), 0.0)
        self.feature_scale = constant("feature_scale", (self.features,), 1.0)
        self.baseline = constant("baseline", (self.elements,), 0.0)
        self.energy_scale = constant("energy_scale", (), 1.0)
        width = self.features + self.elements
        for layer in self.stack:
            layer.build((None, None, None, width))
            width = layer.units
        super().build(input_shape)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        own = {name: getattr(self, name) for name in ("features", "elements", "seed")}
        return {**super().get_config(), **own, "hidden": list(self.hidden)}

    def atomic_energies(self, features: tf.Tensor, elements: tf.Tensor) -> tf.Tensor:
        """Energies of atoms, eV.

        Args:
            features: [..., atoms, features], unscaled.
            elements: [..., atoms, elements], one-hot, zero where padded.

        Returns:
            [..., atoms], in the dtype of the features; 0 where padded.
        """

        def like(weight: keras.Variable) -> tf.Tensor:
            return tf.cast(weight, features.dtype)

        scaled = (features - like(self.feature_mean)) / like(self.feature_scale)
        y = tf.concat([scaled, elements], axis=-1)
        # Not by the layers' own call: Keras would compute it in float32.
        for layer in self.stack:
            y = tf.matmul(y, like(layer.kernel)) + like(layer.bias)
            y = tf.nn.silu(y) if layer is not self.stack[-1] else y
        own = like(self.energy_scale) * y[..., 0]
        bare = tf.reduce_sum(elements * like(self.baseline), axis=-1)
        return bare + own * tf.reduce_sum(elements, axis=-1)

    def call(self, inputs: Mapping[str, tf.Tensor], training: bool = False) -> tf.Tensor:
        """Returns the energies of both points, [batch, 2], eV/atom."""
        elements = inputs["elements"]
        both = tf.repeat(elements[:, None], 2, axis=1)
        each = self.atomic_energies(inputs["features"], both)
        count = tf.reduce_sum(elements, axis=[1, 2])
        return tf.reduce_sum(each, axis=2) / count[:, None]

    def compute_loss(
        self,
        x: Mapping[str, tf.Tensor] | None = None,
        y: Mapping[str, tf.Tensor] | None = None,
        y_pred: tf.Tensor | None = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> tf.Tensor:
        """The loss of the class docstring; y: energy [batch], eV/atom, and slope [batch], eV/Å."""
        if x is None or y is None or y_pred is None:
            raise ValueError("compute_loss needs the inputs x, the labels y and the outputs y_pred")
        count = tf.reduce_sum(x["elements"], axis=[1, 2])
        energy = tf.reduce_mean(y_pred, axis=1) - y["energy"]
        slope = (y_pred[:, 1] - y_pred[:, 0]) * count / STEP - y["slope"]
        each = (energy**2 + SLOPE_WEIGHT * slope**2) / self.energy_scale**2
        loss = tf.reduce_mean(each)
        for tracker, value in zip(
            self._trackers, (loss, tf.abs(energy), tf.abs(slope)), strict=True
        ):
            tracker.update_state(value)
        # Gradients are summed over replicas, where there are several.
        return loss / tf.distribute.get_strategy().num_replicas_in_sync

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """loss; energy_error in eV/atom; slope_error in eV/Å."""
        return self._trackers


def seen(descriptor: Descriptor) -> Descriptor:
    """The part of a descriptor that landscapes are made of: `broad()`, if it has that, or all.

    With the narrow functions of `default`, too, an NNP is as exact on rattled copies, but not
    far from them: more than twice as many packings slide to minima that are none.
    """
    return getattr(descriptor, "broad", lambda: descriptor)()


class NeuralPotential:
    """An NNP as a potential: what `tfgen.relax` takes.

    Args:
        descriptor: that the NNP was trained with.
        nnp: the trained network.
    """

    def __init__(self, descriptor: Descriptor, nnp: EnergyNetwork) -> None:
        self.descriptor, self.nnp = seen(descriptor), nnp
        self.r_cut = descriptor.r_cut
        self._numbers = [atomic_numbers[symbol] for symbol in descriptor.species]

    def energies(self, batch: StructureBatch) -> tf.Tensor:
        """Returns [batch], eV, in the dtype of `batch.positions`."""
        features = self.descriptor(batch)
        elements = tf.cast(batch.numbers[..., None] == self._numbers, features.dtype)
        return tf.reduce_sum(self.nnp.atomic_energies(features, elements), axis=1)

    def check(self, structures: Sequence[Atoms]) -> None:
        """Raises ValueError if a structure holds an element the NNP does not know."""
        check_structures(self.descriptor, structures)

    def compute(self, structures: Sequence[Atoms]) -> dict[str, Any]:
        """Returns "energy" [structures], eV, and "forces", a list of [atoms, 3], eV/Å."""
        self.check(structures)
        batch = StructureBatch.from_ase(structures, r_cut=self.r_cut)
        energy, forces = compiled(self)(batch)
        pairs = zip(forces.numpy(), structures, strict=True)
        return {"energy": energy.numpy(), "forces": [f[: len(s)] for f, s in pairs]}


def rattled(structures: Sequence[Atoms], copies: int, rng: np.random.Generator) -> list[Atoms]:
    """Copies of structures with all atoms displaced at random, from hardly to strongly."""
    result = []
    for structure in structures:
        for _ in range(copies):
            copy = structure.copy()
            reach = rng.uniform(*AMPLITUDES) * covalent_radii[copy.numbers]
            copy.positions += reach[:, None] * rng.standard_normal(copy.positions.shape)
            result.append(copy)
    return result


def fit_nnp(
    descriptor: Descriptor,
    structures: Sequence[Atoms],
    evaluate: Any,
    *,
    seed: int = 0,
    epochs: int | None = None,
    progress: bool = False,
) -> tuple[EnergyNetwork, dict[str, Any]]:
    """Learns the NNP around structures from single calculations on rattled copies.

    Args:
        descriptor: of the atoms; `seen` says which part of it is used.
        structures: clusters, minima above all; a sample of them if there are more than enough.
        evaluate: maps a list of structures to (energies [n], eV, list of forces [atoms, 3],
            eV/Å); NaN where a calculation failed.
        seed: of the sample, the displacements and the network.
        epochs: of the training; `EPOCHS` if None.
        progress: show a progress bar.

    Returns:
        The NNP, and a record: "single_points", how many calculations it took, "minima", the
        share of the structures that are (by the forces on them),
        "energy_error" (eV/atom) and "force_error" (eV/Å, along a random direction), the mean
        absolute errors on a tenth of them that was held back.

    Raises:
        ValueError: if fewer than 20 calculations succeed.
    """
    epochs = EPOCHS if epochs is None else epochs
    descriptor = seen(descriptor)
    rng = np.random.default_rng([seed, 11])
    keep = rng.permutation(len(structures))[: max(1, MOST // (1 + COPIES))]
    originals = [structures[i] for i in keep]
    copies = max(COPIES, -(-LEAST // len(originals)) - 1)
    labelled = originals + rattled(originals, copies, rng)
    with tqdm(total=epochs, desc="nnp", unit=" epochs", disable=not progress) as bar:
        energy, forces = evaluate(labelled)
        sizes = np.array([len(s) for s in labelled])
        excess = energy / sizes
        each = np.arange(len(originals))
        own = np.concatenate([each, np.repeat(each, copies)])
        usable = np.isfinite(energy) & (excess - excess[own] < EXCESS)
        rows = np.flatnonzero(usable)
        if len(rows) < 20:
            raise ValueError(f"only {len(rows)} of {len(labelled)} calculations are usable")
        inputs, labels = _examples(
            descriptor, [labelled[i] for i in rows], energy[rows], [forces[i] for i in rows], rng
        )
        held = rng.random(len(rows)) < 0.1
        held[0], held[-1] = True, False
        nnp = EnergyNetwork(descriptor.size, len(descriptor.species), seed=seed, name="nnp")
        _adapt(nnp, inputs, labels)
        _fit(nnp, inputs, labels, ~held, epochs, bar, seed)
        checked = _rows((inputs, labels), held)
        errors = nnp.evaluate(tf.data.Dataset.from_tensors(checked), verbose=0, return_dict=True)
    largest = [np.linalg.norm(f, axis=1).max(initial=0.0) for f in forces[: len(originals)]]
    record = {
        "single_points": len(labelled),
        "minima": float(np.mean(np.array(largest) <= MINIMUM)),
        "usable": len(rows),
        "energy_error": float(errors["energy_error"]),
        "force_error": float(errors["slope_error"]),
    }
    trained = EnergyNetwork.from_config(nnp.get_config())  # needs no optimiser
    trained.build()
    trained.set_weights(nnp.get_weights())
    return trained, record


def _examples(
    descriptor: Descriptor,
    structures: Sequence[Atoms],
    energy: np.ndarray,
    forces: Sequence[np.ndarray],
    rng: np.random.Generator,
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Inputs and labels of the NNP, float32."""
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
            pairs[-1].positions += sign * STEP * direction
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


def _adapt(
    nnp: EnergyNetwork, inputs: Mapping[str, np.ndarray], labels: Mapping[str, np.ndarray]
) -> None:
    nnp.build()
    real = inputs["elements"].any(axis=-1)
    atoms = inputs["features"][:, 0][real].astype(np.float64)
    spread = atoms.std(axis=0)
    nnp.feature_mean.assign(atoms.mean(axis=0))
    nnp.feature_scale.assign(np.maximum(spread, 1e-3 * spread.max() or 1.0))
    shares = inputs["elements"].sum(axis=1, dtype=np.float64)
    shares /= shares.sum(axis=1, keepdims=True)
    baseline = np.linalg.lstsq(shares, labels["energy"], rcond=None)[0]
    nnp.baseline.assign(baseline)
    rest = (labels["energy"] - shares @ baseline).std()
    nnp.energy_scale.assign(rest or 1.0)


def _fit(
    nnp: EnergyNetwork,
    inputs: Mapping[str, np.ndarray],
    labels: Mapping[str, np.ndarray],
    used: np.ndarray,
    epochs: int,
    bar: tqdm,
    seed: int,
) -> None:
    feed, steps = batches(_rows((inputs, labels), used), BATCH, seed)
    schedule = keras.optimizers.schedules.CosineDecay(RATE, epochs * steps)
    nnp.compile(
        optimizer=keras.optimizers.Adam(schedule), steps_per_execution=steps_per_call(steps)
    )
    advance = keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: bar.update())
    nnp.fit(
        feed, steps_per_epoch=steps, epochs=epochs, shuffle=False, callbacks=[advance], verbose=0
    )


def _rows(data: tuple[Mapping[str, np.ndarray], ...], used: np.ndarray) -> Any:
    return tuple({name: values[used] for name, values in part.items()} for part in data)
