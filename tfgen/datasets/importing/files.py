"""Finds out what a file is, before anything else touches it. Nothing is ever written into it."""

from __future__ import annotations

import codecs
import contextlib
import difflib
import lzma
import re
import sqlite3
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

from tfgen.datasets.importing.notes import Notes

__all__ = ["SQLITE_KINDS", "Source", "open_text", "opened", "read_only"]

SQLITE_KINDS = ("db", "json")
"""ASE's names for its SQLite and JSON databases."""

# ASE reaches these over the network, by an address instead of a file.
_SERVERS = ("mysql", "postgresql", "mariadb")
_SQLITE = b"SQLite format 3\0"
# UTF-8 and UTF-16, as Windows writes them; longer marks first.
_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
# The columns of an ASE database that hold its structures.
_COLUMNS = {"id", "numbers", "positions", "cell", "pbc", "key_value_pairs", "data"}
_HEAD = 4096
# What reading a file, compressed or not, ends in where it is damaged.
_DAMAGED = (OSError, EOFError, zlib.error, lzma.LZMAError)


class Source(NamedTuple):
    """A file, the format it is read in, and where its content stands.

    Attributes:
        path: the file that the user named.
        kind: ASE's name of the format, or "csv".
        content: the same file, or a copy in UTF-8 without byte-order mark.
    """

    path: Path
    kind: str
    content: Path


@contextlib.contextmanager
def opened(path: Path, kind: str | None, notes: Notes) -> Iterator[Source]:
    """Finds out the format of a file.

    Args:
        path: the file.
        kind: its format; None: guessed from the content and the name.
        notes: where it is said that a byte-order mark was skipped.

    Raises:
        ValueError: if the file is empty, truncated or in no known format, or if it is an SQLite
            file but not an ASE database.
    """
    if path.stat().st_size == 0:
        raise ValueError(f"{str(path)!r} is empty")
    if kind is not None:
        _require_known(kind)
    head = _head(path)
    mark = next((mark for mark in _MARKS if head.startswith(mark)), None)
    if mark is None:
        yield Source(path, _kind(path, head, kind), path)
        return
    with tempfile.TemporaryDirectory() as folder:
        # The suffix of the compression goes, for the copy is not compressed.
        name = path.name if _compression(path) is None else path.stem
        copy = Path(folder, name)
        try:
            with open_text(path, _MARKS[mark]) as old, copy.open("w", encoding="utf-8") as new:
                while block := old.read(1 << 20):
                    new.write(block)
        except (UnicodeError, *_DAMAGED) as error:
            raise ValueError(f"{str(path)!r} is truncated or damaged: {error}") from error
        notes.add("the byte-order mark was skipped", repr(str(path)))
        yield Source(path, _kind(copy, _head(copy), kind), copy)


def open_text(path: Path, encoding: str = "utf-8") -> IO[str]:
    """Opens a file for reading, whether compressed or not; the end of a line stays as it is."""
    import bz2
    import gzip

    openers: dict[str | None, Any] = {"gz": gzip.open, "bz2": bz2.open, "xz": lzma.open}
    opener = openers.get(_compression(path), open)
    return cast("IO[str]", opener(path, "rt", encoding=encoding, newline=""))


def read_only(path: Path) -> str:
    """Returns the address by which SQLite opens a file and writes neither into it nor beside it."""
    # While another program writes, the newest rows are in a file beside the database.
    beside = [path.with_name(path.name + end) for end in ("-wal", "-journal")]
    live = any(file.is_file() and file.stat().st_size > 0 for file in beside)
    return f"{path.absolute().as_uri()}?mode=ro{'' if live else '&immutable=1'}"


def _require_known(kind: str) -> None:
    from ase.io.formats import ioformats

    readable = [name for name, about in ioformats.items() if about.can_read]
    known = sorted({*readable, "csv"} - set(_SERVERS))
    if kind not in known:
        near = difflib.get_close_matches(kind, known, n=3)
        hint = f"near are {', '.join(near)}" if near else "there are extxyz, cif, vasp and others"
        raise ValueError(f"format {kind!r} is unknown; {hint}")


def _compression(path: Path) -> str | None:
    from ase.io.formats import get_compression

    return get_compression(str(path))[1]


def _head(path: Path) -> bytes:
    from ase.io.formats import open_with_compression

    try:
        with open_with_compression(str(path), "rb") as file:
            return cast("bytes", file.read(_HEAD))
    except EOFError as error:
        raise ValueError(f"{str(path)!r} is truncated") from error
    except _DAMAGED as error:
        if isinstance(error, PermissionError):
            raise
        raise ValueError(f"{str(path)!r} is damaged: {error}") from error


def _kind(path: Path, head: bytes, wanted: str | None) -> str:
    from ase.io.formats import UnknownFileTypeError, filetype, ioformats

    if head.startswith(_SQLITE):
        if wanted not in (None, "db"):
            raise ValueError(f"{str(path)!r} is an SQLite file, not one of format {wanted}")
        _require_database(path)
        return "db"
    if wanted == "db":
        raise ValueError(f"{str(path)!r} is not an SQLite file")
    if wanted is not None:
        return wanted
    suffixes = path.suffixes[:-1] if _compression(path) else path.suffixes
    if suffixes and suffixes[-1].lower() == ".csv":
        return "csv"
    if _is_lammps_data(head):
        return "lammps-data"
    try:
        kind = str(filetype(str(path)))
    except UnknownFileTypeError:
        kind = ""
    except EOFError as error:  # a compressed file that ends too early
        raise ValueError(f"{str(path)!r} is truncated") from error
    # Where ASE does not recognise the content, it may return the suffix, whatever that is.
    if kind not in ioformats or not ioformats[kind].can_read or kind in _SERVERS:
        raise ValueError(f"{str(path)!r} is in no format that ASE can read")
    if kind == "db":  # by its name alone
        raise ValueError(f"{str(path)!r} cannot be read as db: it is not an SQLite file")
    return kind


def _require_database(path: Path) -> None:
    """Refuses SQLite files that are not ASE's, into which ASE would write its own tables."""
    try:
        with contextlib.closing(sqlite3.connect(read_only(path), uri=True)) as connection:
            found = connection.execute("SELECT name FROM sqlite_master WHERE type='table'")
            tables = sorted(row[0] for row in found)
            about = connection.execute("PRAGMA table_info(systems)").fetchall()
    except sqlite3.Error as error:
        raise ValueError(f"{str(path)!r} cannot be read as db: {error}") from error
    if not {row[1] for row in about} >= _COLUMNS:
        raise ValueError(
            f"{str(path)!r} is an SQLite file, but not an ASE database; its tables are "
            f"{', '.join(tables[:5]) or 'none'}"
        )


def _is_lammps_data(head: bytes) -> bool:
    lines = [line.split("#")[0].strip() for line in head.decode("utf-8", "replace").splitlines()]
    atoms = any(re.fullmatch(r"\d+\s+atoms", line) for line in lines[1:])
    box = any(re.fullmatch(r"\S+\s+\S+\s+xlo\s+xhi", line) or line.endswith(" avec")
              for line in lines[1:])  # fmt: skip
    return atoms and box
