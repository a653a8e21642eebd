"""The types of the fields of a recipe, for pydantic.

What a type refuses, it refuses with what is allowed instead; `messages` adds the name of the field
and the value that came.
"""

from __future__ import annotations

import itertools
import json
import re
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

from tfgen.datasets.messages import shown
from tfgen.potentials.import_paths import is_import_path
from tfgen.potentials.properties import CALCULATED
from tfgen.sampling.initial import KINDS, SHAPES
from tfgen.sampling.moves import MOVES
from tfgen.structures.formulas import numbers_from_formula

__all__ = [
    "CALCULATOR",
    "METHODS",
    "POTENTIALS",
    "AboveZero",
    "Count",
    "Formulas",
    "Functions",
    "Growing",
    "Kinds",
    "Method",
    "Moves",
    "Name",
    "NotNegative",
    "Plain",
    "Potential",
    "Shapes",
    "Share",
    "Text",
]

CALCULATOR = "calculator"
"""Stands in a recipe for what computes a property that the calculator itself has."""
POTENTIALS = ("emt",)
METHODS = ("random", "farthest")


def _texts(value: Any) -> Any:
    """Turns text or a list of texts into a tuple."""
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list | tuple) or not all(isinstance(v, str) for v in values):
        raise ValueError("text in quotes or a list of such is needed")
    if not values or len(set(values)) < len(values):
        raise ValueError("at least one entry is needed, and none twice")
    return tuple(values)


def _one_of(*allowed: str) -> BeforeValidator:
    """Takes text, or a list of texts, that are all among those allowed."""

    def check(value: Any) -> Any:
        values = _texts(value)
        if strange := [v for v in values if v not in allowed]:
            raise ValueError(f"allowed are {', '.join(allowed)}, not {shown(strange[0])}")
        return values

    return BeforeValidator(check)


def _formulas(value: Any) -> Any:
    """Takes formulas of at least two atoms, no two of the same composition."""
    formulas: dict[bytes, str] = {}
    for formula in _texts(value):
        if len(formula) > 100:
            raise ValueError("a formula of at most 100 characters is needed")
        numbers = numbers_from_formula(formula, "the text")
        if len(numbers) < 2:
            raise ValueError(f"{formula!r} is a single atom; at least 2 are needed")
        earlier = formulas.setdefault(numbers.tobytes(), formula)
        if earlier is not formula:
            raise ValueError(f"{earlier!r} and {formula!r} are the same composition")
    return tuple(formulas.values())


def _potential(value: str) -> str:
    if value not in POTENTIALS and not is_import_path(value):
        known = ", ".join(map(repr, POTENTIALS))
        raise ValueError(
            f"allowed is {known} or an ASE calculator like 'ase.calculators.emt:EMT' (MODULE:NAME)"
        )
    return value


def _name(value: str) -> str:
    if not re.fullmatch(r"[\w.+-]+", value):
        raise ValueError("letters, digits and . _ + - are allowed")
    return value


def _method(value: str) -> str:
    if value not in METHODS:
        raise ValueError(f"allowed are {', '.join(METHODS)}")
    return value


def _growing(value: Any) -> Any:
    """Takes a list of growing whole numbers from 0 on."""
    whole = isinstance(value, list | tuple) and all(type(v) is int and v >= 0 for v in value)
    if not whole or any(b <= a for a, b in itertools.pairwise(value)):
        raise ValueError("a list of growing whole numbers >= 0 is needed")
    return tuple(value)


def _functions(value: Any) -> Any:
    """Takes a table of import paths, or of `CALCULATOR`."""
    needed = 'a table like { gap = "MODULE:FUNCTION" } is needed'
    if not isinstance(value, dict):
        raise ValueError(needed)
    for name, path in value.items():
        if path == CALCULATOR and name not in CALCULATED:
            known = ", ".join(CALCULATED)
            raise ValueError(f"{name} is no property of calculators; these are {known}")
        if path != CALCULATOR and not (isinstance(path, str) and is_import_path(path)):
            raise ValueError(f"{needed}, or {{ dipole = {CALCULATOR!r} }}; {name} is {shown(path)}")
    return value


def _plain(value: Any) -> Any:
    """Takes a table of texts, finite numbers, true and false, and lists and tables of such."""
    if not isinstance(value, dict):
        raise ValueError("a table like { name = 1 } is needed")
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError) as error:  # dates and times; infinity
        raise ValueError(
            "only texts, finite numbers, true, false, and lists and tables of these are allowed"
        ) from error
    return value


Text = Annotated[str, Field(strict=True)]
Count = Annotated[int, Field(strict=True, ge=1, le=1_000_000_000)]
Share = Annotated[float, Field(strict=True, ge=0.0, le=1.0, allow_inf_nan=False)]
AboveZero = Annotated[float, Field(strict=True, gt=0.0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(strict=True, ge=0.0, allow_inf_nan=False)]
Name = Annotated[Text, AfterValidator(_name)]
Potential = Annotated[Text, AfterValidator(_potential)]
Method = Annotated[Text, AfterValidator(_method)]
Formulas = Annotated[tuple[str, ...], BeforeValidator(_formulas)]
Kinds = Annotated[tuple[str, ...], _one_of(*KINDS)]
Shapes = Annotated[tuple[str, ...], _one_of(*SHAPES)]
Moves = Annotated[tuple[str, ...], _one_of(*MOVES)]
Growing = Annotated[tuple[int, ...], BeforeValidator(_growing)]
Functions = Annotated[dict[str, str], BeforeValidator(_functions)]
Plain = Annotated[dict[str, Any], BeforeValidator(_plain)]
