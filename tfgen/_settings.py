"""Checks of the fields of settings: one line for each wrong value, with what is allowed.

Each check takes the settings and names of their fields, and raises a `ValueError` that names the
field, its value and what is needed. Fields that pass hold Python's own numbers afterwards, whatever
NumPy's they were given as, so that settings compare, print and become JSON alike.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from numbers import Integral, Real
from typing import Any

__all__ = [
    "check_choice",
    "check_flag",
    "check_kinds",
    "check_number",
    "check_range",
    "check_whole",
    "check_widths",
    "is_number",
]


def is_number(value: Any) -> bool:
    """Says whether a value is a finite real number; `True` and `False` are not."""
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def check_whole(settings: Any, least: int, *names: str, multiple_of: int = 1) -> None:
    """Checks that fields are whole numbers of at least `least`, and multiples of a number."""
    for name in names:
        value = getattr(settings, name)
        if not _is_whole(value) or value < least or value % multiple_of:
            kind = "a whole number" if multiple_of == 1 else f"a multiple of {multiple_of}"
            raise ValueError(f"{name} is {value!r}; {kind} >= {least} is needed")
        _set(settings, name, int(value))


def check_widths(settings: Any, *names: str) -> None:
    """Checks that fields are widths of layers: lists of whole numbers of at least 1."""
    for name in names:
        value = getattr(settings, name)
        fits = isinstance(value, tuple | list) and all(_is_whole(w) and w >= 1 for w in value)
        if not fits:
            raise ValueError(
                f"{name} is {value!r}; widths of layers, whole numbers >= 1, are needed"
            )
        _set(settings, name, tuple(map(int, value)))


def check_number(
    settings: Any, *names: str, low: float, high: float = math.inf, included: bool = False
) -> None:
    """Checks that fields are finite numbers above `low`, up to `high`.

    Args:
        settings: whose fields are checked.
        names: of the fields.
        low: bound from below.
        high: bound from above, which is allowed itself.
        included: whether `low` itself is allowed.
    """
    if high == math.inf:
        needed = f"a number {'>=' if included else 'above'} {low:g}"
    elif included:
        needed = f"a number from {low:g} to {high:g}"
    else:
        needed = f"a number above {low:g} and up to {high:g}"
    for name in names:
        value = getattr(settings, name)
        if not is_number(value) or not (low <= value if included else low < value) or value > high:
            raise ValueError(f"{name} is {value!r}; {needed} is needed")
        _set(settings, name, float(value))


def check_range(settings: Any, *names: str, low: float, high: float = math.inf) -> None:
    """Checks that fields are pairs (smallest, largest) of finite numbers from `low` to `high`."""
    bound = "" if high == math.inf else f" <= {high:g}"
    for name in names:
        value = getattr(settings, name)
        pair = isinstance(value, tuple | list) and len(value) == 2 and all(map(is_number, value))
        if not pair or not low <= value[0] <= value[1] <= high:
            raise ValueError(
                f"{name} is {value!r}; two numbers are needed, {low:g} <= smallest <= "
                f"largest{bound}"
            )
        _set(settings, name, (float(value[0]), float(value[1])))


def check_flag(settings: Any, *names: str) -> None:
    """Checks that fields are True or False."""
    for name in names:
        value = getattr(settings, name)
        if not isinstance(value, bool):
            raise ValueError(f"{name} is {value!r}; True or False is needed")


def check_choice(settings: Any, name: str, choices: Collection[str]) -> None:
    """Checks that a field is one of several texts."""
    value = getattr(settings, name)
    if value not in choices:
        raise ValueError(f"{name} is {value!r}; one of {', '.join(choices)} is needed")


def check_kinds(settings: Any, **kinds: type) -> None:
    """Checks that fields are of classes, given as field=class."""
    for name, kind in kinds.items():
        value = getattr(settings, name)
        if not isinstance(value, kind):
            raise ValueError(f"{name} is {value!r}; a {kind.__name__} is needed")


def _is_whole(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _set(settings: Any, name: str, value: Any) -> None:
    object.__setattr__(settings, name, value)  # frozen for everyone else
