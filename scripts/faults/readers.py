"""Damaged and hostile files, for everything that reads files.

What is read all the same is compared with what the file says: data sets have check sums, and have
to come back as they were; structures of text files are compared with what ASE reads.
"""

from __future__ import annotations

import functools
import gzip
import io
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import ase.db
import ase.io
import h5py
import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from scipy.spatial.distance import pdist

from faults.attempts import foreseen
from faults.mutations import Damage, damage_bytes, damage_json, damage_text, damage_toml
from tfgen._files import from_json
from tfgen.cli._output import printable
from tfgen.datasets.importing import COINCIDENT, import_files, read_structures
from tfgen.datasets.messages import InvalidValuesError
from tfgen.datasets.recipe import load_recipe
from tfgen.datasets.storage import Dataset
from tfgen.generation.records import read_generated, read_record
from tfgen.models.config import ModelConfig, check_config
from tfgen.structures.formulas import MAX_ATOMS, numbers_from_formula
from tfgen.targets import Target

__all__ = ["READERS", "attempt"]


class Reader(NamedTuple):
    """Something that reads files.

    Attributes:
        name: what it reads.
        suffix: of the file's name.
        make: returns the content of a good file.
        damages: ways to damage it, each as likely.
        read: reads a file.
        judge: says what is wrong with what was read from a file; "" if nothing is.
    """

    name: str
    suffix: str
    make: Callable[[], bytes]
    damages: tuple[Damage, ...]
    read: Callable[[Path], Any]
    judge: Callable[[Any, Path], str]


def attempt(seed: int, number: int, folder: Path) -> tuple[str, str, str]:
    """Damages a good file of one kind, and reads it."""
    reader = READERS[number % len(READERS)]
    rng = np.random.default_rng([seed, number])
    damage = reader.damages[rng.integers(len(reader.damages))]
    path = folder / f"case{reader.suffix}"
    path.write_bytes(damage(rng, _content(reader.name)))
    try:
        found = reader.read(path)
    except InvalidValuesError as error:
        return reader.name, "refused well", max(error.problems, key=len)
    except Exception as error:  # noqa: BLE001  (what else comes is what is looked for)
        outcome = "refused well" if foreseen(error) else "unforeseen"
        return reader.name, outcome, f"{type(error).__name__}: {printable(str(error))}"
    problem = reader.judge(found, path)
    return reader.name, "wrong" if problem else "right", problem


@functools.cache
def _content(name: str) -> bytes:
    return next(reader for reader in READERS if reader.name == name).make()


@functools.cache
def _structures(periodic: bool = False) -> tuple[Atoms, ...]:
    """Three small structures with energies, and one number more."""
    rng = np.random.default_rng(0)
    result = []
    for place in range(3):
        grid = np.array(list(itertools.product(range(2), repeat=3)), float)[: 5 + place]
        atoms = Atoms("Cu2Pt5"[:3] + f"Pt{3 + place}", 2.6 * grid + rng.normal(0, 0.05, grid.shape))
        if periodic:
            atoms.cell, atoms.pbc = [6.0, 6.5, 7.0], True
        atoms.info["gap"] = 0.5 + place
        atoms.calc = SinglePointCalculator(atoms, energy=3.0 + place)
        result.append(atoms)
    return tuple(result)


def _by_ase(kind: str, count: int = 3, periodic: bool = False) -> Callable[[], bytes]:
    def make() -> bytes:
        images = [atoms.copy() for atoms in _structures(periodic)[:count]]
        for atoms, original in zip(images, _structures(periodic), strict=False):
            atoms.calc = original.calc
        text = kind not in ("traj", "cif")
        stream: Any = io.StringIO() if text else io.BytesIO()
        ase.io.write(stream, images if count > 1 else images[0], format=kind)
        return stream.getvalue().encode() if text else bytes(stream.getvalue())

    return make


def _in_file(write: Callable[[Path], None], suffix: str) -> Callable[[], bytes]:
    def make() -> bytes:
        import tempfile

        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, f"good{suffix}")
            write(path)
            return path.read_bytes()

    return make


def _write_database(path: Path) -> None:
    with ase.db.connect(path, append=False) as database:
        for atoms in _structures():
            database.write(atoms, key_value_pairs={"gap": atoms.info["gap"]}, data={"x": 1.0})


def _comments() -> bytes:
    lines = ["energy = -54.2 eV", "energy: -3.5 eV gap: 0.5 eV", '{"energy": 1.5, "gap": 2}']
    return "".join(
        f"{len(atoms)}\n{line}\n"
        + "".join(
            f"{s} {x:.4f} {y:.4f} {z:.4f}\n"
            for s, (x, y, z) in zip(atoms.symbols, atoms.positions, strict=True)
        )
        for atoms, line in zip(_structures(), lines, strict=True)
    ).encode()


def _table() -> bytes:
    cif = _by_ase("cif", 1, periodic=True)().decode().replace('"', '""')
    return f'id,gap,energy_per_atom,cif\n1,0.5,-1.5,"{cif}"\n2,0.7,-1.4,"{cif}"\n'.encode()


def _dump() -> bytes:
    atoms = _structures()[0]
    rows = "".join(
        f"{i + 1} {s} {x:.4f} {y:.4f} {z:.4f}\n"
        for i, (s, (x, y, z)) in enumerate(zip(atoms.symbols, atoms.positions, strict=True))
    )
    head = f"ITEM: TIMESTEP\n0\nITEM: NUMBER OF ATOMS\n{len(atoms)}\nITEM: BOX BOUNDS pp pp pp\n"
    return f"{head}0 20\n0 20\n0 20\nITEM: ATOMS id element x y z\n{rows}".encode()


def _dataset() -> Dataset:
    images = [Atoms(atoms.numbers, positions=atoms.positions) for atoms in _structures()]
    return Dataset(
        images,
        {"energy_per_atom": np.array([0.5, 0.6, 0.7]), "gap": np.arange(3.0)},
        {"energy_per_atom": "eV/atom", "gap": "eV"},
        np.arange(3),
        {"name": "set", "seed": 1, "counts": {"read": 3}, "description": "three"},
    )


RECIPE = b"""name = "x"
description = "many keys"
[sample]
formula = ["Pt5", "Cu2Pt3"]
count = 10
kinds = ["packing", "motif"]
shapes = "compact"
min_distance = 0.8
packing = 0.5
[relax]
potential = "emt"
fmax = 0.01
max_steps = 100
rattle = 0.1
snapshots = [0, 10]
[explore]
rounds = 2
count = 4
parents = 5
higher = 0.3
moves = ["rattle", "twist"]
grow = 0.2
[select]
duplicate_tolerance = 0.05
energy_window = 0.3
max_count = 10
method = "farthest"
[split]
train = 0.8
validation = 0.1
test = 0.1
[compute]
gap = "my_properties:gap"
"""


def _configuration() -> bytes:
    """As of a model of Pt5, without a neural-network potential."""
    settings = {"batch_size": 16, "learning_rate": 0.005, "latent": 3, "hidden": [16]}
    return json.dumps(
        {
            "fingerprint": {
                "descriptor": "ACSF",
                "descriptor_config": {"species": ["Pt"], "r_cut": 7.0, "g2_params": [[1.0, 2.0]]},
                "pooling": ["mean", "std"],
                "per_species": False,
            },
            "cvae": {
                "name": "cvae", "features": 12, "conditions": 3, "properties": 2, "latent": 3,
                "hidden": [16], "kl_weight": 1.0, "surrogate_weight": 1.0,
                "likelihood_family": "normal", "seed": 5,
            },
            "conditions": [{"name": "gap", "unit": "eV", "low": 1.0, "high": 2.5}],
            "mean": [1.5],
            "covariance": [[0.1]],
            "formulas": {"Pt5": 22, "Pt6": 18},
            "tolerance": 0.4,
            "potential": "emt",
            "nnp": {
                "features": 6, "elements": 1, "hidden": [8], "step": 0.02, "slope_weight": 0.1,
                "seed": 0,
            },
            "minima": True,
            "settings": settings,
            "nnp_settings": None,
            "provenance": {"dataset": {"name": "set"}, "epochs": 8},
        }
    ).encode()  # fmt: skip


def _generated() -> bytes:
    images = []
    for atoms in _structures():
        copy = Atoms(atoms.numbers, positions=atoms.positions)
        values = {"energy_per_atom": 0.75}
        copy.info.update(
            target={"energy_per_atom": 0.75}, decoded=values, reconstructed=values, relaxed=values,
            evaluated_by={"energy_per_atom": "emt"}, fingerprint_loss=0.1, status="converged",
            tolerance=0.2, hit_tolerance={"energy_per_atom": 0.01}, seed=0, request=0,
            candidates=1, calculations=2, proposed=3, seconds=0.5, verified=True,
        )  # fmt: skip
        images.append(copy)
    stream = io.StringIO()
    ase.io.write(stream, images, format="extxyz")
    return stream.getvalue().encode()


def _edit_dataset(rng: np.random.Generator, data: bytes) -> bytes:
    """Replaces an array, or an attribute, of an HDF5 file by another, with right check sums."""
    stream = io.BytesIO(data)
    values: list[Any] = [
        np.zeros(0), np.zeros(3), np.full(5, np.nan), np.arange(4), np.full((18, 3), np.inf), 7,
        np.full((3, 3, 3), 1e308), "text", np.array(["a", "b", "c"], "S1"), np.arange(3) - 1,
        np.zeros(3, complex), np.full(3, 2**63, np.uint64), np.ones((3, 3), bool), h5py.Empty("f8"),
    ]  # fmt: skip
    value = values[rng.integers(len(values))]
    with h5py.File(stream, "r+") as file:
        names = ["offsets", "numbers", "positions", "cell", "pbc", "split", "properties/gap"]
        name = names[rng.integers(len(names))]
        kind = rng.integers(6)
        if kind == 0:
            attribute = ["schema", "schema_version", "metadata"][rng.integers(3)]
            file.attrs[attribute] = value
        elif kind == 1:
            del file[name]
        elif kind == 2:
            del file[name]
            size = int(rng.choice([4, 10**6, 10**9, 10**13]))
            file.create_dataset(name, (size,), rng.choice(["f8", "i8", "u1"]), chunks=(4,))
        elif kind == 3:
            del file[name]
            file[name] = (
                h5py.SoftLink("/numbers")
                if rng.integers(2)
                else h5py.ExternalLink("other.h5", "/x")
            )
        else:
            del file[name]
            file[name] = value
    return stream.getvalue()


def _problem_of(structures: list[Atoms]) -> str:
    """Says what cannot be right about structures, whatever file they came from."""
    for atoms in structures:
        if not np.isfinite(atoms.positions).all() or not np.isfinite(atoms.cell.array).all():
            return "positions or cells that are not finite"
        if len(atoms) == 0 or not ((atoms.numbers > 0) & (atoms.numbers < 119)).all():
            return "atoms that are no elements"
        if not atoms.pbc.any() and len(atoms) > 1 and pdist(atoms.positions).min() < COINCIDENT:
            return "atoms on top of each other"
    return ""


def _judge_import(found: Dataset, path: Path, kind: str | None) -> str:
    problem = _problem_of(found.structures)
    if problem or kind is None:
        return problem
    if not all(np.isfinite(values).all() for values in found.properties.values()):
        return "values that are not finite"
    try:
        images = ase.io.read(path, ":", format=kind)
    except Exception:  # noqa: BLE001  (ASE's readers raise whatever they trip over)
        return ""  # comment lines, constraints and the like that stop ASE, and that tfgen skips
    if len(images) != len(found):
        return f"{len(found)} structures, where ASE reads {len(images)}"
    for ours, theirs in zip(found.structures, images, strict=True):
        same = len(ours) == len(theirs) and (ours.numbers == theirs.numbers).all()
        if not same or not np.allclose(ours.positions, theirs.positions, atol=1e-9, rtol=0):
            return "other structures than ASE reads"
    return ""


def _judge_dataset(found: Dataset, _: Path) -> str:
    original = _dataset()
    problem = _problem_of(found.structures)
    if problem or len(found) != len(original):
        return problem or f"{len(found)} structures"
    same = all(a == b for a, b in zip(found.structures, original.structures, strict=True))
    json.loads(json.dumps(found.summary(), allow_nan=False))
    # An array that was replaced as a whole, with its check sum, is another file.
    return "" if same or found.metadata == original.metadata else "other structures, same file"


def _read_imported(path: Path) -> Dataset:
    return import_files([path], duplicates="keep")


def _read_records(path: Path) -> list[Any]:
    images = read_generated(path)
    return [(atoms, read_record(atoms, "row")) for atoms in images]


def _judge_records(found: list[Any], _: Path) -> str:
    problem = _problem_of([atoms for atoms, _ in found if len(atoms)])
    for _, record in found:
        for stage in (record.predicted, record.decoded, record.reconstructed, record.relaxed):
            if not all(value is None or np.isfinite(value) for value in stage.values()):
                return "values that are not finite"
    return "" if problem == "atoms on top of each other" else problem  # the metrics judge that


def _read_configuration(path: Path) -> ModelConfig:
    config = from_json(path.read_bytes())
    if not isinstance(config, dict):
        raise ValueError("no configuration")  # as `read_config` has it
    return check_config(config)


def _read_request(path: Path) -> Any:
    """Reads a line with a formula and lines with targets, as options give them."""
    formula, *targets = path.read_text().split("\n")
    return numbers_from_formula(formula), [Target.parse(target) for target in targets]


def _judge_request(found: Any, _: Path) -> str:
    numbers, targets = found
    finite = all(np.isfinite([t.low, t.high]).all() and t.low <= t.high for t in targets)
    return "" if finite and 0 < len(numbers) <= MAX_ATOMS else "no request"


def _importer(
    name: str, suffix: str, make: Callable[[], bytes], *damages: Damage, kind: str | None = None
) -> Reader:
    judge = functools.partial(_judge_import, kind=kind)
    return Reader(f"import {name}", suffix, make, damages, _read_imported, judge)


READERS = (
    _importer("extxyz", ".extxyz", _by_ase("extxyz"), damage_text, damage_bytes, kind="extxyz"),
    _importer("xyz", ".xyz", _comments, damage_text, damage_bytes, kind="extxyz"),
    _importer("extxyz.gz", ".extxyz.gz", lambda: gzip.compress(_by_ase("extxyz")()), damage_bytes),
    _importer("traj", ".traj", _by_ase("traj"), damage_bytes, kind="traj"),
    _importer("db", ".db", _in_file(_write_database, ".db"), damage_bytes, kind="db"),
    _importer(
        "json", ".json", _in_file(_write_database, ".json"), damage_json, damage_bytes, kind="json"
    ),
    _importer("POSCAR", ".vasp", _by_ase("vasp", 1, True), damage_text, damage_bytes, kind="vasp"),
    _importer("cif", ".cif", _by_ase("cif", 1, True), damage_text, damage_bytes),
    _importer("csv", ".csv", _table, damage_text, damage_bytes),
    _importer("LAMMPS dump", ".lammpstrj", _dump, damage_text, damage_bytes),
    _importer(
        "LAMMPS data", ".data", lambda: _by_ase("lammps-data", 1, True)()
        .replace(b"Atoms", b"Masses\n\n1 63.546\n2 195.08\n\nAtoms"), damage_text, damage_bytes,
    ),
    _importer("xsf", ".xsf", _by_ase("xsf", 1, True), damage_text, damage_bytes, kind="xsf"),
    Reader(
        "reconstruct's input", ".extxyz", _by_ase("extxyz"), (damage_text, damage_bytes),
        read_structures, lambda found, _: _problem_of(found),
    ),
    Reader(
        "evaluate's input", ".extxyz", _generated, (damage_text, damage_bytes), _read_records,
        _judge_records,
    ),
    Reader(
        "data set", ".h5", _in_file(lambda path: _dataset().save(path, overwrite=True), ".h5"),
        (damage_bytes, _edit_dataset), Dataset.load, _judge_dataset,
    ),
    Reader(
        "recipe", ".toml", lambda: RECIPE, (damage_toml, damage_toml, damage_text, damage_bytes),
        load_recipe, lambda _, __: "",
    ),
    Reader(
        "model's configuration", ".json", _configuration,
        (damage_json, damage_json, damage_text, damage_bytes), _read_configuration,
        lambda config, _: "" if np.isfinite([*config.mean, config.tolerance]).all() else "NaN",
    ),
    Reader(
        "formula and targets", ".txt",
        lambda: b"Cu6Au7\nenergy_per_atom=0.75\ngap=0.1:0.5", (damage_text, damage_bytes),
        _read_request, _judge_request,
    ),
)  # fmt: skip
