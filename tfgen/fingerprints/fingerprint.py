"""Fingerprints: a descriptor, pooled over atoms to one vector per structure."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from ase import Atoms

from tfgen._tensorflow import compiled_for
from tfgen.descriptors.acsf import ACSF
from tfgen.descriptors.base import Descriptor, check_structures
from tfgen.descriptors.evaluator import Evaluator
from tfgen.structures.batch import StructureBatch
from tfgen.structures.checks import as_structures
from tfgen.structures.neighbourhood import check_batch, safe_sqrt

__all__ = ["POOLINGS", "PRESETS", "Fingerprint"]

# Least scale of a feature, as a share of what three quarters of its block stay below.
SCALE_FLOOR = 0.1
# Each feature's covariances with so many that follow it; saved fingerprints rely on it.
COVARIANCES = 6


def _maximum(features: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    lowest = tf.constant(features.dtype.min, features.dtype)
    return tf.reduce_max(tf.where(mask, features, lowest), axis=1)


def _minimum(features: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    return -_maximum(-features, mask)


def _mean(features: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    count = tf.reduce_sum(tf.cast(mask, features.dtype), axis=1)
    return tf.reduce_sum(tf.where(mask, features, tf.zeros_like(features)), axis=1) / count


def _moment(order: int) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    def central(features: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
        return _mean((features - _mean(features, mask)[:, None, :]) ** order, mask)

    return central


def _std(features: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    return safe_sqrt(_moment(2)(features, mask))


def _covariance(features: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    """Of each feature with the next, then of each with the one after the next, and so on."""
    apart = features - _mean(features, mask)[:, None, :]
    lags = [_mean(apart[..., :-lag] * apart[..., lag:], mask) for lag in range(1, COVARIANCES + 1)]
    return tf.concat(lags, axis=-1)


# name -> map of ([batch, atoms, features], mask [batch, atoms, 1]) to [batch, width].
POOLINGS: dict[str, Callable[[tf.Tensor, tf.Tensor], tf.Tensor]] = {
    "max": _maximum,
    "min": _minimum,
    "mean": _mean,
    "std": _std,
    "moment3": _moment(3),
    "covariance": _covariance,
}


def _columns(name: str, features: int, first: int) -> np.ndarray:
    """Where in a block of so many features those of the first few of them come to lie."""
    if name != "covariance":
        return np.arange(min(features, first))
    places, start = [np.zeros(0, int)], 0
    for lag in range(1, COVARIANCES + 1):
        places.append(start + np.arange(max(first - lag, 0)))
        start += max(features - lag, 0)
    return np.concatenate(places)


class Fingerprint:
    """A fixed-size vector of a whole structure that does not change as it moves, turns or reorders.

    Each pooling reduces the per-atom features over the atoms; the results follow one another in
    the order given: F = [pool_1(d_1..d_n), pool_2(d_1..d_n), ...].

    Args:
        descriptor: maps structures to per-atom features, [batch, atoms, descriptor.size].
        pooling: names out of `POOLINGS`: max, min, mean, std (of the population), moment3 (the
            third central moment), covariance (over atoms, of each feature with the six that follow
            it in the descriptor's order, across kinds of functions and elements too: first all
            with the next, then with the one after, ...).
        per_species: pool over the atoms of each element apart (0 where there are none), which
            tells an alloy's elements apart; needless for one element.

    Example:
        >>> fingerprint = Fingerprint.preset("fung2022")
        >>> fingerprint.create([ase.cluster.Octahedron("Pt", 3, 1)]).shape
        (1, 380)

    References:
        V. Fung et al., Mach. Learn.: Sci. Technol. 3, 045018 (2022). DOI 10.1088/2632-2153/aca1f7
    """

    def __init__(
        self,
        descriptor: Descriptor,
        pooling: Sequence[str] = ("max", "min"),
        per_species: bool = False,
    ) -> None:
        if isinstance(descriptor, type) or not isinstance(descriptor, Descriptor):
            raise ValueError(
                f"descriptor is {descriptor!r}; an object with species, r_cut, size and get_config "
                "that can be called with a batch is needed"
            )
        if isinstance(pooling, str):
            pooling = (pooling,)
        names = list(pooling) if isinstance(pooling, Iterable) else []
        # Names that come twice would count twice in every distance of fingerprints.
        if not names or len({*map(str, names)} & {*POOLINGS}) < len(names):
            raise ValueError(
                f"pooling is {pooling!r}; allowed are {', '.join(POOLINGS)}, each once"
            )
        if not isinstance(per_species, bool | np.bool_):
            raise ValueError(f"per_species is {per_species!r}; True or False is needed")
        self.descriptor = descriptor
        self.pooling = tuple(pooling)
        self.per_species = bool(per_species)
        self._numbers = [Atoms(symbol).numbers[0] for symbol in descriptor.species]
        if self.size == 0:
            raise ValueError(
                f"pooling is {pooling!r}, which leaves nothing of a descriptor of size "
                f"{descriptor.size}"
            )

    @classmethod
    def preset(cls, name: str, species: Sequence[str] = ("Pt",)) -> Fingerprint:
        """Returns one of the ready-made fingerprints.

        Args:
            name: "fung2022", the source paper's 380 features, or "default", the project's own.
            species: elements that may occur.

        Raises:
            ValueError: on any other name, or what is no list of elements.
        """
        if not isinstance(name, str) or name not in PRESETS:
            raise ValueError(f"preset is {name!r}; allowed are {', '.join(PRESETS)}")
        return PRESETS[name](species)

    @property
    def species(self) -> list[str]:
        """Elements it knows."""
        return self.descriptor.species

    @property
    def size(self) -> int:
        """Length of the vector."""
        return self._groups * sum(self._widths)

    @property
    def _groups(self) -> int:
        return len(self._numbers) if self.per_species else 1

    @property
    def _widths(self) -> list[int]:
        """Lengths of the blocks of a group, one for each pooling."""
        features = self.descriptor.size
        return [len(_columns(name, features, features)) for name in self.pooling]

    @property
    def triples(self) -> bool:
        """Whether the triples of atoms decide what it costs: if the descriptor does not deny it."""
        return getattr(self.descriptor, "triples", True)

    @property
    def smooth(self) -> np.ndarray:
        """[size] bool, features without kinks: not the largest or smallest value over atoms."""
        pooled = np.repeat([name not in ("max", "min") for name in self.pooling], self._widths)
        return np.tile(pooled, self._groups)

    @functools.cached_property
    def coarse(self) -> tuple[Fingerprint, np.ndarray] | None:
        """The part of it that is much cheaper than the whole, if the descriptor has one.

        Returns:
            A fingerprint and the places [size] of its features in this one; None without.
        """
        descriptor = getattr(self.descriptor, "coarse", lambda: None)()
        if descriptor is None:
            return None
        starts = np.cumsum([0, *self._widths * self._groups])
        places = np.concatenate(
            [
                start + _columns(name, self.descriptor.size, descriptor.size)
                for start, name in zip(starts, self.pooling * self._groups, strict=False)
            ]
        )
        if len(places) == 0:  # no covariance of one function
            return None
        return Fingerprint(descriptor, self.pooling, self.per_species), places

    def get_config(self) -> dict[str, Any]:
        """Returns what `from_config` needs to make the same fingerprint, JSON-able."""
        return {
            "descriptor": type(self.descriptor).__name__,
            "descriptor_config": self.descriptor.get_config(),
            "pooling": list(self.pooling),
            "per_species": self.per_species,
        }

    @classmethod
    def from_config(
        cls, config: dict[str, Any], descriptors: Iterable[type[Any]] = ()
    ) -> Fingerprint:
        """Makes the fingerprint of a `get_config`.

        Args:
            config: as from `get_config`; data only, nothing in it is ever imported or run.
            descriptors: classes of one's own that it may name, besides tfgen's.

        Raises:
            ValueError: if it names a descriptor that is not among them, or lacks an entry.
        """
        classes: list[type[Any]] = [ACSF, *descriptors]
        known = {c.__name__: c for c in classes}
        try:
            name, arguments = config["descriptor"], config["descriptor_config"]
            if name not in known:
                raise ValueError(
                    f"descriptor is {name!r}; known are {', '.join(known)}, and classes passed as "
                    "descriptors=[...] (--descriptor MODULE:CLASS on the command line)"
                )
            return cls(known[name](**arguments), config["pooling"], config["per_species"])
        except (KeyError, TypeError) as error:
            raise ValueError(f"malformed fingerprint configuration: {error}") from None

    @functools.cached_property
    def _identity(self) -> tuple[type[Any], str]:
        return type(self.descriptor), json.dumps(self.get_config(), sort_keys=True, default=repr)

    def __eq__(self, other: object) -> bool:
        """Whether the other is of the same descriptor, with the same configuration."""
        return isinstance(other, Fingerprint) and self._identity == other._identity

    def __hash__(self) -> int:
        return hash(self._identity)

    def __call__(self, batch: StructureBatch) -> tf.Tensor:
        """Computes fingerprints inside TensorFlow; differentiable in positions and cell.

        Args:
            batch: the structures.

        Returns:
            [batch, size], in the dtype of the positions.
        """
        check_batch(batch)
        features = self.descriptor(batch)
        if not self.per_species:
            return self._pool(features, batch.mask)
        return tf.concat(
            [self._pool(features, tf.equal(batch.numbers, z)) for z in self._numbers], axis=-1
        )

    def _pool(self, features: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
        # A structure without such atoms gets zeros: all its atoms are masked in, then out again.
        some = tf.reduce_any(mask, axis=1)[:, None]
        mask = (mask | ~some)[..., None]
        pooled = tf.concat([POOLINGS[name](features, mask) for name in self.pooling], axis=-1)
        return tf.where(some, pooled, tf.zeros_like(pooled))

    def create(self, structures: Atoms | Sequence[Atoms]) -> np.ndarray:
        """Computes the fingerprints of ASE structures in float64, in chunks of bounded memory.

        Args:
            structures: one or many, of any sizes; left unmodified.

        Returns:
            [structures, size] float64.

        Raises:
            ValueError: on an empty list, positions that are not finite, elements the descriptor
                does not know, periodic structures if it is not made for them.
        """
        structures = as_structures(structures)
        check_structures(self.descriptor, structures)
        result = np.empty([len(structures), self.size])
        for members, vectors in self._evaluator(structures):
            result[members] = vectors
        return result

    def scale(self, vectors: np.ndarray) -> np.ndarray:
        """The unit in which differences of each feature count: its spread over a sample.

        scale_f = max(std_f, 0.1 q_b, 0.001 max std_b), with b the feature's block, that of one
        pooling (and element), and q_b the 75 % quantile of std in it. The floor keeps features that
        hardly vary from drowning the others; it is the block's own, as third moments of large
        clusters vary a thousand times as much as means. A block that varies but by rounding has a
        thousandth of the largest floor, or 1 if none varies.

        Args:
            vectors: [structures, size], fingerprints.

        Returns:
            [size] float64, all positive.

        Raises:
            ValueError: if `vectors` has another shape or no rows.
        """
        vectors = np.asarray(vectors, np.float64)
        if vectors.ndim != 2 or vectors.shape[1] != self.size or len(vectors) == 0:
            raise ValueError(
                f"vectors has shape {vectors.shape}; [structures, {self.size}] is needed"
            )
        spread = vectors.std(axis=0)
        widths = [width for width in self._widths * self._groups if width]
        blocks = np.split(spread, np.cumsum(widths)[:-1])
        floor = np.array([max(SCALE_FLOOR * np.quantile(b, 0.75), 1e-3 * b.max()) for b in blocks])
        # As the third moments of two equal atoms, or all features of a lone atom in its cell.
        floor[floor <= 1e-12 * np.abs(vectors).max()] = 0.0
        floor = np.maximum(floor, 1e-3 * floor.max())
        return np.maximum(spread, np.repeat(np.where(floor > 0, floor, 1.0), widths))

    @property
    def _evaluator(self) -> Evaluator:
        return compiled_for(self, "evaluator", lambda: Evaluator(self, self.descriptor.r_cut))


def _fung2022(species: Sequence[str]) -> Fingerprint:
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
    return Fingerprint(acsf, pooling=("max", "min"))


def _default(species: Sequence[str]) -> Fingerprint:
    """The project's own: 925 features for one element.

    Functions and poolings are those with which the search finds most structures again
    (docs/inversion.md); `scripts/compare_fingerprints.py` compares others with it.
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
    return Fingerprint(acsf, pooling, per_species=len(species) > 1)


# name -> maker from the list of elements.
PRESETS: dict[str, Callable[[Sequence[str]], Fingerprint]] = {
    "fung2022": _fung2022,
    "default": _default,
}
