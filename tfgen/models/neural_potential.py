"""The neural-network potential (NNP): energies of structures around those of a data set.

The CVAE has been trained on the data set's structures only. A fingerprint that it samples lies
between theirs, and a structure with that fingerprint relaxes to some minimum whose energy may be
far from the energy asked for. An NNP that was learned from the data set's structures and rattled
copies of them (see `tfgen.models.nnp_fitting`) relaxes such structures before any expensive
calculation, so that the energies of the minima are known in advance.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from ase import Atoms
from ase.data import atomic_numbers

from tfgen.descriptors.base import Descriptor, check_structures
from tfgen.models._keras import check_dtype, in_float32, keras
from tfgen.models.own_loss import OwnLossModel
from tfgen.potentials.base import compiled
from tfgen.structures.batch import StructureBatch

__all__ = ["EnergyNetwork", "NeuralPotential", "select_broad"]


@keras.saving.register_keras_serializable(package="tfgen")
class EnergyNetwork(OwnLossModel):
    """Predicts the energy of a structure as the sum of the energies of its atoms.

    E / N = 1/N Σ_i [b_{Z_i} + s n(d_i, Z_i)]

    d_i being the descriptor's features of atom i, scaled, b the elements' shares of the energy by
    least squares, s the standard deviation of what they leave, n a network with smooth activations.

    It is trained on pairs of points x ± v h/2 on a line through a structure: on their mean energy ē
    (per atom), and on the slope between them, as one calculation with its forces F gives both:

    loss = (ē - E/N)² / s² + w (ΔE/h + F·v)² / s²

    Args:
        features: length of d_i.
        elements: number of elements.
        hidden: widths of the hidden layers.
        step: h, Å.
        slope_weight: w, Å².
        seed: of the initial weights.

    Call arguments:
        inputs: {"features": [batch, 2, atoms, features], "elements": [batch, atoms, elements]};
            elements are one-hot, zero where padded.

    Raises:
        ValueError: if a size is not positive, or `step` or `slope_weight` is not allowed.

    Example:
        >>> network = EnergyNetwork(features=24, elements=1)
        >>> network.build()
        >>> NeuralPotential(descriptor, network).compute(structures)["energy"]

    References:
        J. Behler, M. Parrinello, Phys. Rev. Lett. 98, 146401 (2007).
        DOI 10.1103/PhysRevLett.98.146401
    """

    @in_float32()
    def __init__(
        self,
        features: int,
        elements: int,
        hidden: Sequence[int] = (64, 64),
        step: float = 0.02,
        slope_weight: float = 0.1,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(dtype=check_dtype("an NNP", kwargs.pop("dtype", None)), **kwargs)
        if min(features, elements, *hidden) < 1:
            raise ValueError(
                f"features, elements, hidden are {features}, {elements}, {hidden}; all must be >= 1"
            )
        if not step > 0 or not slope_weight >= 0:
            raise ValueError(
                f"step, slope_weight are {step}, {slope_weight}; step must be > 0, slope_weight "
                ">= 0"
            )
        self.features, self.elements, self.hidden = features, elements, tuple(hidden)
        self.step, self.slope_weight, self.seed = step, slope_weight, seed
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

    @in_float32()
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
        names = ("features", "elements", "step", "slope_weight", "seed")
        own = {name: getattr(self, name) for name in names}
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
        slope = (y_pred[:, 1] - y_pred[:, 0]) * count / self.step - y["slope"]
        each = (energy**2 + self.slope_weight * slope**2) / self.energy_scale**2
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


def select_broad(descriptor: Descriptor) -> Descriptor:
    """Returns the part of a descriptor that NNPs see: `broad()`, if it has that, or all of it.

    With the narrow functions of `default`, too, an NNP is as exact on rattled copies, but not far
    from them: more than twice as many random structures relax to minima that the potential does
    not have.
    """
    return getattr(descriptor, "broad", lambda: descriptor)()


class NeuralPotential:
    """An NNP as a potential, which `tfgen.relax` takes.

    Args:
        descriptor: the one that the network was trained with.
        nnp: the trained network.

    Example:
        >>> potential = NeuralPotential(model.fingerprint.descriptor, model.nnp)
        >>> tfgen.relax(structures, potential)
    """

    def __init__(self, descriptor: Descriptor, nnp: EnergyNetwork) -> None:
        self.descriptor, self.nnp = select_broad(descriptor), nnp
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
