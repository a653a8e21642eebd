"""Reads fields of TOML tables, and says of bad ones what came and what is allowed."""

from __future__ import annotations

import dataclasses
import itertools
import json
from typing import Any

import numpy as np

__all__ = [
    "choices",
    "integer",
    "integers",
    "known_keys",
    "number",
    "plain",
    "section",
    "text",
    "texts",
]


def known_keys(table: dict[str, Any], allowed: set[str], prefix: str) -> None:
    for key in table:
        if key not in allowed:
            raise ValueError(
                f"unknown key {prefix + key!r}; allowed are {', '.join(sorted(allowed))}"
            )


def section(table: dict[str, Any], name: str, kind: type) -> dict[str, Any]:
    section = table.get(name, {})
    if not isinstance(section, dict):
        raise ValueError(f"{name} is {section!r}; a section [{name}] is needed")
    known_keys(section, {f.name for f in dataclasses.fields(kind)}, name + ".")
    return section


def text(table: dict[str, Any], key: str, prefix: str, default: str = "") -> str:
    value = table.get(key, default)
    if not isinstance(value, str):
        raise ValueError(f"{prefix}{key} is {value!r}; a text in quotes is needed")
    return value


def texts(table: dict[str, Any], key: str, prefix: str) -> tuple[str, ...]:
    value = table[key]
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list) or not values or not all(isinstance(v, str) for v in values):
        raise ValueError(
            f"{prefix}{key} is {value!r}; a text in quotes or a list of such is needed"
        )
    if len(set(values)) < len(values):
        raise ValueError(f"{prefix}{key} is {value!r}; an entry comes twice")
    return tuple(values)


def integer(table: dict[str, Any], key: str, prefix: str, default: int, least: int) -> int:
    value = table.get(key, default)
    # TOML's true is Python's True, which is an int.
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"{prefix}{key} is {value!r}; a whole number >= {least} is needed")
    return value


def number(
    table: dict[str, Any],
    key: str,
    prefix: str,
    default: float,
    above: float,
    up_to: float,
    or_equal: bool = False,
) -> float:
    value = table.get(key, default)
    good = (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and np.isfinite(value)
        and (above < value or (or_equal and above == value))
        and value <= up_to
    )
    if not good:
        lower = f"{'>=' if or_equal else '>'} {above:g}"
        upper = "" if np.isinf(up_to) else f" and <= {up_to:g}"
        raise ValueError(f"{prefix}{key} is {value!r}; a number {lower}{upper} is needed")
    return float(value)


def choices(
    table: dict[str, Any], key: str, prefix: str, default: tuple[str, ...], allowed: tuple[str, ...]
) -> tuple[str, ...]:
    """A text or a list of texts, all of them among `allowed`."""
    values = texts(table, key, prefix) if key in table else default
    for value in values:
        if value not in allowed:
            raise ValueError(f"{prefix}{key} holds {value!r}; allowed are {', '.join(allowed)}")
    return values


def integers(table: dict[str, Any], key: str, prefix: str) -> tuple[int, ...]:
    """A list of growing whole numbers from 0 on; empty if it is not there."""
    values = table.get(key, [])
    good = isinstance(values, list) and all(
        isinstance(v, int) and not isinstance(v, bool) and v >= 0 for v in values
    )
    if not good or any(b <= a for a, b in itertools.pairwise(values)):
        raise ValueError(
            f"{prefix}{key} is {values!r}; a list of growing whole numbers >= 0 is needed"
        )
    return tuple(values)


def plain(table: dict[str, Any], key: str, prefix: str) -> dict[str, Any]:
    """A table of texts, numbers, true and false, and lists and tables of such."""
    value = table.get(key, {})
    if not isinstance(value, dict):
        raise ValueError(f"{prefix}{key} is {value!r}; a table like {{ name = 1 }} is needed")
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError) as error:  # dates and times; infinity
        raise ValueError(
            f"{prefix}{key} holds something else than texts, finite numbers, true, false, lists "
            f"and tables: {error}"
        ) from error
    return value
