"""Damaged model folders: bytes of any file, values of config.json, check sums right or wrong."""

from __future__ import annotations

import functools
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from faults.attempts import foreseen
from faults.mutations import damage_bytes, damage_json
from tfgen.cli._output import printable
from tfgen.descriptors.acsf import ACSF
from tfgen.fingerprints.fingerprint import Fingerprint
from tfgen.models.artefact import write_checksums
from tfgen.models.condition import Condition
from tfgen.models.cvae import CVAE
from tfgen.models.model import Model
from tfgen.models.neural_potential import EnergyNetwork, select_broad
from tfgen.sampling.initial import random_structures

__all__ = ["attempt", "make_model"]

FORGED = "config.json with right check sums"


def make_model() -> Model:
    """Returns an untrained model, with all that a model can have."""
    acsf = ACSF(["Pt"], 6.0, g2_params=[[1.0, 2.0], [1.0, 3.0]], g5_params=[[0.05, 1, 1]])
    fingerprint = Fingerprint(acsf, ("mean", "std"))
    cvae = CVAE(fingerprint.size, 2, latent=2, hidden=(4,))
    cvae.build()
    nnp = EnergyNetwork(select_broad(acsf).size, 1, (4,))
    nnp.build()
    numbers, rng = np.full(5, 78), np.random.default_rng(0)
    return Model(
        fingerprint=fingerprint,
        cvae=cvae,
        conditions=(Condition("energy_per_atom", "eV/atom", 0.5, 1.5),),
        mean=np.array([1.0]),
        covariance=np.array([[0.04]]),
        formulas={"Pt5": 20},
        tolerance=0.1,
        potential="emt",
        nnp=nnp,
        training_structures=tuple(
            Atoms(numbers, positions=x) for x in random_structures(numbers, 20, rng)
        ),
        provenance={"history": {"loss": 1.0}, "best_epoch": 2, "best_val_loss": 0.5},
    )


def attempt(seed: int, number: int, folder: Path) -> tuple[str, str, str]:
    """Damages one file of a good model, and loads the model."""
    good = _good()
    rng = np.random.default_rng([seed, number])
    names = [*sorted(path.name for path in good.iterdir()), FORGED]
    tried = names[number % len(names)]
    case = folder / "model"
    shutil.rmtree(case, ignore_errors=True)
    shutil.copytree(good, case)
    path = case / ("config.json" if tried == FORGED else tried)
    as_json = tried == FORGED or (path.suffix == ".json" and rng.integers(2))
    path.write_bytes((damage_json if as_json else damage_bytes)(rng, path.read_bytes()))
    if tried == FORGED:
        write_checksums(case)
    try:
        found = Model.load(case)
        problem = _problem_of(found, forged=tried == FORGED)
    except Exception as error:  # noqa: BLE001  (what else comes is what is looked for)
        outcome = "refused well" if foreseen(error) else "unforeseen"
        return tried, outcome, f"{type(error).__name__}: {printable(str(error))}"
    return tried, "wrong" if problem else "right", problem


@functools.cache
def _good() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="tfgen-faults-")) / "model"
    make_model().save(folder)
    return folder


@functools.cache
def _original() -> Model:
    return Model.load(_good())


def _problem_of(found: Model, *, forged: bool) -> str:
    """Says what cannot be right about a model; one whose check sums are right may be another."""
    original = _original()
    if not forged and found.digest != original.digest:
        return "other weights"
    if not forged and _config_of(found) != _config_of(original):
        return "another configuration"
    if list(found.training_structures) != list(original.training_structures):
        return "other training structures"
    sample = found.sample(np.array([[1.0, 5.0]]), 0)
    return "" if np.isfinite(sample).all() else "samples that are not finite"


def _config_of(model: Model) -> dict[str, Any]:
    """Returns the configuration but for the name that Keras gives, which counts models."""
    config = model.config()
    return {**config, **{k: {**config[k], "name": ""} for k in ("cvae", "nnp")}}
