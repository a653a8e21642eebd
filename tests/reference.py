"""Slow, obvious loops: the second oracle, written from the formulas and not from the code."""

from __future__ import annotations

import itertools
import math

import numpy as np
from ase import Atoms


def neighbours(atoms: Atoms, i: int, r_cut: float) -> list[tuple[int, np.ndarray]]:
    """Atomic number and displacement of every atom, every image, closer to atom i than r_cut."""
    reach = []
    for axis in range(3):
        if not atoms.pbc[axis]:
            reach.append(0)
            continue
        # Lattice planes along the axis are `height` apart; atoms may lie some cells apart too.
        others = [atoms.cell.array[a] for a in range(3) if a != axis and atoms.cell.array[a].any()]
        normal = _normal(atoms.cell.array[axis], others)
        height = abs(atoms.cell.array[axis] @ normal)
        spread = np.ptp(atoms.positions @ normal)
        reach.append(math.ceil((r_cut + spread) / height))
    found = []
    for image in itertools.product(*(range(-n, n + 1) for n in reach)):
        for j in range(len(atoms)):
            if j == i and image == (0, 0, 0):
                continue
            vector = atoms.positions[j] + image @ atoms.cell.array - atoms.positions[i]
            if np.linalg.norm(vector) < r_cut:
                found.append((int(atoms.numbers[j]), vector))
    return found


def _normal(vector: np.ndarray, others: list[np.ndarray]) -> np.ndarray:
    """The unit vector in the span of all that is normal to the others (Gram and Schmidt)."""
    basis: list[np.ndarray] = []
    for v in [*others, vector]:
        rest = v - sum(((v @ b) * b for b in basis), np.zeros(3))
        basis.append(rest / np.linalg.norm(rest))
    return basis[-1]


def f_c(r: float, r_cut: float) -> float:
    return 0.5 * (math.cos(math.pi * r / r_cut) + 1.0) if r < r_cut else 0.0


def cos_angle(a: np.ndarray, b: np.ndarray) -> float:
    return min(1.0, max(-1.0, float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))))


def acsf(
    atoms: Atoms, numbers: list[int], r_cut: float, g2=(), g3=(), g4=(), g5=(), g1: bool = True
) -> np.ndarray:
    """[atoms, features] by loops over atoms, elements, functions and neighbours."""
    numbers = sorted(numbers)
    rows = []
    for i in range(len(atoms)):
        near = neighbours(atoms, i, r_cut)
        row = []
        for z in numbers:
            distances = [np.linalg.norm(v) for number, v in near if number == z]
            if g1:
                row.append(sum(f_c(r, r_cut) for r in distances))
            for eta, r_s in g2:
                row.append(sum(math.exp(-eta * (r - r_s) ** 2) * f_c(r, r_cut) for r in distances))
            for kappa in g3:
                row += [sum(math.cos(kappa * r) * f_c(r, r_cut) for r in distances)]
        for a, z_a in enumerate(numbers):
            for z_b in numbers[: a + 1]:
                triples = [
                    (v, w)
                    for (z_v, v), (z_w, w) in itertools.combinations(near, 2)
                    if sorted((z_v, z_w)) == [z_b, z_a]
                ]
                row += [_g4(triples, r_cut, *parameters) for parameters in g4]
                row += [_g5(triples, r_cut, *parameters) for parameters in g5]
        rows.append(row)
    return np.array(rows, float)


def _g4(triples: list, r_cut: float, eta: float, zeta: float, lambda_: float) -> float:
    total = 0.0
    for v, w in triples:
        r_ij, r_ik, r_jk = np.linalg.norm(v), np.linalg.norm(w), np.linalg.norm(w - v)
        total += (
            (1.0 + lambda_ * cos_angle(v, w)) ** zeta
            * math.exp(-eta * (r_ij**2 + r_ik**2 + r_jk**2))
            * f_c(r_ij, r_cut)
            * f_c(r_ik, r_cut)
            * f_c(r_jk, r_cut)
        )
    return 2.0 ** (1.0 - zeta) * total


def _g5(triples: list, r_cut: float, eta: float, zeta: float, lambda_: float) -> float:
    total = 0.0
    for v, w in triples:
        r_ij, r_ik = np.linalg.norm(v), np.linalg.norm(w)
        total += (
            (1.0 + lambda_ * cos_angle(v, w)) ** zeta
            * math.exp(-eta * (r_ij**2 + r_ik**2))
            * f_c(r_ij, r_cut)
            * f_c(r_ik, r_cut)
        )
    return 2.0 ** (1.0 - zeta) * total


def pooled(features: np.ndarray, pooling: tuple[str, ...]) -> np.ndarray:
    """One vector from [atoms, features]."""
    parts = []
    for name in pooling:
        if name == "covariance":
            n, size = features.shape
            means = [sum(column) / n for column in features.T]
            for lag in range(1, 7):
                for f in range(size - lag):
                    products = [(x[f] - means[f]) * (x[f + lag] - means[f + lag]) for x in features]
                    parts.append(sum(products) / n)
            continue
        for column in features.T:
            n = len(column)
            mean = sum(column) / n
            parts.append(
                {
                    "max": max(column),
                    "min": min(column),
                    "mean": mean,
                    "std": math.sqrt(sum((x - mean) ** 2 for x in column) / n),
                    "moment3": sum((x - mean) ** 3 for x in column) / n,
                }[name]
            )
    return np.array(parts)


def fingerprint(
    atoms: Atoms, features: np.ndarray, numbers: list[int], pooling: tuple[str, ...]
) -> np.ndarray:
    """Pooling over the atoms of each element apart; zeros for an element that is not there."""
    parts = []
    for z in sorted(numbers):
        own = features[atoms.numbers == z]
        parts.append(pooled(own, pooling) if len(own) else 0.0 * pooled(features, pooling))
    return np.concatenate(parts)


def fung2022_functions() -> tuple[list[list[float]], list[list[float]]]:
    """Parameters of the source paper's G2 and G5, slow index first."""
    g2 = [
        [eta, r_s]
        for eta in (0.01, 0.06, 0.1, 0.2, 0.4, 0.7, 1.0, 2.0, 3.5, 5.0)
        for r_s in (0, 1, 1.5, 2, 2.5, 3, 3.5, 4, 5, 6, 7, 8, 9, 10)
    ]
    g5 = [
        [eta, zeta, lambda_]
        for zeta in (1, 2, 4, 16, 64)
        for lambda_ in (-1, 1)
        for eta in (0.06, 0.1, 0.2, 0.4, 1.0)
    ]
    return g2, g5


def fung2022(atoms: Atoms, numbers: list[int]) -> np.ndarray:
    """The source paper's fingerprint: all 190 functions' maxima over atoms, then their minima."""
    g2, g5 = fung2022_functions()
    return pooled(acsf(atoms, numbers, 20.0, g2=g2, g5=g5, g1=False), ("max", "min"))


def central_difference(function, x: np.ndarray, step: float = 1e-5) -> np.ndarray:
    """Jacobian [..., *x.shape] of a function of batches [batch, *x.shape] -> [batch, ...]."""
    steps = np.eye(x.size).reshape(x.size, *x.shape) * step
    jacobian = (function(x + steps) - function(x - steps)) / (2.0 * step)
    return np.moveaxis(jacobian, 0, -1).reshape(*jacobian.shape[1:], *x.shape)


def spectrum(x: np.ndarray, numbers: np.ndarray) -> list[float]:
    """Distances of the k-th neighbours of one element around another, sorted, by a loop."""
    found = []
    for a, b in itertools.product(sorted(set(numbers)), repeat=2):
        around = [
            sorted(np.linalg.norm(x[i] - x[j]) for j in range(len(x)) if numbers[j] == b)
            for i in range(len(x))
            if numbers[i] == a
        ]
        found += [d for rank in zip(*around, strict=True) for d in sorted(rank)]
    return found
