"""What each generated structure says about itself in `atoms.info`, read with care.

The records come from `tfgen generate`, or from anywhere: nothing in them is taken on trust.
"""

from __future__ import annotations

import math
import os
import reprlib
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

import numpy as np
from ase import Atoms

from tfgen._files import require_file
from tfgen.targets import Target

__all__ = ["STAGES", "raw_structures", "read_generated", "record_of"]

STAGES = ("decoded", "reconstructed", "relaxed")


def read_generated(path: str | os.PathLike[str]) -> list[Atoms]:
    """Reads the structures that `tfgen generate` wrote, or any other extxyz file.

    Args:
        path: an extxyz file.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is not extxyz, is broken or holds no structures.
    """
    from ase.io import read  # pulls in the list of ASE's formats

    path = require_file(path, "structure file")
    if path.stat().st_size == 0:
        raise ValueError(f"{str(path)!r} is empty; an extxyz file with structures is needed")
    try:
        structures = read(path, index=":", format="extxyz")
    except Exception as error:
        if isinstance(error, OSError) and error.errno:
            raise  # the disk's fault, not the file's
        raise ValueError(f"{str(path)!r} is not a readable extxyz file: {error}") from error
    if not structures:
        raise ValueError(f"{str(path)!r} holds no structures")
    return list(structures)


def raw_structures(generated: Sequence[Atoms]) -> list[Atoms]:
    """Returns the structures as reconstructed, before any relaxation."""
    raw = []
    for atoms in generated:
        if "reconstructed_positions" in atoms.arrays:
            atoms = Atoms(
                atoms.numbers,
                positions=atoms.arrays["reconstructed_positions"],
                cell=atoms.cell,
                pbc=atoms.pbc,
            )
        raw.append(atoms)
    return raw


def record_of(atoms: Atoms, where: str) -> dict[str, Any]:
    """Checks a structure's record and returns it as plain JSON types.

    Args:
        atoms: the structure; any part of the record may be missing.
        where: names the structure in messages.

    Returns:
        formula; target: property -> value or [lo, hi], or None; each of `STAGES`, and predicted
        (what was expected of the relaxed structure before relaxing): property -> value, or None
        where it is not a finite number; fingerprint_loss, seconds and status, or
        None; candidates (how many the structure was chosen from), or None; relaxations (how many
        were spent on it; if that is not recorded, one for each candidate of a relaxed structure).

    Raises:
        ValueError: if a part of the record is not what it should be.
    """
    raw = atoms.arrays.get("reconstructed_positions")
    if raw is not None and (raw.shape != (len(atoms), 3) or raw.dtype.kind not in "fi"):
        raise ValueError(f"{where}: reconstructed_positions are not three numbers per atom")
    status = atoms.info.get("status")
    candidates = _count(atoms.info.get("candidates"), 1, f"{where}: candidates")
    relaxations = _count(atoms.info.get("relaxations"), 0, f"{where}: relaxations")
    if relaxations is None:
        relaxations = (candidates or 1) if _mapping(atoms, "relaxed", where) else 0
    try:
        target = {
            name: Target.of(name, value).to_json()
            for name, value in _mapping(atoms, "target", where).items()
        }
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    return {
        "formula": atoms.get_chemical_formula("metal"),
        "target": target or None,
        **{
            stage: {
                name: _finite(value, f"{where}: {stage} {name}")
                for name, value in _mapping(atoms, stage, where).items()
            }
            for stage in ("predicted", *STAGES)
        },
        **{
            key: _finite(atoms.info.get(key), f"{where}: {key}")
            for key in ("fingerprint_loss", "seconds")
        },
        "candidates": candidates,
        "relaxations": relaxations,
        "status": None if status is None else str(status),
    }


def _mapping(atoms: Atoms, key: str, where: str) -> dict[str, Any]:
    value = atoms.info.get(key)
    if value is None:
        return {}
    if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
        raise ValueError(
            f"{where}: {key} is {_shown(value)}, not a mapping of property names to values"
        )
    return dict(value)


def _shown(value: Any) -> str:
    """Returns a value for a message: short, and NumPy's numbers like any other."""
    return reprlib.repr(value.item() if isinstance(value, np.generic) else value)


def _number(value: Any, what: str) -> float:
    if isinstance(value, bool | np.bool_) or not isinstance(value, Real):
        raise ValueError(f"{what} is {_shown(value)}, not a number")
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _finite(value: Any, what: str) -> float | None:
    """Returns a number; None for one that is missing, not finite or null."""
    if value is None:
        return None
    number = _number(value, what)
    return number if math.isfinite(number) else None


def _count(value: Any, least: int, what: str) -> int | None:
    """Returns a whole number; None for one that is missing."""
    if value is None:
        return None
    number = _number(value, what)
    if not (least <= number < math.inf and number == int(number)):
        raise ValueError(f"{what} is {_shown(value)}; a whole number from {least} on is needed")
    return int(number)
