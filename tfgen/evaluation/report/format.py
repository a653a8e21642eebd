"""How the report and the printed summary write numbers, targets, units and words from files."""

from __future__ import annotations

import html
from collections.abc import Mapping

from tfgen.targets import Target

__all__ = [
    "count_statuses",
    "escape_svg",
    "format_axis",
    "format_name",
    "format_number",
    "format_share",
    "format_target",
    "format_unit",
    "format_wanted",
    "make_printable",
]


def escape_svg(text: str) -> str:
    """Returns text so that it can stand inside SVG, between tags or in a quoted attribute.

    The templates of the page escape by themselves; drawings that are put together as text use this.
    """
    return html.escape(text, quote=True)


def make_printable(text: str, limit: int = 60) -> str:
    """Returns text from a file so that a terminal shows it and does not obey it.

    Args:
        text: anything.
        limit: the number of characters after which it is cut.
    """
    text = "".join(c if c.isprintable() else "?" for c in text)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def count_statuses(statuses: Mapping[str, int], limit: int) -> dict[str, int]:
    """Returns the `limit` most frequent statuses with their counts; all others as "other"."""
    ordered = sorted(statuses.items(), key=lambda item: -item[1])
    result = dict(ordered[:limit])
    if len(ordered) > limit:
        result["other"] = result.get("other", 0) + sum(count for _, count in ordered[limit:])
    return result


def format_share(share: float | None) -> str:
    """Returns a share (0 to 1) in per cent; a dash where there is none."""
    return "-" if share is None else f"{100 * share:.1f} %"


def format_number(value: float | None, digits: int = 5, *, sign: bool = False) -> str:
    """Returns a number with all its digits, so that columns line up; a dash where there is none.

    Args:
        value: the number.
        digits: the number of significant digits.
        sign: whether positive numbers get a plus.
    """
    if value is None:
        return "-"
    text = f"{value:+#.{digits}g}" if sign else f"{value:#.{digits}g}"
    return text.rstrip(".")


def format_wanted(target: Target, digits: int = 5) -> str:
    """Returns what is asked for of a property as the command line spells it: VALUE or LO:HI."""
    if target.is_value:
        return f"{target.low:.{digits}g}"
    return f"{target.low:.{digits}g}:{target.high:.{digits}g}"


def format_name(name: str) -> str:
    """Returns the name of a property as words."""
    return name.replace("_", " ")


def format_unit(name: str, units: Mapping[str, str]) -> str:
    """Returns the unit of a property; nothing for pure numbers and for units that are not known."""
    text = str(units.get(name, ""))
    return "" if text in ("1", "unknown") else text


def format_axis(name: str, units: Mapping[str, str]) -> str:
    """Returns the title of an axis: the property with its unit in brackets."""
    unit = format_unit(name, units)
    return f"{format_name(name)} ({unit})" if unit else format_name(name)


def format_target(target: Target, units: Mapping[str, str]) -> str:
    """Returns a property with what is asked for, and its unit."""
    text = f"{format_name(target.name)} {format_wanted(target)} {format_unit(target.name, units)}"
    return text.rstrip()
