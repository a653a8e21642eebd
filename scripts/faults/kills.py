"""Kills a training at random moments, and goes on with it each time.

Each training is `tfgen train`, in a child of this process, which has imported TensorFlow but must
not use it: so that a training takes seconds and most kills hit it, not its imports. The network
is trained eagerly, for the same reason. What comes of it in the end has to be what comes of a
training that nothing has disturbed, to the bit.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from ase import Atoms

from faults.attempts import Attempt
from tfgen.cli import main as tfgen
from tfgen.datasets.storage import Dataset
from tfgen.descriptors.acsf import ACSF
from tfgen.fingerprints.fingerprint import Fingerprint
from tfgen.models.artefact import WEIGHTS_FILE, read_config
from tfgen.models.cvae import CVAE
from tfgen.sampling.initial import random_structures

__all__ = ["run"]

# A training that takes so many times longer than the first one hangs.
PATIENCE = 20


def run(seed: int, count: int, epochs: int, folder: Path) -> Iterator[Attempt]:
    """Trains and kills.

    Args:
        seed: of the moments.
        count: kills, and trainings that end before they are killed.
        epochs: of the training.
        folder: an empty one, to work in.
    """
    rng = np.random.default_rng(seed)
    data, output, log = folder / "data.h5", folder / "model", folder / "log"
    _write_data(data)
    began = time.monotonic()
    code = _train(data, output, epochs, log, np.inf)
    seconds = time.monotonic() - began
    if code != 0:
        raise RuntimeError(f"the training ends with {code}: {_last_line(log)}")
    wanted = _result(output)
    _clear(output)
    for number in range(count + 1):
        last = number == count  # goes on to the end
        moment = PATIENCE * seconds if last else rng.uniform(0, seconds)
        code = _train(data, output, epochs, log, moment)
        yield Attempt(number, *_judge(code, output, wanted, log, last=last))
        if code is not None or output.exists():
            _clear(output)


def _judge(
    code: int | None, output: Path, wanted: dict[str, Any], log: Path, *, last: bool
) -> tuple[str, str, str]:
    """Returns what was tried, the outcome and a word; the code is None if it was killed."""
    partial = output.with_name(output.name + ".partial")
    if code is None and last:
        return "not killed", "hang or memory", "it does not end"
    if code is None and not output.exists():
        kept = any((partial / name).exists() for name in ("last.npz", "before.npz"))
        return f"killed {'after' if kept else 'before'} a checkpoint", "right", ""
    tried = "not killed" if code is not None else "killed when the model stood"
    if code not in (0, None):
        return tried, "unforeseen", f"code {code}: {_last_line(log)}"
    try:
        found = _result(output)
    except (OSError, ValueError, KeyError) as error:
        return tried, "wrong", f"{type(error).__name__}: {error}"
    differing = [name for name in wanted if not np.array_equal(found.get(name), wanted[name])]
    if code == 0:
        known = {output.name, f"{output.name}.logs", log.name, "data.h5"}
        differing += sorted({path.name for path in output.parent.iterdir()} - known)
    return tried, "wrong" if differing else "right", ", ".join(differing[:3])


def _result(output: Path) -> dict[str, Any]:
    """Returns weights and losses of a model, without the use of TensorFlow."""
    record = read_config(output)["provenance"]
    result: dict[str, Any] = {
        name: json.dumps(record[name]) for name in ("history", "best_epoch", "best_val_loss")
    }

    def keep(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            result[name] = item[()]

    with h5py.File(output / WEIGHTS_FILE) as file:
        file.visititems(keep)
    return result


def _train(data: Path, output: Path, epochs: int, log: Path, seconds: float) -> int | None:
    """Runs a training for so long at most; returns its exit code, None if it was killed."""
    child = os.fork()
    if child == 0:
        _run_and_exit(data, output, epochs, log)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    return None if code == -signal.SIGKILL else code


def _run_and_exit(data: Path, output: Path, epochs: int, log: Path) -> None:
    code = 70
    try:
        with log.open("w") as stream:
            os.dup2(stream.fileno(), 1)
            os.dup2(stream.fileno(), 2)
        acsf = ACSF(["Pt"], 6.0, g2_params=[[1.0, 2.0], [1.0, 3.0]], g5_params=[[0.05, 1, 1]])
        fingerprint = Fingerprint(acsf, ("mean", "std"))
        setattr(Fingerprint, "preset", lambda *_: fingerprint)  # noqa: B010
        setattr(CVAE, "compile", functools.partialmethod(CVAE.compile, run_eagerly=True))  # noqa: B010
        options = ["--epochs", str(epochs), "--potential", "none", "--latent", "2"]
        tfgen(["train", str(data), "-o", str(output), *options])
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0
    except BaseException:  # noqa: BLE001  (the process ends here)
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _write_data(path: Path) -> None:
    """Writes a data set whose energies mean nothing."""
    rng, numbers = np.random.default_rng(0), np.full(5, 78)
    structures = [Atoms(numbers, positions=x) for x in random_structures(numbers, 30, rng)]
    energies = {"energy_per_atom": rng.normal(size=30)}
    split = np.repeat([0, 1], [24, 6])
    Dataset(structures, energies, {"energy_per_atom": "eV/atom"}, split, {"name": "kills"}).save(
        path
    )


def _clear(output: Path) -> None:
    for path in output.parent.glob(f"*{output.name}*"):
        shutil.rmtree(path)
    for path in output.parent.glob(f".{output.name}*"):
        shutil.rmtree(path)


def _last_line(log: Path) -> str:
    return (log.read_text(errors="replace").strip().splitlines() or [""])[-1]
