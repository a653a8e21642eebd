"""The conditional variational autoencoder. Knows tensors, never atoms."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfgen.models._keras import check_dtype, in_float32, keras
from tfgen.models.own_loss import OwnLossModel
from tfgen.models.settings import LIKELIHOODS

__all__ = ["CVAE"]

tfd = tfp.distributions
Distribution: TypeAlias = Any  # tfd.Distribution; TFP brings no types

# Features that hardly vary are not blown up: no scale is below this share of the largest.
SCALE_FLOOR = 1e-3
# KL divergence, nats, above which an entry of the latent vector carries something.
ACTIVE = 0.05
# Structures of a training batch on which it is watched whether the decoder heeds the condition.
WATCHED = 16
# Smallest standard deviation of the posterior and of the likelihood, in scaled units.
SIGMA_FLOOR = 1e-3


@keras.saving.register_keras_serializable(package="tfgen")
class CVAE(OwnLossModel):
    """Learns fingerprints given conditions, and the properties that fingerprints have.

    With x the scaled fingerprint, c the scaled condition and z the latent vector:

    posterior q(z | x, c) = Normal(loc, scale), both by the encoder
    prior p(z) = Normal(0, 1)
    likelihood p(x | z, c) = Normal(decoder(z, c), σ_f), one learned σ per feature

    The likelihood can also be Laplace(decoder(z, c), σ_f) or Normal(decoder(z, c), 1).

    loss = -log p(x | z, c) / F + kl_weight KL(q || p) / F + surrogate_weight |s(x) - properties|²

    where the surrogate s predicts the properties (the first entries of c) from x alone, so that a
    generated fingerprint can be checked before it is inverted. `F` is the number of features. The
    loss of validation always has the full `kl_weight`, so that epochs compare during a warm-up.

    Args:
        features: length of the fingerprint.
        conditions: length of the condition.
        properties: how many of the conditions, from the first, the surrogate predicts.
        latent: size of z.
        hidden: widths of the hidden layers of encoder and surrogate; reversed in the decoder.
        kl_weight: weight of the KL term (β).
        surrogate_weight: weight of the surrogate's squared error.
        likelihood_family: "normal", "laplace", or "unit_normal" (σ = 1).
        seed: of initial weights and of the noise in training.

    Call arguments:
        inputs: {"fingerprint": [batch, features], "condition": [batch, conditions]}, unscaled.

    Example:
        >>> cvae = CVAE(features=380, conditions=2)
        >>> cvae.adapt(fingerprints, conditions)
        >>> cvae.compile("adam")
        >>> cvae.fit({"fingerprint": fingerprints, "condition": conditions}, epochs=100)
        >>> cvae.decode(cvae.prior([8]).sample(seed=0), conditions[:8])

    References:
        D. P. Kingma, M. Welling, arXiv:1312.6114, eq. 10; K. Sohn et al., NeurIPS 2015, eq. 3.
        V. Fung et al., Mach. Learn.: Sci. Technol. 3, 045018 (2022). DOI 10.1088/2632-2153/aca1f7
    """

    @in_float32()
    def __init__(
        self,
        features: int,
        conditions: int,
        properties: int = 1,
        latent: int = 10,
        hidden: tuple[int, ...] = (256, 256),
        kl_weight: float = 1.0,
        surrogate_weight: float = 1.0,
        likelihood_family: str = "normal",
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(dtype=check_dtype("a CVAE", kwargs.pop("dtype", None)), **kwargs)
        if min(features, conditions, properties, latent) < 1 or properties > conditions:
            raise ValueError(
                f"features, conditions, properties, latent are {features}, {conditions}, "
                f"{properties}, {latent}; all must be >= 1 and properties <= conditions"
            )
        if likelihood_family not in LIKELIHOODS:
            raise ValueError(
                f"likelihood_family is {likelihood_family!r}; one of {', '.join(LIKELIHOODS)} is "
                "needed"
            )
        self.features, self.conditions, self.properties = features, conditions, properties
        self.latent, self.hidden = latent, tuple(hidden)
        self.kl_weight, self.surrogate_weight, self.seed = kl_weight, surrogate_weight, seed
        self.likelihood_family = likelihood_family
        seeds = iter(np.random.SeedSequence(seed).generate_state(8 + 3 * len(self.hidden)))

        def dense(width: int, name: str, activation: str | None = None) -> keras.layers.Dense:
            initializer = keras.initializers.GlorotUniform(seed=int(next(seeds) // 2))
            return keras.layers.Dense(width, activation, kernel_initializer=initializer, name=name)

        def stack(name: str, widths: tuple[int, ...], outputs: int) -> keras.Sequential:
            layers = [dense(w, f"{name}_{i}", "silu") for i, w in enumerate(widths)]
            return keras.Sequential([*layers, dense(outputs, f"{name}_out")], name=name)

        self.encoder = stack("encoder", self.hidden, 2 * latent)
        self.decoder = stack("decoder", self.hidden[::-1], features)
        self.surrogate = stack("surrogate", self.hidden, properties)
        self.noise = keras.random.SeedGenerator(int(next(seeds) // 2))
        self._trackers = [
            keras.metrics.Mean(name=name)
            for name in (
                "loss", "nll", "kl", "property_error", "active_units", "condition_error"
            )
        ]  # fmt: skip

    @in_float32()
    def build(self, input_shape: Any = None) -> None:
        """Creates all weights, those of the scaling included."""

        def constant(name: str, shape: tuple[int, ...], value: float) -> keras.Variable:
            return self.add_weight(
                shape=shape,
                initializer=keras.initializers.Constant(value),
                trainable=False,
                name=name,
            )

        self.feature_mean = constant("feature_mean", (self.features,), 0.0)
        self.feature_scale = constant("feature_scale", (self.features,), 1.0)
        self.condition_mean = constant("condition_mean", (self.conditions,), 0.0)
        self.condition_scale = constant("condition_scale", (self.conditions,), 1.0)
        # A weight and not an attribute: an attribute's value is frozen into the traced graph.
        self.kl_warmth = constant("kl_warmth", (), 1.0)
        self.raw_sigma = self.add_weight(
            shape=(self.features,),
            initializer=keras.initializers.Constant(0.0),
            trainable=self.likelihood_family != "unit_normal",
            name="raw_sigma",
        )
        self.encoder.build((None, self.features + self.conditions))
        self.decoder.build((None, self.latent + self.conditions))
        self.surrogate.build((None, self.features))
        super().build(input_shape)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        names = (
            "features", "conditions", "properties", "latent", "kl_weight", "surrogate_weight",
            "likelihood_family", "seed",
        )  # fmt: skip
        own = {name: getattr(self, name) for name in names}
        return {**super().get_config(), **own, "hidden": list(self.hidden)}

    def adapt(
        self, fingerprints: np.ndarray, conditions: np.ndarray, scale: np.ndarray | None = None
    ) -> None:
        """Sets the scaling from training data: mean and spread of every column.

        Args:
            fingerprints: [n, features].
            conditions: [n, conditions]; a column that never varies is only centred.
            scale: [features], instead of the fingerprints' standard deviations; what belongs
                together is known elsewhere (`Fingerprint.scale`).

        Raises:
            ValueError: if an array is of the wrong shape, or a value is not finite.
        """
        if not self.built:
            self.build()
        _check_rows("fingerprints", fingerprints, self.features)
        _check_rows("conditions", conditions, self.conditions)
        if len(fingerprints) != len(conditions):
            raise ValueError(
                f"there are {len(fingerprints)} fingerprints and {len(conditions)} conditions; as "
                "many of each are needed"
            )
        if scale is None:
            scale = np.asarray(fingerprints, np.float64).std(axis=0)
            scale = np.maximum(scale, SCALE_FLOOR * scale.max() or 1.0)
        scale = np.asarray(scale, np.float64)
        if scale.shape != (self.features,) or not (np.isfinite(scale) & (scale > 0)).all():
            raise ValueError(f"scale has to be {self.features} finite numbers above 0")
        self.feature_mean.assign(np.mean(fingerprints, axis=0))
        self.feature_scale.assign(scale)
        deviation = np.asarray(conditions, np.float64).std(axis=0)
        self.condition_mean.assign(np.mean(conditions, axis=0))
        self.condition_scale.assign(np.where(deviation > 1e-6, deviation, 1.0))

    def export(self, filepath: str | os.PathLike[str], *arguments: Any, **options: Any) -> None:
        """Exports what `call` computes as Keras does, for batches of any size.

        A SavedModel that also samples, inverts and takes structures is made by `tfgen.export`.
        """
        if not self.built:
            self.build()
        widths = {"fingerprint": self.features, "condition": self.conditions}
        inputs = {k: keras.InputSpec("float32", (None, width)) for k, width in widths.items()}
        options.setdefault("input_signature", [inputs])
        super().export(filepath, *arguments, **options)

    def posterior(self, fingerprints: tf.Tensor, conditions: tf.Tensor) -> Distribution:
        """Returns q(z | x, c), batch [batch], event [latent]."""
        x, c = self._scaled(fingerprints), self._scaled_condition(conditions)
        return self._normal(*tf.split(self.encoder(tf.concat([x, c], -1)), 2, axis=-1))

    def prior(self, shape: Any = ()) -> Distribution:
        """Returns p(z), batch `shape`, event [latent]."""
        zeros = tf.zeros([*shape, self.latent])
        return tfd.MultivariateNormalDiag(zeros, tf.ones_like(zeros))

    def likelihood(self, latents: tf.Tensor, conditions: tf.Tensor) -> Distribution:
        """Returns p(x | z, c) of the scaled fingerprint, batch [batch], event [features]."""
        c = self._scaled_condition(conditions)
        return self._likelihood(self.decoder(tf.concat([latents, c], -1)))

    def decode(self, latents: tf.Tensor, conditions: tf.Tensor) -> tf.Tensor:
        """Returns the mean of the likelihood as unscaled fingerprints, [batch, features]."""
        mean = self.likelihood(latents, conditions).mean()
        return mean * self.feature_scale + self.feature_mean

    def predict_properties(self, fingerprints: tf.Tensor) -> tf.Tensor:
        """Returns the surrogate's properties of fingerprints, [batch, properties], unscaled."""
        scaled = self.surrogate(self._scaled(fingerprints))
        scale = self.condition_scale[: self.properties]
        return scaled * scale + self.condition_mean[: self.properties]

    def call(self, inputs: Mapping[str, tf.Tensor], training: bool = False) -> dict[str, tf.Tensor]:
        """Encodes, samples z (its mean outside training), decodes; predicts the properties."""
        x, c = inputs["fingerprint"], inputs["condition"]
        posterior = self.posterior(x, c)
        if training:
            # Keras keeps its seeds as int64, which TFP refuses.
            seed = tf.cast(self.noise.next(), tf.int32)
            z = posterior.sample(seed=seed)
        else:
            z = posterior.mean()
        return {
            "latent_loc": posterior.mean(),
            "latent_scale": posterior.stddev(),
            "fingerprint": self.decode(z, c),
            "properties": self.predict_properties(x),
        }

    def compute_loss(
        self,
        x: Mapping[str, tf.Tensor] | None = None,
        y: Any = None,
        y_pred: dict[str, tf.Tensor] | None = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> tf.Tensor:
        """The loss of the class docstring; updates the metrics."""
        if x is None or y_pred is None:
            raise ValueError("compute_loss needs the inputs x and the outputs y_pred")
        posterior = tfd.MultivariateNormalDiag(y_pred["latent_loc"], y_pred["latent_scale"])
        likelihood = self._likelihood(self._scaled(y_pred["fingerprint"]))
        nll = -likelihood.log_prob(self._scaled(x["fingerprint"])) / self.features
        kl = posterior.kl_divergence(self.prior([1])) / self.features
        wanted = self._scaled_condition(x["condition"])[:, : self.properties]
        scale = self.condition_scale[: self.properties]
        found = (y_pred["properties"] - self.condition_mean[: self.properties]) / scale
        error = tf.reduce_mean((found - wanted) ** 2, axis=-1)
        weight = self.kl_weight * (self.kl_warmth if training else 1.0)
        each = nll + weight * kl + self.surrogate_weight * error
        if sample_weight is not None:
            each *= _checked_weights(tf.cast(sample_weight, each.dtype))
        loss = tf.reduce_mean(each)
        each_unit = 0.5 * tf.reduce_mean(
            y_pred["latent_scale"] ** 2
            + y_pred["latent_loc"] ** 2
            - 1.0
            - 2.0 * tf.math.log(y_pred["latent_scale"]),
            axis=0,
        )
        active = tf.reduce_sum(tf.cast(each_unit > ACTIVE, tf.float32))
        heeded = self._condition_error(x["condition"][: WATCHED if training else None])
        values = (loss, nll, kl * float(self.features), tf.sqrt(error), active, heeded)
        for tracker, value in zip(self._trackers, values, strict=True):
            tracker.update_state(value)
        # Gradients are summed over replicas, where there are several.
        return loss / tf.distribute.get_strategy().num_replicas_in_sync

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """What `fit` shows, besides the loss.

        - nll: per feature; kl: nats.
        - property_error: of the surrogate, in standard deviations of the properties.
        - active_units: entries of z with a KL divergence above 0.05 nats. None left means that the
          posterior has collapsed: the decoder does without z.
        - condition_error: difference between the surrogate's properties of fingerprints decoded
          from the prior and those they were to have, in standard deviations. Near 1 or above, the
          decoder ignores the condition.
        """
        return self._trackers

    def _condition_error(self, conditions: tf.Tensor) -> tf.Tensor:
        shape = [tf.shape(conditions)[0], self.latent]
        # The generator is named, as XLA would take another.
        z = tf.random.stateless_normal(shape, [self.seed % 2**31, 0], alg="philox")
        scale = self.condition_scale[: self.properties]
        found = self.predict_properties(self.decode(z, conditions))
        wanted = tf.cast(conditions[:, : self.properties], tf.float32)
        return tf.sqrt(tf.reduce_mean(((found - wanted) / scale) ** 2, axis=-1))

    def _likelihood(self, loc: tf.Tensor) -> Distribution:
        if self.likelihood_family == "laplace":
            return tfd.Independent(tfd.Laplace(loc, self._positive(self.raw_sigma)), 1)
        if self.likelihood_family == "unit_normal":
            return tfd.MultivariateNormalDiag(loc, tf.ones_like(loc))
        return self._normal(loc, self.raw_sigma)

    def _normal(self, loc: tf.Tensor, raw_scale: tf.Tensor) -> Distribution:
        return tfd.MultivariateNormalDiag(loc, self._positive(raw_scale))

    def _positive(self, raw_scale: tf.Tensor) -> tf.Tensor:
        return tf.nn.softplus(raw_scale) + SIGMA_FLOOR

    def _scaled(self, fingerprints: tf.Tensor) -> tf.Tensor:
        fingerprints = _of_width("fingerprints", fingerprints, self.features)
        return (fingerprints - self.feature_mean) / self.feature_scale

    def _scaled_condition(self, conditions: tf.Tensor) -> tf.Tensor:
        conditions = _of_width("conditions", conditions, self.conditions)
        return (conditions - self.condition_mean) / self.condition_scale


def _of_width(name: str, values: tf.Tensor, width: int) -> tf.Tensor:
    """Returns float32 values; those of another width would be broadcast."""
    values = tf.cast(values, tf.float32)
    if values.shape.rank is not None:
        found = values.shape[-1] if values.shape.rank else 0
        if found not in (width, None):
            raise ValueError(f"{name} have {found} columns; {width} are needed")
    return values


def _check_rows(name: str, values: np.ndarray, width: int) -> None:
    """Checks what a scaling is to be made from."""
    shape = np.shape(values)
    if len(shape) != 2 or shape[0] < 1 or shape[1] != width:
        raise ValueError(f"{name} are of shape {list(shape)}; [n, {width}] is needed, n >= 1")
    if not np.isfinite(np.asarray(values, np.float32)).all():
        raise ValueError(f"{name} are not finite in float32")


def _checked_weights(weights: tf.Tensor) -> tf.Tensor:
    """Returns sample weights; what is none makes the loss NaN where XLA leaves assertions out."""
    message = "sample weights have to be finite numbers >= 0"
    allowed = tf.math.is_finite(weights) & (weights >= 0)
    with tf.control_dependencies([tf.debugging.Assert(tf.reduce_all(allowed), [message])]):
        return tf.where(allowed, weights, np.nan)
