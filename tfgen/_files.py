"""Outputs that are whole or not there: they are written under another name, then renamed.

An output that is being made is reserved, see `reserve`: two commands never make the same one.
And JSON as the standard has it, without the `Infinity` and `NaN` that Python adds to it.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import shutil
import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import filelock

__all__ = [
    "OutputExistsError",
    "OutputInUseError",
    "from_json",
    "new_file",
    "new_folder",
    "require_absent",
    "require_file",
    "require_folder_replaceable",
    "reserve",
    "to_json",
]

_RANDOM = "[a-z0-9_]{8}"  # what `tempfile` puts into names
_OLD = ".old"  # ends the name of a folder while another takes its place
_PATIENCE = 0.2  # s; a lock that is being given back is not yet a reason to refuse


class OutputExistsError(FileExistsError):
    """An output is there already and may be replaced only if the user says so.

    Attributes:
        path: the output.
        reason: what is there, a verb and its object that follow the path.
    """

    def __init__(self, path: str | os.PathLike[str], reason: str = "exists") -> None:
        self.path, self.reason = Path(path), reason
        super().__init__(f"{str(path)!r} {reason}; pass overwrite=True to replace it")


class OutputInUseError(OSError):
    """An output is being made by somebody else at this moment."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            f"{str(path)!r} is being written by another command; wait for it, or choose another "
            "output"
        )


@contextlib.contextmanager
def reserve(path: str | os.PathLike[str]) -> Iterator[None]:
    """Keeps an output for this thread while it is being made; the same thread may do so again.

    What was left beside it by those who were killed while they wrote is removed, and an old folder
    that was on its way out comes back. The lock, the file `.NAME.lock` beside the output, is the
    operating system's: it ends with the process, whatever that dies of.

    Args:
        path: a file or a folder, there or not.

    Raises:
        OutputInUseError: if another process, or thread, has reserved it.
        FileNotFoundError: if the folder it should go into does not exist.
        PermissionError: if nothing can be written there.
    """
    path = Path(path)
    if path.is_symlink():
        path = path.resolve()  # two names of one output are the same output
    path = path.absolute()
    _require_parent(path)
    name = path.with_name(f".{path.name}.lock")
    lock = filelock.FileLock(name, timeout=_PATIENCE, is_singleton=True)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise OutputInUseError(path) from None
    try:
        if lock.lock_counter == 1:
            _remove_leftovers(path)
        yield
    finally:
        if lock.lock_counter == 1:
            with contextlib.suppress(OSError):  # Windows removes no file that is open
                name.unlink(missing_ok=True)
        lock.release()


def _is_leftover(name: str, of: str) -> bool:
    """Whether an entry of a folder is what `new_file` or `new_folder` writes, of that name."""
    stem, suffix = re.escape(Path(of).stem), re.escape(Path(of).suffix)
    file, folder = f"{stem}-{_RANDOM}{suffix}", f"{stem}{suffix}-{_RANDOM}({_OLD})?"
    return re.fullmatch(rf"\.({file}|{folder})", name) is not None


def _remove_leftovers(path: Path) -> None:
    """Removes what was left of an output by those who were killed while they wrote it."""
    left = [entry for entry in path.parent.iterdir() if _is_leftover(entry.name, path.name)]
    for entry in sorted(left):
        if entry.name.endswith(_OLD) and not path.exists():
            entry.rename(path)
        elif entry.is_dir():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def require_file(path: str | os.PathLike[str], what: str = "file") -> Path:
    """Returns `path` if it is a readable file.

    Raises:
        FileNotFoundError: if there is none, or it is a folder.
    """
    path = Path(path)
    if not path.is_file():
        reason = "is a folder" if path.is_dir() else "does not exist"
        raise FileNotFoundError(f"{what} {str(path)!r} {reason}")
    return path


def require_absent(
    path: str | os.PathLike[str], overwrite: bool = False, *, folder: bool = False
) -> Path:
    """Returns `path` if it may be written; call it before long work, not after.

    Args:
        path: the output.
        overwrite: whether an old one may be replaced.
        folder: whether a folder is to be written there, not a file.

    Raises:
        OutputExistsError: if it exists and `overwrite` is false.
        FileExistsError: if it is a device or the like.
        IsADirectoryError: if it is a folder where a file was expected.
        NotADirectoryError: if it is the other way round.
        FileNotFoundError: if the folder it should go into does not exist.
        PermissionError: if nothing can be written there.
    """
    path = Path(path)
    if path.exists() and not overwrite:
        raise OutputExistsError(path)
    if path.is_dir() and not folder:
        raise IsADirectoryError(f"{str(path)!r} is a folder, a file was expected")
    if path.is_file() and folder:
        raise NotADirectoryError(f"{str(path)!r} is a file, a folder was expected")
    if path.exists() and not path.is_dir() and not path.is_file():
        raise FileExistsError(f"{str(path)!r} is no ordinary file; refusing to replace it")
    _require_parent(path)
    return path


def _require_parent(path: Path) -> None:
    parent = path.absolute().parent
    if not parent.is_dir():
        raise FileNotFoundError(f"folder {str(parent)!r} does not exist")
    if not os.access(parent, os.W_OK):
        raise PermissionError(f"nothing can be written into folder {str(parent)!r}")


def require_folder_replaceable(
    path: str | os.PathLike[str], overwrite: bool, contents: Collection[str]
) -> Path:
    """Returns `path` if a folder may be written there; call it before long work, not after.

    Args:
        path: the folder.
        overwrite: whether an old one may be replaced.
        contents: names that a folder of this kind has. One that holds anything else is not
            replaced, as its name may be a mistake.

    Raises:
        FileExistsError: if it exists and may not be replaced.
        NotADirectoryError: if it is a file.
    """
    path = require_absent(path, overwrite, folder=True)
    if path.exists():
        found = sorted({entry.name for entry in path.iterdir()} - set(contents))
        others = [n for n in found if not any(_is_leftover(n, own) for own in contents)]
        if others:
            raise FileExistsError(
                f"{str(path)!r} holds {others[0]!r}, which tfgen has not put there; refusing to "
                "replace the folder"
            )
    return path


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Lets an error of the operating system, as that a disk is full, say what was written."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise


@contextlib.contextmanager
def new_file(path: str | os.PathLike[str], overwrite: bool = False) -> Iterator[Path]:
    """Yields a temporary path beside `path`, renamed to it on success, removed on failure.

    The temporary name keeps the suffix, so that writers that depend on it (ASE, Keras) work.

    Raises:
        OutputExistsError: if the file exists, or has appeared meanwhile, and `overwrite` is false.
    """
    path = require_absent(path, overwrite)
    if path.is_symlink():
        path = path.resolve()  # the file is replaced, not the link to it
    handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        with _naming(path):
            yield temporary
        # mkstemp makes files private; give what open() would have given.
        mask = os.umask(0)
        os.umask(mask)
        temporary.chmod(0o666 & ~mask)
        if overwrite:
            temporary.replace(path)
        else:
            _move_where_nothing_is(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _move_where_nothing_is(temporary: Path, path: Path) -> None:
    try:
        os.link(temporary, path)  # unlike `rename`, it replaces nothing
    except FileExistsError:
        raise OutputExistsError(path) from None
    except OSError:  # a file system without hard links
        temporary.rename(require_absent(path))


@contextlib.contextmanager
def new_folder(path: str | os.PathLike[str], overwrite: bool = False) -> Iterator[Path]:
    """Yields a temporary folder beside `path`, which takes its place on success.

    Raises:
        OutputExistsError: if it exists, or has appeared meanwhile, and `overwrite` is false.
    """
    path = require_absent(path, overwrite, folder=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.absolute().parent))
    try:
        with _naming(path):
            yield temporary
        mask = os.umask(0)
        os.umask(mask)
        temporary.chmod(0o777 & ~mask)
        if require_absent(path, overwrite, folder=True).exists():
            # A folder cannot be replaced in one step: the old one moves away, and back on failure.
            old = temporary.with_name(temporary.name + _OLD)
            path.rename(old)
            try:
                temporary.rename(path)
            except BaseException:
                old.rename(path)
                raise
            shutil.rmtree(old)
        else:
            temporary.rename(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def to_json(value: Any, indent: int | None = None) -> str:
    """Returns a value as JSON.

    Raises:
        ValueError: if something in it has no place in JSON, as numbers that are not finite.
        TypeError: the same, as objects of classes that JSON does not know.
    """
    return json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False)


def from_json(text: str | bytes) -> Any:
    """Returns the value of a JSON text, in which every number is finite.

    Raises:
        ValueError: if it is not JSON, holds a number that is not finite, or is nested too deeply.
    """
    try:
        return json.loads(text, parse_float=_finite, parse_constant=_finite)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is no finite number")
    return value
