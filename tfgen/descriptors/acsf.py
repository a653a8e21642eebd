"""Atom-centred symmetry functions, batched."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real
from typing import Any

import numpy as np
import tensorflow as tf
from ase import Atoms
from ase.data import chemical_symbols

from tfgen.geometry import Neighbourhood, cosine_cutoff, neighbourhood, safe_sqrt
from tfgen.structures import StructureBatch, as_structures, atomic_numbers_of, batches

__all__ = ["ACSF"]

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
        periodic: whether structures with periodic boundaries are meant to come; without it they
            are refused, so that a forgotten `pbc` flag does not pass silently.
        g1: whether G1 is among the features; always in DScribe, left out by some papers.

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
        if not real or not np.isfinite(r_cut) or r_cut <= 0:
            raise ValueError(f"r_cut is {r_cut!r}; a positive number of Å is needed")
        self.r_cut = float(r_cut)
        self.g2_params = _parameters("g2_params", g2_params, ("eta", "r_s"))
        self.g3_params = _parameters("g3_params", g3_params, ("kappa",))
        self.g4_params = _parameters("g4_params", g4_params, ("eta", "zeta", "lambda"))
        self.g5_params = _parameters("g5_params", g5_params, ("eta", "zeta", "lambda"))
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

    def get_number_of_features(self) -> int:
        """The same as `size`, under DScribe's name."""
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

    def check(self, structures: Sequence[Atoms]) -> None:
        """Raises ValueError if a structure has other elements, or is periodic unannounced."""
        allowed = np.array(self._numbers)
        for i, structure in enumerate(structures):
            unknown = set(structure.numbers) - set(self._numbers)
            if unknown:
                symbols = ", ".join(chemical_symbols[z] for z in sorted(unknown))
                raise ValueError(
                    f"structures[{i}] holds {symbols}; the descriptor's species are "
                    f"{', '.join(chemical_symbols[z] for z in allowed)}"
                )
            if structure.pbc.any() and not self.periodic:
                raise ValueError(
                    f"structures[{i}] is periodic; the descriptor was made with periodic=False"
                )

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
        self.check(structures)
        results: list[np.ndarray] = [np.empty(0)] * len(structures)
        for members, width in batches(structures, NUMBERS_PER_CHUNK, self.r_cut):
            chunk = [structures[i] for i in members]
            batch = StructureBatch.from_ase(chunk, r_cut=self.r_cut, atoms=width)
            for i, features in zip(members, self._compiled(batch).numpy(), strict=True):
                results[i] = features[: len(structures[i])]
        if len(structures) == 1:
            return results[0]  # DScribe makes no difference between one and a list of one
        same = len({len(s) for s in structures}) == 1
        return np.stack(results) if same else results

    @tf.function(reduce_retracing=True)
    def _compiled(self, batch: StructureBatch) -> tf.Tensor:
        return self(batch)

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
        # [batch, atoms, neighbours, elements]: the cutoff, sorted into the neighbour's element.
        by_element = tf.stack(
            [
                cutoff * near.of_neighbours(tf.cast(tf.equal(batch.numbers, z), dtype))
                for z in self._numbers
            ],
            axis=-1,
        )
        return tf.concat(
            [*self._pair_functions(near, by_element), *self._triple_functions(near, by_element)],
            axis=-1,
        )

    def _pair_functions(self, near: Neighbourhood, by_element: tf.Tensor) -> list[tf.Tensor]:
        """G1, G2, G3: one tensor [batch, atoms, functions] per element."""
        r = near.distances[..., None]
        dtype = r.dtype
        functions = [tf.ones_like(r)] if self.g1 else []
        if len(self.g2_params):
            eta, r_s = (tf.constant(column, dtype) for column in self.g2_params.T)
            functions.append(tf.exp(-eta * (r - r_s) ** 2))
        if len(self.g3_params):
            functions.append(tf.cos(tf.constant(self.g3_params[:, 0], dtype) * r))
        if not functions:
            return []
        # Sums by multiply-and-reduce, which XLA fuses with the exponentials: nothing of size
        # neighbours x functions is written to memory.
        return [
            tf.concat(
                [tf.reduce_sum(f * by_element[..., e, None], axis=2) for f in functions], axis=-1
            )
            for e in range(len(self._numbers))
        ]

    def _triple_functions(self, near: Neighbourhood, by_element: tf.Tensor) -> list[tf.Tensor]:
        """G4, G5: one tensor [batch, atoms, functions] per pair of elements.

        The sum over pairs of neighbours factorises: with P_jk = [(1 + λ cos θ_jk) / 2]^ζ (times
        what depends on r_jk, for G4) and a_j = exp(-η r_ij²) f_c(r_ij), it is aᵀ P a.
        """
        if not len(self.g4_params) and not len(self.g5_params):
            return []
        dtype = by_element.dtype
        # A neighbour in the very same place has no direction: zero, not 0 / 0.
        apart = near.mask & (near.distances > 0)
        length = tf.where(apart, near.distances, tf.ones_like(near.distances))[..., None]
        directions = tf.where(apart[..., None], near.vectors / length, tf.zeros([], dtype))
        cosines = tf.matmul(directions, directions, transpose_b=True)
        pair = ~tf.eye(tf.shape(cosines)[-1], dtype=tf.bool)
        angular = _AngularPowers(cosines, pair)
        etas = sorted({*self.g4_params[:, 0], *self.g5_params[:, 0]})
        weights = {
            eta: tf.exp(-tf.constant(eta, dtype) * near.distances**2)[..., None] * by_element
            for eta in etas
        }
        blocks = [_contract(angular, weights, self.g5_params)] if len(self.g5_params) else []
        if len(self.g4_params):
            blocks.insert(0, self._g4(near, angular, weights))
        return [tf.concat(of_pair, axis=-1) for of_pair in zip(*blocks, strict=True)]

    def _g4(
        self, near: Neighbourhood, angular: _AngularPowers, weights: dict[float, tf.Tensor]
    ) -> list[tf.Tensor]:
        dtype = near.distances.dtype
        between = near.vectors[:, :, :, None, :] - near.vectors[:, :, None, :, :]
        squared = tf.reduce_sum(between**2, axis=-1)
        within = (squared < self.r_cut**2) & near.mask[..., :, None] & near.mask[..., None, :]
        cutoff = cosine_cutoff(safe_sqrt(squared, within), self.r_cut)
        cutoff = tf.where(within, cutoff, tf.zeros([], dtype))
        # The screening by r_jk depends on η: one contraction for each function.
        of_functions = []
        for row in self.g4_params:
            screened = angular.times(tf.exp(-tf.constant(row[0], dtype) * squared) * cutoff)
            of_functions.append(_contract(screened, weights, row[None]))
        return [tf.concat(of_pair, axis=-1) for of_pair in zip(*of_functions, strict=True)]


# Size of the largest tensors of a chunk of `create`: bounds its memory at some hundred MB.
NUMBERS_PER_CHUNK = 8_000_000


class _AngularPowers:
    """P_jk = [(1 + λ cos θ_jk) / 2]^ζ for j ≠ k, 0 for j = k; powers by repeated squaring."""

    def __init__(
        self, cosines: tf.Tensor, pair: tf.Tensor, factor: tf.Tensor | None = None
    ) -> None:
        self._cosines, self._pair, self._factor = cosines, pair, factor
        self._cache: dict[tuple[float, float], tf.Tensor] = {}

    def times(self, factor: tf.Tensor) -> _AngularPowers:
        """Returns the same powers, each multiplied by `factor`."""
        product = _AngularPowers(self._cosines, self._pair, factor)
        product._cache = self._cache  # the bare powers are the same
        return product

    def power(self, lambda_: float, zeta: float) -> tf.Tensor:
        bare = self._bare(lambda_, zeta)
        bare = tf.where(self._pair, bare, tf.zeros([], bare.dtype))
        return bare if self._factor is None else bare * self._factor

    def _bare(self, lambda_: float, zeta: float) -> tf.Tensor:
        key = (lambda_, zeta)
        if key not in self._cache:
            if zeta == 1:
                # Rounding can push |cos θ| past 1; a fractional power of that would be NaN.
                half = 0.5 * (1.0 + lambda_ * self._cosines)
                value = tf.maximum(half, tf.zeros([], half.dtype)) if abs(lambda_) <= 1 else half
            elif zeta == int(zeta):
                value = self._bare(lambda_, int(zeta) // 2) ** 2
                if int(zeta) % 2:
                    value *= self._bare(lambda_, 1)
            else:
                value = self._bare(lambda_, 1)
                tiny = tf.constant(np.finfo(value.dtype.as_numpy_dtype).tiny, value.dtype)
                value = tf.where(value > 0, tf.maximum(value, tiny) ** zeta, tf.zeros_like(value))
            self._cache[key] = value
        return self._cache[key]


def _contract(
    angular: _AngularPowers, weights: dict[float, tf.Tensor], params: np.ndarray
) -> list[tf.Tensor]:
    """Sums 2 P_jk a_j a_k over pairs j < k: [batch, atoms, functions] for each pair of elements."""
    # Functions that share (ζ, λ) share one matrix product.
    groups: dict[tuple[float, float], list[int]] = {}
    for i, (_, zeta, lambda_) in enumerate(params):
        groups.setdefault((zeta, lambda_), []).append(i)
    elements = weights[params[0, 0]].shape[-1]
    pairs = [(a, b) for a in range(elements) for b in range(a + 1)]
    results: list[list[tf.Tensor]] = [[] for _ in pairs]
    for (zeta, lambda_), members in groups.items():
        of_element = [
            tf.concat([weights[params[i, 0]][..., e : e + 1] for i in members], axis=-1)
            for e in range(elements)
        ]
        power = angular.power(lambda_, zeta)
        summed = [tf.matmul(power, w) for w in of_element]
        for result, (a, b) in zip(results, pairs, strict=True):
            # The full sum counts each pair of one element twice, of two elements once.
            value = tf.reduce_sum(summed[a] * of_element[b], axis=2)
            result.append(value if a == b else 2.0 * value)
    order = np.argsort(np.concatenate(list(groups.values())))
    in_order = [tf.concat(result, axis=-1) for result in results]
    if (order == np.arange(len(order))).all():
        return in_order
    return [tf.gather(result, order, axis=-1) for result in in_order]


def _parameters(name: str, values: Any, columns: tuple[str, ...]) -> np.ndarray:
    """Checks a list of function parameters; returns [functions, columns], float64."""
    shape = f"[[{', '.join(columns)}], ...]" if len(columns) > 1 else f"[{columns[0]}, ...]"
    if values is None:
        return np.zeros([0, len(columns)])
    try:
        array = np.array(values, np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"{name} is {values!r}; it must be {shape} of numbers") from None
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
    if "lambda" in columns and (np.abs(array[:, 2]) > 1).any():
        raise ValueError(f"{name} holds lambda = {array[:, 2].tolist()}; lambda must be in [-1, 1]")
    return array
