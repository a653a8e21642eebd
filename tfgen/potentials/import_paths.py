"""ASE calculators by import path: what is one, and how it is made."""

from __future__ import annotations

import functools
import hashlib
import importlib
import importlib.util
import inspect
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ase import Atoms
from ase.calculators.calculator import BaseCalculator, FileIOCalculator

__all__ = ["code_digest", "import_path", "is_calculator", "is_import_path", "make_calculator"]


def import_path(path: str) -> Any:
    """Imports what MODULE:NAME names; modules raise what they like."""
    module, _, attribute = path.partition(":")
    return functools.reduce(getattr, attribute.split("."), importlib.import_module(module))


def code_digest(path: str) -> str:
    """Returns a digest of the file of the module in MODULE:NAME; "" if there is none to be found.

    Another version of the file has another digest. The module itself is not imported, but the
    packages that it is in are.
    """
    try:
        found = importlib.util.find_spec(path.partition(":")[0])
        source = Path(found.origin) if found is not None and found.origin else None
        return hashlib.sha256(source.read_bytes()).hexdigest() if source is not None else ""
    except Exception:  # noqa: BLE001  (packages raise what they like)
        return ""


def is_import_path(path: str) -> bool:
    """Says whether `path` has the form MODULE:NAME."""
    return re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*", path) is not None


def is_calculator(candidate: Any) -> bool:
    """Says whether an object can be used as an ASE calculator.

    Some calculators have the methods of one, but not the base class.
    """
    if isinstance(candidate, type | Atoms):
        return False
    methods = ("get_potential_energy", "get_forces")
    return isinstance(candidate, BaseCalculator) or all(hasattr(candidate, m) for m in methods)


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
    try:
        factory = import_path(path)
        calculator = factory(**(arguments or {}))
    except (Exception, SystemExit) as error:  # modules and calculators raise what they like
        reason = str(error) or type(error).__name__
        raise ValueError(f"calculator {path!r} cannot be made: {reason}") from error
    if not is_calculator(calculator):
        raise ValueError(
            f"calculator {path!r} is {type(calculator).__name__}, not an ASE calculator"
        )
    # ASE's base class takes any argument, and those of another name have no effect. Calculators
    # that write input files pass on whatever their program knows.
    known = getattr(type(calculator), "default_parameters", None)
    if known and isinstance(factory, type) and not issubclass(factory, FileIOCalculator):
        # The base class itself reads these.
        known = {*known, "restart", "label", "atoms", "directory", *_named_arguments(factory)}
        unknown = [name for name in arguments or {} if name not in known]
        if unknown:
            raise ValueError(
                f"calculator {path!r} has no argument {', '.join(map(repr, unknown))}; it has "
                f"{', '.join(sorted(known))}"
            )
    return calculator


def _named_arguments(factory: type) -> list[str]:
    """Returns the names of a class's arguments, those of its base classes included."""
    names = []
    for kind in factory.__mro__:
        if "__init__" in vars(kind) and kind is not object:
            names += list(inspect.signature(vars(kind)["__init__"]).parameters)[1:]
    return [name for name in names if name not in ("args", "kwargs", "parameters")]
