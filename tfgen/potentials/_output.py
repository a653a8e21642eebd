"""Keeps what calculators print off the terminal."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

__all__ = ["log_beside", "redirect_output"]

_LOCK = threading.Lock()
_STACK = contextlib.ExitStack()
_DEPTH = 0


@contextlib.contextmanager
def log_beside(output: Path) -> Iterator[Path]:
    """Yields the file for what calculators print; it goes if they have printed nothing.

    Args:
        output: what the calculations are for; the file is beside it.
    """
    log = output.with_name(output.name + ".calculator.log").absolute()
    try:
        yield log
    finally:
        with contextlib.suppress(OSError):
            if log.stat().st_size == 0:
                log.unlink()


@contextlib.contextmanager
def redirect_output(log: Path | None = None) -> Iterator[None]:
    """Sends standard output and standard error of this process to a file for a while.

    What C and Fortran code writes goes there, too, because the file descriptors are redirected, not
    only Python's streams. The streams belong to the process as a whole: while several threads are
    inside, the first decides on the file, and the last one restores the streams.

    Args:
        log: the file, which is appended to; nothing is kept if None, or if it cannot be opened, as
            on another machine that has no such folder.
    """
    global _DEPTH, _STACK  # noqa: PLW0603  (the process has one standard output)
    with _LOCK:
        if _DEPTH == 0:
            _STACK = _redirect(log)
        _DEPTH += 1
    try:
        yield
    finally:
        with _LOCK:
            _DEPTH -= 1
            if _DEPTH == 0:
                _STACK.close()


def _redirect(log: Path | None) -> contextlib.ExitStack:
    with contextlib.ExitStack() as stack:
        target = stack.enter_context(_open(log))
        for descriptor, stream in ((1, sys.stdout), (2, sys.stderr)):
            if stream is not None:
                stream.flush()
            with contextlib.suppress(OSError):  # a process may have no such stream
                saved = os.dup(descriptor)
                stack.callback(_restore, saved, descriptor)
                os.dup2(target.fileno(), descriptor)
        # Python's streams need not be those of the process: a notebook has its own.
        stack.enter_context(contextlib.redirect_stdout(target))
        stack.enter_context(contextlib.redirect_stderr(target))
        return stack.pop_all()
    raise AssertionError


def _open(log: Path | None) -> TextIO:
    with contextlib.suppress(OSError):
        if log is not None:
            return log.open("a", encoding="utf-8", errors="replace")
    return open(os.devnull, "a", encoding="utf-8")  # noqa: PTH123


def _restore(saved: int, descriptor: int) -> None:
    os.dup2(saved, descriptor)
    os.close(saved)
