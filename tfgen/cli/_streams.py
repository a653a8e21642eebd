"""Standard streams that may be closed, or whose reader may go away, without harm to the work."""

from __future__ import annotations

import io
import os
import stat
import sys
from typing import Any

__all__ = ["keep_streams_open"]

_STREAMS = ("stdin", "stdout", "stderr")  # in the order of their file descriptors


def keep_streams_open() -> None:
    """Lets a program print whatever its standard streams are.

    One that was closed from the start, as by `2>&-`, leads nowhere: its file descriptor would else
    be that of the next file that is opened, and libraries print to it. A pipe whose reader goes
    away, as `head` does, leads nowhere from then on: the work goes on, and its exit code says
    what became of it. Streams that somebody else has put there stay.
    """
    for descriptor, name in enumerate(_STREAMS):
        stream = getattr(sys, name)
        mode = "w" if descriptor else "r"
        if stream is None:
            opened: Any = open(os.devnull, mode, encoding="utf-8")  # noqa: SIM115, PTH123
            setattr(sys, name, opened)
        elif descriptor and stream is getattr(sys, f"__{name}__") and _is_pipe(stream.fileno()):
            stream.flush()
            kept = io.TextIOWrapper(
                io.BufferedWriter(_Pipe(stream.fileno(), mode, closefd=False)),
                encoding=stream.encoding,
                errors=stream.errors,
                line_buffering=stream.line_buffering,
            )
            setattr(sys, name, kept)


def _is_pipe(descriptor: int) -> bool:
    mode = os.fstat(descriptor).st_mode
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)


class _Pipe(io.FileIO):
    """The writing end of a pipe, which leads nowhere when its reader has gone."""

    def write(self, data: Any, /) -> int:
        """Writes as a file does."""
        try:
            return super().write(data)
        except BrokenPipeError:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self.fileno())
            os.close(null)
            return super().write(data)
