"""Ready-made fingerprints: the arguments of `Fingerprint` for each name and list of elements."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tfgen.descriptors.acsf import ACSF

__all__ = ["PRESETS"]


def fung2022(species: Sequence[str]) -> dict[str, Any]:
    """Returns the fingerprint of the source paper: 380 features for one element.

    References:
        V. Fung et al., Mach. Learn.: Sci. Technol. 3, 045018 (2022). DOI 10.1088/2632-2153/aca1f7
    """
    etas = (0.01, 0.06, 0.1, 0.2, 0.4, 0.7, 1.0, 2.0, 3.5, 5.0)
    shifts = (0, 1, 1.5, 2, 2.5, 3, 3.5, 4, 5, 6, 7, 8, 9, 10)
    angular_etas = (0.06, 0.1, 0.2, 0.4, 1.0)
    acsf = ACSF(
        species=species,
        r_cut=20.0,
        g2_params=[[eta, r_s] for eta in etas for r_s in shifts],
        g5_params=[
            [eta, zeta, lambda_]
            for zeta in (1, 2, 4, 16, 64)
            for lambda_ in (-1, 1)
            for eta in angular_etas
        ],
        g1=False,
    )
    return {"descriptor": acsf, "pooling": ("max", "min")}


def default(species: Sequence[str]) -> dict[str, Any]:
    """Returns the project's own fingerprint: 925 features for one element.

    Functions and poolings are those with which the search finds most structures again
    (docs/inversion.md); `scripts/benchmarks/compare_fingerprints.py` compares others with it.
    """
    acsf = ACSF(
        species=species,
        r_cut=20.0,
        g2_params=[
            *([2.0, 1.0 + 0.5 * i] for i in range(23)),
            *([8.0, 1.0 + 0.25 * i] for i in range(45)),
        ],
        g5_params=[
            [eta, zeta, lambda_]
            for zeta in (1, 4, 16)
            for lambda_ in (-1, 1)
            for eta in (0.06, 0.2, 0.5)
        ],
        g1=False,
    )
    pooling = ("mean", "std", "moment3", "max", "min", "covariance")
    return {"descriptor": acsf, "pooling": pooling, "per_species": len(species) > 1}


PRESETS: dict[str, Callable[[Sequence[str]], dict[str, Any]]] = {
    "fung2022": fung2022,
    "default": default,
}
"""The arguments of `Fingerprint`, as a function of the elements, by the name of the preset."""
