"""The loss of a fingerprint: how far a structure's fingerprint is from a target.

With features F_f of the structure, t_f of the target and units s_f (`Fingerprint.scale`),

    L = 1/n Σ_f |F_f - t_f| / s_f

The mean absolute error keeps its gradient when most features already fit; minimising the squared
error instead reaches far fewer targets (docs/notes/inversion.md).

One definition serves NumPy, which judges results in float64, and TensorFlow, which descends along
its gradient in float32.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import tensorflow as tf

__all__ = ["fingerprint_loss", "fingerprint_loss_tensor", "scaled_errors"]

Array = TypeVar("Array", np.ndarray, tf.Tensor)


def scaled_errors(fingerprints: Array, targets: Array, scale: Array) -> Array:
    """Computes the errors of fingerprints in units of the scale.

    Args:
        fingerprints: [..., features].
        targets: [..., features] or [features].
        scale: [features], the unit of each feature's error.

    Returns:
        [..., features], as NumPy array or tensor, whichever was given.
    """
    return (fingerprints - targets) / scale


def fingerprint_loss(errors: np.ndarray) -> np.ndarray:
    """Computes losses from errors in units of the scale.

    Args:
        errors: [..., features], from `scaled_errors`.

    Returns:
        [...], the mean absolute error; infinite where an error is not finite.
    """
    loss = np.abs(errors).mean(axis=-1)
    return np.where(np.isfinite(loss), loss, np.inf)


def fingerprint_loss_tensor(errors: tf.Tensor) -> tf.Tensor:
    """Computes losses inside TensorFlow, differentiably.

    Args:
        errors: [..., features], from `scaled_errors`.

    Returns:
        [...], the mean absolute error; not finite where an error is not finite.
    """
    return tf.reduce_mean(tf.abs(errors), axis=-1)
