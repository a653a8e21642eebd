"""Data sets on disk: one self-describing HDF5 file that h5py alone can read.

The layout is documented in `datasets/README.md`.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import io
import os
import platform
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, overload

import h5py
import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from tfgen import __version__
from tfgen._files import new_file, require_absent, require_file
from tfgen.datasets._hdf5 import FORMAT, SPLITS, InvalidError, is_hdf5, read, write
from tfgen.structures.properties import ENERGY_PER_ATOM

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["SPLITS", "Dataset", "assign_splits", "provenance"]


# Compositions and properties that `repr` shows.
_SHOWN = 6


@dataclass(frozen=True, repr=False)
class Dataset:
    """Structures with their properties, their split and where they come from.

    Attributes:
        structures: n structures; positions, numbers, cell and pbc are what a file keeps of them.
        properties: name -> [n] float64, finite.
        units: name -> unit, for every property; "1" for a pure number, "unknown" if not stated.
        split: [n] int8, place in `SPLITS`: 0 train, 1 validation, 2 test.
        forces: for each structure [atoms, 3], eV/Å, NaN where they are not known; from what
            calculated the energies. None: none are known.
        metadata: JSON-able; name, description, kind ("built" or "imported"), recipe (TOML text),
            seed, versions, counts (stage -> number of structures) and created (UTC).

    `dataset[3]` and iteration give `ase.Atoms` as ASE's own readers do: a new copy with every
    property and the name of the split in `atoms.info`, and, where `energy_per_atom` (or `energy`)
    is a property, with the energy of the whole structure from `atoms.get_potential_energy()`, and
    the forces, where they are known, from `atoms.get_forces()`.
    `dataset[10:20]`, a mask and a list of places give a `Dataset` with the same metadata.

    Raises:
        ValueError: if lengths differ, a property is not finite or has no unit, or forces do not fit
            their structures.
    """

    structures: list[Atoms]
    properties: dict[str, np.ndarray]
    units: dict[str, str]
    split: np.ndarray
    metadata: dict[str, Any] = field(default_factory=dict)
    forces: list[np.ndarray] | None = None

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
        if self.forces is not None:
            object.__setattr__(self, "forces", _forces(self.forces, self.structures))
        values = {k: _property(k, v, len(self.structures)) for k, v in self.properties.items()}
        object.__setattr__(self, "properties", values)

    def __len__(self) -> int:
        return len(self.structures)

    def __repr__(self) -> str:
        about = self.summary()
        splits = ", ".join(f"{count} {name}" for name, count in about["splits"].items())
        name = f" {about['name']!r}" if about["name"] else ""
        periodic = about["periodic"]
        lines = {
            "compositions": [f"{f} ({n})" for f, n in about["compositions"].items()],
            "periodic": [f"{periodic} of {len(self)}"] if periodic else [],
            "forces": [f"of {about['forces']} structures"] if about["forces"] else [],
            "properties": [
                f"{name} {p['min']:.4g} to {p['max']:.4g} {'' if p['unit'] == '1' else p['unit']}"
                for name, p in about["properties"].items()
            ],
        }
        texts = [
            f"  {what}: {', '.join(item.strip() for item in items[:_SHOWN])}"
            + (f" and {len(items) - _SHOWN} more" if len(items) > _SHOWN else "")
            for what, items in lines.items()
            if items
        ]
        return "\n".join([f"Dataset{name}: {len(self)} structures ({splits})", *texts])

    def __iter__(self) -> Iterator[Atoms]:
        return (self._atoms(row) for row in range(len(self)))

    @overload
    def __getitem__(self, index: int) -> Atoms: ...
    @overload
    def __getitem__(self, index: slice | Sequence[int] | np.ndarray) -> Dataset: ...
    def __getitem__(self, index: int | slice | Sequence[int] | np.ndarray) -> Atoms | Dataset:
        if isinstance(index, int | np.integer) and not isinstance(index, bool):
            if not -len(self) <= index < len(self):
                raise IndexError(f"index is {index}; the data set has {len(self)} structures")
            return self._atoms(int(index) % len(self))
        places = np.asarray([] if isinstance(index, slice) else index)
        if isinstance(index, slice) or places.size == 0:
            rows = np.arange(len(self))[index if isinstance(index, slice) else slice(0)]
        elif places.ndim == 1 and places.dtype.kind in "iub":
            rows = np.arange(len(self))[places]  # NumPy refuses what is out of range
        else:
            raise TypeError(
                f"index is {index!r}; a whole number, a slice, a mask or a list of whole numbers "
                "is needed"
            )
        return Dataset(
            structures=[self.structures[row] for row in rows],
            properties={name: values[rows] for name, values in self.properties.items()},
            units=dict(self.units),
            split=self.split[rows],
            metadata=self.metadata,
            forces=None if self.forces is None else [self.forces[row] for row in rows],
        )

    def _atoms(self, row: int) -> Atoms:
        atoms = self.structures[row].copy()
        atoms.info = {"split": SPLITS[self.split[row]]}
        atoms.info |= {name: float(values[row]) for name, values in self.properties.items()}
        energy = atoms.info.get("energy")
        if energy is None and ENERGY_PER_ATOM in atoms.info:
            energy = atoms.info[ENERGY_PER_ATOM] * len(atoms)
        if energy is not None:
            known = self.forces is not None and np.isfinite(self.forces[row]).all()
            results = {"forces": self.forces[row].copy()} if self.forces and known else {}
            atoms.calc = SinglePointCalculator(atoms, energy=energy, **results)
        return atoms

    def to_pandas(self) -> pd.DataFrame:
        """Returns a table with one row for each structure, in their order.

        Its columns are formula, atoms (their number), split and the properties, whose units are in
        `units`. A property called formula, atoms or split takes the place of that column.

        Raises:
            ImportError: if pandas is not installed.
        """
        try:
            import pandas as pd
        except ImportError as error:
            raise ImportError("to_pandas needs pandas: pip install pandas") from error
        columns = {
            "formula": [s.get_chemical_formula("metal") for s in self.structures],
            "atoms": [len(s) for s in self.structures],
            "split": [SPLITS[place] for place in self.split],
        }
        return pd.DataFrame({**columns, **self.properties})

    def select(self, split: str) -> Dataset:
        """Returns the part that is in `split`: "train", "validation", "test" or "all".

        Raises:
            ValueError: on another name.
        """
        if split == "all":
            return self
        if split not in SPLITS:
            raise ValueError(f"split is {split!r}; one of {', '.join((*SPLITS, 'all'))} is needed")
        return self[self.split == SPLITS.index(split)]

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
            "forces": sum(bool(np.isfinite(force).all()) for force in self.forces or ()),
            "properties": {
                name: {
                    "unit": self.units[name],
                    "min": float(values.min()),
                    "mean": _mean(values),
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
        path = require_absent(path, overwrite)
        # In memory: where HDF5 itself writes to a disk that is full, it takes the process along.
        image = io.BytesIO()
        with h5py.File(image, "w", libver=FORMAT) as file:
            write(
                file,
                structures=self.structures,
                properties=self.properties,
                units=self.units,
                split=self.split,
                metadata=self.metadata,
                forces=self.forces,
            )
        with new_file(path, overwrite) as temporary:
            temporary.write_bytes(image.getbuffer())

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
                return cls(**read(file))
        except InvalidError as error:
            raise ValueError(f"data set {str(path)!r} {error}") from error
        except MemoryError as error:
            raise ValueError(f"data set {str(path)!r} does not fit into memory") from error
        except (OSError, KeyError, RuntimeError, TypeError, ValueError) as error:
            # PermissionError and its like already say what is wrong; h5py's own OSErrors do not.
            if isinstance(error, PermissionError):
                raise
            problem = "is truncated or damaged" if is_hdf5(path) else "is not an HDF5 file"
            raise ValueError(f"data set {str(path)!r} {problem}") from error


def assign_splits(
    n: int,
    fractions: tuple[float, float, float],
    rng: np.random.Generator,
    groups: np.ndarray | None = None,
) -> np.ndarray:
    """Assigns n structures to the splits at random, each group as a whole.

    The sizes of the splits are as near to their shares as the groups allow, but a split with a
    share has at least one group as soon as there are enough for all; the training split comes
    first.

    Args:
        n: number of structures.
        fractions: shares of `SPLITS`, which add up to 1.
        rng: the source of the random permutation.
        groups: [n], which group each structure is in; None: each is one of its own.

    Returns:
        [n] int8: 0 train, 1 validation, 2 test.

    Raises:
        ValueError: if a share is negative, or they do not add up to 1.
    """
    shares = np.array(fractions, np.float64)
    if shares.shape != (3,) or not (shares >= 0).all() or abs(shares.sum() - 1) > 1e-6:
        raise ValueError(f"fractions are {fractions!r}; three shares that add up to 1 are needed")
    wanted = np.floor(shares * n + 0.5).astype(int)
    wanted[1:] = np.maximum(wanted[1:], shares[1:] > 0)
    wanted[0] = n - wanted[1:].sum()
    for split in (2, 1):
        if wanted[0] < 1:
            wanted[0] += wanted[split]
            wanted[split] = 0
    _, first, member = np.unique(
        np.arange(n) if groups is None else groups, return_index=True, return_inverse=True
    )
    # Groups in the order of their first structures, so that single ones have their own places.
    place = np.argsort(np.argsort(first))[member]
    sizes = np.bincount(place, minlength=len(first))
    # The largest group is left for training, even if the other splits have to be smaller.
    available, held = n - sizes.max(initial=0), wanted[1:].sum()
    if held > available:
        wanted[1:] = np.maximum(wanted[1:] * available // held, wanted[1:] > 0)
    order = np.argsort(rng.permutation(len(sizes)))
    result = np.zeros(len(sizes), np.int8)
    left = order[::-1].tolist()
    for split in (2, 1):
        # One group stays for each split that comes before.
        others = 1 + int(split == 2 and wanted[1] > 0)
        chosen = _fill(left, sizes, wanted[split], len(left) - others)
        result[chosen] = split
        taken = set(chosen)
        left = [group for group in left if group not in taken]
    return result[place]


def _fill(groups: list[int], sizes: np.ndarray, wanted: int, most: int) -> list[int]:
    """Chooses groups whose sizes come as near to a number as they can, taking them in order.

    Args:
        groups: to choose from.
        sizes: of all groups.
        wanted: number of structures.
        most: groups that may be chosen; if more than none may, and structures are wanted, one is.
    """
    chosen: list[int] = []
    room = wanted
    for group in groups:
        if room and len(chosen) < most and sizes[group] <= room:
            chosen.append(group)
            room -= sizes[group]
    if room and len(chosen) < most:
        taken = set(chosen)
        smallest = min((g for g in groups if g not in taken), key=sizes.__getitem__)
        if not chosen or sizes[smallest] - room < room:
            chosen.append(smallest)
    return chosen


def provenance() -> dict[str, Any]:
    """Metadata of a data set made now: the versions of what makes it, and the time (UTC)."""
    versions = {"tfgen": __version__, "python": platform.python_version()}
    for package in ("tensorflow", "ase", "numpy", "scipy", "h5py"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    created = datetime.now(timezone.utc).isoformat(timespec="seconds")
    return {"versions": versions, "created": created}


def _forces(forces: Sequence[np.ndarray], structures: Sequence[Atoms]) -> list[np.ndarray] | None:
    """Returns forces as arrays; None if not one is known."""
    arrays = [np.asarray(force, np.float64) for force in forces]
    shapes = [s.positions.shape for s in structures]
    if [array.shape for array in arrays] != shapes:
        raise ValueError(
            "forces do not fit the structures; an array [atoms, 3] for each of them is needed"
        )
    return arrays if any(np.isfinite(array).all() for array in arrays) else None


def _mean(values: np.ndarray) -> float:
    """Returns the mean of finite numbers: [n]. Their sum may be larger than any number there is."""
    exponent = np.frexp(np.abs(values).max())[1]
    return float(np.ldexp(np.ldexp(values, -exponent).mean(), exponent))


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
