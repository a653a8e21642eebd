"""The HDF5 file of a data set, array by array; `datasets/README.md` documents the layout."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import h5py
import numpy as np
from ase import Atoms
from ase.data import chemical_symbols

from tfgen._files import from_json, to_json
from tfgen.datasets.hdf5_checks import InvalidError, check_hdf5, check_memory

__all__ = ["FORMAT", "SPLITS", "InvalidError", "is_hdf5", "read", "write"]

SCHEMA = "tfgen-dataset"
SCHEMA_VERSION = 1
SPLITS = ("train", "validation", "test")

# The oldest format that has check sums of all that says where things are: damage is seen. In older
# ones the HDF5 library can follow damaged addresses to wrong numbers, or in endless circles.
FORMAT = ("v110", "v110")
_COMPRESSION = {"compression": "gzip", "compression_opts": 4, "shuffle": True, "fletcher32": True}
# Memory that an `ase.Atoms` takes besides its positions and numbers, bytes.
_ATOMS = 2000


def write(
    file: h5py.File,
    *,
    structures: Sequence[Atoms],
    properties: Mapping[str, np.ndarray],
    units: Mapping[str, str],
    split: np.ndarray,
    metadata: Mapping[str, Any],
    forces: Sequence[np.ndarray] | None = None,
) -> None:
    """Writes the fields of a `Dataset` into an empty file."""
    offsets = np.cumsum([0] + [len(s) for s in structures], dtype=np.int64)
    _write_text(file, "schema", SCHEMA)
    file.attrs["schema_version"] = SCHEMA_VERSION
    _write_text(file, "metadata", to_json(metadata))
    file.create_dataset("offsets", data=offsets, **_COMPRESSION)
    numbers = np.concatenate([s.numbers for s in structures]).astype(np.uint8)
    file.create_dataset("numbers", data=numbers, **_COMPRESSION)
    _write(file, "positions", np.concatenate([s.positions for s in structures]), "Å")
    if forces is not None:
        _write(file, "forces", np.concatenate(forces), "eV/Å")
    _write(file, "cell", np.array([s.cell.array for s in structures]), "Å")
    pbc = np.array([s.pbc for s in structures], bool)
    file.create_dataset("pbc", data=pbc, **_COMPRESSION)
    item = file.create_dataset("split", data=split, **_COMPRESSION)
    _write_text(item, "names", ", ".join(SPLITS))
    group = file.create_group("properties", track_order=True)
    for name, values in properties.items():
        _write(group, name, values, units[name])


def _write(group: h5py.Group, name: str, values: np.ndarray, unit: str) -> None:
    dataset = group.create_dataset(name, data=np.asarray(values, np.float64), **_COMPRESSION)
    _write_text(dataset, "units", unit)


def _write_text(item: h5py.HLObject, name: str, text: str) -> None:
    # Text of variable length would stand where HDF5 keeps no check sums.
    data = text.encode()
    item.attrs.create(name, data, dtype=h5py.string_dtype("utf-8", max(1, len(data))))


def _text(value: Any) -> Any:
    return value.decode() if isinstance(value, bytes) else value


def is_hdf5(path: os.PathLike[str]) -> bool:
    """Says whether a file begins as HDF5 does, even if it is truncated."""
    with open(path, "rb") as file:  # noqa: PTH123  (h5py.is_hdf5 is false for truncated files too)
        return file.read(8) == b"\x89HDF\r\n\x1a\n"


def read(file: h5py.File) -> dict[str, Any]:
    """Returns the fields of the `Dataset` that a file holds.

    Raises:
        InvalidError: if it does not hold one of this schema version, or as `check_hdf5`.
    """
    if _text(file.attrs.get("schema")) != SCHEMA:
        raise InvalidError("is an HDF5 file, but not a tfgen data set")
    version = file.attrs.get("schema_version")
    if version != SCHEMA_VERSION:
        raise InvalidError(
            f"has schema version {version}; this version of tfgen reads {SCHEMA_VERSION}"
        )
    check_hdf5(file)
    offsets = _array(file, "offsets", (None,), "iu").astype(np.int64)
    n = len(offsets) - 1
    check_memory(file, n * _ATOMS)
    if n < 1:
        raise InvalidError("has no structures")
    if offsets[0] != 0 or (np.diff(offsets) < 1).any():
        raise InvalidError("is damaged: 'offsets' does not grow from 0")
    atoms = int(offsets[-1])
    numbers = _array(file, "numbers", (atoms,), "iu").astype(int)
    if (numbers < 1).any() or (numbers >= len(chemical_symbols)).any():
        raise InvalidError("is damaged: 'numbers' holds something else than atomic numbers")
    positions = _array(file, "positions", (atoms, 3))
    forces = _array(file, "forces", (atoms, 3), finite=False) if "forces" in file else None
    cell = _array(file, "cell", (n, 3, 3))
    pbc = _array(file, "pbc", (n, 3)).astype(bool)
    if (pbc & ~cell.any(axis=2)).any():
        raise InvalidError("holds a structure that is periodic along an axis without cell vector")
    split = _array(file, "split", (n,), "iu")
    if not np.isin(split, range(len(SPLITS))).all():
        raise InvalidError("is damaged: 'split' holds something else than 0, 1, 2")
    group = file.get("properties")
    if not isinstance(group, h5py.Group):
        raise InvalidError("is damaged: 'properties' is missing")
    properties = {name: _array(group, name, (n,)) for name in group}
    try:
        metadata = from_json(_text(file.attrs["metadata"]))
    except ValueError as error:
        raise InvalidError(f"is truncated or damaged: 'metadata' is not JSON: {error}") from error
    if not isinstance(metadata, dict):
        raise InvalidError("is damaged: 'metadata' is not a JSON object")
    for key in ("counts", "versions", "thresholds"):
        if not isinstance(metadata.get(key, {}), dict):
            raise InvalidError(f"is damaged: {key!r} in 'metadata' is not a JSON object")
    if not all(isinstance(value, int) for value in metadata.get("counts", {}).values()):
        raise InvalidError("is damaged: a count in 'metadata' is not a whole number")
    return {
        "structures": [
            Atoms(numbers[start:stop], positions=positions[start:stop], cell=c, pbc=p)
            for start, stop, c, p in zip(offsets[:-1], offsets[1:], cell, pbc, strict=True)
        ],
        "properties": properties,
        "units": {name: str(_text(group[name].attrs.get("units", "unknown"))) for name in group},
        "split": split,
        "metadata": metadata,
        "forces": None if forces is None else np.split(forces, offsets[1:-1]),
    }


def _array(
    group: h5py.Group,
    name: str,
    shape: tuple[int | None, ...],
    kinds: str = "iufb",
    finite: bool = True,
) -> np.ndarray:
    """Reads an array and checks its rank, its known sizes, its type and that it is finite."""
    dataset = group.get(name)
    if not isinstance(dataset, h5py.Dataset):
        raise InvalidError(f"is damaged: {name!r} is missing")
    wrong = len(dataset.shape) != len(shape) or any(
        want not in (None, got) for want, got in zip(shape, dataset.shape, strict=False)
    )
    if wrong or dataset.dtype.kind not in kinds:
        raise InvalidError(f"is damaged: {name!r} has shape {dataset.shape} of {dataset.dtype}")
    if math.prod(dataset.shape) == 0:
        return np.zeros(dataset.shape, dataset.dtype)
    values = np.asarray(dataset[()])
    if finite and not np.isfinite(values).all():
        raise InvalidError(f"holds values in {name!r} that are not finite")
    return values
