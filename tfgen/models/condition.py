"""What the CVAE is conditioned on: properties and composition."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from ase.data import atomic_numbers

__all__ = ["Condition", "join_conditions", "sample_normal_given"]


@dataclass(frozen=True)
class Condition:
    """A property the model is conditioned on, as the training split has it.

    Attributes:
        name: of the property.
        unit: "1" for a pure number, "unknown" if it was not stated.
        low, high: range of the training split.
    """

    name: str
    unit: str
    low: float
    high: float


def join_conditions(
    properties: np.ndarray, numbers: np.ndarray, species: Sequence[str]
) -> np.ndarray:
    """Joins properties and composition to the vectors that the CVAE is conditioned on.

    Args:
        properties: [n, properties].
        numbers: [n, atoms] or [atoms], atomic numbers; 0 pads.
        species: the elements that are counted.

    Returns:
        [n, properties + elements] float64: the properties, then the number of atoms of each
        element.
    """
    elements = np.array([atomic_numbers[symbol] for symbol in species])
    counts = (np.asarray(numbers)[..., None] == elements).sum(axis=-2)
    counts = np.broadcast_to(counts, [len(properties), len(elements)])
    return np.concatenate([np.asarray(properties, np.float64), counts], axis=1)


def sample_normal_given(
    given: Mapping[int, np.ndarray],
    mean: np.ndarray,
    covariance: np.ndarray,
    count: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """Samples a normal distribution of which some components are given.

    With g the given components and r the others, these are sampled from the normal distribution
    with mean μ_r + Σ_rg Σ_gg⁻¹ (x_g - μ_g) and covariance Σ_rr - Σ_rg Σ_gg⁻¹ Σ_gr.

    Args:
        given: component -> [count], its values.
        mean: [components].
        covariance: [components, components]; may be singular.
        count: number of samples.
        rng: source of randomness.

    Returns:
        [count, components], the given components included.
    """
    known = sorted(given)
    rest = [i for i in range(len(mean)) if i not in given]
    result = np.empty([count, len(mean)])
    for i in known:
        result[:, i] = given[i]
    if rest:
        cross = covariance[np.ix_(rest, known)]
        # The pseudo-inverse also serves constant and collinear components.
        gain = cross @ np.linalg.pinv(covariance[np.ix_(known, known)], rcond=1e-9)
        loc = mean[rest] + (result[:, known] - mean[known]) @ gain.T
        remaining = covariance[np.ix_(rest, rest)] - gain @ cross.T
        values, vectors = np.linalg.eigh(remaining)
        root = vectors * np.sqrt(np.maximum(values, 0.0))
        result[:, rest] = loc + rng.standard_normal([count, len(rest)]) @ root.T
    return result
