"""How the report spells numbers, targets and whatever words a file has brought."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = [
    "asked",
    "axis",
    "narrow",
    "percent",
    "plain",
    "statuses",
    "unit",
    "value_text",
    "wanted_text",
]


def plain(text: str, limit: int = 60) -> str:
    """Returns text from a file so that a terminal shows it and does not obey it."""
    text = "".join(c if c.isprintable() else "?" for c in text)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def statuses(metrics: Mapping[str, Any], limit: int) -> dict[str, int]:
    """Returns the `limit` most frequent statuses with their counts; the rest as one."""
    ordered = sorted(metrics["status"].items(), key=lambda item: -item[1])
    result = dict(ordered[:limit])
    if len(ordered) > limit:
        result["other"] = result.get("other", 0) + sum(count for _, count in ordered[limit:])
    return result


def narrow(stage: str) -> str:
    """Returns the title of a column, HTML; the longest one shortened, for tables of many."""
    return '<abbr title="reconstructed">recon.</abbr>' if stage == "reconstructed" else stage


def percent(share: float | None) -> str:
    """Returns a share (0 to 1) in per cent; a dash where there is none."""
    return "-" if share is None else f"{100 * share:.1f} %"


def value_text(value: float | None, digits: int = 5, *, sign: bool = False) -> str:
    """Returns a number with all its digits, so that columns line up; a dash where there is none.

    Args:
        value: the number.
        digits: that count.
        sign: write + too.
    """
    if value is None:
        return "-"
    text = f"{value:+#.{digits}g}" if sign else f"{value:#.{digits}g}"
    return text.rstrip(".")


def wanted_text(target: float | list[float], digits: int = 5) -> str:
    """Returns a target as the command line spells it: VALUE or LO:HI."""
    if isinstance(target, list):
        return f"{target[0]:.{digits}g}:{target[1]:.{digits}g}"
    return f"{target:.{digits}g}"


def unit(name: str, metrics: Mapping[str, Any]) -> str:
    """Returns the unit of a property; nothing for pure numbers and units nobody has told."""
    text = str(metrics["units"].get(name, ""))
    return "" if text in ("1", "unknown") else text


def axis(name: str, metrics: Mapping[str, Any]) -> str:
    """Returns the title of an axis: the property with its unit."""
    title, suffix = name.replace("_", " "), unit(name, metrics)
    return f"{title} ({suffix})" if suffix else title


def asked(name: str, target: float | list[float], metrics: Mapping[str, Any]) -> str:
    """Returns a property with what was asked for, and its unit."""
    return f"{name.replace('_', ' ')} {wanted_text(target)} {unit(name, metrics)}".rstrip()
