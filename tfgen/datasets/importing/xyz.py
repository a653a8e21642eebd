"""xyz and extxyz files, frame by frame: no more is read, or made, than the file holds."""

from __future__ import annotations

import io
import itertools
import sys
from collections.abc import Iterator
from typing import IO, Any

from ase import Atoms
from ase.io.extxyz import read_xyz

from tfgen.datasets.importing.comments import parse_comment

__all__ = ["read_frames"]

# Lines with the cell vectors of a structure may stand behind its atoms.
_VECTOR = "VEC"


def read_frames(file: IO[str]) -> Iterator[Atoms]:
    """Yields the structures of a file.

    ASE's own reader believes what the first lines of a frame announce; here it gets no more than
    the frame, after that is compared with the lines that follow.

    Raises:
        ValueError: if a frame announces more atoms or columns than there are, or an empty line is
            followed by anything else.
        Exception: whatever ASE's parser trips over.
    """
    header = file.readline()
    while header.strip():
        count = _count(header)
        comment = file.readline()
        atoms = list(itertools.islice(file, min(count, sys.maxsize)))
        if len(atoms) < count:
            raise ValueError(
                f"{count} atoms are announced, but there are only {len(atoms)} more lines"
            )
        vectors = []
        while (header := file.readline()).lstrip().startswith(_VECTOR):
            vectors.append(header)
        yield _parse([f"{count}\n", comment, *atoms, *vectors])
    if any(line.strip() for line in file):
        raise ValueError("an empty line, after which ASE reads no more, but there is more")


def _count(header: str) -> int:
    try:
        count = int(header)
    except ValueError:
        count = -1
    if count < 0:
        raise ValueError(f"a number of atoms is needed, not {header.strip()[:40]!r}")
    return count


def _parse(lines: list[str]) -> Atoms:
    columns = len(lines[2].split()) if len(lines) > 2 else 0

    def parse(line: str) -> dict[str, Any]:
        found = parse_comment(line)
        if isinstance(announced := found.get("Properties"), str):
            _require_columns(announced, columns)
        return found

    # The last line has its end even where the file lacks it.
    text = "".join(line if line.endswith("\n") else line + "\n" for line in lines)
    atoms: Atoms = next(read_xyz(io.StringIO(text), 0, properties_parser=parse))
    return atoms


def _require_columns(announced: str, there: int) -> None:
    """Compares the columns that a comment line announces with those of the first atom."""
    widths = [int(width) for width in announced.split(":")[2::3]]
    if sum(widths) > there or min(widths, default=1) < 1:
        raise ValueError(
            f"'Properties' announces {sum(widths)} columns, but the lines have {there}"
        )
