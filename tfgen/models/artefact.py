"""The folder of a model: its files, written and read without running any code of theirs."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import h5py
import numpy as np
from ase import Atoms

from tfgen._files import from_json, new_folder, require_folder_replaceable
from tfgen.datasets.hdf5_checks import InvalidError, check_hdf5
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
    "write_checksums",
    "write_folder",
]

SCHEMA = "tfgen-model"
SCHEMA_VERSION = 4
CONFIG_FILE, WEIGHTS_FILE = "config.json", "weights.weights.h5"
STRUCTURES_FILE = "training_structures.npz"
NNP_FILE = "nnp.weights.h5"  # only where there is one
# Size and SHA-256 of each of the others.
CHECKSUMS_FILE = "checksums.json"
MODEL_FILES = (CONFIG_FILE, WEIGHTS_FILE, STRUCTURES_FILE, CHECKSUMS_FILE)
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
    """Writes config.json, weights (Keras' HDF5), training_structures.npz (NumPy) and check sums.

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
        write_checksums(temporary)


def write_checksums(folder: Path) -> None:
    """Writes sizes and check sums of a model's files; after a change of one, once more."""
    sums = {path.name: _describe(path) for path in sorted(folder.iterdir())}
    sums = {name: sums[name] for name in CONTENTS if name in sums and name != CHECKSUMS_FILE}
    (folder / CHECKSUMS_FILE).write_text(json.dumps(sums, indent=1) + "\n", encoding="utf-8")


def _describe(path: Path) -> dict[str, Any]:
    data = path.read_bytes()
    return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def _check_files(folder: Path) -> None:
    """Compares the files of a model with their sizes and check sums.

    Raises:
        FileNotFoundError: if one is missing.
        ValueError: if one is not what was written.
    """
    try:
        sums = json.loads((folder / CHECKSUMS_FILE).read_text(encoding="utf-8"))
        expected = {str(name): (int(v["bytes"]), str(v["sha256"])) for name, v in sums.items()}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise ValueError(f"{CHECKSUMS_FILE} holds no check sums") from None
    for name in {*MODEL_FILES, *expected} - {CHECKSUMS_FILE}:
        if name not in CONTENTS or name not in expected:
            raise ValueError(f"{CHECKSUMS_FILE} holds no check sums of these files: {name!r}")
        _require(folder, name)
        size = (folder / name).stat().st_size
        if size != expected[name][0]:
            raise ValueError(f"{name} has {size} bytes, {expected[name][0]} were written")
    for name, (_, digest) in expected.items():
        if _describe(folder / name)["sha256"] != digest:
            raise ValueError(f"{name} is not what was written: its check sum differs")


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
    if (folder / CHECKSUMS_FILE).is_file():  # models of older versions have none
        _check_files(folder)
    try:
        config = from_json((folder / CONFIG_FILE).read_bytes())
    except ValueError as error:
        raise ValueError(f"config.json is no JSON: {error}") from None
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


def read_weights(
    folder: Path, name: str, make: Callable[[], Network], widths: Sequence[int]
) -> Network:
    """Returns a network with the weights of a file.

    Args:
        folder: of the model.
        name: of the file.
        make: makes the network.
        widths: of some of its layers, each of which feeds the next.

    Raises:
        ValueError: if the file does not hold the weights of such a network.
    """
    _require(folder, name)
    # A network is made only if its weights are there: the memory that it takes is known.
    needed = sum(a * b for a, b in itertools.pairwise(widths))
    try:
        with h5py.File(folder / name) as file:
            check_hdf5(file)
            stored = file.id.get_filesize() // np.dtype(np.float32).itemsize
        if needed > stored:
            raise ValueError(f"the network has {needed} weights, the file at most {stored}")
        network = make()
        network.build()
        network.load_weights(folder / name)
    except (InvalidError, ValueError, TypeError, KeyError, OSError, RuntimeError) as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise ValueError(f"{name}: {reason[0]}") from None
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
    kinds = {name: array.dtype.kind for name, array in arrays.items()}
    if kinds != {"sizes": "i", "numbers": "i", "positions": "f"}:
        raise ValueError(f"{path.name} does not hold sizes, numbers and positions")
    sizes, numbers, positions = (arrays[k] for k in ("sizes", "numbers", "positions"))
    flat = sizes.ndim == numbers.ndim == 1 and positions.shape == (len(numbers), 3)
    if not flat or (sizes < 1).any() or sizes.sum(dtype=object) != len(numbers):
        raise ValueError(f"{path.name}: its arrays do not fit together")
    ends = np.cumsum(sizes)
    return tuple(
        Atoms(numbers[end - size : end], positions=positions[end - size : end])
        for size, end in zip(sizes, ends, strict=True)
    )
