"""The networks of the source paper, as published, for comparisons; `tfgen.CVAE` is ours.

Imported by the other scripts:

    from paper_network import fit
    networks = fit(fingerprints, energies, seed=0)
    networks.sample(energy=2.5, count=1000, seed=1)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

__all__ = ["Networks", "fit"]

LATENT, HIDDEN, LAYERS, KL_WEIGHT = 10, 128, 3, 2.5
BATCH, EPOCHS, RATE, LAST_RATE, WEIGHT_DECAY = 64, 1000, 1e-3, 2e-4, 1e-3
TEST_SHARE = 0.2


@dataclass(frozen=True)
class Networks:
    """What was trained.

    Attributes:
        decoder: of [n, latent + 1], latent vector and energy, to features between 0 and 1.
        surrogate: of [n, features], unscaled, to energies [n, 1].
        low, span: [features], minimum and range over the data: the scaling.
        test_loss: mean over the structures held out, of the CVAE and of the surrogate.
    """

    decoder: keras.Sequential
    surrogate: keras.Sequential
    low: np.ndarray
    span: np.ndarray
    test_loss: tuple[float, float]

    def sample(self, energy: float, count: int, seed: int) -> np.ndarray:
        """Decodes fingerprints for an energy: [count, features]."""
        z = np.random.default_rng(seed).standard_normal([count, LATENT])
        inputs = np.column_stack([z, np.full(count, energy)]).astype(np.float32)
        return self.decoder(inputs).numpy() * self.span + self.low

    def energies(self, fingerprints: np.ndarray) -> np.ndarray:
        """The surrogate's energies: [n, features] -> [n]."""
        return self.surrogate(fingerprints.astype(np.float32)).numpy()[:, 0]


def fit(
    fingerprints: np.ndarray,
    energies: np.ndarray,
    *,
    seed: int,
    epochs: int = EPOCHS,
    progress: bool = False,
) -> Networks:
    """Trains the paper's CVAE and its surrogate of the energy.

    With features x scaled to 0..1 over the data, y the energy as it is, and a batch's sums,

    loss = Σ |x - decoder(z, y)|² + 2.5 Σ KL(q(z | x, y) || Normal(0, 1))

    surrogate loss = Σ (y - s(x))²

    Widths fall (encoder) and rise (decoder) evenly between 128 and the latent 10, ELU between
    them; the surrogate, which sees unscaled features, has four hidden layers of 128 and ReLU.
    Adam from 1e-3, falling exponentially to a fifth; weight decay 1e-3 in the gradient; batches of
    64; 1,000 epochs; a fifth of the data is held out, and the weights that do best there are kept.

    Args:
        fingerprints: [n, features].
        energies: [n], in the units in which they will be asked for; unscaled they enter the
            network, which works best for values of a few units.
        seed: of the split, the weights, the noise and the order.
        epochs: how many.
        progress: show progress bars.

    References:
        V. Fung et al., Mach. Learn.: Sci. Technol. 3, 045018 (2022).
        DOI 10.1088/2632-2153/aca1f7; github.com/Fung-Lab/StructRepGen, its settings.
    """
    x = np.asarray(fingerprints, np.float32)
    y = np.asarray(energies, np.float32)[:, None]
    low, span = x.min(axis=0), np.ptp(x, axis=0)
    span = np.where(span > 0, span, 1.0)
    scaled = (x - low) / span
    order = np.random.default_rng(seed).permutation(len(x))
    held = order[: round(TEST_SHARE * len(x))]
    kept = order[len(held) :]

    seeds = iter((np.random.SeedSequence(seed).generate_state(40) // 2).tolist())
    features = x.shape[1]
    falling = np.linspace(HIDDEN, LATENT, LAYERS + 1).astype(int)[:-1]
    rising = np.linspace(LATENT + 1, HIDDEN, LAYERS + 1).astype(int)[1:]
    encoder = _stack(features + 1, [*falling, 2 * LATENT], "elu", seeds)
    decoder = _stack(LATENT + 1, [*rising, features], "elu", seeds)
    surrogate = _stack(features, [HIDDEN] * (LAYERS + 1) + [1], "relu", seeds)

    def cvae_loss(rows: np.ndarray | tf.Tensor, noise_seed: tf.Tensor) -> tf.Tensor:
        part, wanted = tf.gather(scaled, rows), tf.gather(y, rows)
        loc, log_variance = tf.split(encoder(tf.concat([part, wanted], -1)), 2, axis=-1)
        z = loc + tf.exp(log_variance / 2) * tf.random.stateless_normal(tf.shape(loc), noise_seed)
        error = tf.reduce_sum((decoder(tf.concat([z, wanted], -1)) - part) ** 2)
        kl = 0.5 * tf.reduce_sum(tf.exp(log_variance) + loc**2 - 1.0 - log_variance)
        return error + KL_WEIGHT * kl

    def surrogate_loss(rows: np.ndarray | tf.Tensor, _noise_seed: tf.Tensor) -> tf.Tensor:
        return tf.reduce_sum((surrogate(tf.gather(x, rows)) - tf.gather(y, rows)) ** 2)

    def trained(
        networks: list[keras.Sequential], loss: Callable[..., tf.Tensor], title: str
    ) -> float:
        variables = [v.value for network in networks for v in network.trainable_variables]
        bar = tqdm(range(epochs), desc=title, unit=" epochs", disable=not progress)
        return _descend(variables, loss, kept, held, next(seeds), bar) / len(held)

    losses = (
        trained([encoder, decoder], cvae_loss, "CVAE"),
        trained([surrogate], surrogate_loss, "surrogate"),
    )
    return Networks(decoder, surrogate, low, span, losses)


def _stack(
    inputs: int, widths: Sequence[int], activation: str, seeds: Iterator[int]
) -> keras.Sequential:
    """Dense layers with weights and biases sampled uniformly from ±1/√inputs, as in PyTorch."""
    layers: list[keras.layers.Layer] = [keras.Input((inputs,))]
    for place, width in enumerate(widths):
        limit = 1.0 / np.sqrt(inputs)
        weights, biases = (
            keras.initializers.RandomUniform(-limit, limit, seed=next(seeds)) for _ in range(2)
        )
        last = place == len(widths) - 1
        layers.append(
            keras.layers.Dense(
                int(width),
                None if last else activation,
                kernel_initializer=weights,
                bias_initializer=biases,
            )
        )
        inputs = int(width)
    return keras.Sequential(layers)


def _descend(
    variables: list[tf.Variable],
    loss: Callable[..., tf.Tensor],
    kept: np.ndarray,
    held: np.ndarray,
    seed: int,
    epochs: tqdm,
) -> float:
    """Minimises a loss over rows `kept`; leaves the weights that do best on `held`; returns it."""
    optimizer = keras.optimizers.Adam(RATE)
    optimizer.build(variables)

    @tf.function(autograph=False)
    def epoch(number: tf.Tensor) -> tf.Tensor:
        seeds = tf.random.split(tf.stack([tf.constant(seed), number]), 2)
        rows = tf.random.experimental.stateless_shuffle(kept, seeds[0])
        for start in range(0, len(kept), BATCH):
            noise_seed = seeds[1] + [0, start]
            with tf.GradientTape() as tape:
                value = loss(rows[start : start + BATCH], noise_seed)
            gradients = tape.gradient(value, variables)
            gradients = [g + WEIGHT_DECAY * v for g, v in zip(gradients, variables, strict=True)]
            optimizer.apply(gradients, variables)
        return loss(held, seeds[1] - [1, 1])

    best, weights = np.inf, [v.numpy() for v in variables]
    for number in epochs:
        optimizer.learning_rate.assign(RATE * (LAST_RATE / RATE) ** (number / len(epochs)))
        value = float(epoch(tf.constant(number)))
        if value < best:
            best, weights = value, [v.numpy() for v in variables]
    for variable, value in zip(variables, weights, strict=True):
        variable.assign(value)
    return best
