"""How TensorFlow is loaded, how many threads it has, and what is compiled once and shared."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

__all__ = ["compiled_for", "load_quietly", "threads"]

T = TypeVar("T")

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
