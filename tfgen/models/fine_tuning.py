"""Fine-tuning: a training that begins with the network of another model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tfgen.fingerprints.fingerprint import Fingerprint
from tfgen.models.model import Model
from tfgen.models.settings import TrainingSettings

__all__ = ["check_initial_model", "describe_initial_model", "require_model"]

_ARCHITECTURE = ("latent", "hidden", "likelihood_family")


def check_initial_model(
    initial: Model,
    fingerprint: Fingerprint,
    properties: Sequence[str],
    units: Sequence[str],
    settings: TrainingSettings,
) -> None:
    """Refuses a model whose network does not fit what it is to be trained for.

    Args:
        initial: the model.
        fingerprint: of the new model.
        properties: that it is conditioned on.
        units: of these.
        settings: of its training.

    Raises:
        ValueError: if anything differs that the meaning of the weights depends on; says what.
    """
    if initial.fingerprint != fingerprint:
        raise ValueError("initial_model has another fingerprint; leave out `fingerprint`")
    theirs = [f"{c.name} ({c.unit})" for c in initial.conditions]
    ours = [f"{name} ({unit})" for name, unit in zip(properties, units, strict=True)]
    if theirs != ours:
        raise ValueError(
            f"initial_model is conditioned on {', '.join(theirs)}, not on {', '.join(ours)}"
        )
    old = initial.cvae.get_config()
    for name in _ARCHITECTURE:
        known, wanted = old[name], getattr(settings, name)
        if (tuple(known) if isinstance(known, list) else known) != wanted:
            raise ValueError(f"{name} is {wanted!r}; that of initial_model is {known!r}")


def require_model(initial: Any) -> Model:
    """Returns what is a model, and refuses anything else, before it is asked for its settings."""
    if not isinstance(initial, Model):
        raise ValueError(f"initial_model is {initial!r}; a tfgen.Model is needed")
    return initial


def describe_initial_model(initial: Model | None) -> dict[str, Any] | None:
    """Returns what the provenance says of the model that a training began with, JSON-able."""
    if initial is None:
        return None
    kept = ("dataset", "training_structures", "epochs", "seed", "created", "initial_model")
    return {k: initial.provenance[k] for k in kept if k in initial.provenance}
