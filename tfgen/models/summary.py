"""What a model is, in words: one line for `repr`, a short table for `Model.summary`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tfgen.models.model import Model

__all__ = ["count_calculations", "describe", "summarize"]

# Compositions that are named; of more, the commonest are.
NAMED = 6


def describe(model: Model) -> str:
    """Returns one line: properties, compositions, sizes of fingerprint and networks."""
    names = ", ".join(condition.name for condition in model.conditions)
    parts = [
        names,
        _compositions(model.formulas, 3),
        f"{model.fingerprint.size} features",
        f"latent vector of {model.cvae.latent}",
        "no NNP" if model.nnp is None else "with an NNP",
    ]
    return f"Model({'; '.join(parts)})"


def summarize(model: Model) -> str:
    """Returns a table of several lines: everything but weights and structures."""
    record = model.provenance
    rows = [
        *_conditions(model),
        ("compositions", _compositions(model.formulas, NAMED)),
        ("fingerprint", _fingerprint(model)),
        ("tolerance", f"{model.tolerance:.4g}, in the loss of the inversion"),
        ("CVAE", _network(model.cvae, [f"latent vector of {model.cvae.latent}"])),
        ("NNP", _nnp(model)),
        ("potential", model.potential or "not known"),
        ("structures", "minima" if model.minima else "not all are minima"),
        ("training", _training(record)),
        ("data set", _dataset(record)),
        ("versions", ", ".join(f"{k} {v}" for k, v in _mapping(record, "versions").items())),
    ]
    width = max(len(name) for name, _ in rows)
    return "\n".join(["Model", *(f"  {name:<{width}}  {text}" for name, text in rows if text)])


def _conditions(model: Model) -> list[tuple[str, str]]:
    errors = model.provenance.get("surrogate_mae")
    if not isinstance(errors, list) or len(errors) != len(model.conditions):
        errors = [None] * len(model.conditions)
    rows = []
    for condition, error in zip(model.conditions, errors, strict=True):
        unit = "" if condition.unit in ("1", "unknown") else f" {condition.unit}"
        text = f"{condition.low:.4f} to {condition.high:.4f}{unit}"
        if error is not None:
            text += f", predicted within {error:.4f} on average"
        rows.append((condition.name, text))
    return rows


def _compositions(formulas: Mapping[str, int], most: int) -> str:
    common = sorted(formulas, key=lambda name: -formulas[name])
    named = ", ".join(common[:most])
    more = f" and {len(common) - most} more" if len(common) > most else ""
    return f"{sum(formulas.values())} structures of {named}{more}"


def _fingerprint(model: Model) -> str:
    fingerprint = model.fingerprint
    descriptor = fingerprint.descriptor
    apart = " of each element" if fingerprint.per_species else ""
    return (
        f"{fingerprint.size} features: {type(descriptor).__name__} for "
        f"{', '.join(descriptor.species)} (r_cut {descriptor.r_cut:g} Å), pooled over the atoms"
        f"{apart} by {', '.join(fingerprint.pooling)}"
    )


def _network(network: Any, more: list[str]) -> str:
    widths = " and ".join(map(str, network.hidden)) or "none"
    return ", ".join([f"{network.count_params()} parameters", f"hidden layers {widths}", *more])


def _nnp(model: Model) -> str:
    if model.nnp is None:
        return "none"
    learned = _mapping(model.provenance, "nnp")
    more = []
    if {"single_points", "energy_error", "force_error"} <= learned.keys():
        more = [
            "from " + count_calculations(learned),
            f"energies within {learned['energy_error']:.4f} eV/atom",
            f"forces within {learned['force_error']:.3f} eV/Å on average",
        ]
    return _network(model.nnp, more)


def count_calculations(learned: Mapping[str, Any]) -> str:
    """Says what an NNP was learned from, by the record of its training."""
    new = f"{learned['single_points']} single-point calculations"
    stored = learned.get("stored", 0)
    return f"{new} and {stored} of the data set" if stored else new


def _training(record: Mapping[str, Any]) -> str:
    named = {
        "epochs": "epochs", "best_epoch": "best epoch", "seed": "seed",
        "best_val_loss": "best validation loss",
    }  # fmt: skip
    return ", ".join(f"{text} {_shown(record[k])}" for k, text in named.items() if k in record)


def _dataset(record: Mapping[str, Any]) -> str:
    values = {k: v for k, v in _mapping(record, "dataset").items() if v is not None}
    return ", ".join(f"{name} {_shown(value)}" for name, value in values.items())


def _mapping(record: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = record.get(key)
    return found if isinstance(found, dict) else {}


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
