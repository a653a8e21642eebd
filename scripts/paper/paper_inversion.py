"""The inversion of the source paper, as published, for comparisons; `tfgen.reconstruct` is ours.

Imported by the other scripts:

    from paper_inversion import invert
    found = invert(Fingerprint.preset("fung2022"), targets, [78] * 10, seed=0)
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from tfgen.fingerprints.fingerprint import Fingerprint
from tfgen.structures.batch import StructureBatch

__all__ = ["Inversion", "invert"]

TRIALS, HOPS, HOP_LENGTH = 2, 10, 1.0  # new random structures, hops of each, Å at most
HOPPED = 1e-4  # loss at which hopping ends
CONVERGED = 5e-5  # loss at which a descent ends
FACTOR, LOWEST_RATE, PLATEAU = 0.8, 1e-4, 1e-4  # of the learning rate; relative gain that counts
BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8  # Adam's


class Descent(NamedTuple):
    """Settings of one descent by Adam.

    Attributes:
        rate: first learning rate, Å.
        steps: the most steps.
        patience: steps without a gain after which the rate falls.
        window: the descent ends if the loss is what it was this many steps (the present one
            counted) ago, within `flat` of it.
        flat: relative.
    """

    rate: float
    steps: int
    patience: int
    window: int
    flat: float


HOP = Descent(rate=0.2, steps=140, patience=15, window=100, flat=1e-4)
FINE = Descent(rate=0.04, steps=900, patience=20, window=20, flat=1e-5)
LONGEST_WINDOW = max(HOP.window, FINE.window)


class Inversion(NamedTuple):
    """What `invert` finds, one entry per target.

    Attributes:
        positions: [targets, atoms, 3], Å.
        loss: [targets], mean absolute difference of the plain, unscaled features.
        steps: [targets] int, gradients of the loss that were taken for it.
    """

    positions: np.ndarray
    loss: np.ndarray
    steps: np.ndarray


def invert(
    fingerprint: Fingerprint,
    targets: np.ndarray,
    numbers: Sequence[int] | np.ndarray,
    *,
    seed: int,
    box: float = 20.0,
    progress: bool = False,
) -> Inversion:
    """Inverts fingerprints by the paper's basin hopping with Adam.

    For each target, the atoms are placed at random in the box. Adam minimises

    L = 1/F Σ_f |F_f(positions) - target_f|

    in up to 140 steps at rate 0.2, which falls by a fifth on plateaus of 15 steps. Then all atoms
    of the best structure so far are displaced by up to 1 Å along each axis. This is repeated for
    10 hops, of which only those that improve are kept. All of it is done twice, unless the first
    trial gets below 1e-4. The best structure gets up to 900 more steps from rate 0.04. A descent
    also ends below 5e-5, or when its loss does not change any more.

    All targets advance together, and each gives the result that it would give alone: the random
    numbers of target i come from `[seed, i]`, and no target changes another. The published method
    takes one target at a time; pass one at a time to measure that.

    One thing differs from the public code: there the structure kept is the one a step after that
    with the lowest loss; here it is the one with the lowest loss, which helps the last digits.

    Args:
        fingerprint: differentiable; the paper's is `Fingerprint.preset("fung2022")`.
        targets: [targets, fingerprint.size].
        numbers: atomic numbers, [atoms] for all targets or [targets, atoms].
        seed: of the initial positions and the displacements.
        box: edge of the cube of the initial positions, Å; the atoms may leave it.
        progress: show a progress bar.

    References:
        V. Fung et al., Mach. Learn.: Sci. Technol. 3, 045018 (2022), section 2.2.
        DOI 10.1088/2632-2153/aca1f7; github.com/Fung-Lab/StructRepGen, its settings.
    """
    targets = np.asarray(targets, np.float32)
    if targets.ndim != 2 or targets.shape[1] != fingerprint.size:
        raise ValueError(f"targets has shape {targets.shape}; [n, {fingerprint.size}] is needed")
    count = len(targets)
    numbers = np.broadcast_to(np.asarray(numbers, np.int32), (count, np.shape(numbers)[-1]))
    shape = (count, numbers.shape[1], 3)
    generators = [np.random.default_rng([seed, i]) for i in range(count)]

    def uniform(low: float, high: float) -> np.ndarray:
        return np.array([g.uniform(low, high, shape[1:]) for g in generators], np.float32)

    descend = functools.partial(_compiled(fingerprint), targets=targets, numbers=numbers)
    best, best_loss = np.zeros(shape, np.float32), np.full(count, np.inf, np.float32)
    steps, done = np.zeros(count, int), np.zeros(count, bool)

    def take(start: np.ndarray, settings: Descent, active: np.ndarray) -> tuple[np.ndarray, ...]:
        found, loss, taken = descend(start, active=active, **_tensors(settings))
        steps[active] += taken.numpy()[active]
        return found.numpy(), loss.numpy()

    def keep(better: np.ndarray, found: np.ndarray, loss: np.ndarray) -> None:
        best[better], best_loss[better] = found[better], loss[better]

    with tqdm(total=TRIALS * HOPS + 1, desc="inverting", disable=not progress) as bar:
        for _ in range(TRIALS):
            x = uniform(0.0, box)
            local, local_loss = x.copy(), np.full(count, np.inf, np.float32)
            for _ in range(HOPS):
                bar.update()
                if done.all():
                    continue
                found, loss = take(x, HOP, ~done)
                better = ~done & (loss < local_loss)
                local[better], local_loss[better] = found[better], loss[better]
                keep(~done & (local_loss < best_loss), local, local_loss)
                done |= local_loss < HOPPED
                x = local + uniform(-HOP_LENGTH, HOP_LENGTH)
        found, loss = take(best, FINE, np.ones(count, bool))
        keep(loss < best_loss, found, loss)
        bar.update()
    return Inversion(best.astype(np.float64), best_loss.astype(np.float64), steps)


def _tensors(settings: Descent) -> dict[str, tf.Tensor]:
    """As tensors, so that both kinds of descent share one compiled graph."""
    whole = {name: tf.constant(getattr(settings, name)) for name in ("steps", "patience", "window")}
    return {**whole, "rate": tf.constant(settings.rate), "flat": tf.constant(settings.flat)}


@functools.lru_cache(maxsize=4)
def _compiled(fingerprint: Fingerprint) -> Callable[..., Any]:
    """One descent of all targets, compiled once per fingerprint and shape."""

    def loss_of(x: tf.Tensor, targets: tf.Tensor, numbers: tf.Tensor) -> tf.Tensor:
        found = fingerprint(StructureBatch.of_clusters(x, numbers))
        return tf.reduce_mean(tf.abs(found - targets), axis=-1)

    @tf.function(jit_compile=True, autograph=False)
    def descend(
        x: tf.Tensor,
        *,
        targets: tf.Tensor,
        numbers: tf.Tensor,
        active: tf.Tensor,
        rate: tf.Tensor,
        steps: tf.Tensor,
        patience: tf.Tensor,
        window: tf.Tensor,
        flat: tf.Tensor,
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Returns the structures of lowest loss, that loss, and the steps taken, per target."""
        x = tf.convert_to_tensor(x)
        zero = tf.zeros_like(x)
        row = zero[:, 0, 0]
        count = tf.zeros_like(row, tf.int32)
        state = {
            "t": tf.constant(0),
            "x": x,
            "m": zero,
            "v": zero,
            "rate": row + rate,
            "plateau": row + np.inf,  # the lowest loss as the schedule of the rate sees it
            "waited": count,
            "best": x,
            "best_loss": row + np.inf,
            "steps": count,
            "history": tf.zeros([LONGEST_WINDOW, 1]) + row,
            "active": tf.convert_to_tensor(active),
        }

        def body(s: dict[str, tf.Tensor]) -> tuple[dict[str, tf.Tensor]]:
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(s["x"])
                loss = loss_of(s["x"], targets, numbers)
            gradient = tape.gradient(loss, s["x"])
            better = s["active"] & (loss < s["best_loss"])
            best_loss = tf.where(better, loss, s["best_loss"])

            taken = tf.cast(s["t"] + 1, tf.float32)
            m = BETA1 * s["m"] + (1.0 - BETA1) * gradient
            v = BETA2 * s["v"] + (1.0 - BETA2) * gradient**2
            m_hat, v_hat = m / (1.0 - BETA1**taken), v / (1.0 - BETA2**taken)
            moved = s["x"] - s["rate"][:, None, None] * m_hat / (tf.sqrt(v_hat) + EPSILON)

            gain = loss < s["plateau"] * (1.0 - PLATEAU)
            waited = tf.where(gain, 0, s["waited"] + 1)
            slower = waited > patience
            lower = tf.maximum(s["rate"] * FACTOR, LOWEST_RATE)

            history = tf.tensor_scatter_nd_update(
                s["history"], [[s["t"] % LONGEST_WINDOW]], loss[None]
            )
            then = tf.gather(history, (s["t"] + 1 - window) % LONGEST_WINDOW)
            still = (s["t"] + 1 > window) & (tf.abs((loss - then) / then) < flat)
            ended = (best_loss < CONVERGED) | still
            new = {
                "t": s["t"] + 1,
                "x": tf.where(s["active"][:, None, None], moved, s["x"]),
                "m": m,
                "v": v,
                "rate": tf.where(slower, lower, s["rate"]),
                "plateau": tf.where(gain, loss, s["plateau"]),
                "waited": tf.where(slower, 0, waited),
                "best": tf.where(better[:, None, None], s["x"], s["best"]),
                "best_loss": best_loss,
                "steps": s["steps"] + tf.cast(s["active"], tf.int32),
                "history": history,
                "active": s["active"] & ~ended,
            }
            return (new,)

        def going(s: dict[str, tf.Tensor]) -> tf.Tensor:
            return (s["t"] < steps) & tf.reduce_any(s["active"])

        (end,) = tf.while_loop(going, body, (state,))
        return end["best"], end["best_loss"], end["steps"]

    return descend
