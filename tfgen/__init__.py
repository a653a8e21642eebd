"""tfgen: design atomic structures by inverting structural fingerprints.

The public names are listed in `__init__.pyi`, for type checkers and editors. At run time each is
imported when it is first used (SPEC 1 of scientific Python), so that neither `import tfgen` nor
`tfgen --help` waits for TensorFlow.
"""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
from pathlib import Path
from typing import Any

from tfgen._tensorflow import register_with_keras

__version__ = importlib.metadata.version("tfgen")


def _modules() -> dict[str, str]:
    """Returns the module of each public name: the lines `from MODULE import NAME as NAME`."""
    stub = ast.parse(Path(__file__).with_name("__init__.pyi").read_text("utf-8"))
    lines = [line for line in stub.body if isinstance(line, ast.ImportFrom)]
    return {name.name: line.module or "" for line in lines for name in line.names}


_MODULES = _modules()

__all__ = ["__version__"]
__all__ += list(_MODULES)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'tfgen' has no attribute {name!r}")
    module = _MODULES[name]
    if module == "tfgen":  # a module, as `tfgen.testing`
        return importlib.import_module(f"tfgen.{name}")
    return getattr(importlib.import_module(module), name)


def __dir__() -> list[str]:
    return sorted(__all__)


register_with_keras()
