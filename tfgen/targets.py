"""How often, and how nearly, properties are what was asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

__all__ = ["Rates", "rates_of"]


class Rates(NamedTuple):
    """How a group of structures with one target did.

    Attributes:
        hits: [n] bool, which have every property asked for; None if one is known of none of them.
        mae: property -> mean distance to the target; None if no structure tells.
        bias: property -> mean of value minus target; likewise.
    """

    hits: np.ndarray | None
    mae: dict[str, float | None]
    bias: dict[str, float | None]

    @property
    def hit_rate(self) -> float | None:
        """Share of hits among all n."""
        return None if self.hits is None or not len(self.hits) else float(self.hits.mean())


def rates_of(
    target: Mapping[str, float | list[float]],
    values: Mapping[str, np.ndarray],
    eligible: np.ndarray,
    tolerance: Mapping[str, float],
) -> Rates:
    """Compares properties with a target.

    Args:
        target: property -> value or [lo, hi].
        values: property -> [n]; NaN where there is none.
        eligible: [n] bool, which structures can be hits, and count for mae and bias.
        tolerance: property -> half width of a hit where a value is asked for.
    """
    hits = eligible.copy()
    mae: dict[str, float | None] = {}
    bias: dict[str, float | None] = {}
    missing = False
    for name, wanted in target.items():
        value = values[name]
        low, high = wanted if isinstance(wanted, list) else (wanted, wanted)
        error = np.maximum(value - high, 0.0) - np.maximum(low - value, 0.0)
        known = np.isfinite(value)
        missing = missing or not known.any()
        # The small allowance keeps 0.76 a hit for 0.75 +- 0.01 in spite of rounding.
        reach = 0.0 if isinstance(wanted, list) else tolerance[name]
        hits &= known & (np.nan_to_num(np.abs(error), nan=np.inf) <= reach * (1 + 1e-9))
        judged = error[known & eligible]
        mae[name] = _mean(np.abs(judged))
        bias[name] = _mean(judged)
    return Rates(None if missing else hits, mae, bias)


def _mean(values: np.ndarray) -> float | None:
    mean = float(values.mean()) if len(values) else np.nan
    return mean if np.isfinite(mean) else None
