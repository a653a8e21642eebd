"""Errors of fingerprints, whitened by what small displacements of the atoms change."""

from __future__ import annotations

import numpy as np

from tfgen.fingerprints.loss import fingerprint_loss
from tfgen.inversion.settings import ScreeningSettings

__all__ = ["WhitenedError"]


class WhitenedError:
    """Measures errors of fingerprints, those that small displacements explain counting little.

    A structure whose atoms all have the right neighbours, but are slightly displaced, is worth
    more than one with the same loss and wrong neighbours. With the covariance C of the changes
    that displacements make and noise s, an error r counts as in Mahalanobis' distance, with the
    mean of absolute values in place of the root of squares:

    d = 1/F Σ_f |[s (C + s²)^(-1/2) r]_f|

    Args:
        changes: [n, features], changes of fingerprints by displacements, in units of the scale;
            finite, n >= 1.
        settings: `noise` and `min_change` matter here.
    """

    def __init__(
        self, changes: np.ndarray, settings: ScreeningSettings = ScreeningSettings()
    ) -> None:
        noise = settings.noise
        scaled = np.asarray(changes, np.float64) / np.sqrt(len(changes))
        _, deviations, directions = np.linalg.svd(scaled, full_matrices=False)
        kept = deviations > settings.min_change * noise
        shrinkage = noise / np.sqrt(deviations[kept] ** 2 + noise**2) - 1.0
        # float32 is enough to rank the thousands of structures of a round.
        self._directions = directions[kept].astype(np.float32)
        self._shrunk = (shrinkage[:, None] * directions[kept]).astype(np.float32)

    def __call__(self, errors: np.ndarray) -> np.ndarray:
        """Returns distances [n] for errors [n, features]; infinite where one is not finite."""
        return fingerprint_loss(self.whiten(errors))

    def whiten(self, errors: np.ndarray) -> np.ndarray:
        """Returns whitened errors [n, features], linear in `errors`; NaN where one is not finite.

        Args:
            errors: [n, features], in units of the scale.
        """
        errors = np.asarray(errors, np.float32)
        finite = np.isfinite(errors).all(axis=1)[:, None]
        errors = np.where(finite, errors, np.float32(0.0))
        along = errors @ self._directions.T
        return np.where(finite, errors + along @ self._shrunk, np.float32(np.nan))
