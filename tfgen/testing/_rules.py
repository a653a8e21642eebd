"""The rules for descriptors and fingerprints, one function each; each raises AssertionError."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from numbers import Integral, Real
from typing import Any

import numpy as np
import tensorflow as tf
from ase import Atoms
from ase.data import chemical_symbols

from tfgen.structures.batch import Neighbours, StructureBatch
from tfgen.testing._subject import EXACT, SINGLE, SLOPE, Subject, degenerate, require

__all__ = ["RULES", "check_protocol", "check_shape_and_dtype"]


def check_protocol(descriptor: Any) -> None:
    for name in ("species", "r_cut", "size", "get_config"):
        require(hasattr(descriptor, name), f"it lacks {name!r}")
    require(callable(descriptor), "it cannot be called with a batch")
    species, r_cut, size = descriptor.species, descriptor.r_cut, descriptor.size
    listed = isinstance(species, list) and all(isinstance(s, str) for s in species)
    known = listed and species and set(species) <= set(chemical_symbols[1:])
    require(known, f"species is {species!r}; a list of chemical symbols is needed")
    require(len(set(species)) == len(species), f"species is {species!r}; none may come twice")
    real = isinstance(r_cut, Real) and not isinstance(r_cut, bool)
    require(real and 0 < r_cut < np.inf, f"r_cut is {r_cut!r}; a positive finite number is needed")
    whole = isinstance(size, Integral) and not isinstance(size, bool)
    require(whole and size > 0, f"size is {size!r}; an integer of at least 1 is needed")


def _configuration(subject: Subject) -> None:
    config = subject.call.get_config()
    restored = json.loads(json.dumps(config, allow_nan=False))
    if subject.pooled:
        copy: Any = type(subject.call).from_config(restored, [type(subject.descriptor)])
    else:
        # Compared by name: a lost argument that has its default value would not show in numbers.
        parameters = inspect.signature(type(subject.call)).parameters.values()
        variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        lost = {p.name for p in parameters if p.kind not in variadic} - set(config)
        require(
            not lost, f"get_config lacks {', '.join(sorted(lost))}, which the constructor takes"
        )
        copy = type(subject.call)(**restored)
    again = copy.get_config()
    require(json.dumps(again) == json.dumps(restored), f"{config} comes back as {again}")
    for name in ("species", "size"):
        one, two = getattr(subject.call, name), getattr(copy, name)
        require(one == two, f"{name} is {one}, and {two} after a round trip by get_config")
    found = copy(subject.batch(subject.structures))
    subject.equal(
        subject.unpack(found, subject.structures),
        subject.rows(subject.structures),
        subject.structures,
        "after a round trip by get_config",
    )


def check_shape_and_dtype(subject: Subject) -> None:
    width = max(len(s) for s in subject.structures) + 1
    results = {}
    for dtype in ("float64", "float32"):
        result = subject.call(subject.batch(subject.structures, dtype, width))
        require(tf.is_tensor(result), f"the result is a {type(result).__name__}, not a tensor")
        require(result.dtype == dtype, f"positions are {dtype}, the result is {result.dtype.name}")
        rows = () if subject.pooled else (width,)
        wanted = (len(subject.structures), *rows, subject.call.size)
        require(result.shape == wanted, f"the result has shape {tuple(result.shape)}, not {wanted}")
        results[dtype] = subject.unpack(result, subject.structures)
    exact = results["float64"]
    subject.equal(results["float32"], exact, subject.structures, "in float32", SINGLE)


def _moved(subject: Subject, change: str, move: Callable[[np.ndarray], np.ndarray]) -> None:
    """Requires that nothing changes; `move` acts on points, its linear part on the cell."""
    moved = [s.copy() for s in subject.structures]
    for structure in moved:
        structure.positions = move(structure.positions)
        structure.cell = move(structure.cell.array) - move(np.zeros([3, 3]))
    wanted = subject.rows(subject.structures)
    subject.equal(subject.rows(moved), wanted, subject.structures, change)


def _translation(subject: Subject) -> None:
    offset = subject.rng.normal(size=3) * 5.0
    _moved(subject, f"moved by {offset.round(2).tolist()} Å", lambda x: x + offset)


def _rotation(subject: Subject) -> None:
    turn = np.linalg.qr(subject.rng.normal(size=[3, 3]))[0]
    turn *= np.linalg.det(turn)
    _moved(subject, "rotated", lambda x: x @ turn)


def _reflection(subject: Subject) -> None:
    _moved(subject, "mirrored (chiral=True allows it)", lambda x: x * [1.0, 1.0, -1.0])


def _permutation(subject: Subject) -> None:
    orders = [subject.rng.permutation(len(s)) for s in subject.structures]
    permuted = [s[order] for s, order in zip(subject.structures, orders, strict=True)]
    wanted = subject.rows(subject.structures)
    if not subject.pooled:
        wanted = [rows[order] for rows, order in zip(wanted, orders, strict=True)]
    subject.equal(subject.rows(permuted), wanted, subject.structures, "with its atoms reordered")


def _company(subject: Subject) -> None:
    wanted = [subject.rows([s])[0] for s in subject.structures]
    for extra in (0, 3):
        width = max(len(s) for s in subject.structures) + extra
        found = subject.rows(subject.structures, atoms=width)
        change = f"among others, padded to {width} atoms"
        subject.equal(found, wanted, subject.structures, change)
    backwards = subject.structures[::-1]
    subject.equal(subject.rows(backwards), wanted[::-1], backwards, "in another order of the batch")


def _locality(subject: Subject) -> None:
    r_cut, rng = subject.r_cut, subject.rng
    direction = rng.normal(size=3)
    direction /= np.linalg.norm(direction)

    def with_another(share: float) -> Atoms:
        atoms = core.copy()
        atoms.append(subject.species[0])
        atoms.positions[-1] = atoms.positions[0] + share * r_cut * direction
        return atoms

    core = subject.cluster(3)
    for structure in [*subject.spread, with_another(1.0 + 1e-6)]:
        distances = structure.get_all_distances()
        seen = [structure[row < r_cut] for row in distances]
        found = [subject.rows([structure])[0][[i]] for i in range(len(structure))]
        wanted = [
            rows[[int((distances[i, :i] < r_cut).sum())]]
            for i, rows in enumerate(subject.rows(seen, atoms=len(structure)))
        ]
        change = f"with atoms further away than r_cut = {r_cut} Å"
        subject.equal(found, wanted, [structure] * len(structure), change)
    # What a neighbour contributes must vanish as it approaches the cutoff.
    alone = subject.rows([core])[0][0]
    near, nearer = (
        np.abs(subject.rows([with_another(1.0 - gap)])[0][0] - alone).max() for gap in (1e-3, 1e-9)
    )
    require(
        nearer <= max(1e-2 * near, EXACT * subject.scale.max()),
        f"features jump by {nearer:.3g} where an atom crosses r_cut = {r_cut} Å; they must be "
        "continuous",
    )


def _finiteness(subject: Subject) -> None:
    structures = degenerate(subject)
    weights = tf.constant(1.0 / subject.scale)
    for dtype in ("float64", "float32"):
        batch = subject.batch(structures, dtype, max(len(s) for s in structures) + 1)
        features, gradient = subject.value_and_gradient(batch, weights)
        for name, values in (("features", features), ("gradients", gradient)):
            for structure, rows in zip(structures, values.numpy(), strict=True):
                shape = structure.info["shape"]
                require(np.isfinite(rows).all(), f"{name} of {shape} are not finite in {dtype}")
        padding = gradient.numpy()[~batch.mask.numpy()]
        require(not padding.any(), "the gradient at padding is not 0: padding has influence")


def _gradient(subject: Subject) -> None:
    step = 2e-5
    several = [s for s in subject.clusters if len(s) > 1]
    for structure in (*several[:1], *subject.crystals[:1]):
        shape = structure.positions.shape
        weights = subject.rng.normal(size=subject.call.size) / subject.scale
        batch = subject.batch([structure])
        found = subject.value_and_gradient(batch, tf.constant(weights))[1].numpy()[0]
        wanted = np.zeros(found.size)
        # Five points are exact enough at a step so small that hardly ever another atom becomes the
        # one of the largest value.
        for multiple, factor in ((1, 8.0), (-1, -8.0), (2, -1.0), (-2, 1.0)):
            displaced = []
            for coordinate in range(found.size):
                atoms = structure.copy()
                atoms.positions.flat[coordinate] += multiple * step
                displaced.append(atoms)
            values = [float((rows @ weights).sum()) for rows in subject.rows(displaced)]
            wanted += factor * np.array(values) / (12.0 * step)
        error = np.abs(found - wanted.reshape(shape)) / max(np.abs(wanted).max(), 1e-300)
        # Where no atom is within reach of another, the gradient is 0, except for rounding.
        if error.max() > SLOPE and np.abs(found).max() + np.abs(wanted).max() > EXACT:
            atom, axis = np.unravel_index(np.argmax(error), shape)
            raise AssertionError(
                f"the derivative by coordinate {axis} of atom {atom} of "
                f"{structure.get_chemical_formula()} is {found[atom, axis]:.9g}, and "
                f"{wanted.reshape(shape)[atom, axis]:.9g} by finite differences; the error, in "
                f"units of the largest, is {error.max():.1e}, and {SLOPE:.0e} is allowed"
            )


def _signature(batch: StructureBatch) -> StructureBatch:
    """Returns the signature of all batches of the same kind."""

    def spec(tensor: tf.Tensor, *shape: int | None) -> tf.TensorSpec:
        return tf.TensorSpec(shape, tensor.dtype)

    neighbours = batch.neighbours
    if neighbours is not None:
        neighbours = Neighbours(
            spec(neighbours.index, None, None, None), spec(neighbours.shift, None, None, None, 3)
        )
    return StructureBatch(
        spec(batch.positions, None, None, 3),
        spec(batch.numbers, None, None),
        spec(batch.cell, None, 3, 3),
        spec(batch.pbc, None, 3),
        neighbours,
    )


def _modes(subject: Subject) -> None:
    weights = tf.constant(subject.rng.normal(size=subject.call.size) / subject.coarse)

    def compute(batch: StructureBatch) -> tuple:
        return subject.value_and_gradient(batch, weights)

    def compare(mode: Callable[..., tuple], structures: list[Atoms], dtype: str, name: str) -> None:
        tolerance = EXACT if dtype == "float64" else SINGLE
        batch = subject.batch(structures, dtype)
        (features, gradient), (found, slope) = compute(batch), mode(batch)
        require(np.isfinite(slope.numpy()).all(), f"{name}, gradients are not finite")
        wanted = subject.unpack(features, structures)
        subject.equal(subject.unpack(found, structures), wanted, structures, name, tolerance)
        # Degenerate structures may have no unique gradient, as a maximum over equal atoms.
        regular = ["shape" not in s.info for s in structures]
        error = np.abs(slope.numpy() - gradient.numpy())[regular].max()
        size = np.abs(gradient.numpy()[regular]).max() + 1.0
        require(error <= tolerance * size, f"{name}, gradients differ by {error / size:.1e}")

    kinds = [subject.clusters, subject.crystals] if subject.crystals else [subject.clusters]
    for kind in kinds:
        # One graph serves every number of structures, atoms and neighbours.
        graph = tf.function(compute).get_concrete_function(_signature(subject.batch(kind)))
        for count in range(len(kind)):
            compare(graph, kind[count:], "float64", "in a graph of unknown shape")
    xla = tf.function(compute, jit_compile=True)
    for kind in (kinds[0] + degenerate(subject), *kinds[1:]):
        compare(xla, kind, "float32", "under XLA")


def _side_effects(subject: Subject) -> None:
    before = json.dumps(subject.call.get_config())
    batch = subject.batch(subject.structures)
    copies = [tensor.numpy().copy() for tensor in batch[:4]]
    subject.call(batch)
    for tensor, copy in zip(batch[:4], copies, strict=True):
        require(np.array_equal(tensor.numpy(), copy), "the batch was modified")
    if hasattr(subject.call, "create"):
        untouched = [s.copy() for s in subject.structures]
        subject.call.create(subject.structures)
        require(untouched == subject.structures, "create modified a structure")
    after = json.dumps(subject.call.get_config())
    require(before == after, f"a call changed the configuration from {before} to {after}")


def _distinction(subject: Subject) -> None:
    changed = [s.copy() for s in subject.structures]
    for structure in changed:
        structure.positions += 0.1 * subject.shrink * subject.rng.normal(size=[len(structure), 3])
    pairs = zip(subject.rows(changed), subject.rows(subject.structures), strict=True)
    largest = max((np.abs(one - two) / subject.scale).max() for one, two in pairs)
    require(largest > 100 * EXACT, "features of all structures stay the same as atoms move")


def _periodicity(subject: Subject) -> None:
    crystals = subject.crystals
    wanted = subject.rows(crystals)
    shifted = [s.copy() for s in crystals]
    for structure in shifted:
        axis = int(np.flatnonzero(structure.pbc)[0])
        structure.positions[0] += 2.0 * structure.cell.array[axis]
    change = "with an atom moved by two lattice vectors"
    subject.equal(subject.rows(shifted), wanted, crystals, change)
    doubled = [s * [2 if periodic else 1 for periodic in s.pbc] for s in crystals]
    repeated = wanted
    if not subject.pooled:
        repeated = [np.tile(w, [len(d) // len(w), 1]) for w, d in zip(wanted, doubled, strict=True)]
    subject.equal(subject.rows(doubled), repeated, crystals, "as a larger cell")
    boxed = [s.copy() for s in subject.clusters]
    for structure in boxed:
        structure.center(vacuum=subject.r_cut)
        structure.pbc = True
    free = subject.rows(subject.clusters)
    subject.equal(subject.rows(boxed), free, subject.clusters, "in a periodic box of vacuum")


# The name, with which messages begin, and the check. Later checks presuppose the earlier ones.
RULES: dict[str, Callable[[Subject], None]] = {
    "configuration": _configuration,
    "padding and company": _company,
    "translation": _translation,
    "rotation": _rotation,
    "reflection": _reflection,
    "permutation": _permutation,
    "locality": _locality,
    "finiteness": _finiteness,
    "gradient": _gradient,
    "eager, graph and XLA": _modes,
    "side effects": _side_effects,
    "distinction": _distinction,
    "periodicity": _periodicity,
}
