"""Says what is wrong with a table that pydantic refuses: one line for each wrong value."""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError
from pydantic.fields import FieldInfo

__all__ = ["NOT_IN_FILE", "InvalidValuesError", "problems", "shown", "unknown_key"]

NOT_IN_FILE = {"in_file": False}
"""Metadata of a dataclass's field that a TOML file cannot set."""

# Characters of a value that a message quotes.
_QUOTED = 60


class InvalidValuesError(ValueError):
    """What a file says is not valid.

    Attributes:
        problems: one sentence for each wrong value, which names file, field, what came and what is
            allowed.
    """

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


def problems(error: ValidationError, kind: type) -> list[str]:
    """Returns one line for each wrong value: the name of the field, what came, what is allowed.

    Args:
        error: what pydantic raised about a table.
        kind: the pydantic dataclass that the table should have become.
    """
    # One value may break several rules, and each entry of a list is reported apart.
    return list(dict.fromkeys(_line(details, kind) for details in error.errors()))


def shown(value: Any) -> str:
    """Returns a value as TOML writes it, cut short if it is long."""
    return text if len(text := _toml(value)) <= _QUOTED else text[: _QUOTED - 3] + "..."


def unknown_key(name: str, section: type) -> str:
    """Says that a section, which becomes a dataclass, has no key of that name."""
    fields = dataclasses.fields(section)
    allowed = sorted(f.name for f in fields if f.metadata.get("in_file", True))
    return f"unknown key {shown(name)}; allowed are {', '.join(allowed)}"


def _line(details: Any, kind: type) -> str:
    path, what = details["loc"], details["type"]
    name = ".".join(part for part in path if isinstance(part, str))
    section, field = _place(path, kind)
    if what == "missing":
        return f"section [{name}] is missing" if _section(field) else f"{name} is missing"
    if what == "unexpected_keyword_argument":
        return unknown_key(name, section)
    if what == "value_error" and (not path or _section(field)):
        return str(details["ctx"]["error"])  # about several fields, which the sentence names
    came = shown(details["input"])
    if what == "value_error":
        return f"{name} is {came}; {details['ctx']['error']}"
    if _section(field):
        return f"{name} is {came}; a section [{name}] is needed"
    return f"{name} is {came}; {_allowed(field)} is needed"


def _place(path: Sequence[str | int], kind: Any) -> tuple[Any, FieldInfo | None]:
    """Returns the dataclass that a path ends in, and its field if there is one of that name."""
    field = None
    for part in path:
        if (inner := _section(field)) is not None:
            kind = inner
        elif field is not None:
            break  # an entry of a list or table, of which the field says what it takes
        field = kind.__pydantic_fields__.get(part) if isinstance(part, str) else field
    return kind, field


def _section(field: FieldInfo | None) -> type | None:
    """Returns the dataclass that a field holds, or None if it holds something else."""
    if field is None:
        return None
    kinds = typing.get_args(field.annotation) or (field.annotation,)
    return next((kind for kind in kinds if dataclasses.is_dataclass(kind)), None)  # type: ignore[return-value]


def _allowed(field: FieldInfo | None) -> str:
    """Describes the values that a field takes by its type and its bounds."""
    bounds = [
        f"{sign} {bound if isinstance(bound, int) else format(bound, 'g')}"
        for name, sign in (("gt", ">"), ("ge", ">="), ("le", "<="))
        for rule in (field.metadata if field else ())
        if (bound := getattr(rule, name, None)) is not None
    ]
    what = _kind_of(field.annotation)[0] if field else "another value"
    return " ".join([what, " and ".join(bounds)]).strip()


def _kind_of(kind: Any) -> tuple[str, str]:
    """Returns words for one value of a type, and for several."""
    words = {
        int: ("a whole number", "whole numbers"),
        float: ("a number", "numbers"),
        str: ("text in quotes", "texts"),
        bool: ("true or false", "true or false"),
        dict: ("a table", "tables"),
    }
    while True:
        origin = typing.get_origin(kind)
        if origin is list:
            several = _kind_of(typing.get_args(kind)[0])[1]
            return f"a list of {several}", f"lists of {several}"
        if origin is None or origin is dict:
            return words.get(origin or kind, ("another value", "other values"))
        # Annotated, or a union with None.
        kind = next(k for k in typing.get_args(kind) if k is not type(None))


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) and abs(value) >= 10**_QUOTED:
        return f"a number of {math.floor(value.bit_length() * math.log10(2)) + 1} digits"
    if isinstance(value, str | int | float):
        return repr(value)
    if isinstance(value, dict):
        pairs = (f"{key} = {_toml(item)}" for key, item in list(value.items())[:_QUOTED])
        return f"{{{', '.join(pairs)}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(_toml(item) for item in value[:_QUOTED])}]"
    return str(value)  # dates and times
