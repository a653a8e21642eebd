"""Files that announce more than they hold are refused at once, in little memory."""

from __future__ import annotations

import gzip
import lzma
import resource
import sys
import threading
import time

import numpy as np
import pytest
from imports import CIF, file, frame, refused, two

from tfgen.datasets.importing import import_files, read_structures
from tfgen.datasets.importing.comments import parse_comment
from tfgen.datasets.importing.memory import limited_memory

POSCAR = "x\n1.0\n3 0 0\n0 3 0\n0 0 3\nPt\n{}\nDirect\n0 0 0\n"
DATA = (
    "c\n\n{} atoms\n1 atom types\n0 3 xlo xhi\n0 3 ylo yhi\n0 3 zlo zhi\n\nMasses\n\n1 195.08\n\n"
    "Atoms # atomic\n\n1 1 0 0 0\n"
)
JSON = (
    '{{"1": {{"numbers": {{"__ndarray__": [[{}], "int64", []]}}, "positions": [[0, 0, 0]]}}, '
    '"ids": [1], "nextid": 2}}'
)
needs_limits = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="memory is limited on Linux only"
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("99999999999999999999\n\nPt 0 0 0\n", "99999999999999999999 atoms .* only 1 more lines"),
        (two().replace("4\n", "15\n", 1), "15 atoms are announced, .* only 10 more lines"),
        ("-3\n\nPt 0 0 0\n", "a number of atoms is needed, not '-3'"),
        ("Pt\n\nPt 0 0 0\n", "a number of atoms is needed, not 'Pt'"),
        (
            two().replace("pos:R:3", "pos:R:3:f:R:99999999"),
            "announces 100000003 columns, .* have 4",
        ),
        (two().replace("pos:R:3", "pos:R:3:f:R:-1"), "announces 3 columns, .* have 4"),
        (two().replace("pos:R:3", "pos:R:3:f:R:3"), "announces 7 columns, but the lines have 4"),
    ],
)
def test_frames_that_announce_more_than_there_is(tmp_path, text, message):
    began = time.process_time()
    refused(file(tmp_path, text), message)
    assert time.process_time() - began < 2.0


def test_frames_with_more_columns_than_announced(tmp_path):
    text = two("energy=1", "energy=2").replace("0 0\n", "0 0 7 8\n")
    (tmp_path / "a.extxyz").write_text(text)
    read = read_structures(tmp_path / "a.extxyz")
    assert [len(atoms) for atoms in read] == [4, 4]


def test_cell_vectors_behind_the_atoms(tmp_path):
    vectors = "VEC1 9 0 0\nVEC2 0 9 0\nVEC3 0 0 9"
    path = file(tmp_path, frame("a") + f"{vectors}\n" + frame("b", 2.9, 2.4) + vectors)
    for atoms in read_structures(path):
        np.testing.assert_array_equal(atoms.cell.array, 9 * np.eye(3))


def test_the_last_line_may_lack_its_end(tmp_path):
    assert len(read_structures(file(tmp_path, two().rstrip("\n")))) == 2


@pytest.fixture
def alone(monkeypatch):
    """As in a command: the tests before may have left threads that wait for more work."""
    monkeypatch.setattr(threading, "enumerate", lambda: [threading.current_thread()])


@needs_limits
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("POSCAR", POSCAR.format(200_000_000)),
        ("a.data", DATA.format(200_000_000)),
        ("a.json", JSON.format(200_000_000)),
    ],
)
def test_readers_get_no_more_memory_than_is_in_proportion(tmp_path, alone, name, text):
    before = resource.getrlimit(resource.RLIMIT_DATA)
    refused(file(tmp_path, text, name), "asks for more memory than the 300 MB that are allowed")
    assert resource.getrlimit(resource.RLIMIT_DATA) == before


@needs_limits
def test_other_threads_are_left_their_memory(monkeypatch):
    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()
    try:
        with limited_memory(1):
            assert len(np.empty(100_000_000)) == 100_000_000
    finally:
        done.set()
        thread.join()
    monkeypatch.setattr(threading, "enumerate", lambda: [threading.current_thread()])
    with limited_memory(1), pytest.raises(MemoryError):
        np.empty(100_000_000)


@pytest.mark.parametrize("line", ["a " * 10_000, "a" * 20_000, "a1" * 20_000, "ORCA-job " * 5000])
def test_long_comment_lines(line):
    began = time.process_time()
    parse_comment(line)
    assert time.process_time() - began < 2.0


def test_lengths_that_no_structure_has(tmp_path):
    refused(file(tmp_path, two().replace("1.3 2.25", "1e9 2.25")), r"1e\+09 Å; at most 1e\+06 Å")
    far = file(tmp_path, two().replace("1.3 2.25", "9e5 2.25"))
    assert len(import_files([far]).structures) == 2


@pytest.mark.parametrize(("name", "start"), [("a.extxyz.gz", 12), ("a.extxyz.xz", 30)])
def test_damaged_compression(tmp_path, name, start):
    path = tmp_path / name
    compress = gzip.compress if name.endswith("gz") else lzma.compress
    content = compress(two("energy=1", "energy=2").encode())
    path.write_bytes(content[:start] + b"\xff" * 20 + content[start + 20 :])
    refused(path, "is damaged|cannot be read")


def test_occupancies_that_are_no_numbers(tmp_path):
    refused(file(tmp_path, CIF + "C1 C 0 0 0 much\n", "a.cif"), "occupancy of a site is no number")


@pytest.mark.parametrize("field", ["2.6", "Pt"])
def test_what_is_quoted_of_a_file_is_short(tmp_path, field):
    path = file(tmp_path, two().replace(f"{field} ", f"{'H' * 5000} "))
    with pytest.raises(ValueError, match="row 1") as caught:
        import_files([path])
    assert len(str(caught.value)) < 600
