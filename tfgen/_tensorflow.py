"""Loads TensorFlow for the command line without its start-up chatter."""

from __future__ import annotations

import os
import sys

__all__ = ["load_quietly", "threads"]


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
