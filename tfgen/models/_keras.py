"""Keras as tfgen needs it: on TensorFlow, in float32, whatever else the process does with it."""

from __future__ import annotations

import contextlib
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

try:
    import keras
except ImportError as error:
    raise ImportError(
        f"Keras cannot be imported: {error}; tfgen needs it on TensorFlow, and KERAS_BACKEND is "
        f"{os.environ.get('KERAS_BACKEND', 'not set')}"
    ) from error

__all__ = ["check_dtype", "in_float32", "keras", "save_weights"]

if keras.config.backend() != "tensorflow":
    raise ImportError(
        f"Keras runs on {keras.config.backend()} here; tfgen needs TensorFlow: set KERAS_BACKEND "
        "to tensorflow before Keras is imported"
    )

DTYPE = "float32"


@contextlib.contextmanager
def in_float32() -> Iterator[None]:
    """Sets Keras' global policy and number type to float32 for a while; also a decorator.

    They may be anything: set in keras.json, or by the process for models of its own. Networks of
    tfgen are made and trained in float32, and what they compute does not depend on it.
    """
    policy, floatx = keras.config.dtype_policy(), keras.config.floatx()
    keras.config.set_floatx(DTYPE)
    keras.config.set_dtype_policy(DTYPE)
    try:
        yield
    finally:
        keras.config.set_floatx(floatx)
        keras.config.set_dtype_policy(policy)


def check_dtype(name: str, given: Any) -> str:
    """Returns float32.

    Args:
        name: of the network, for the message.
        given: what the caller, or a configuration, wants the network to compute in; None: nothing.

    Raises:
        ValueError: if it is anything but float32.
    """
    if given is not None:
        policy = keras.dtype_policies.get(given).name
        if policy != DTYPE:
            raise ValueError(f"dtype is {policy}; {name} computes in {DTYPE} only")
    return DTYPE


def save_weights(network: keras.Model, path: Path) -> None:
    """Writes the file that `network.save_weights(path)` writes.

    Where HDF5 itself writes to a disk that is full, it takes the process along. Keras makes the
    HDF5 inside a .keras file in memory.

    Args:
        network: without an optimiser, whose state would be saved, too.
        path: its name ends in .weights.h5.

    Raises:
        OSError: if it cannot be written.
    """
    whole = path.with_suffix(".keras")
    try:
        network.save(whole)
        with zipfile.ZipFile(whole) as archive:
            path.write_bytes(archive.read("model.weights.h5"))
    finally:
        whole.unlink(missing_ok=True)
