"""The folder of a model: its files, written and read without running any code of theirs."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from ase import Atoms

from tfgen._files import new_folder, require_folder_replaceable
from tfgen.models._keras import keras, save_weights
from tfgen.models.arrays import read_arrays

__all__ = [
    "CONTENTS",
    "MODEL_FILES",
    "NNP_FILE",
    "SCHEMA",
    "SCHEMA_VERSION",
    "WEIGHTS_FILE",
    "encode_config",
    "read_config",
    "read_structures",
    "read_weights",
    "write_folder",
]

SCHEMA = "tfgen-model"
SCHEMA_VERSION = 3
CONFIG_FILE, WEIGHTS_FILE = "config.json", "weights.weights.h5"
STRUCTURES_FILE = "training_structures.npz"
NNP_FILE = "nnp.weights.h5"  # only where there is one
MODEL_FILES = (CONFIG_FILE, WEIGHTS_FILE, STRUCTURES_FILE)
CONTENTS = (*MODEL_FILES, NNP_FILE, "library.npz")  # the last is of schema version 2

Network = TypeVar("Network", bound=keras.Model)


def encode_config(config: Mapping[str, Any]) -> bytes:
    """Returns the text of config.json.

    Raises:
        ValueError: if something in it has no place in JSON, as numbers that are not finite.
    """
    try:
        text = json.dumps(config, indent=1, ensure_ascii=False, allow_nan=False)
        return (text + "\n").encode()
    except (TypeError, ValueError) as error:  # the latter: NaN, or text that is not Unicode
        raise ValueError(f"the configuration of the model cannot be JSON: {error}") from None


def write_folder(
    folder: str | os.PathLike[str],
    config: Mapping[str, Any],
    cvae: keras.Model,
    nnp: keras.Model | None,
    structures: Sequence[Atoms],
    overwrite: bool = False,
) -> None:
    """Writes config.json, weights (Keras' HDF5) and training_structures.npz (NumPy).

    Raises:
        FileExistsError: if the folder exists and `overwrite` is false, or is no model.
        ValueError: if the configuration cannot be JSON.
    """
    require_folder_replaceable(folder, overwrite, CONTENTS)
    text = encode_config(config)
    with new_folder(folder, overwrite) as temporary:
        (temporary / CONFIG_FILE).write_bytes(text)
        save_weights(cvae, temporary / WEIGHTS_FILE)
        _write_structures(temporary / STRUCTURES_FILE, structures)
        if nnp is not None:
            save_weights(nnp, temporary / NNP_FILE)


def read_config(folder: Path) -> dict[str, Any]:
    """Returns what config.json holds.

    Raises:
        FileNotFoundError: if the folder is missing, or a file in it that every model has.
        ValueError: if it is not a model's, or of another version.
    """
    if not folder.is_dir():
        problem = "is a file" if folder.exists() else "does not exist"
        raise FileNotFoundError(f"model folder {str(folder)!r} {problem}")
    _require(folder, CONFIG_FILE)
    config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    if not isinstance(config, dict) or config.get("schema") != SCHEMA:
        raise ValueError("config.json is not a tfgen model's")
    # Before anything is missed that models of another version do not have.
    version = config.get("schema_version")
    if version != SCHEMA_VERSION:
        raise ValueError(
            f"it has schema version {version}; this version of tfgen reads {SCHEMA_VERSION}, so "
            "train it again"
        )
    for name in MODEL_FILES:
        _require(folder, name)
    return config


def read_weights(folder: Path, name: str, network: Network) -> Network:
    """Returns a network with the weights of a file."""
    _require(folder, name)
    network.build()
    network.load_weights(folder / name)
    return network


def _require(folder: Path, name: str) -> None:
    if not (folder / name).is_file():
        raise FileNotFoundError(f"model folder {str(folder)!r} lacks {name}")


def _write_structures(path: Path, structures: Sequence[Atoms]) -> None:
    numbers = [np.zeros(0, np.int16), *(s.numbers for s in structures)]
    positions = [np.zeros([0, 3]), *(s.positions for s in structures)]
    np.savez_compressed(
        path,
        sizes=np.array([len(s) for s in structures], np.int32),
        numbers=np.concatenate(numbers).astype(np.int16),
        positions=np.concatenate(positions).astype(np.float32),
    )


def read_structures(folder: Path) -> tuple[Atoms, ...]:
    """Returns the training structures.

    Raises:
        ValueError: if the file is damaged.
    """
    path = folder / STRUCTURES_FILE
    arrays = read_arrays(path)
    sizes, numbers, positions = (arrays[k] for k in ("sizes", "numbers", "positions"))
    if sizes.sum() != len(numbers) or positions.shape != (len(numbers), 3) or (sizes < 0).any():
        raise ValueError(f"{path.name}: its arrays do not fit together")
    ends = np.cumsum(sizes)
    return tuple(
        Atoms(numbers[end - size : end], positions=positions[end - size : end])
        for size, end in zip(sizes, ends, strict=True)
    )
