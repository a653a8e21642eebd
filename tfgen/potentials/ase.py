"""ASE calculators by their import path."""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping
from typing import Any

from ase.calculators.calculator import BaseCalculator

__all__ = ["is_import_path", "make_calculator"]


def is_import_path(path: str) -> bool:
    """Says whether `path` has the form MODULE:NAME."""
    return re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*", path) is not None


def make_calculator(path: str, arguments: Mapping[str, Any] | None = None) -> BaseCalculator:
    """Imports and makes an ASE calculator.

    Args:
        path: MODULE:NAME of a class, or of a function that returns a calculator, such as
            "ase.calculators.emt:EMT" or "mace.calculators:mace_mp".
        arguments: keyword arguments for it.

    Raises:
        ValueError: if there is no such thing, it cannot be called with the arguments, or what it
            returns is no ASE calculator.
    """
    if not is_import_path(path):
        raise ValueError(f"calculator {path!r} is not of the form MODULE:NAME")
    module, _, attribute = path.partition(":")
    try:
        factory: Any = importlib.import_module(module)
        for name in attribute.split("."):
            factory = getattr(factory, name)
        calculator = factory(**(arguments or {}))
    except Exception as error:  # modules and calculators raise what they like
        reason = str(error) or type(error).__name__
        raise ValueError(f"calculator {path!r} cannot be made: {reason}") from error
    # Some calculators only look like one: they have the methods, but not the base class.
    wanted = ("get_potential_energy", "get_forces")
    if not isinstance(calculator, BaseCalculator) and not all(
        hasattr(calculator, name) for name in wanted
    ):
        raise ValueError(
            f"calculator {path!r} is {type(calculator).__name__}, not an ASE calculator"
        )
    return calculator
