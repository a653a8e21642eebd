"""What config.json of a model holds, checked before anything is made of it."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from tfgen.datasets.messages import InvalidValuesError, problems
from tfgen.models.settings import LIKELIHOODS

__all__ = ["ModelConfig", "NNPConfig", "check_config"]

_STRICT = ConfigDict(extra="forbid")
# Keras adds the name of a network and its dtypes, which have no say in what is loaded.
_OF_KERAS = ConfigDict(extra="ignore")

_Text = Annotated[str, Field(strict=True)]
_Flag = Annotated[bool, Field(strict=True)]
_Count = Annotated[int, Field(strict=True, ge=1, le=1_000_000_000)]
_Seed = Annotated[int, Field(strict=True, ge=0, le=2**63 - 1)]
_Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
_Weight = Annotated[float, Field(strict=True, ge=0.0, allow_inf_nan=False)]
_AboveZero = Annotated[float, Field(strict=True, gt=0.0, allow_inf_nan=False)]


def _likelihood(value: str) -> str:
    if value not in LIKELIHOODS:
        raise ValueError(f"allowed are {', '.join(LIKELIHOODS)}")
    return value


@dataclass(frozen=True, config=_STRICT)
class FingerprintConfig:
    """As from `Fingerprint.get_config`; the descriptor's class checks its own arguments."""

    descriptor: _Text
    descriptor_config: dict[_Text, Any]
    pooling: Any
    per_species: _Flag


@dataclass(frozen=True, config=_OF_KERAS)
class CVAEConfig:
    """Arguments of `CVAE`."""

    features: _Count
    conditions: _Count
    properties: _Count
    latent: _Count
    hidden: list[_Count]
    kl_weight: _Weight
    surrogate_weight: _Weight
    likelihood_family: Annotated[_Text, AfterValidator(_likelihood)]
    seed: _Seed


@dataclass(frozen=True, config=_OF_KERAS)
class NNPConfig:
    """Arguments of `EnergyNetwork`."""

    features: _Count
    elements: _Count
    hidden: list[_Count]
    step: _AboveZero
    slope_weight: _Weight
    seed: _Seed


@dataclass(frozen=True, config=_STRICT)
class ConditionConfig:
    """Fields of a `Condition`."""

    name: _Text
    unit: _Text
    low: _Number
    high: _Number


@dataclass(frozen=True, config=_STRICT)
class ModelConfig:
    """What `Model.config` returns, but for the schema and its version."""

    fingerprint: FingerprintConfig
    cvae: CVAEConfig
    conditions: list[ConditionConfig]
    mean: list[_Number]
    covariance: list[list[_Number]]
    formulas: dict[_Text, Annotated[int, Field(strict=True, ge=0)]]
    tolerance: _AboveZero
    potential: _Text | None
    nnp: NNPConfig | None
    minima: _Flag
    settings: dict[_Text, Any] | None
    nnp_settings: dict[_Text, Any] | None
    provenance: dict[_Text, Any]


def check_config(config: dict[str, Any]) -> ModelConfig:
    """Checks the types and the ranges of all values.

    Args:
        config: what config.json holds.

    Raises:
        InvalidValuesError: with a line for each value that is wrong.
    """
    try:
        values = {k: v for k, v in config.items() if k not in ("schema", "schema_version")}
        return TypeAdapter(ModelConfig).validate_python(values)
    except ValidationError as error:
        raise InvalidValuesError(problems(error, ModelConfig)) from None
