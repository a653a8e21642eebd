"""What an HDF5 file may hold to be read: nothing of other files, and no more than it stores.

HDF5 reads other files through links, external storage and virtual data sets, and gives zeros for
what a file declares but does not store. None of it is in files that tfgen writes.
"""

from __future__ import annotations

import math

import h5py
from h5py import h5d, h5o

__all__ = ["InvalidError", "check_hdf5", "check_memory"]

# Memory that the smallest file may take, and what a larger one may for each of its bytes: arrays
# of many equal numbers are compressed that far.
_LEAST = 200_000_000
_FOR_EACH_BYTE = 200


class InvalidError(Exception):
    """A reason why a file cannot be read; completes the sentence that starts with its name."""


def check_hdf5(file: h5py.File) -> None:
    """Checks an open file before anything of it is read.

    Args:
        file: the file.

    Raises:
        InvalidError: if it has links that are not hard links, arrays in other files, arrays that it
            declares but does not store, or more than `check_memory` allows.
        Exception: whatever h5py meets in a damaged file.
    """
    total = 0
    groups, seen = [file], {h5o.get_info(file.id).addr}
    while groups:
        group = groups.pop()
        # An array of several names counts as often as it may be read.
        for name in group:
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                raise InvalidError(f"holds a link, {name!r}; a file without links is needed")
            item = group[name]
            if isinstance(item, h5py.Dataset):
                total += _bytes_of(item, name)
            elif isinstance(item, h5py.Group) and (at := h5o.get_info(item.id).addr) not in seen:
                seen.add(at)
                groups.append(item)
    check_memory(file, total)


def check_memory(file: h5py.File, needed: int) -> None:
    """Checks that what a file asks for is in proportion to its size.

    Args:
        file: the file.
        needed: memory that its content takes, bytes.

    Raises:
        InvalidError: if that is too much.
    """
    size = file.id.get_filesize()
    allowed = max(_LEAST, _FOR_EACH_BYTE * size)
    if needed > allowed:
        raise InvalidError(
            f"asks for {_amount(needed)} of memory; {_amount(allowed)} are allowed for a file of "
            f"{_amount(size)}"
        )


def _bytes_of(dataset: h5py.Dataset, name: str) -> int:
    """Returns the memory that reading an array takes, bytes."""
    plist = dataset.id.get_create_plist()
    layout = plist.get_layout()
    if layout == h5d.VIRTUAL or plist.get_external_count():
        raise InvalidError(f"keeps {name!r} in other files; a file that holds all is needed")
    item = dataset.dtype.itemsize
    size = int(math.prod(dataset.shape or ())) * item
    if size == 0:
        return 0
    if layout == h5d.CHUNKED:
        chunks = math.prod(-(-n // k) for n, k in zip(dataset.shape, dataset.chunks, strict=True))
        whole = chunks == dataset.id.get_num_chunks()
        size = max(size, math.prod(dataset.chunks) * item)
    else:
        whole = layout == h5d.COMPACT or dataset.id.get_storage_size() >= size
    if not whole:
        raise InvalidError(
            f"is damaged: {name!r} is declared with {_amount(size)}, which are not all stored"
        )
    return size


def _amount(size: int) -> str:
    """Returns a number of bytes for people."""
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 1000)):
        if size >= factor:
            return f"{size / factor:.3g} {unit}" if size < 1000 * factor else f"{size:.2g} bytes"
    return f"{size} bytes"
