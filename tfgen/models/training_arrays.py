"""What the CVAE is trained on: arrays of a data set, and the tolerance that they set."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tfgen.datasets.storage import Dataset
from tfgen.fingerprints.fingerprint import Fingerprint
from tfgen.fingerprints.loss import fingerprint_loss
from tfgen.models.condition import join_conditions

__all__ = ["estimate_tolerance", "make_inputs", "tabulate"]

# Fingerprints that differ by no more than this, in units of the features' spread, differ by
# rounding only.
ROUNDING = 1e-6


def tabulate(dataset: Dataset, properties: Sequence[str]) -> np.ndarray:
    """Returns [structures, properties], the values of the properties."""
    return np.stack([dataset.properties[name] for name in properties], axis=1)


def make_inputs(
    fingerprint: Fingerprint, dataset: Dataset, properties: Sequence[str]
) -> dict[str, np.ndarray]:
    """Returns the network's inputs: "fingerprint" and "condition" of each structure, float32.

    Raises:
        ValueError: if a fingerprint is not finite in float32.
    """
    numbers = np.zeros([len(dataset), max(len(s) for s in dataset.structures)], int)
    for row, structure in zip(numbers, dataset.structures, strict=True):
        row[: len(structure)] = structure.numbers
    vectors = fingerprint.create(dataset.structures)
    if not (np.abs(vectors) < np.finfo(np.float32).max).all():
        raise ValueError("the fingerprint of a structure is not finite in float32")
    conditions = join_conditions(tabulate(dataset, properties), numbers, fingerprint.species)
    return {
        "fingerprint": vectors.astype(np.float32),
        "condition": conditions.astype(np.float32),
    }


def estimate_tolerance(
    fingerprints: np.ndarray, scale: np.ndarray, seed: int, structures: int = 256
) -> float:
    """Estimates the median distance of a fingerprint to the nearest other, in the inversion's loss.

    A structure that is nearer than this to a sampled fingerprint is the one it stands for, rather
    than some other. Copies of a structure in the data set do not count as others.

    Args:
        fingerprints: [n, features].
        scale: [features].
        seed: of the sample.
        structures: how many fingerprints' nearest neighbours are looked for, at most.

    Raises:
        ValueError: if all fingerprints are the same.
    """
    scaled = fingerprints / scale.astype(np.float32)
    rng = np.random.default_rng(seed)
    nearest = []
    for i in rng.permutation(len(scaled))[:structures]:
        distance = fingerprint_loss(scaled - scaled[i])
        others = distance[distance > ROUNDING]
        if others.size:
            nearest.append(others.min())
    if not nearest:
        raise ValueError(
            "the fingerprint is the same for all training structures; it must distinguish them"
        )
    return float(np.median(nearest))
