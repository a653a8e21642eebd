"""Data sets on disk: one self-describing HDF5 file that h5py alone can read.

The layout is documented in `datasets/README.md`.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import math
import os
import platform
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

import h5py
import numpy as np
from ase import Atoms
from ase.data import chemical_symbols

from tfgen import __version__
from tfgen._files import new_file, require_file

__all__ = ["SCHEMA", "SCHEMA_VERSION", "SPLITS", "Dataset", "assign_splits", "provenance"]

SCHEMA = "tfgen-dataset"
SCHEMA_VERSION = 1
SPLITS = ("train", "validation", "test")

_COMPRESSION = {"compression": "gzip", "compression_opts": 4, "shuffle": True, "fletcher32": True}
# The oldest format that has check sums of all that says where things are: damage is seen. In older
# ones the HDF5 library can follow damaged addresses to wrong numbers, or in circles for ever.
_FORMAT = ("v110", "v110")


@dataclass(frozen=True)
class Dataset:
    """Structures with their properties, their split and where they come from.

    Attributes:
        structures: n structures; positions, numbers, cell and pbc are what a file keeps of them.
        properties: name -> [n] float64, finite.
        units: name -> unit, for every property; "1" for a pure number, "unknown" if nobody said.
        split: [n] int8, place in `SPLITS`: 0 train, 1 validation, 2 test.
        metadata: JSON-able; name, description, kind ("built" or "imported"), recipe (TOML text),
            seed, versions, counts (stage -> number of structures) and created (UTC).

    Raises:
        ValueError: if lengths differ, a property is not finite or has no unit.
    """

    structures: list[Atoms]
    properties: dict[str, np.ndarray]
    units: dict[str, str]
    split: np.ndarray
    metadata: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        split = np.asarray(self.split)
        if split.shape != (len(self.structures),) or not np.isin(split, range(len(SPLITS))).all():
            raise ValueError(
                f"split has shape {split.shape}; one of 0, 1, 2 for each of the "
                f"{len(self.structures)} structures is needed"
            )
        object.__setattr__(self, "split", split.astype(np.int8))
        if set(self.units) != set(self.properties):
            raise ValueError(
                f"units are given for {sorted(self.units)}; the properties are "
                f"{sorted(self.properties)}"
            )
        values = {k: _property(k, v, len(self.structures)) for k, v in self.properties.items()}
        object.__setattr__(self, "properties", values)

    def __len__(self) -> int:
        return len(self.structures)

    def select(self, split: str) -> Dataset:
        """Returns the part that is in `split`: "train", "validation", "test" or "all".

        Raises:
            ValueError: on another name.
        """
        if split == "all":
            return self
        if split not in SPLITS:
            raise ValueError(f"split is {split!r}; one of {', '.join((*SPLITS, 'all'))} is needed")
        rows = np.flatnonzero(self.split == SPLITS.index(split))
        return Dataset(
            structures=[self.structures[i] for i in rows],
            properties={name: values[rows] for name, values in self.properties.items()},
            units=dict(self.units),
            split=self.split[rows],
            metadata=self.metadata,
        )

    def summary(self) -> dict[str, Any]:
        """What is in the data set, JSON-able: counts, sizes, compositions, properties, metadata."""
        counts = {name: int((self.split == i).sum()) for i, name in enumerate(SPLITS)}
        # ASE takes longer over a formula than all else here: one for each composition is enough.
        kinds = [np.sort(s.numbers).tobytes() for s in self.structures]
        one = dict(zip(kinds, self.structures, strict=True))
        formulas = Counter(
            {one[kind].get_chemical_formula("metal"): n for kind, n in Counter(kinds).items()}
        )
        sizes = Counter(len(s) for s in self.structures)
        return {
            "name": self.metadata.get("name"),
            "structures": len(self),
            "splits": counts,
            "sizes": {str(size): count for size, count in sorted(sizes.items())},
            "compositions": dict(formulas.most_common()),
            "periodic": sum(bool(s.pbc.any()) for s in self.structures),
            "properties": {
                name: {
                    "unit": self.units[name],
                    "min": float(values.min()),
                    "mean": float(values.mean()),
                    "max": float(values.max()),
                }
                for name, values in self.properties.items()
                if len(values)
            },
            "metadata": self.metadata,
        }

    def save(self, path: str | os.PathLike[str], overwrite: bool = False) -> None:
        """Writes the data set as HDF5; a file of that name is whole, old or new, at any moment.

        Raises:
            ValueError: if there are no structures.
            FileExistsError: if the file exists and `overwrite` is false.
        """
        if not self.structures:
            raise ValueError("the data set has no structures; there is nothing to save")
        offsets = np.cumsum([0] + [len(s) for s in self.structures], dtype=np.int64)
        with (
            new_file(path, overwrite) as temporary,
            h5py.File(temporary, "w", libver=_FORMAT) as file,
        ):
            _write_text(file, "schema", SCHEMA)
            file.attrs["schema_version"] = SCHEMA_VERSION
            _write_text(file, "metadata", json.dumps(self.metadata, ensure_ascii=False))
            file.create_dataset("offsets", data=offsets, **_COMPRESSION)
            numbers = np.concatenate([s.numbers for s in self.structures]).astype(np.uint8)
            file.create_dataset("numbers", data=numbers, **_COMPRESSION)
            positions = np.concatenate([s.positions for s in self.structures])
            _write(file, "positions", positions, "Å")
            _write(file, "cell", np.array([s.cell.array for s in self.structures]), "Å")
            pbc = np.array([s.pbc for s in self.structures], bool)
            file.create_dataset("pbc", data=pbc, **_COMPRESSION)
            split = file.create_dataset("split", data=self.split, **_COMPRESSION)
            _write_text(split, "names", ", ".join(SPLITS))
            group = file.create_group("properties", track_order=True)
            for name, values in self.properties.items():
                _write(group, name, values, self.units[name])

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Dataset:
        """Reads a data set that `save` has written.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if it is not a whole, valid data set of this schema version; says why.
        """
        path = require_file(path, "data set")
        try:
            with h5py.File(path, "r") as file:
                return _read(file)
        except _InvalidError as error:
            raise ValueError(f"data set {str(path)!r} {error}") from error
        except MemoryError as error:
            raise ValueError(f"data set {str(path)!r} does not fit into memory") from error
        except (OSError, KeyError, RuntimeError, TypeError, ValueError) as error:
            # PermissionError and its like already say what is wrong; h5py's own OSErrors do not.
            if isinstance(error, PermissionError):
                raise
            problem = "is truncated or damaged" if _is_hdf5(path) else "is not an HDF5 file"
            raise ValueError(f"data set {str(path)!r} {problem}") from error


def assign_splits(
    n: int, fractions: tuple[float, float, float], rng: np.random.Generator
) -> np.ndarray:
    """Draws which of n structures go into which split.

    Sizes are rounded, but a split with a share has at least one structure as soon as there are
    enough for all; the training split comes first.

    Args:
        n: number of structures.
        fractions: shares of `SPLITS`, which add up to 1.
        rng: draws the permutation.

    Returns:
        [n] int8: 0 train, 1 validation, 2 test.

    Raises:
        ValueError: if a share is negative, or they do not add up to 1.
    """
    shares = np.array(fractions, np.float64)
    if shares.shape != (3,) or not (shares >= 0).all() or abs(shares.sum() - 1) > 1e-6:
        raise ValueError(f"fractions are {fractions!r}; three shares that add up to 1 are needed")
    sizes = np.floor(shares * n + 0.5).astype(int)
    sizes[1:] = np.maximum(sizes[1:], shares[1:] > 0)
    sizes[0] = n - sizes[1:].sum()
    for split in (2, 1):
        if sizes[0] < 1:
            sizes[0] += sizes[split]
            sizes[split] = 0
    return np.repeat(np.arange(3, dtype=np.int8), sizes)[rng.permutation(n)]


def provenance() -> dict[str, Any]:
    """Metadata of a data set made now: the versions of what makes it, and the time (UTC)."""
    versions = {"tfgen": __version__, "python": platform.python_version()}
    for package in ("tensorflow", "ase", "numpy", "scipy", "h5py"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    created = datetime.now(timezone.utc).isoformat(timespec="seconds")
    return {"versions": versions, "created": created}


class _InvalidError(Exception):
    """A reason why a file is not a data set; completes the sentence that starts with its name."""


def _property(name: str, values: np.ndarray, n: int) -> np.ndarray:
    if not name or "/" in name or "\0" in name or name == ".":
        raise ValueError(f"property name {name!r} is not allowed; use letters, digits, _ or -")
    array = np.asarray(values, np.float64)
    if array.shape != (n,):
        raise ValueError(f"property {name!r} has shape {array.shape}; ({n},) is needed")
    if not np.isfinite(array).all():
        row = int(np.flatnonzero(~np.isfinite(array))[0])
        raise ValueError(f"property {name!r} of structure {row} is {array[row]}, not finite")
    return array


def _write(group: h5py.Group, name: str, values: np.ndarray, unit: str) -> None:
    dataset = group.create_dataset(name, data=np.asarray(values, np.float64), **_COMPRESSION)
    _write_text(dataset, "units", unit)


def _write_text(item: h5py.HLObject, name: str, text: str) -> None:
    # Text of variable length would stand where HDF5 keeps no check sums.
    data = text.encode()
    item.attrs.create(name, data, dtype=h5py.string_dtype("utf-8", max(1, len(data))))


def _text(value: Any) -> Any:
    return value.decode() if isinstance(value, bytes) else value


def _is_hdf5(path: os.PathLike[str]) -> bool:
    with open(path, "rb") as file:  # noqa: PTH123  (h5py.is_hdf5 is false for truncated files too)
        return file.read(8) == b"\x89HDF\r\n\x1a\n"


def _read(file: h5py.File) -> Dataset:
    if _text(file.attrs.get("schema")) != SCHEMA:
        raise _InvalidError("is an HDF5 file, but not a tfgen data set")
    version = file.attrs.get("schema_version")
    if version != SCHEMA_VERSION:
        raise _InvalidError(
            f"has schema version {version}; this version of tfgen reads {SCHEMA_VERSION}"
        )
    offsets = _array(file, "offsets", (None,), "iu").astype(np.int64)
    n = len(offsets) - 1
    if n < 1:
        raise _InvalidError("has no structures")
    if offsets[0] != 0 or (np.diff(offsets) < 1).any():
        raise _InvalidError("is damaged: 'offsets' does not grow from 0")
    atoms = int(offsets[-1])
    numbers = _array(file, "numbers", (atoms,), "iu").astype(int)
    if (numbers < 1).any() or (numbers >= len(chemical_symbols)).any():
        raise _InvalidError("is damaged: 'numbers' holds something else than atomic numbers")
    positions = _array(file, "positions", (atoms, 3))
    cell = _array(file, "cell", (n, 3, 3))
    pbc = _array(file, "pbc", (n, 3)).astype(bool)
    if (pbc & ~cell.any(axis=2)).any():
        raise _InvalidError("holds a structure that is periodic along an axis without cell vector")
    split = _array(file, "split", (n,), "iu")
    if not np.isin(split, range(len(SPLITS))).all():
        raise _InvalidError("is damaged: 'split' holds something else than 0, 1, 2")
    group = file.get("properties")
    if not isinstance(group, h5py.Group):
        raise _InvalidError("is damaged: 'properties' is missing")
    properties = {name: _array(group, name, (n,)) for name in group}
    metadata = json.loads(_text(file.attrs["metadata"]))
    if not isinstance(metadata, dict):
        raise _InvalidError("is damaged: 'metadata' is not a JSON object")
    for key in ("counts", "versions", "thresholds"):
        if not isinstance(metadata.get(key, {}), dict):
            raise _InvalidError(f"is damaged: {key!r} in 'metadata' is not a JSON object")
    if not all(isinstance(value, int) for value in metadata.get("counts", {}).values()):
        raise _InvalidError("is damaged: a count in 'metadata' is not a whole number")
    return Dataset(
        structures=[
            Atoms(numbers[start:stop], positions=positions[start:stop], cell=c, pbc=p)
            for start, stop, c, p in zip(offsets[:-1], offsets[1:], cell, pbc, strict=True)
        ],
        properties=properties,
        units={name: str(_text(group[name].attrs.get("units", "unknown"))) for name in group},
        split=split,
        metadata=metadata,
    )


def _array(
    group: h5py.Group, name: str, shape: tuple[int | None, ...], kinds: str = "iufb"
) -> np.ndarray:
    """Reads an array and checks its rank, its known sizes, its type and that it is finite."""
    dataset = group.get(name)
    if not isinstance(dataset, h5py.Dataset):
        raise _InvalidError(f"is damaged: {name!r} is missing")
    wrong = len(dataset.shape) != len(shape) or any(
        want not in (None, got) for want, got in zip(shape, dataset.shape, strict=False)
    )
    if wrong or dataset.dtype.kind not in kinds:
        raise _InvalidError(f"is damaged: {name!r} has shape {dataset.shape} of {dataset.dtype}")
    if math.prod(dataset.shape) == 0:
        return np.zeros(dataset.shape, dataset.dtype)
    values = np.asarray(dataset[()])
    if not np.isfinite(values).all():
        raise _InvalidError(f"holds values in {name!r} that are not finite")
    return values
