"""Effective medium theory, batched: the values of `ase.calculators.emt.EMT`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from ase import Atoms
from ase.calculators.emt import parameters as ase_parameters
from ase.data import atomic_numbers, chemical_symbols
from ase.units import Bohr

from tfgen.geometry import neighbourhood
from tfgen.potentials.base import compiled
from tfgen.structures import StructureBatch, as_structures, batches

__all__ = ["EMT"]

BETA = 1.809  # (16π/3)^(1/3) / √2, with ASE's historical rounding
PAIRS_PER_CHUNK = 500_000


class EMT:
    """Effective medium theory for Al, Cu, Ag, Au, Ni, Pd, Pt (and, for fun, H, C, N, O).

    With σ1 and σ2 sums over neighbours of exponentials damped by the logistic cutoff w(r):

    E = Σ_i E0 (1 + λ δs_i) exp(-λ δs_i) + 6 V0 exp(-κ δs_i) - (V0 / 2γ2) σ2_i - E0
    δs_i = -ln(σ1_i / 12γ1) / (β η2)

    Parameters and cutoff are read from ASE, so both always agree. A teaching potential: shapes of
    small clusters are only roughly those of DFT.

    References:
        K. W. Jacobsen, P. Stoltze, J. K. Nørskov, Surf. Sci. 366, 394 (1996).
        DOI 10.1016/0039-6028(96)00816-3
    """

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
        table = [[1.0] * 8]
        for row, (symbol, (e0, s0, v0, eta2, kappa, lambda_, n0)) in enumerate(
            ase_parameters.items(), start=1
        ):
            self._row[atomic_numbers[symbol]] = row
            s0, eta2, kappa = s0 * Bohr, eta2 / Bohr, kappa / Bohr
            gamma1, gamma2 = self._gammas(s0, eta2, kappa)
            table.append([e0, s0, v0, eta2, kappa, lambda_ / Bohr, n0 / Bohr**3, 1 / (12 * gamma1)])
            table[-1].append(-0.5 * v0 / gamma2)
        table[0].append(0.0)
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

    def compute(self, structures: Atoms | Sequence[Atoms]) -> dict[str, Any]:
        """Computes energies and forces of ASE structures in float64.

        Args:
            structures: one or many, of any sizes, clusters or periodic; left unmodified.

        Returns:
            {"energy": [structures], eV (ASE's zero: the bulk metals), "forces": list of
            [atoms, 3], eV/Å}.

        Raises:
            ValueError: on an empty list, positions that are not finite, unknown elements.
        """
        structures = as_structures(structures)
        self.check(structures)
        energy = np.empty(len(structures))
        forces: list[np.ndarray] = [np.empty(0)] * len(structures)
        for members, width in batches(structures, limit=PAIRS_PER_CHUNK):
            chunk = [structures[i] for i in members]
            batch = StructureBatch.from_ase(chunk, r_cut=self.r_cut, atoms=width)
            chunk_energy, chunk_forces = compiled(self)(batch)
            energy[members] = chunk_energy
            for i, f in zip(members, chunk_forces.numpy(), strict=True):
                forces[i] = f[: len(structures[i])]
        return {"energy": energy, "forces": forces}

    def __eq__(self, other: object) -> bool:
        return type(other) is EMT

    def __hash__(self) -> int:
        # All are alike, so that each new EMT() finds what was compiled for another.
        return hash(EMT)

    def energies(self, batch: StructureBatch) -> tf.Tensor:
        """Computes energies inside TensorFlow.

        Args:
            batch: the structures; float64 where geometry is judged.

        Returns:
            [batch], eV.
        """
        dtype = batch.positions.dtype
        zero, one = tf.zeros([], dtype), tf.ones([], dtype)
        near = neighbourhood(batch, self.r_cut)
        r = near.distances
        row = tf.gather(tf.constant(self._row), batch.numbers)
        parameters = tf.unstack(tf.gather(tf.constant(self._table, dtype), row), axis=-1)
        e0, s0, v0, eta2, kappa, lambda_, n0, inv12gamma1, half_v0 = parameters
        s0_j, eta2_j, kappa_j, n0_j = (near.of_neighbours(x) for x in (s0, eta2, kappa, n0))
        weight = tf.where(near.mask, tf.sigmoid(-self._slope * (r - self._midpoint)), zero)
        weight *= n0_j / n0[..., None]
        sigma1 = tf.reduce_sum(tf.exp(-eta2_j * (r - BETA * s0_j)) * weight, axis=-1)
        # ASE sums, for each atom, half its own σ2 and half its share in the neighbours' σ2. Over
        # all atoms these are the same, so only the first is computed.
        sigma2 = tf.reduce_sum(tf.exp(-kappa_j * (r / BETA - s0_j)) * weight, axis=-1)
        # An atom without neighbours has σ1 = 0: its density terms vanish (ds → ∞).
        bound = (sigma1 > 0) & batch.mask
        ds = -tf.math.log(tf.where(bound, sigma1 * inv12gamma1, one)) / (BETA * eta2)
        density = e0 * (1.0 + lambda_ * ds) * tf.exp(-lambda_ * ds) + 6.0 * v0 * tf.exp(-kappa * ds)
        atomic = tf.where(bound, density, zero) + half_v0 * sigma2
        return tf.reduce_sum(tf.where(batch.mask, atomic - e0, zero), axis=-1)
