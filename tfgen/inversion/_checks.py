"""Checks of the fields of settings: one line for each wrong value, with what is allowed."""

from __future__ import annotations

import math
from numbers import Integral, Real
from typing import Any

__all__ = ["check_flag", "check_kinds", "check_number", "check_whole", "is_number"]


def is_number(value: Any) -> bool:
    """Says whether a value is a real number; `True` and `False` are not."""
    return isinstance(value, Real) and not isinstance(value, bool)


def check_whole(settings: Any, least: int, *names: str) -> None:
    """Checks that fields are whole numbers.

    Args:
        settings: whose attributes are checked.
        least: smallest value allowed.
        names: of the fields.

    Raises:
        ValueError: names the field, its value and what is allowed; so do the other checks.
    """
    for name in names:
        value = getattr(settings, name)
        if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
            raise ValueError(f"{name} is {value!r}; a whole number >= {least} is needed")


def check_number(
    settings: Any, *names: str, low: float, high: float = math.inf, included: bool = False
) -> None:
    """Checks that fields are finite numbers above `low`, up to `high`.

    Args:
        settings: whose attributes are checked.
        names: of the fields.
        low: bound from below.
        high: bound from above, which is allowed itself.
        included: whether `low` itself is allowed.
    """
    above = f"a number {'>=' if included else 'above'} {low:g}"
    needed = above if high == math.inf else f"{above} and up to {high:g}"
    for name in names:
        value = getattr(settings, name)
        fits = is_number(value) and (low <= value if included else low < value)
        if not fits or not value <= high or value == math.inf:
            raise ValueError(f"{name} is {value!r}; {needed} is needed")


def check_flag(settings: Any, *names: str) -> None:
    """Checks that fields are True or False."""
    for name in names:
        value = getattr(settings, name)
        if not isinstance(value, bool):
            raise ValueError(f"{name} is {value!r}; True or False is needed")


def check_kinds(settings: Any, **kinds: type) -> None:
    """Checks that fields are of classes, given as field=class."""
    for name, kind in kinds.items():
        value = getattr(settings, name)
        if not isinstance(value, kind):
            raise ValueError(f"{name} is {value!r}; a {kind.__name__} is needed")
