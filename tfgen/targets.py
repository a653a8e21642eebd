"""What is asked for: targets, their tolerances, and when a value is a hit.

This is the only place that says so: generation, evaluation, the model and the command line use it.
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any, NamedTuple

import numpy as np

__all__ = [
    "DEFAULT_TOLERANCES",
    "SURROGATE",
    "Rates",
    "Target",
    "TargetValue",
    "check_targets",
    "check_tolerance",
    "compute_rates",
    "default_tolerance",
    "hits_all",
    "is_verified",
    "largest_miss",
]

TargetValue = float | tuple[float, float]
"""A value, or a range (low, high)."""

SURROGATE = "surrogate"
"""What `evaluated_by` says where only the model's own network knows a property."""

# Half widths of a hit, for properties that have one of their own: eV/atom.
DEFAULT_TOLERANCES = {"energy_per_atom": 0.01}
# For all others, as a share of the range of the training structures. For Pt13, 0.01 eV/atom is 5 %.
TOLERANCE_SHARE = 0.05
# Targets beyond this would overflow in a network's float32.
LARGEST_TARGET = 1e9
# Keeps 0.76 a hit for 0.75 ± 0.01 in spite of rounding.
ROUNDING = 1e-9


# Characters of a target as text, which a message about it quotes.
_LONGEST = 1000


@dataclass(frozen=True)
class Target:
    """A value, or a range of values, asked for of one property.

    A range whose ends are equal is a value. All quantities are in the property's unit.

    Attributes:
        name: of the property.
        low, high: the ends of the range; equal for a value.
        tolerance: half width of a hit where a value is asked for; a range is its own tolerance,
            and needs one only for `miss`. None if it has not been chosen yet.

    Raises:
        ValueError: if an end is not a finite number, low > high, or the tolerance is not a finite
            number above 0.
    """

    name: str
    low: float
    high: float
    tolerance: float | None = None

    def __post_init__(self) -> None:
        label = f"target {self.name}"
        if not (_is_finite(self.low) and _is_finite(self.high)):
            shown = self.low if self.low is self.high else (self.low, self.high)
            raise ValueError(
                f"{label} is {_shown(shown)}; a finite number or (low, high) is needed"
            )
        if self.low > self.high:
            raise ValueError(f"{label} is {(self.low, self.high)!r}; low is above high")
        if self.tolerance is not None:
            check_tolerance(f"tolerance of {self.name}", self.tolerance)

    @classmethod
    def of(cls, name: str, value: Any, tolerance: float | None = None) -> Target:
        """Makes a target of what a user or a record gives: a number, or two.

        Raises:
            ValueError: as the class does, or if it is neither one number nor two.
        """
        parts = list(value) if np.ndim(value) == 1 and len(value) == 2 else [value]
        if not all(_is_number(part) for part in parts):
            raise ValueError(
                f"target {name} is {_shown(value)}; a finite number or (low, high) is needed"
            )
        low, high = _float(parts[0]), _float(parts[-1])
        return cls(name, low, low if len(parts) == 1 else high, tolerance)

    @classmethod
    def parse(cls, text: str) -> Target:
        """Reads NAME=VALUE or NAME=LO:HI.

        Raises:
            ValueError: if the text is of neither form, or its values are no target.
        """
        if len(text) > _LONGEST:
            raise ValueError(f"a target has {len(text)} characters; at most {_LONGEST} are allowed")
        name, equals, right = text.partition("=")
        if not name or not equals or not right:
            raise ValueError(f"{text!r} is not of the form NAME=VALUE or NAME=LO:HI")
        try:
            ends = [float(part) for part in right.split(":")]
        except ValueError:
            raise ValueError(f"{right!r} in {text!r} is not a number or a range LO:HI") from None
        if len(ends) > 2 or not all(map(math.isfinite, ends)):
            raise ValueError(f"{right!r} in {text!r} is not a finite number or a range LO:HI")
        if ends[0] > ends[-1]:
            raise ValueError(f"the range in {text!r} has LO above HI")
        return cls(name, ends[0], ends[-1])

    @property
    def is_value(self) -> bool:
        """Whether a value is asked for, not a range."""
        return self.low == self.high

    @property
    def value(self) -> TargetValue:
        """The value, or (low, high)."""
        return self.low if self.is_value else (self.low, self.high)

    def to_json(self) -> float | list[float]:
        """Returns the value, or [low, high]."""
        return self.low if self.is_value else [self.low, self.high]

    def __str__(self) -> str:
        """As `parse` reads it, to the last digit: equal texts mean equal targets."""
        ends = (self.low,) if self.is_value else (self.low, self.high)
        return f"{self.name}={':'.join(map(repr, ends))}"

    def error(self, values: Any) -> Any:
        """Distances to the target: value - target, or to the nearer end of the range, 0 inside.

        Args:
            values: a number or an array.

        Returns:
            The same shape; NaN where a value is.
        """
        return np.maximum(values - self.high, 0.0) - np.maximum(self.low - values, 0.0)

    def hit(self, values: Any) -> Any:
        """Says which values are hits: |value - target| <= tolerance, or within the range.

        Args:
            values: a number or an array.

        Returns:
            The same shape, bool; false where a value is not finite.
        """
        reach = self._tolerance() * (1.0 + ROUNDING) if self.is_value else 0.0
        error = np.abs(self.error(values))
        return np.isfinite(values) & (np.nan_to_num(error, nan=np.inf) <= reach)

    def miss(self, value: float) -> float:
        """How far a value is off, on a scale on which up to 1 is a hit, to rank values by.

        A value asked for is a range of its tolerance to either side. The miss is 0 in the middle
        of a range and 1 at its ends. It grows from one to the other over the tolerance, or over
        half of a range that is narrower, and on at the same pace beyond.
        """
        low, high, tolerance = self.low, self.high, self._tolerance()
        if self.is_value:
            low, high = low - tolerance, high + tolerance
        reach = min(tolerance, 0.5 * (high - low))
        beyond = max(low - value, value - high)
        return max(0.0, 1.0 + beyond / reach) if np.isfinite(beyond) else np.inf

    def with_tolerance(self, tolerance: float) -> Target:
        """Returns the target with that tolerance."""
        return replace(self, tolerance=tolerance)

    def _tolerance(self) -> float:
        if self.tolerance is None:
            raise ValueError(f"target {self.name} has no tolerance yet")
        return self.tolerance


def check_targets(wanted: Mapping[str, TargetValue], known: Sequence[str]) -> list[Target]:
    """Returns the targets that a model is asked for, without tolerances.

    Args:
        wanted: property -> value or (low, high).
        known: the properties that the model knows.

    Raises:
        ValueError: on no target, an unknown property, values that are not finite or beyond
            float32, or low > high.
    """
    if not wanted:
        raise ValueError(f"no target given; the model knows {', '.join(known)}")
    targets = []
    for name, value in wanted.items():
        if name not in known:
            raise ValueError(f"property {name!r} is unknown; the model knows {', '.join(known)}")
        target = Target.of(name, value)
        if max(abs(target.low), abs(target.high)) > LARGEST_TARGET:
            raise ValueError(
                f"target {name} is {_shown(value)}; its size must not exceed {LARGEST_TARGET:g}"
            )
        targets.append(target)
    return targets


def check_tolerance(label: str, value: Any) -> float:
    """Returns a tolerance as a float.

    Args:
        label: names it in the message.
        value: the tolerance.

    Raises:
        ValueError: if it is not a finite number above 0.
    """
    if not _is_finite(value) or value <= 0:
        raise ValueError(f"{label} is {_shown(value)}; a number above 0 is needed")
    return float(value)


def default_tolerance(name: str, low: float, high: float) -> float:
    """The tolerance of a property where none is asked for.

    0.01 eV/atom for the energy per atom; for any other property 5 % of its range over the training
    structures, from `low` to `high`.
    """
    if name in DEFAULT_TOLERANCES:
        return DEFAULT_TOLERANCES[name]
    return max(TOLERANCE_SHARE * (high - low), 1e-9)  # of a constant property: rounding


def largest_miss(targets: Sequence[Target], values: Mapping[str, float]) -> float:
    """The largest `Target.miss` of the values (property -> value); 0 without targets."""
    return max((target.miss(values[target.name]) for target in targets), default=0.0)


def hits_all(targets: Sequence[Target], values: Mapping[str, float]) -> bool:
    """Whether the values (property -> value) are hits of all targets."""
    return all(bool(target.hit(values[target.name])) for target in targets)


def is_verified(hit: bool | None, *, sound: bool, new: bool) -> bool | None:
    """The rule of what is verified, in generation and in evaluation.

    Args:
        hit: whether every property asked for was calculated and is a hit; None if one was not
            calculated, so that nothing has judged.
        sound: whether the structure is valid, and all that was to converge has.
        new: whether it equals no training structure and no structure before it.
    """
    return None if hit is None else hit and sound and new


class Rates(NamedTuple):
    """How a group of structures with the same targets did.

    Attributes:
        hits: [n] bool, which have every property asked for; None if a property is known of none.
        mae: property -> mean distance to the target; None if it is known of none.
        bias: property -> mean of value minus target; likewise.
    """

    hits: np.ndarray | None
    mae: dict[str, float | None]
    bias: dict[str, float | None]

    @property
    def hit_rate(self) -> float | None:
        """Share of hits among all n."""
        return None if self.hits is None or not len(self.hits) else float(self.hits.mean())


def compute_rates(
    targets: Sequence[Target], values: Mapping[str, np.ndarray], eligible: np.ndarray
) -> Rates:
    """Compares the properties of a group of structures with their targets.

    Args:
        targets: what all of them were asked for.
        values: property -> [n]; NaN where there is none.
        eligible: [n] bool, which structures can be hits, and count for mae and bias.
    """
    hits = eligible.copy()
    mae: dict[str, float | None] = {}
    bias: dict[str, float | None] = {}
    missing = False
    for target in targets:
        value = values[target.name]
        known = np.isfinite(value)
        missing = missing or not known.any()
        hits &= target.hit(value)
        error = target.error(value)[known & eligible]
        mae[target.name] = _mean(np.abs(error))
        bias[target.name] = _mean(error)
    return Rates(None if missing else hits, mae, bias)


def _mean(values: np.ndarray) -> float | None:
    mean = float(values.mean()) if len(values) else np.nan
    return mean if np.isfinite(mean) else None


def _is_number(value: Any) -> bool:
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value.item()
    return isinstance(value, Real) and not isinstance(value, bool | np.bool_)


def _is_finite(value: Any) -> bool:
    return _is_number(value) and math.isfinite(_float(value))


def _float(value: Any) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _shown(value: Any) -> str:
    """Returns a value for a message: short, and NumPy's numbers like any other."""
    return reprlib.repr(value.item() if isinstance(value, np.generic) else value)
