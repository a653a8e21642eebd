"""tfgen: design atomic structures by inverting structural fingerprints.

Public names are loaded when first used, so that `import tfgen` and `tfgen --help` stay instant.
"""

from __future__ import annotations

import importlib
import importlib.metadata
from typing import Any

__version__ = importlib.metadata.version("tfgen")

_HOMES = {
    "ACSF": "tfgen.descriptors.acsf",
    "CVAE": "tfgen.models.cvae",
    "Dataset": "tfgen.datasets.storage",
    "EMT": "tfgen.potentials.emt",
    "Fingerprint": "tfgen.fingerprints.fingerprint",
    "Model": "tfgen.models.model",
    "StructureBatch": "tfgen.structures.batch",
    "build": "tfgen.datasets.building",
    "evaluate": "tfgen.evaluation.evaluate",
    "export": "tfgen.models.export",
    "generate": "tfgen.generation.generate",
    "reconstruct": "tfgen.inversion.reconstruct",
    "relax": "tfgen.relaxation.relax",
    "train": "tfgen.models.training",
}

__all__ = ["__version__"]
__all__ += list(_HOMES)


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'tfgen' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
