"""Atom-centred symmetry functions, batched."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from numbers import Real
from typing import Any

import numpy as np
import tensorflow as tf
from ase import Atoms
from ase.data import chemical_symbols

from tfgen._tensorflow import compiled_for
from tfgen.descriptors._pairs import AngularPowers, Pairs, contract, size, times
from tfgen.descriptors.base import check_structures
from tfgen.descriptors.evaluator import Evaluator
from tfgen.structures.batch import StructureBatch
from tfgen.structures.checks import as_structures
from tfgen.structures.formulas import atomic_numbers_of
from tfgen.structures.neighbours.displacements import cosine_cutoff, neighbourhood, safe_sqrt

__all__ = ["ACSF"]

# The largest cutoff, Å, and the largest zeta, whose power is 0 for all but straight angles: what is
# beyond is a mistake.
FARTHEST, SHARPEST = 1e6, 1e6
# The largest eta, Å⁻², of a G2 that is not narrow.
BROAD = 5.0
# Up to this many atoms, functions of pairs are computed once for each pair. For more atoms the sums
# over pairs, most of which do not hold the atom in question, cost more than that saves.
ONCE = 16

Parameters = Sequence[Sequence[float]] | np.ndarray | None


class ACSF:
    """Atom-centred symmetry functions G1 to G5, in the definitions and order of DScribe.

    With the cutoff f_c, r_ij the distance of neighbour j from atom i, θ_ijk the angle at i:

    G1 = Σ_j f_c(r_ij)
    G2 = Σ_j exp(-η (r_ij - r_s)²) f_c(r_ij)
    G3 = Σ_j cos(κ r_ij) f_c(r_ij)
    G4 = 2^(1-ζ) Σ_{j<k} (1 + λ cos θ_ijk)^ζ exp(-η (r_ij² + r_ik² + r_jk²))
    f_c(r_ij) f_c(r_ik) f_c(r_jk)
    G5 = 2^(1-ζ) Σ_{j<k} (1 + λ cos θ_ijk)^ζ exp(-η (r_ij² + r_ik²)) f_c(r_ij) f_c(r_ik)

    Features of an atom: for each element (by atomic number) G1, the G2s, the G3s of neighbours of
    that element; then for each pair of elements (1,1), (2,1), (2,2), (3,1), ... the G4s, the G5s.

    Args:
        species: the elements that may occur, as symbols or atomic numbers.
        r_cut: cutoff radius, Å, > 0.
        g2_params: [[eta, r_s], ...], eta in Å⁻² (>= 0), r_s in Å.
        g3_params: [kappa, ...], Å⁻¹.
        g4_params: [[eta, zeta, lambda], ...], zeta >= 1.
        g5_params: the same.
        periodic: whether periodic structures are allowed. Without it they are refused, so that a
            `pbc` that was set by mistake is noticed.
        g1: whether G1 is among the features: always in DScribe, not in all papers.

    Objects of the same configuration are equal, and share what TensorFlow has compiled.

    Example:
        >>> acsf = ACSF(species=["Pt"], r_cut=6.0, g2_params=[[1.0, 2.8]], g5_params=[[0.1, 4, 1]])
        >>> acsf.create(ase.cluster.Octahedron("Pt", 3, 1)).shape
        (13, 3)

    References:
        J. Behler, J. Chem. Phys. 134, 074106 (2011), eqs 6-9 (G1-G4). DOI 10.1063/1.3553717
        L. Himanen et al., Comput. Phys. Commun. 247, 106949 (2020). DOI 10.1016/j.cpc.2019.106949
    """

    def __init__(
        self,
        species: Sequence[str | int],
        r_cut: float,
        g2_params: Parameters = None,
        g3_params: Sequence[float] | np.ndarray | None = None,
        g4_params: Parameters = None,
        g5_params: Parameters = None,
        periodic: bool = False,
        g1: bool = True,
    ) -> None:
        self._numbers = atomic_numbers_of(species)
        self.species = [chemical_symbols[z] for z in self._numbers]
        real = isinstance(r_cut, Real) and not isinstance(r_cut, bool)
        if not real or not 0 < r_cut <= FARTHEST:
            raise ValueError(f"r_cut is {r_cut!r}; a positive number of Å is needed")
        self.r_cut = float(r_cut)
        self.g2_params = _parameters("g2_params", g2_params, ("eta", "r_s"))
        self.g3_params = _parameters("g3_params", g3_params, ("kappa",))
        self.g4_params = _parameters("g4_params", g4_params, ("eta", "zeta", "lambda"))
        self.g5_params = _parameters("g5_params", g5_params, ("eta", "zeta", "lambda"))
        for name, value in (("periodic", periodic), ("g1", g1)):
            if not isinstance(value, bool | np.bool_):
                raise ValueError(f"{name} is {value!r}; True or False is needed")
        self.periodic = bool(periodic)
        self.g1 = bool(g1)
        if self.size == 0:
            raise ValueError("g1 is False and no other function is given; nothing to compute")

    @property
    def size(self) -> int:
        """Number of features per atom."""
        elements = len(self._numbers)
        pair_functions = self.g1 + len(self.g2_params) + len(self.g3_params)
        triple_functions = len(self.g4_params) + len(self.g5_params)
        return elements * pair_functions + elements * (elements + 1) // 2 * triple_functions

    @property
    def triples(self) -> bool:
        """Whether any function depends on three atoms."""
        return bool(len(self.g4_params) + len(self.g5_params))

    def cheap_part(self) -> ACSF | None:
        """Returns the functions of pairs alone, or None if all or none of the functions are such.

        They are the first features of each atom and cost several times less: a search may evaluate
        them first.
        """
        pairs = self.g1 + len(self.g2_params) + len(self.g3_params)
        if not self.triples or not pairs:
            return None
        return ACSF(**{**self.get_config(), "g4_params": None, "g5_params": None})

    def broad(self) -> ACSF:
        """Returns the functions without narrow G2 (eta > 5 Å⁻²), if others are left.

        Narrow functions tell structures apart, but a network that is trained on them has spurious
        minima between the structures of the training set.
        """
        wide = self.g2_params[self.g2_params[:, 0] <= BROAD]
        if len(wide) in (0, len(self.g2_params)):
            return self
        return ACSF(**{**self.get_config(), "g2_params": wide.tolist()})

    def get_number_of_features(self) -> int:
        """Returns `size`, under DScribe's name."""
        return self.size

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments, JSON-able."""
        return {
            "species": self.species,
            "r_cut": self.r_cut,
            "g2_params": self.g2_params.tolist(),
            "g3_params": self.g3_params[:, 0].tolist(),
            "g4_params": self.g4_params.tolist(),
            "g5_params": self.g5_params.tolist(),
            "periodic": self.periodic,
            "g1": self.g1,
        }

    def create(self, system: Atoms | Sequence[Atoms]) -> np.ndarray | list[np.ndarray]:
        """Computes the features in float64; DScribe's `ACSF(...).create`.

        Args:
            system: one structure or many; left unmodified.

        Returns:
            [atoms, size] for one structure (in a list or not); for many [structures, atoms, size]
            if all have as many atoms, else a list of [atoms, size].

        Raises:
            ValueError: on an empty list, positions that are not finite, unknown elements.
        """
        structures = as_structures(system, "system")
        check_structures(self, structures, "system")
        sizes = {len(s) for s in structures}
        if len(sizes) == 1:
            (n_atoms,) = sizes
            features = np.empty([len(structures), n_atoms, self.size])
            for members, values in self._evaluator(structures):
                features[members] = values[:, :n_atoms]
            # DScribe makes no difference between one and a list of one.
            return features[0] if len(structures) == 1 else features
        results: list[np.ndarray] = [np.empty(0)] * len(structures)
        for members, values in self._evaluator(structures):
            for i, of_structure in zip(members, values, strict=True):
                results[i] = of_structure[: len(structures[i])].copy()
        return results

    @property
    def _evaluator(self) -> Evaluator:
        return compiled_for(self, "evaluator", lambda: Evaluator(self, self.r_cut))

    @functools.cached_property
    def _identity(self) -> tuple[type[ACSF], str]:
        return type(self), json.dumps(self.get_config())

    def __eq__(self, other: object) -> bool:
        """Whether the other computes the same features in the same order."""
        return isinstance(other, ACSF) and self._identity == other._identity

    def __hash__(self) -> int:
        return hash(self._identity)

    def __repr__(self) -> str:
        lists = {"G2": self.g2_params, "G3": self.g3_params}
        lists |= {"G4": self.g4_params, "G5": self.g5_params}
        functions = ["G1"] * self.g1 + [f"{len(v)} {name}" for name, v in lists.items() if len(v)]
        return (
            f"<ACSF size={self.size}, species={self.species}, r_cut={self.r_cut}, "
            f"periodic={self.periodic}, functions={' + '.join(functions)}>"
        )

    def __call__(self, batch: StructureBatch) -> tf.Tensor:
        """Computes the features inside TensorFlow.

        Args:
            batch: the structures; float32 or float64.

        Returns:
            [batch, atoms, size] in the dtype of the positions.
        """
        near = neighbourhood(batch, self.r_cut)
        dtype = batch.positions.dtype
        cutoff = tf.where(near.mask, cosine_cutoff(near.distances, self.r_cut), tf.zeros([], dtype))
        # [batch, atoms, elements, neighbours]: the cutoff, sorted into the neighbour's element.
        is_element = [tf.cast(tf.equal(batch.numbers, z), dtype) for z in self._numbers]
        weights = tf.stack([cutoff * near.of_neighbours(e) for e in is_element], axis=2)
        # Powers of the cosines of masked neighbours would overflow otherwise.
        vectors = tf.where(near.mask[..., None], near.vectors, tf.zeros([], dtype))
        distances = near.distances
        atoms = size(distances, 1)
        pairs = None
        if near.places is None:  # every atom is among its own neighbours, masked
            if isinstance(atoms, int) and 1 < atoms <= ONCE:
                pairs = _once(distances, cutoff, is_element)
            vectors, distances = _without_self(vectors), _without_self(distances)
            weights = tf.stack([_without_self(w) for w in tf.unstack(weights, axis=2)], axis=2)
        blocks = [
            *self._pair_functions(*(pairs or (distances, weights)), atoms),
            *self._triple_functions(vectors, distances, weights),
        ]
        return tf.concat(blocks, axis=-1)

    def _pair_functions(
        self, r: tf.Tensor, weights: tf.Tensor, atoms: int | tf.Tensor
    ) -> list[tf.Tensor]:
        """G1, G2, G3: at most one tensor, [batch, atoms, elements * functions].

        Args:
            r: [batch, atoms, neighbours] or [batch, 1, pairs], Å.
            weights: [batch, atoms, elements, neighbours] or [batch, 1, atoms * elements, pairs].
            atoms: how many there are.
        """
        dtype = r.dtype
        # The sums over neighbours are matrix products, which no compiler fuses with what makes
        # their factors: each exponential is computed once, in a loop of its own.
        functions = [tf.reduce_sum(weights, axis=-1, keepdims=True)] if self.g1 else []
        if len(self.g2_params):
            eta, r_s = (tf.constant(column, dtype) for column in self.g2_params.T)
            functions.append(tf.matmul(weights, tf.exp(-eta * (r[..., None] - r_s) ** 2)))
        if len(self.g3_params):
            kappa = tf.constant(self.g3_params[:, 0], dtype)
            functions.append(tf.matmul(weights, tf.cos(kappa * r[..., None])))
        if not functions:
            return []
        joined = tf.concat(functions, axis=-1)
        features = len(self._numbers) * joined.shape[3]
        return [tf.reshape(joined, [size(joined, 0), atoms, features])]

    def _triple_functions(
        self, vectors: tf.Tensor, r: tf.Tensor, weights: tf.Tensor
    ) -> list[tf.Tensor]:
        """G4, G5: at most one tensor, [batch, atoms, pairs of elements * functions].

        The sum over pairs of neighbours j < k factorises: with P = [(1 + λ cos θ_jk) / 2]^ζ and
        W = 2 exp(-η (r_ij² + r_ik²)) f_c(r_ij) f_c(r_ik) (times what depends on r_jk, for G4) it
        is one product of the matrices P [(λ, ζ), pairs] and W [pairs, η].
        """
        if not len(self.g4_params) and not len(self.g5_params):
            return []
        # A neighbour in the very same place has no direction: zero, not 0 / 0.
        apart = r > 0
        inverse = tf.where(apart, 1.0 / tf.where(apart, r, tf.ones_like(r)), tf.zeros_like(r))
        directions = tf.linalg.matrix_transpose(vectors * inverse[..., None])
        pairs = Pairs(size(r, 2))
        cosines = tf.reduce_sum(pairs.first(directions) * pairs.second(directions), axis=2)
        squares = pairs.both(r**2)
        w_j, w_k = pairs.first(weights), pairs.second(weights)
        elements = len(self._numbers)
        screens = tf.stack(
            [
                2.0 * w_j[:, :, a] * w_k[:, :, a]
                if a == b
                else 2.0 * (w_j[:, :, a] * w_k[:, :, b] + w_j[:, :, b] * w_k[:, :, a])
                for a in range(elements)
                for b in range(a + 1)
            ],
            axis=2,
        )
        angular = AngularPowers(cosines)
        blocks = []
        if len(self.g4_params):
            vectors = tf.linalg.matrix_transpose(vectors)
            between = tf.reduce_sum((pairs.first(vectors) - pairs.second(vectors)) ** 2, axis=2)
            within = between < self.r_cut**2
            cutoff = tf.where(
                within,
                cosine_cutoff(safe_sqrt(between, within), self.r_cut),
                tf.zeros_like(between),
            )
            blocks.append(
                contract(angular, squares + between, screens * cutoff[:, :, None], self.g4_params)
            )
        if len(self.g5_params):
            blocks.append(contract(angular, squares, screens, self.g5_params))
        joined = tf.linalg.matrix_transpose(tf.concat(blocks, axis=2))
        features = joined.shape[2] * joined.shape[3]
        return [tf.reshape(joined, [size(joined, 0), size(joined, 1), features])]


def _once(
    r: tf.Tensor, cutoff: tf.Tensor, is_element: list[tf.Tensor]
) -> tuple[tf.Tensor, tf.Tensor]:
    """Takes each pair of atoms once, instead of as a neighbour of either.

    Args:
        r: [batch, atoms, atoms], Å.
        cutoff: the same shape, symmetric.
        is_element: for each element [batch, atoms], 1 or 0.

    Returns:
        The distances [batch, 1, pairs], Å, and the weights [batch, 1, atoms * elements, pairs].
    """
    atoms = r.shape[1]
    k, j = np.tril_indices(atoms, -1)
    pairs = Pairs(atoms)
    of_pairs = np.eye(atoms * atoms)[:, k * atoms + j]
    r, cutoff = (times(tf.reshape(x, [-1, 1, atoms * atoms]), of_pairs) for x in (r, cutoff))
    # An atom's neighbour is the other end of its pairs.
    ends = np.eye(atoms)
    first, second = (tf.constant(ends[:, None, end], r.dtype) for end in (j, k))
    elements = tf.stack(is_element, axis=1)[:, None]
    weights = first * pairs.second(elements) + second * pairs.first(elements)
    weights *= cutoff[:, :, None]
    return r, tf.reshape(weights, [-1, 1, atoms * len(is_element), len(j)])


def _without_self(x: tf.Tensor) -> tf.Tensor:
    """Drops the diagonal: [batch, n, n, ...] -> [batch, n, n - 1, ...]."""
    batch, n, tail = size(x, 0), size(x, 1), x.shape[3:]
    # The diagonal is every (n + 1)th entry from the first on.
    x = tf.reshape(x, [batch, n * n, *tail])[:, 1:]
    x = tf.reshape(x, [batch, n - 1, n + 1, *tail])[:, :, :-1]
    return tf.reshape(x, [batch, n, n - 1, *tail])


def _parameters(name: str, values: Any, columns: tuple[str, ...]) -> np.ndarray:
    """Checks a list of function parameters; returns [functions, columns], float64."""
    shape = f"[[{', '.join(columns)}], ...]" if len(columns) > 1 else f"[{columns[0]}, ...]"
    if values is None:
        return np.zeros([0, len(columns)])
    try:
        array = np.array(values, np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"{name} is {values!r}; it must be {shape} of numbers") from None
    for value in np.array(values, object).flat:
        # NumPy would make numbers of these.
        if isinstance(value, bool | np.bool_ | str) or value is None:
            raise ValueError(f"{name} holds {value!r}; it must be {shape} of numbers")
    if array.size == 0:
        return np.zeros([0, len(columns)])
    if len(columns) == 1 and array.ndim == 1:
        array = array[:, None]
    if array.ndim != 2 or array.shape[1] != len(columns):
        raise ValueError(f"{name} has shape {array.shape}; it must be {shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} holds a value that is not finite: {array.tolist()}")
    if columns[0] == "eta" and (array[:, 0] < 0).any():
        raise ValueError(f"{name} holds eta = {array[:, 0].min()}; eta must be >= 0")
    if "zeta" in columns and (array[:, 1] < 1).any():
        raise ValueError(f"{name} holds zeta = {array[:, 1].min()}; zeta must be >= 1")
    if "zeta" in columns and (array[:, 1] > SHARPEST).any():
        raise ValueError(
            f"{name} holds zeta = {array[:, 1].max()}; at most {SHARPEST:g} is allowed"
        )
    if "lambda" in columns and (np.abs(array[:, 2]) > 1).any():
        raise ValueError(f"{name} holds lambda = {array[:, 2].tolist()}; lambda must be in [-1, 1]")
    return array
