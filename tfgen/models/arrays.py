"""Files of arrays (NumPy's npz), read without trust in what they hold."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import numpy as np

__all__ = ["read_arrays"]


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Returns the arrays of an npz file, whose check sums it compares.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if it is damaged, or too large for the memory.
    """
    # NumPy leaves a file open that it opened itself and that turns out to be damaged.
    with path.open("rb") as stream:
        try:
            with np.load(stream, allow_pickle=False) as file:
                return {str(name): file[name] for name in file.files}
        except (
            # What `zipfile` raises, on flags and versions that damage has set, too.
            zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError,
            # What NumPy raises on what is no archive, or an archive of something else.
            AttributeError, KeyError, SyntaxError, TypeError, ValueError, OverflowError,
            MemoryError,
        ) as error:  # fmt: skip
            raise ValueError(f"{path.name}: {error}") from None
