"""Errors of fingerprints, weighted by what small displacements of the atoms would change."""

from __future__ import annotations

import numpy as np

__all__ = ["Forgiving"]

# Standard deviation of what no displacement explains, in units of the features' scale.
NOISE = 0.05
# Directions in which displacements change less than this share of NOISE: as if they changed none.
LEAST = 0.1


class Forgiving:
    """Measures how far fingerprints are off, but for what small displacements would mend.

    A structure with the right neighbours, all slightly misplaced, is worth more than one as far
    off with the wrong ones. With the covariance C of the changes and noise s, an error r counts as
    in Mahalanobis' distance, with a mean of absolute values in place of the root of squares:

    d = 1/F Σ_f |[s (C + s²)^(-1/2) r]_f|

    Args:
        changes: [n, features], what displacements did to fingerprints, in units of the scale;
            finite, n >= 1.
    """

    def __init__(self, changes: np.ndarray) -> None:
        scaled = np.asarray(changes, np.float64) / np.sqrt(len(changes))
        _, deviations, directions = np.linalg.svd(scaled, full_matrices=False)
        kept = deviations > LEAST * NOISE
        shrinkage = NOISE / np.sqrt(deviations[kept] ** 2 + NOISE**2) - 1.0
        # It ranks thousands of candidates a round: float32 will do.
        self._directions = directions[kept].astype(np.float32)
        self._shrunk = (shrinkage[:, None] * directions[kept]).astype(np.float32)

    def __call__(self, errors: np.ndarray) -> np.ndarray:
        """Distances [n] for errors [n, features]; infinite where one is not finite."""
        distances = np.abs(self.unforgiven(errors)).mean(axis=1)
        return np.where(np.isfinite(distances), distances, np.inf)

    def unforgiven(self, errors: np.ndarray) -> np.ndarray:
        """What is left of errors [n, features], linear in them; NaN where one is not finite."""
        errors = np.asarray(errors, np.float32)
        sound = np.isfinite(errors).all(axis=1)[:, None]
        errors = np.where(sound, errors, np.float32(0.0))
        along = errors @ self._directions.T
        return np.where(sound, errors + along @ self._shrunk, np.float32(np.nan))
