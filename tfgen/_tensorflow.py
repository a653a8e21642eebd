"""How TensorFlow and Keras are loaded, their threads, and what is compiled once and shared."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import sys
import threading
from collections.abc import Callable, Hashable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, TypeVar

__all__ = ["compiled_for", "load_quietly", "register_with_keras", "threads"]

T = TypeVar("T")

# Modules that register networks with Keras.
NETWORKS = ("tfgen.models.cvae", "tfgen.models.neural_potential")
# Fingerprints and potentials whose compiled functions are kept, those used last.
_KEPT = 32
_COMPILED: dict[Hashable, dict[Hashable, Any]] = {}
_LOCK = threading.RLock()


def compiled_for(owner: Hashable, name: Hashable, make: Callable[[], T]) -> T:
    """Returns what `make` makes, made once for all owners that are equal.

    Tracing and compilation take seconds, and `tf.function` keeps what it has compiled to itself.
    Equal fingerprints or potentials (`==`, and the same hash) share one function through this
    store, the only one in tfgen, which keeps the functions of the owners that were used last.

    Args:
        owner: whose function it is, by value.
        name: which of the owner's functions, with the settings that it was compiled for.
        make: makes it; called at most once while it is kept. It should only wrap the function:
            tracing is left to the first call.
    """
    # With its hash: a dictionary may find the same object again although its hash has changed.
    key = (hash(owner), owner)
    with _LOCK:
        # Inserted anew, so that the first owner is the one that was not used for longest.
        functions = _COMPILED.pop(key, {})
        _COMPILED[key] = functions
        if len(_COMPILED) > _KEPT:
            _COMPILED.pop(next(iter(_COMPILED)), None)
        if name not in functions:
            functions[name] = make()
        return functions[name]


def load_quietly() -> None:
    """Imports TensorFlow with standard error closed to what its C++ side says while it starts.

    Its remarks on CUDA libraries and processor flags come before any setting that would stop
    them is read. Errors in loading it raise as usual.
    """
    if "tensorflow" in sys.modules:
        return
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    sys.stderr.flush()
    saved, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null, 2)
        import tensorflow as tf

        tf.config.list_physical_devices()  # makes it look for GPUs now
        tf.zeros([])
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(null)


def threads() -> int:
    """How many threads may compute: as TensorFlow was told, or one for each usable processor."""
    import tensorflow as tf

    chosen = tf.config.threading.get_intra_op_parallelism_threads()
    if chosen:
        return chosen
    # Where it can be asked: the processors that this process may use, not all there are.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def register_with_keras() -> None:
    """Makes `keras.saving.load_model` know tfgen's networks after `import tfgen` alone.

    Keras looks up a class that is registered under the name in a file, and imports no modules that
    are not its own. tfgen in turn imports neither Keras nor TensorFlow before they are needed. So
    the networks are imported, which registers them, when Keras is.
    """
    if "keras" in sys.modules:
        _import_networks()
    else:
        sys.meta_path.insert(0, _Finder())


def _import_networks() -> None:
    if "tfgen.models._keras" in sys.modules:
        return  # Keras is imported for a network of tfgen, which registers itself
    with contextlib.suppress(ImportError):  # Keras on another backend is no concern of ours
        for module in NETWORKS:
            importlib.import_module(module)


class _Finder(MetaPathFinder):
    """Finds Keras as others do, once."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != "keras":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader)
        return spec


class _Loader(Loader):
    """Loads Keras as its own loader does, and then imports the networks."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        _import_networks()
