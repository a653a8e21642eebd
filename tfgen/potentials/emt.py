"""Effective medium theory, batched: the values of `ase.calculators.emt.EMT`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from ase import Atoms
from ase.calculators.emt import parameters as ase_parameters
from ase.data import atomic_numbers, chemical_symbols
from ase.units import Bohr

from tfgen.potentials.base import compiled, differentiated
from tfgen.structures.batch import StructureBatch, groups
from tfgen.structures.checks import as_structures
from tfgen.structures.neighbours.displacements import neighbourhood

__all__ = ["EMT"]

BETA = 1.809  # (16π/3)^(1/3) / √2, with ASE's historical rounding
# Periodic ones have images, too.
PAIRS_PER_CHUNK = 500_000
# Distances are at least this, Å: atoms in one place exert forces without direction, not NaN.
SHORTEST = 1e-12


class _Element(NamedTuple):
    """Parameters of elements, one table column or one tensor each; symbols as in `EMT`."""

    e0: Any
    v0: Any  # 6 V0
    kappa: Any
    lambda_: Any
    eta2: Any
    beta_eta2: Any
    kappa_beta: Any  # κ / β
    log_density: Any  # ln(n0) + β η2 s0: a neighbour's share of n0 σ1 is exp(this - η2 r) w
    log_repulsion: Any  # ln(n0) + κ s0: a neighbour's share of n0 σ2 is exp(this - κ r / β) w
    inv12gamma1: Any  # 1 / (12 γ1 n0)
    half_v0: Any  # -V0 / (2 γ2 n0)


class _Pairs(NamedTuple):
    """Terms of every pair [..., atoms, neighbours, ...] and their sums [..., atoms, ...]."""

    density: tf.Tensor  # the neighbour's share of n0 σ1
    repulsion: tf.Tensor  # of n0 σ2
    weight: tf.Tensor  # w, 0 where masked
    atomic: tf.Tensor  # energies of the atoms, eV
    by_density: tf.Tensor  # their derivatives by n0 σ1
    by_repulsion: tf.Tensor  # and by n0 σ2


class EMT:
    """Effective medium theory for Al, Cu, Ag, Au, Ni, Pd, Pt (and, for fun, H, C, N, O).

    With σ1 and σ2 sums over neighbours of exponentials damped by the logistic cutoff w(r):

    E = Σ_i E0 (1 + λ δs_i) exp(-λ δs_i) + 6 V0 exp(-κ δs_i) - (V0 / 2γ2) σ2_i - E0
    δs_i = -ln(σ1_i / 12γ1) / (β η2)

    Parameters and cutoff are read from ASE, so both always agree: the cutoff is the same for all
    elements, as with ASE's `asap_cutoff=False`. Where two atoms are in one place, their force on
    each other is 0 here and NaN in ASE. A teaching potential: shapes of small clusters are only
    roughly those of DFT.

    References:
        K. W. Jacobsen, P. Stoltze, J. K. Nørskov, Surf. Sci. 366, 394 (1996).
        DOI 10.1016/0039-6028(96)00816-3
    """

    name = "emt"

    def __init__(self) -> None:
        self.species = list(ase_parameters)
        largest = max(p[1] for p in ase_parameters.values()) * Bohr
        nearest = BETA * largest
        # Logistic cutoff: midway between third and fourth neighbours in fcc, 1e-4 at the fourth.
        self._midpoint = nearest * 0.5 * (math.sqrt(3.0) + 2.0)
        self._slope = math.log(1e4 - 1.0) / (nearest * 2.0 - self._midpoint)
        self.r_cut = self._midpoint + 0.5
        # Row 0 is padding; its values only need to be harmless.
        self._row = np.zeros(len(chemical_symbols), np.int32)
        table = [_Element(*[1.0] * len(_Element._fields))]
        for row, (symbol, (e0, s0, v0, eta2, kappa, lambda_, n0)) in enumerate(
            ase_parameters.items(), start=1
        ):
            self._row[atomic_numbers[symbol]] = row
            s0, eta2, kappa, n0 = s0 * Bohr, eta2 / Bohr, kappa / Bohr, n0 / Bohr**3
            gamma1, gamma2 = self._gammas(s0, eta2, kappa)
            element = _Element(
                e0=e0,
                v0=6.0 * v0,
                kappa=kappa,
                lambda_=lambda_ / Bohr,
                eta2=eta2,
                beta_eta2=BETA * eta2,
                kappa_beta=kappa / BETA,
                log_density=math.log(n0) + BETA * eta2 * s0,
                log_repulsion=math.log(n0) + kappa * s0,
                inv12gamma1=1.0 / (12.0 * gamma1 * n0),
                half_v0=-0.5 * v0 / (gamma2 * n0),
            )
            table.append(element)
        self._table = np.array(table)

    def _gammas(self, s0: float, eta2: float, kappa: float) -> tuple[float, float]:
        """Corrections that make σ1, σ2 of the perfect fcc crystal (three shells) equal to 12."""
        sites = np.array([12, 6, 24])
        r = BETA * s0 * np.sqrt([1.0, 2.0, 3.0])
        x = sites / (1.0 + np.exp(self._slope * (r - self._midpoint))) / 12.0
        offset = r - BETA * s0
        return float(x @ np.exp(-eta2 * offset)), float(x @ np.exp(-kappa / BETA * offset))

    def check(self, structures: Sequence[Atoms]) -> None:
        """Raises ValueError if a structure holds an element without parameters."""
        for i, structure in enumerate(structures):
            unknown = [z for z in sorted(set(structure.numbers)) if not self._row[z]]
            if unknown:
                raise ValueError(
                    f"structures[{i}] holds {', '.join(chemical_symbols[z] for z in unknown)}; "
                    f"EMT knows {', '.join(self.species)}"
                )

    def compute(
        self, structures: Atoms | Sequence[Atoms], *, pairs_per_chunk: int = PAIRS_PER_CHUNK
    ) -> dict[str, Any]:
        """Computes energies, forces and stresses of ASE structures in float64.

        Args:
            structures: one or many, of any sizes, clusters or periodic; left unmodified.
            pairs_per_chunk: pairs of atoms that are held at once, which bounds the memory.

        Returns:
            {"energy": [structures], eV (ASE's zero: the bulk metals), "forces": list of
            [atoms, 3], eV/Å, "stress": list of [6], eV/Å³, in ASE's sign and order (xx, yy, zz,
            yz, xz, xy), None for clusters and where the cell has no volume}.

        Raises:
            ValueError: on an empty list, positions that are not finite, unknown elements.
        """
        structures = as_structures(structures)
        self.check(structures)
        energy = np.empty(len(structures))
        forces: list[np.ndarray] = [np.empty(0)] * len(structures)
        stress: list[np.ndarray | None] = [None] * len(structures)
        for group in groups(structures):
            for members in group.chunks(pairs_per_chunk // (16 if group.periodic else 1)):
                chunk = [structures[i] for i in members]
                batch = StructureBatch.from_ase(chunk, r_cut=self.r_cut, atoms=group.width)
                found = compiled(self, stress=batch.neighbours is not None)(batch)
                energy[members] = found[0]
                for i, f in zip(members, found[1].numpy(), strict=True):
                    forces[i] = f[: len(structures[i])]
                for i, s in zip(members, found[2].numpy() if found[2:] else (), strict=False):
                    if structures[i].cell.rank == 3:
                        stress[i] = s[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]
        return {"energy": energy, "forces": forces, "stress": stress}

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self)

    def __repr__(self) -> str:
        return "EMT()"

    def __hash__(self) -> int:
        # All are alike, so that each new EMT() finds what was compiled for another.
        return hash(type(self))

    def energies(self, batch: StructureBatch) -> tf.Tensor:
        """Computes energies inside TensorFlow.

        Args:
            batch: the structures; float64 where geometry is judged.

        Returns:
            [batch], eV.
        """
        if batch.neighbours is None:
            return tf.reduce_sum(self._of_clusters(batch)[1].atomic, axis=0)
        near = neighbourhood(batch, self.r_cut)
        own = self._elements(batch.numbers, batch.positions.dtype)
        other = _Element(*(near.of_neighbours(p) for p in own))
        r = tf.maximum(near.distances, SHORTEST)
        return tf.reduce_sum(
            self._pairs(r, near.mask, own, other, batch.mask, axis=2).atomic, axis=1
        )

    def energy_and_forces(self, batch: StructureBatch) -> tuple[tf.Tensor, tf.Tensor]:
        """Computes energies [batch], eV, and forces [batch, atoms, 3], eV/Å.

        Of clusters in closed form, which is several times faster than differentiation.
        """
        if batch.neighbours is not None:
            return differentiated(self, batch)
        r, pairs = self._of_clusters(batch)
        elements = self._elements(_columns(batch.numbers), r.dtype)
        # Slopes of the pair terms over r; w' = slope w. Divided last: XLA fuses no division into
        # several sums, where it would do all of this again.
        slope = self._slope * (pairs.weight - 1.0)
        pull = pairs.by_density[:, None] * pairs.density * (slope - elements.eta2)
        pull += pairs.by_repulsion[:, None] * pairs.repulsion * (slope - elements.kappa_beta)
        pull /= r
        x = tf.transpose(batch.positions, [2, 1, 0])
        both = (pull + tf.transpose(pull, [1, 0, 2])) * (x[:, None] - x[:, :, None])
        forces = tf.transpose(tf.reduce_sum(both, axis=2), [2, 1, 0])
        return tf.reduce_sum(pairs.atomic, axis=0), forces

    def _of_clusters(self, batch: StructureBatch) -> tuple[tf.Tensor, _Pairs]:
        """Returns distances, 1 where masked, and pair terms, all [atoms, neighbours, batch].

        With the batch last all work, sums included, goes over contiguous numbers: under XLA three
        times faster than with the neighbours last.
        """
        numbers = _columns(batch.numbers)
        x, y, z = tf.unstack(tf.transpose(batch.positions, [2, 1, 0]), num=3)
        squared = (x - x[:, None]) ** 2 + (y - y[:, None]) ** 2 + (z - z[:, None]) ** 2
        real = numbers > 0
        mask = ~tf.eye(tf.shape(numbers)[0], dtype=tf.bool)[..., None] & real & real[:, None]
        mask &= squared < self.r_cut**2
        one = tf.ones([], squared.dtype)
        r = tf.sqrt(tf.maximum(tf.where(mask, squared, one), SHORTEST**2))
        own = self._elements(numbers, r.dtype)
        return r, self._pairs(r, mask, own, own, real, axis=1)

    def _elements(self, numbers: tf.Tensor, dtype: tf.DType) -> _Element:
        rows = tf.gather(tf.constant(self._row), numbers)
        return _Element(*(tf.gather(tf.constant(c, dtype), rows) for c in self._table.T))

    def _pairs(
        self,
        r: tf.Tensor,
        mask: tf.Tensor,
        own: _Element,
        other: _Element,
        real: tf.Tensor,
        *,
        axis: int,
    ) -> _Pairs:
        """Computes pair terms and atomic energies.

        Args:
            r: distances, Å, with neighbours along `axis`; anything harmless where masked.
            mask: of r, true where there is a neighbour within reach.
            own: parameters of the atoms, shaped as r without `axis`.
            other: parameters of the neighbours, broadcast to r.
            real: true for atoms, false for padding, shaped as r without `axis`.
            axis: of r.
        """
        zero, one = tf.zeros([], r.dtype), tf.ones([], r.dtype)
        weight = tf.where(mask, one, zero) / (1.0 + tf.exp(self._slope * (r - self._midpoint)))
        density = tf.exp(other.log_density - other.eta2 * r) * weight
        repulsion = tf.exp(other.log_repulsion - other.kappa_beta * r) * weight
        # ASE sums, for each atom, half its own σ2 and half its share in the neighbours' σ2. Over
        # all atoms these are the same, so only the first is computed.
        sigma1, sigma2 = tf.reduce_sum(density, axis), tf.reduce_sum(repulsion, axis)
        # An atom without neighbours has σ1 = 0: its density terms vanish (ds → ∞).
        bound = (sigma1 > 0) & real
        sigma1 = tf.where(bound, sigma1, one)
        ds = -tf.math.log(sigma1 * own.inv12gamma1) / own.beta_eta2
        cohesion = own.e0 * tf.exp(-own.lambda_ * ds)
        overlap = own.v0 * tf.exp(-own.kappa * ds)
        atomic = tf.where(bound, cohesion * (1.0 + own.lambda_ * ds) + overlap, zero)
        by_ds = -cohesion * own.lambda_**2 * ds - own.kappa * overlap
        return _Pairs(
            density=density,
            repulsion=repulsion,
            weight=weight,
            atomic=tf.where(real, atomic + own.half_v0 * sigma2 - own.e0, zero),
            by_density=tf.where(bound, -by_ds / (own.beta_eta2 * sigma1), zero),
            by_repulsion=own.half_v0,
        )


def _columns(numbers: tf.Tensor) -> tf.Tensor:
    """Transposes [batch, atoms] as floats: of integers oneDNN complains on standard error."""
    return tf.cast(tf.transpose(tf.cast(numbers, tf.float32)), numbers.dtype)
