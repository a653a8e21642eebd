"""Checkpoints of a training: a folder that an interrupted training goes on from."""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tfgen._files import OutputExistsError, require_folder_replaceable
from tfgen.models.arrays import read_arrays

__all__ = [
    "Progress",
    "can_be_resumed",
    "open_checkpoint",
    "read_checkpoint",
    "remove_checkpoint",
    "write_checkpoint",
]

TASK_FILE = "task.json"
# The last checkpoint, and the one before, should the last turn out to be damaged.
LAST, BEFORE = "last.npz", "before.npz"
NEW = "new"  # whatever is being written: a name of its own, which a kill may leave behind
CONTENTS = (TASK_FILE, LAST, BEFORE, NEW, "best.weights.h5", "fit.json", "backup")  # old ones, too


@dataclass
class Progress:
    """How far a training is, and all that it needs to go on.

    Attributes:
        epoch: epochs that are done.
        history: loss or metric -> its last value.
        best_epoch: epoch, from 1, with the lowest validation loss; 0 before the first validation.
        best_val_loss: that loss.
        best: weights after that epoch.
        state: whatever the training changes, that of optimiser and random numbers included, after
            the last epoch.
    """

    epoch: int = 0
    history: dict[str, float] = field(default_factory=dict)
    best_epoch: int = 0
    best_val_loss: float = math.inf
    best: list[np.ndarray] = field(default_factory=list)
    state: list[np.ndarray] = field(default_factory=list)


def write_checkpoint(folder: Path, progress: Progress) -> None:
    """Writes a checkpoint as one file, so that its parts belong together; the last one stays, too.

    Raises:
        OSError: if it cannot be written; what there was stays.
    """
    record = {
        "epoch": progress.epoch,
        "history": progress.history,
        "best_epoch": progress.best_epoch,
        "best_val_loss": progress.best_val_loss,
    }
    arrays = {f"best_{i}": values for i, values in enumerate(progress.best)}
    arrays |= {f"state_{i}": values for i, values in enumerate(progress.state)}
    with _writing(folder, LAST) as new:
        with new.open("wb") as stream:
            np.savez(stream, allow_pickle=False, record=np.array(json.dumps(record)), **arrays)
        if (folder / LAST).exists():
            (folder / LAST).replace(folder / BEFORE)


def read_checkpoint(
    folder: Path, weights: Sequence[np.ndarray], state: Sequence[np.ndarray]
) -> Progress | None:
    """Returns the last checkpoint that can be read; None if there is none.

    Args:
        folder: of the checkpoints.
        weights: of the network; only their shapes and types matter.
        state: likewise, see `Progress`.
    """
    for name in (LAST, BEFORE):
        with contextlib.suppress(FileNotFoundError, KeyError, TypeError, ValueError):
            arrays = read_arrays(folder / name)
            progress = Progress(**json.loads(str(arrays["record"])))
            progress.state = _select(arrays, "state", state)
            progress.best = _select(arrays, "best", weights) if progress.best_epoch else []
            return progress
    return None


@contextlib.contextmanager
def open_checkpoint(
    folder: str | os.PathLike[str] | None,
    task: Mapping[str, Any],
    overwrite: bool,
    keep: bool = False,
) -> Iterator[Path | None]:
    """Yields the folder of a training's checkpoints; it stays if the training is interrupted.

    Args:
        folder: where it is to be; None: there is none.
        task: JSON-able; what the training depends on.
        overwrite: discard the checkpoints of another task.
        keep: leave the folder in the end, too; `remove_checkpoint` removes it.

    Raises:
        FileExistsError: if the folder keeps another task and `overwrite` is false, or holds
            anything that is no checkpoint.
    """
    if folder is None:
        yield None
        return
    folder, text = Path(folder), json.dumps(task, sort_keys=True)
    record = folder / TASK_FILE
    # Whatever its name: a folder that holds anything else is not ours to remove.
    require_folder_replaceable(folder, True, CONTENTS)
    known = record.exists() and record.read_bytes() == text.encode()
    if record.exists() and not known and not overwrite:
        raise OutputExistsError(folder, "keeps another, interrupted training")
    if folder.exists() and not known:  # without a record, the rest of one that was being removed
        shutil.rmtree(folder)
    folder.mkdir(exist_ok=True)
    with _writing(folder, TASK_FILE) as new:
        new.write_bytes(text.encode())
    try:
        yield folder
    except ArithmeticError:
        shutil.rmtree(folder)  # training cannot continue from NaN
        raise
    if not keep:
        remove_checkpoint(folder)


def can_be_resumed(folder: Path) -> bool:
    """Whether a folder of checkpoints holds more than the record of its task."""
    return (folder / LAST).exists() or (folder / BEFORE).exists()


def remove_checkpoint(folder: str | os.PathLike[str]) -> None:
    """Removes the folder of a training's checkpoints, if there is one.

    Raises:
        FileExistsError: if it holds anything that is no checkpoint.
    """
    if Path(folder).exists():
        shutil.rmtree(require_folder_replaceable(folder, True, CONTENTS))


@contextlib.contextmanager
def _writing(folder: Path, name: str) -> Iterator[Path]:
    """Yields a path in the folder, renamed on success, removed on failure.

    Unlike `new_file`'s, its name is always the same: what a kill leaves of it is replaced.
    """
    new = folder / NEW
    try:
        yield new
        new.replace(folder / name)
    finally:
        new.unlink(missing_ok=True)


def _select(
    arrays: Mapping[str, np.ndarray], kind: str, like: Sequence[np.ndarray]
) -> list[np.ndarray]:
    values = [arrays[f"{kind}_{i}"] for i in range(len(like))]
    for value, other in zip(values, like, strict=True):
        if value.shape != other.shape or value.dtype != other.dtype:
            raise ValueError(f"{kind} is of the wrong shape or type")
    return values
