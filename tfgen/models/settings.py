"""What can be varied in training: settings of the CVAE and of the neural-network potential."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, TypeVar

from tfgen._settings import check_choice, check_number, check_range, check_whole, check_widths

__all__ = ["LIKELIHOODS", "SCHEDULES", "NNPSettings", "TrainingSettings"]

LIKELIHOODS = ("normal", "laplace", "unit_normal")
SCHEDULES = ("cosine", "linear", "constant")

S = TypeVar("S", bound="_Settings")


class _Settings:
    """What both have in common: the way to JSON and back."""

    def to_json(self) -> dict[str, Any]:
        """Returns the fields, JSON-able."""
        values = dataclasses.asdict(self)  # type: ignore[call-overload]
        return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}

    @classmethod
    def from_json(cls: type[S], values: Any) -> S:
        """Makes the settings that `to_json` has returned.

        Raises:
            ValueError: if a field is missing, unknown or has a value that is not allowed.
        """
        names = {field.name for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
        if not isinstance(values, dict) or values.keys() != names:
            found = sorted(values) if isinstance(values, dict) else values
            raise ValueError(f"{cls.__name__} has the fields {sorted(names)}, not {found}")
        return cls(**values)


@dataclass(frozen=True, kw_only=True)
class TrainingSettings(_Settings):
    """How `tfgen.train` trains the CVAE.

    Attributes:
        batch_size: structures in a training step.
        learning_rate: of Adam in the first step.
        learning_rate_schedule: how it falls to 0 over all epochs: "cosine" (half a period) or
            "linear"; or "constant".
        clip_norm: norm to which the gradient of a weight is clipped.
        latent: length of the latent vector.
        hidden: widths of the hidden layers of encoder and surrogate, reversed in the decoder.
        likelihood_family: distribution of the scaled fingerprint given the latent vector, see
            `CVAE`: "normal", "laplace" or "unit_normal".
        kl_weight: weight of the KL term in the loss (β).
        kl_warm_up: share of the epochs over which the KL term rises to its full weight, from 0 (it
            has it at once) to 1.
        surrogate_weight: weight of the surrogate's squared error in the loss.
        max_validations: the validation split is evaluated about this many times at most; a single
            evaluation takes Keras about as long as an epoch of a small data set.
        patience: epochs without a lower validation loss after which the training ends, not counting
            those in which the KL term rises; None: it never ends before its time.
        backup_interval: epochs between two checkpoints of a training that can be resumed.
        tolerance_structures: the tolerance of the inversion is estimated from the nearest
            neighbours of this many training structures.

    Raises:
        ValueError: if a value is not allowed.
    """

    batch_size: int = 64
    learning_rate: float = 1e-3
    learning_rate_schedule: str = "cosine"
    clip_norm: float = 10.0
    latent: int = 10
    hidden: tuple[int, ...] = (256, 256)
    likelihood_family: str = "normal"
    kl_weight: float = 1.0
    kl_warm_up: float = 0.25
    surrogate_weight: float = 1.0
    max_validations: int = 200
    patience: int | None = None
    backup_interval: int = 10
    tolerance_structures: int = 256

    def __post_init__(self) -> None:
        check_whole(self, 1, "batch_size", "latent", "max_validations", "backup_interval")
        check_whole(self, 1, "tolerance_structures")
        check_widths(self, "hidden")
        check_number(self, "learning_rate", "clip_norm", low=0.0)
        check_number(self, "kl_weight", low=0.0, included=True)
        check_number(self, "surrogate_weight", low=0.0, included=True)
        check_number(self, "kl_warm_up", low=0.0, high=1.0, included=True)
        check_choice(self, "likelihood_family", LIKELIHOODS)
        check_choice(self, "learning_rate_schedule", SCHEDULES)
        if self.patience is not None:
            check_whole(self, 1, "patience")


@dataclass(frozen=True, kw_only=True)
class NNPSettings(_Settings):
    """How `tfgen.train` learns the neural-network potential (NNP).

    Attributes:
        copies: rattled copies of each training structure, at least; structures on the way to
            minima whose forces the data set has take the place of copies.
        amplitudes: smallest and largest standard deviation of the displacement of a rattled
            coordinate, in covalent radii of the atom.
        min_calculations: single-point calculations that the NNP is learned from, at least: small
            data sets get more copies.
        max_calculations: single-point calculations at most: of large data sets a sample is taken.
        checked: structures whose energies and forces, which the data set has, are calculated again.
        max_energy_difference: by how much one may differ, eV/atom; otherwise nothing that the data
            set has is used.
        max_force_difference: likewise, eV/Å.
        max_excess_energy: copies whose energy is this far above that of their original, eV/atom,
            are left out: nothing relaxes through such structures.
        max_deficit_energy: structures whose energy is this far below what it can be, eV/atom, are
            left out: copies below their original, as a rattled minimum rises, and below the
            median of the training structures with the same composition; training structures above
            most of their own copies.
        max_deviations: structures below that median by this many median absolute deviations (and
            by `max_deficit_energy`) are left out, copies or not.
        max_force: calculations with a force above this, eV/Å, count as failed.
        max_relative_error: the NNP is used if its error where held out is at most this part of the
            mean absolute deviation of the training structures' energies: it has to tell them apart.
        hidden: widths of the hidden layers.
        step: distance, Å, of the two points between which a slope is learned.
        slope_weight: weight, Å², of the squared error of slopes (of the total energy, eV/Å) next
            to that of energies (eV/atom).
        epochs: passes through the calculations.
        batch_size: structures in a training step.
        learning_rate: of Adam in the first step; it falls to 0 as a half cosine.
        held_out: share of the training structures that, with all of their copies, the errors are
            measured on and nothing is learned from.
        minimum_fmax: largest force, eV/Å, up to which a training structure counts as a minimum.
        minima_share: a data set is one of minima if at least this share of its structures are.

    Raises:
        ValueError: if a value is not allowed.
    """

    copies: int = 3
    amplitudes: tuple[float, float] = (0.015, 0.18)
    min_calculations: int = 3000
    max_calculations: int = 8000
    checked: int = 4
    max_energy_difference: float = 1e-3
    max_force_difference: float = 0.05
    max_excess_energy: float = 0.8
    max_deficit_energy: float = 0.2
    max_deviations: float = 10.0
    max_force: float = 1000.0
    max_relative_error: float = 0.5
    hidden: tuple[int, ...] = (64, 64)
    step: float = 0.02
    slope_weight: float = 0.1
    epochs: int = 60
    batch_size: int = 64
    learning_rate: float = 3e-3
    held_out: float = 0.1
    minimum_fmax: float = 0.1
    minima_share: float = 0.8

    def __post_init__(self) -> None:
        check_whole(self, 1, "copies", "min_calculations", "max_calculations", "epochs")
        check_whole(self, 1, "batch_size", "checked")
        if self.min_calculations > self.max_calculations:
            raise ValueError(
                f"min_calculations is {self.min_calculations}; it must not be above "
                f"max_calculations, which is {self.max_calculations}"
            )
        check_widths(self, "hidden")
        check_number(self, "max_excess_energy", "step", "learning_rate", "minimum_fmax", low=0.0)
        check_number(self, "max_deficit_energy", "max_relative_error", "max_force", low=0.0)
        check_number(self, "max_energy_difference", "max_force_difference", low=0.0)
        check_number(self, "max_deviations", low=0.0, included=True)
        check_number(self, "slope_weight", low=0.0, included=True)
        check_number(self, "held_out", low=0.0, high=0.9, included=True)
        check_number(self, "minima_share", low=0.0, high=1.0, included=True)
        check_range(self, "amplitudes", low=0.0)
