"""Memory in proportion to a file, whatever the reader of its format believes of it.

Most readers make room for what a file announces before they read it. On Linux, the kernel refuses
them more than a limit; nothing is limited elsewhere.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from tqdm import TMonitor

if sys.platform.startswith("linux"):
    import resource

__all__ = ["allowed_memory", "limited_memory"]

# Memory beyond what the process has, for the smallest file and for each byte of a larger one.
_LEAST = 300_000_000
_FOR_EACH_BYTE = 100


def allowed_memory(size: int) -> int:
    """Returns what reading a file may take, for its size; both in bytes."""
    return _LEAST + _FOR_EACH_BYTE * size


@contextlib.contextmanager
def limited_memory(size: int) -> Iterator[None]:
    """Turns requests for memory out of proportion to a file into a `MemoryError`.

    Where other threads work in the process, there is no limit: it would be theirs, too.

    Args:
        size: of the file, bytes.
    """
    busy = any(
        thread is not threading.current_thread() and not isinstance(thread, TMonitor)
        for thread in threading.enumerate()
    )
    if not sys.platform.startswith("linux") or busy:
        yield
        return

    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    wanted = _data_size() + allowed_memory(size)
    if soft != resource.RLIM_INFINITY:
        wanted = min(wanted, soft)
    resource.setrlimit(resource.RLIMIT_DATA, (wanted, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _data_size() -> int:
    """Returns what the limit is compared with: the private, writable memory of the process."""
    pages = Path("/proc/self/statm").read_text().split()[5]
    return int(pages) * resource.getpagesize()
