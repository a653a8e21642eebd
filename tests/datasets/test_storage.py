"""Data sets come back from disk as they were; whatever is wrong with a file is said in one line."""

from __future__ import annotations

import dataclasses
import re
import sys
import tracemalloc
import zlib
from fractions import Fraction
from pathlib import Path

import h5py
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from disks import files_limited_to

from tfgen.datasets.storage import SPLITS, Dataset, assign_splits


def example(n: int = 5) -> Dataset:
    rng = np.random.default_rng(0)
    structures = [Atoms(f"Cu{i + 1}Pt2", rng.normal(size=(i + 3, 3))) for i in range(n - 1)]
    slab = bulk("Au", cubic=True)
    slab.pbc = [True, False, True]
    return Dataset(
        structures=[*structures, slab],
        properties={"zeal": rng.normal(size=n), "energy_per_atom": rng.normal(size=n)},
        units={"zeal": "kÅ·eV", "energy_per_atom": "eV/atom"},
        split=np.arange(n) % 3,
        metadata={"name": "example", "seed": 3, "counts": {"kept": n}, "recipe": 'a = "λ"\n'},
    )


@pytest.fixture
def path(tmp_path) -> Path:
    path = tmp_path / "set.h5"
    example().save(path)
    return path


def edit(path: Path, change) -> None:
    with h5py.File(path, "r+") as file:
        change(file)


def replace(name: str, value) -> object:
    def change(file: h5py.File) -> None:
        del file[name]
        file[name] = value

    return change


def test_a_round_trip_changes_nothing(path):
    saved, loaded = example(), Dataset.load(path)
    assert len(loaded) == 5
    for a, b in zip(saved.structures, loaded.structures, strict=True):
        for name in ("positions", "numbers", "pbc"):
            np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
        np.testing.assert_array_equal(a.cell.array, b.cell.array)
    assert list(loaded.properties) == list(saved.properties)
    for name, values in saved.properties.items():
        np.testing.assert_array_equal(loaded.properties[name], values)
    np.testing.assert_array_equal(loaded.split, saved.split)
    assert (loaded.units, loaded.metadata) == (saved.units, saved.metadata)


def test_forces_come_back_with_the_structures_and_their_energies(tmp_path):
    whole = example()
    forces = [np.random.default_rng(i).normal(size=(len(s), 3)) for i, s in enumerate(whole)]
    forces[2][1, 1] = np.nan
    path = tmp_path / "forces.h5"
    dataclasses.replace(whole, forces=forces).save(path)
    with h5py.File(path) as file:
        assert file["forces"].shape == file["positions"].shape
        assert file["forces"].attrs["units"].decode() == "eV/Å"
    loaded = Dataset.load(path)
    for ours, theirs in zip(forces, loaded.forces, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert loaded.summary()["forces"] == 4
    assert "forces: of 4 structures" in repr(loaded)
    np.testing.assert_array_equal(loaded[3].get_forces(), forces[3])
    np.testing.assert_array_equal(loaded[[3, 1]].forces[1], forces[1])
    assert "forces" not in loaded[2].calc.results
    assert loaded[2].get_potential_energy() == pytest.approx(
        5 * whole.properties["energy_per_atom"][2]
    )
    assert Dataset.load(path).select("test").forces is None  # its structure has none


def test_forces_that_are_not_known_are_none(path):
    assert Dataset.load(path).forces is None
    unknown = [np.full((len(s), 3), np.nan) for s in example()]
    assert dataclasses.replace(example(), forces=unknown).forces is None
    for wrong in (unknown[:4], unknown[::-1]):
        with pytest.raises(ValueError, match="forces do not fit the structures; an array"):
            dataclasses.replace(example(), forces=wrong)


def test_the_example_in_the_documentation_reads_a_file(path, monkeypatch):
    text = (Path(__file__).parents[2] / "datasets" / "README.md").read_text("utf-8")
    code = re.search(r"```python\n(.*?)```", text, re.DOTALL).group(1)
    assert len(code.strip().splitlines()) <= 7
    monkeypatch.chdir(path.parent)
    names: dict = {}
    exec(code.replace("pt13.h5", path.name), names)
    np.testing.assert_array_equal(names["positions"], example().structures[0].positions)
    np.testing.assert_array_equal(names["numbers"], example().structures[0].numbers)
    assert names["energy"] == example().properties["energy_per_atom"][0]


def test_select_takes_a_split():
    whole = example()
    parts = [whole.select(split) for split in SPLITS]
    assert [len(p) for p in parts] == [2, 2, 1]
    assert parts[1].structures[1] is whole.structures[4]
    np.testing.assert_array_equal(parts[1].properties["zeal"], whole.properties["zeal"][[1, 4]])
    assert whole.select("all") is whole
    with pytest.raises(ValueError, match="split is 'dev'; one of train, validation, test, all"):
        whole.select("dev")


def test_repr_is_a_few_informative_lines():
    assert repr(example()).splitlines()[:3] == [
        "Dataset 'example': 5 structures (2 train, 2 validation, 1 test)",
        "  compositions: CuPt2 (1), Cu2Pt2 (1), Cu3Pt2 (1), Cu4Pt2 (1), Au4 (1)",
        "  periodic: 1 of 5",
    ]
    last = repr(example()).splitlines()[3]
    zeal = example().properties["zeal"]
    assert last.startswith(f"  properties: zeal {zeal.min():.4g} to {zeal.max():.4g} kÅ·eV, energy")
    pure = Dataset(example().structures, {"a": np.arange(5)}, {"a": "1"}, np.zeros(5))
    assert repr(pure).splitlines()[-1] == "  properties: a 0 to 4"
    assert repr(example(20)).splitlines()[1].endswith("and 14 more")
    assert repr(example()[:0]) == "Dataset 'example': 0 structures (0 train, 0 validation, 0 test)"
    bare = Dataset(example().structures, {}, {}, np.zeros(5))
    assert repr(bare).startswith("Dataset: 5 structures")


def test_indexing_gives_what_ase_users_expect():
    dataset = example()
    for row in (0, 3, -1, np.int64(2)):
        atoms, original = dataset[row], dataset.structures[row]
        assert type(atoms) is Atoms
        assert atoms is not original
        np.testing.assert_array_equal(atoms.positions, original.positions)
        assert atoms.info["zeal"] == dataset.properties["zeal"][row]
        assert atoms.info["split"] == SPLITS[dataset.split[row]]
        energy = dataset.properties["energy_per_atom"][row] * len(original)
        assert atoms.get_potential_energy() == pytest.approx(energy, rel=1e-14)
    assert [a.info["zeal"] for a in dataset] == dataset.properties["zeal"].tolist()
    dataset[0].positions[:] = 0.0
    assert dataset.structures[0].positions.any()
    assert dataset.structures[0].info == {}
    bare = Dataset(dataset.structures, {"energy": np.ones(5)}, {"energy": "eV"}, np.zeros(5))
    assert bare[1].get_potential_energy() == 1.0
    assert Dataset(dataset.structures, {}, {}, np.zeros(5))[0].calc is None


def test_parts_are_data_sets():
    whole = example()
    mask = whole.properties["zeal"] > np.median(whole.properties["zeal"])
    for index, rows in (
        (slice(1, 4), [1, 2, 3]),
        (slice(None, None, -2), [4, 2, 0]),
        (mask, np.flatnonzero(mask)),
        (mask.tolist(), np.flatnonzero(mask)),
        ([4, 0, -1], [4, 0, 4]),
        ([], []),
        (np.array([], int), []),
    ):
        part = whole[index]
        assert isinstance(part, Dataset)
        assert [id(s) for s in part.structures] == [id(whole.structures[i]) for i in rows]
        np.testing.assert_array_equal(part.properties["zeal"], whole.properties["zeal"][rows])
        np.testing.assert_array_equal(part.split, whole.split[rows])
        assert (part.units, part.metadata) == (whole.units, whole.metadata)


@pytest.mark.parametrize(
    ("index", "error", "message"),
    [
        (5, IndexError, "index is 5; the data set has 5 structures"),
        (-6, IndexError, "index is -6; the data set has 5 structures"),
        ([0, 5], IndexError, "index 5 is out of bounds"),
        ([True, False], IndexError, "boolean"),
        ("zeal", TypeError, "index is 'zeal'; a whole number, a slice, a mask or a list"),
        (1.0, TypeError, "index is 1.0"),
        (True, TypeError, "index is True"),
        ([[0, 1]], TypeError, "index is"),
        (None, TypeError, "index is None"),
    ],
)
def test_places_that_are_not_there(index, error, message):
    with pytest.raises(error, match=message):
        example()[index]


def test_a_table_for_pandas(monkeypatch):
    pytest.importorskip("pandas")
    table = example().to_pandas()
    assert list(table.columns) == ["formula", "atoms", "split", "zeal", "energy_per_atom"]
    assert table["formula"].tolist() == ["CuPt2", "Cu2Pt2", "Cu3Pt2", "Cu4Pt2", "Au4"]
    assert table["atoms"].tolist() == [3, 4, 5, 6, 4]
    assert table["split"].tolist() == ["train", "validation", "test", "train", "validation"]
    np.testing.assert_array_equal(table["zeal"], example().properties["zeal"])
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match="to_pandas needs pandas: pip install pandas"):
        example().to_pandas()


def test_summary_counts():
    summary = example().summary()
    assert summary["structures"] == 5
    assert summary["splits"] == {"train": 2, "validation": 2, "test": 1}
    assert summary["sizes"] == {"3": 1, "4": 2, "5": 1, "6": 1}
    assert summary["compositions"]["Au4"] == 1
    assert summary["periodic"] == 1
    assert summary["properties"]["zeal"]["unit"] == "kÅ·eV"
    values = example().properties["zeal"]
    assert summary["properties"]["zeal"]["max"] == values.max()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"split": [0, 1]}, "split has shape"),
        ({"split": [0, 1, 2, 3, 0]}, "one of 0, 1, 2"),
        ({"units": {"zeal": "1"}}, "units are given for"),
        ({"properties": {"a/b": np.zeros(5)}, "units": {"a/b": "1"}}, "'a/b' is not allowed"),
        ({"properties": {"a": np.zeros(4)}, "units": {"a": "1"}}, r"'a' has shape \(4,\)"),
        ({"properties": {"a": [0, 0, np.nan, 0, 0]}, "units": {"a": "1"}}, "structure 2 is nan"),
    ],
)
def test_inconsistent_data_sets_are_refused(changes, message):
    fields = {k: getattr(example(), k) for k in ("structures", "properties", "units", "split")}
    with pytest.raises(ValueError, match=message):
        Dataset(**fields | changes)


def test_nothing_is_not_saved(tmp_path):
    with pytest.raises(ValueError, match="no structures"):
        example().select("train").select("test").save(tmp_path / "x.h5")
    assert list(tmp_path.iterdir()) == []


def test_existing_files_stay_unless_asked(path):
    before = path.read_bytes()
    with pytest.raises(FileExistsError, match="pass overwrite=True"):
        example().save(path)
    assert path.read_bytes() == before
    example(3).save(path, overwrite=True)
    assert len(Dataset.load(path)) == 3


@pytest.mark.parametrize("failure", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_failure_in_mid_write_leaves_the_old_file_whole(path, monkeypatch, failure):
    before = path.read_bytes()

    def fail(*_args, **_kwargs):
        raise failure

    monkeypatch.setattr("tfgen.datasets._hdf5._write", fail)
    with pytest.raises(type(failure)):
        example(3).save(path, overwrite=True)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_missing_files_and_folders(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        Dataset.load(tmp_path / "none.h5")
    with pytest.raises(FileNotFoundError, match="is a folder"):
        Dataset.load(tmp_path)


@pytest.mark.parametrize("keep", [0.0, 0.001, 0.1, 0.5, 0.9, 0.99])
def test_truncated_files(path, keep):
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content))])
    with pytest.raises(ValueError, match="is truncated or damaged|is not an HDF5 file"):
        Dataset.load(path)


@pytest.mark.parametrize("length", [1, 8, 64])
def test_damaged_bytes_are_seen_or_harmless(path, length):
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(100):
        damaged = np.frombuffer(content, np.uint8).copy()
        start = rng.integers(len(damaged) - length)
        damaged[start : start + length] = rng.integers(0, 256, length)
        path.write_bytes(damaged.tobytes())
        try:
            loaded = Dataset.load(path)
        except ValueError:
            refused += 1
            continue
        for a, b in zip(loaded.structures, example().structures, strict=True):
            assert a == b
        assert loaded.units == example().units
        assert loaded.metadata == example().metadata
        np.testing.assert_array_equal(loaded.split, example().split)
        for name, values in example().properties.items():
            np.testing.assert_array_equal(loaded.properties[name], values)
    assert refused > 30


def test_long_metadata(path):
    dataset = example()
    dataset.metadata["recipe"] = "# é\n" * 100_000
    dataset.save(path, overwrite=True)
    assert Dataset.load(path).metadata == dataset.metadata


def test_text_of_variable_length_as_others_may_write_it(path):
    def change(file: h5py.File) -> None:
        for item in (file, file["positions"], file["properties/energy_per_atom"]):
            for name, value in item.attrs.items():
                item.attrs[name] = value.decode() if isinstance(value, bytes) else value

    edit(path, change)
    loaded, saved = Dataset.load(path), example()
    assert loaded.metadata == saved.metadata
    assert loaded.units == saved.units


def test_something_else_than_hdf5(path):
    path.write_text("energy,formula\n1,Pt\n")
    with pytest.raises(ValueError, match="is not an HDF5 file"):
        Dataset.load(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.attrs.pop("schema"), "not a tfgen data set"),
        (lambda f: f.attrs.modify("schema", "other"), "not a tfgen data set"),
        (lambda f: f.attrs.modify("schema_version", 2), "schema version 2; .* reads 1"),
        (lambda f: f.attrs.modify("metadata", "[1]"), "'metadata' is not"),
        (lambda f: f.attrs.modify("metadata", "{"), "is truncated or damaged"),
        (lambda f: f.attrs.pop("metadata"), "is truncated or damaged"),
        (replace("offsets", [0]), "has no structures"),
        (replace("offsets", np.array([], int)), "has no structures"),
        (replace("offsets", [0, 3, 3, 12, 18, 22]), "'offsets' does not grow"),
        (replace("offsets", [0, 3, 7, 12, 18, 21]), "'numbers' has shape"),
        (replace("offsets", np.array([0, 9, 7, 12, 18, 22], "u8")), "'offsets' does not grow"),
        (
            replace("offsets", np.array([0, 3, 7, 12, 18, 22.0])),
            "'offsets' has shape .* of float64",
        ),
        (replace("offsets", 22), r"'offsets' has shape \(\)"),
        (replace("numbers", np.full(22, 29.5)), "'numbers' has shape .* of float64"),
        (replace("numbers", np.full(22, 200)), "something else than atomic numbers"),
        (replace("positions", np.ones((22, 3), complex)), "'positions' has shape .* of complex128"),
        (replace("properties/zeal", ["a", "b", "c", "d", "e"]), "'zeal' has shape .* of object"),
        (replace("properties", np.zeros(5)), "'properties' is missing"),
        (replace("pbc", np.ones((5, 3), bool)), "periodic along an axis without cell vector"),
        (lambda f: f.attrs.modify("metadata", '{"counts": [1]}'), "'counts' in 'metadata' is not"),
        (lambda f: f.attrs.modify("metadata", '{"counts": {"a": "b"}}'), "a count in 'metadata'"),
        (replace("numbers", np.zeros(22, int)), "something else than atomic numbers"),
        (replace("positions", np.full((22, 3), np.nan)), "'positions' that are not finite"),
        (replace("positions", np.zeros((22, 2))), r"'positions' has shape \(22, 2\)"),
        (replace("positions", [b"text"]), "'positions' has shape"),
        (replace("cell", np.zeros((4, 3, 3))), "'cell' has shape"),
        (replace("split", [0, 1, 2, 3, 4]), "'split' holds something else"),
        (lambda f: f.pop("split"), "'split' is missing"),
        (lambda f: f.pop("properties"), "'properties' is missing"),
        (replace("properties/zeal", [1.0, 2.0, np.inf, 0, 0]), "'zeal' that are not finite"),
        (replace("properties/zeal", [1.0]), "'zeal' has shape"),
    ],
)
def test_files_with_the_wrong_content(path, change, message):
    edit(path, change)
    with pytest.raises(ValueError, match=message) as caught:
        Dataset.load(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def move_out(file: h5py.File, link) -> None:
    """Moves the positions into another file, and links them."""
    name = str(Path(file.filename).with_name("other.h5"))
    with h5py.File(name, "w") as other:
        other["x"] = file["positions"][()]
    del file["positions"]
    link(file, name)


def virtual(file: h5py.File, name: str) -> None:
    layout = h5py.VirtualLayout((22, 3), "f8")
    layout[:] = h5py.VirtualSource(name, "x", (22, 3))
    file.create_virtual_dataset("positions", layout)


def raw(file: h5py.File, name: str) -> None:
    file.create_dataset("positions", (22, 3), "f8", external=[(name, 0, 22 * 24)])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: move_out(f, virtual), "keeps 'positions' in other files"),
        (lambda f: move_out(f, raw), "keeps 'positions' in other files"),
        (
            lambda f: move_out(f, lambda g, n: g.update(positions=h5py.ExternalLink(n, "/x"))),
            "holds a link, 'positions'",
        ),
        (lambda f: f.update(more=h5py.ExternalLink("other.h5", "/x")), "holds a link, 'more'"),
        (lambda f: f["properties"].update(a=h5py.SoftLink("/split")), "holds a link, 'a'"),
        (lambda f: f["properties"].update(a=f["/"]), "'a' is missing"),
    ],
)
def test_nothing_outside_the_file_is_read(path, change, message):
    edit(path, change)
    with pytest.raises(ValueError, match=message):
        Dataset.load(path)


def unstored(file: h5py.File, **options) -> None:
    del file["offsets"]
    file.create_dataset("offsets", (1 << 50,), np.int64, **options)


def with_large_chunks(file: h5py.File) -> None:
    del file["offsets"]
    # Three times the memory that is allowed, to be read as a whole for six numbers.
    options = {"maxshape": (None,), "chunks": (75_000_000,), "compression": "gzip"}
    offsets = file.create_dataset("offsets", (6,), "i8", **options)
    offsets.id.write_direct_chunk((0,), zlib.compress(b"0" * 1000))


def with_many_names(file: h5py.File) -> None:
    file.create_dataset("one", data=np.zeros(100_000), compression="gzip")
    for i in range(300):
        file[f"properties/{i}"] = file["one"]


def with_many_structures(file: h5py.File) -> None:
    del file["offsets"]
    file.create_dataset("offsets", data=np.arange(200_000), compression="gzip", shuffle=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: unstored(f, chunks=(1024,), compression="gzip"), "'offsets' is declared with"),
        (unstored, "'offsets' is declared with"),
        (with_large_chunks, "asks for 600 MB of memory; 200 MB are allowed for a file of .* kB"),
        (with_many_names, "asks for 241 MB of memory; 200 MB are allowed"),
        (with_many_structures, "asks for 400 MB of memory; 200 MB are allowed"),
    ],
)
def test_no_more_memory_than_is_in_proportion_to_the_file(path, change, message):
    edit(path, change)
    assert path.stat().st_size < 1_000_000
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=message):
            Dataset.load(path)
        assert tracemalloc.get_traced_memory()[1] < 50_000_000
    finally:
        tracemalloc.stop()


def test_equal_structures_compress_well_and_are_read(tmp_path):
    same = Dataset([example().structures[0]] * 2000, {}, {}, np.zeros(2000))
    same.save(tmp_path / "same.h5")
    assert len(Dataset.load(tmp_path / "same.h5")) == 2000


@pytest.mark.parametrize("number", ["Infinity", "-Infinity", "NaN", "1e999"])
def test_metadata_are_json(path, number):
    edit(path, lambda f: f.attrs.modify("metadata", f'{{"seed": {number}}}'))
    with pytest.raises(ValueError, match=f"'metadata' is not JSON: {number} is no finite number"):
        Dataset.load(path)
    dataset = example()
    dataset.metadata["seed"] = np.inf
    with pytest.raises(ValueError, match="not JSON compliant"):
        dataset.save(path, overwrite=True)


def test_the_mean_of_huge_numbers_is_finite():
    values = np.array([1.5e308, 1.7e308, 1.6e308, -1e300, 1.2e308])
    dataset = Dataset(example().structures, {"a": values}, {"a": "1"}, np.zeros(5))
    mean = dataset.summary()["properties"]["a"]["mean"]
    assert mean == pytest.approx(sum(map(Fraction, values.tolist())) / 5, rel=1e-15)
    zero = Dataset(example().structures, {"a": np.zeros(5)}, {"a": "1"}, np.zeros(5))
    assert zero.summary()["properties"]["a"]["mean"] == 0.0


@pytest.mark.parametrize(
    ("n", "sizes"),
    [(100, [80, 10, 10]), (10, [8, 1, 1]), (4, [2, 1, 1]), (2, [1, 1, 0]), (1, [1, 0, 0])],
)
def test_splits_have_their_shares(n, sizes):
    split = assign_splits(n, (0.8, 0.1, 0.1), np.random.default_rng(0))
    np.testing.assert_array_equal(np.bincount(split, minlength=3), sizes)


def test_splits_are_drawn_and_checked():
    one, same, other = (
        assign_splits(100, (0.5, 0.5, 0.0), np.random.default_rng(s)) for s in (0, 0, 1)
    )
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()
    for bad in ((0.5, 0.5, 0.5), (1.5, -0.5, 0.0), (1.0,)):
        with pytest.raises(ValueError, match="fractions are"):
            assign_splits(10, bad, np.random.default_rng(0))


def test_a_group_is_in_one_split():
    rng = np.random.default_rng(0)
    for sizes in ([6] * 20, [1] * 40 + [5] * 20, [90, *[1] * 10], [960, *[1] * 40], [50, 30, 20]):
        groups = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
        split = assign_splits(len(groups), (0.8, 0.1, 0.1), np.random.default_rng(1), groups)
        for group in range(len(sizes)):
            assert len(set(split[groups == group])) == 1
        # As near to the shares as whole groups allow.
        got = np.bincount(split, minlength=3)
        free = len(groups) - max(sizes)
        for share in got[1:]:
            wanted = min(0.1 * len(groups), free / 2)
            assert abs(share - wanted) <= min(s for s in sizes if s < 60) / 2 or share == 30


def test_single_groups_are_split_as_structures_are():
    names = np.random.default_rng(3).permutation(60) + 7
    for n in (1, 2, 3, 5, 60):
        plain = assign_splits(n, (0.8, 0.1, 0.1), np.random.default_rng(2))
        grouped = assign_splits(n, (0.8, 0.1, 0.1), np.random.default_rng(2), names[:n])
        np.testing.assert_array_equal(plain, grouped)
    # The split of today's data sets stays as it is.
    expected = np.repeat([0, 1, 2], [48, 6, 6])[np.random.default_rng(2).permutation(60)]
    np.testing.assert_array_equal(plain, expected)


def test_few_groups_are_there_for_training_first():
    for groups, expected in (([0] * 4, [4]), ([0] * 4 + [1], [4, 1]), ([0, 1, 1, 2], [2, 1, 1])):
        split = assign_splits(len(groups), (0.8, 0.1, 0.1), np.random.default_rng(0), groups)
        assert np.bincount(split).tolist() == expected


@pytest.mark.parametrize("size", [0, 1000, 3000])
def test_a_full_disk_leaves_nothing(tmp_path, size):
    """HDF5 itself would end the process."""
    with files_limited_to(size), pytest.raises(OSError, match="too large: '.*set.h5'"):
        example().save(tmp_path / "set.h5")
    assert list(tmp_path.iterdir()) == []
