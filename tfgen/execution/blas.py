"""Threads of BLAS, which computes NumPy's matrix products."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from threadpoolctl import threadpool_limits

__all__ = ["one_blas_thread"]


class _Limit:
    """Set by the first that asks for it, taken back with the last."""

    def __init__(self) -> None:
        self._lock, self._users = threading.Lock(), 0
        self._keeper: ThreadPoolExecutor | None = None
        self._limits: threadpool_limits | None = None

    def set(self) -> None:
        with self._lock:
            self._users += 1
            if self._users == 1:
                # Only the thread that has set a limit can take it back, and that of the first user
                # may be gone before the last.
                self._keeper = ThreadPoolExecutor(1)
                self._limits = self._keeper.submit(threadpool_limits, 1, user_api="blas").result()

    def take_back(self) -> None:
        with self._lock:
            self._users -= 1
            if self._users == 0 and self._keeper is not None and self._limits is not None:
                self._keeper.submit(self._limits.restore_original_limits).result()
                self._keeper.shutdown()


_LIMIT = _Limit()


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Meanwhile BLAS computes in the thread that asks for it, in the whole process.

    Else it spreads each large product over a pool of threads that all searches share, and wait for:
    two at once are hardly faster than one after the other. Without effect on BLAS with OpenMP, and
    where the caller has set limits with threadpoolctl, which stay.
    """
    _LIMIT.set()
    try:
        yield
    finally:
        _LIMIT.take_back()
