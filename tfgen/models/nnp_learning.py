"""Learns the NNP of a model; whatever goes wrong, the model stays."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from ase import Atoms
from tqdm import tqdm

from tfgen.datasets.storage import Dataset
from tfgen.models.model import Model
from tfgen.models.neural_potential import EnergyNetwork
from tfgen.models.nnp_fitting import NNPRecord, fit_nnp
from tfgen.models.settings import NNPSettings
from tfgen.models.single_points import (
    Calculate,
    Calculated,
    FewUsableError,
    OtherPotentialError,
)
from tfgen.potentials.ase import AsePotential
from tfgen.potentials.base import Potential
from tfgen.potentials.outcomes import warn_of_failures
from tfgen.structures.properties import ENERGIES, ENERGY_PER_ATOM
from tfgen.warnings import TfgenWarning

__all__ = ["LearnedNNP", "learn_nnp"]

# Structures that a batched potential computes between two movements of the progress bar.
CHUNK = 1000


@dataclass(frozen=True)
class LearnedNNP:
    """What came of learning an NNP.

    Attributes:
        network: of the NNP; None if there is none that can be used.
        record: what it was learned from; None if that failed.
        problem: why there is none; None if there is one.
        other_potential: whether it is because the potential is not the one of the data set.
    """

    network: EnergyNetwork | None = None
    record: NNPRecord | None = None
    problem: str | None = None
    other_potential: bool = False


def learn_nnp(
    model: Model,
    training: Dataset,
    calculator: Potential | AsePotential | None,
    seed: int,
    settings: NNPSettings,
    progress: bool,
) -> LearnedNNP:
    """Learns an NNP; whatever goes wrong, the CVAE stays.

    A potential with other energies than those of the data set would choose structures by energies
    that the model does not mean. It may still relax them, if no energy was trained on.

    Args:
        model: its conditions, its training structures and their descriptor count.
        training: the data set that these are of.
        calculator: computes energies and forces; None: there are only those of the data set.
        seed: of what is random.
        settings: how the NNP is learned.
        progress: show a progress bar.

    Warns:
        TfgenWarning: if there is no NNP, or none that can be used, or the potential is another one
            than the data set's.
    """
    calculate: Calculate | None = None
    if calculator is not None:
        calculate = functools.partial(_compute_single_points, calculator, progress)
    fit = functools.partial(
        fit_nnp,
        model.fingerprint.descriptor,
        model.training_structures,
        calculate,
        seed=seed,
        settings=settings,
        progress=progress,
    )
    try:
        try:
            network, record = fit(known=_find_known(training))
        except OtherPotentialError as error:
            if any(condition.name in ENERGIES for condition in model.conditions):
                raise
            warnings.warn(
                f"the potential is not the one of the data set: {error}", TfgenWarning, stacklevel=3
            )
            network, record = fit(known=None)
    except OtherPotentialError as error:
        learned = LearnedNNP(
            problem=f"the potential is not the one of the data set: {error}", other_potential=True
        )
    except (ArithmeticError, FewUsableError) as error:
        learned = LearnedNNP(problem=str(error))
    else:
        if record.tells_apart(settings.max_relative_error):
            return LearnedNNP(network, record)
        learned = LearnedNNP(
            record=record,
            problem=f"its error where held out, {record.energy_error:.4f} eV/atom, is more than "
            f"{settings.max_relative_error:g} of the spread of the training structures' energies, "
            f"{record.energy_spread:.4f} eV/atom: it can hardly tell them apart",
        )
    warnings.warn(
        f"the model has no neural-network potential: {learned.problem}", TfgenWarning, stacklevel=3
    )
    return learned


def _find_known(training: Dataset) -> Calculated | None:
    """Returns the energies and forces that a data set has, NaN where not; None without energies."""
    if ENERGY_PER_ATOM not in training.properties:
        return None
    sizes = np.array([len(s) for s in training.structures])
    forces = training.forces or [np.full([size, 3], np.nan) for size in sizes]
    return training.properties[ENERGY_PER_ATOM] * sizes, forces


def _compute_single_points(
    potential: Potential | AsePotential, progress: bool, structures: Sequence[Atoms]
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Returns energies [n], eV, and forces, eV/Å; NaN where a calculation fails."""
    unit = " calculations"
    with tqdm(total=len(structures), desc="nnp", unit=unit, disable=not progress) as bar:
        if isinstance(potential, AsePotential):
            single = potential.calculate(structures, advance=bar.update)
            warn_of_failures([one.detail for one in single])
            return np.array([one.energy for one in single]), [one.forces for one in single]
        energy, forces = [], []
        for start in range(0, len(structures), CHUNK):
            found = potential.compute(structures[start : start + CHUNK])
            energy.append(np.asarray(found["energy"]))
            forces += found["forces"]
            bar.update(len(energy[-1]))
        return np.concatenate(energy), forces
