"""Fingerprints: a descriptor, pooled over the atoms to one vector for each structure."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from ase import Atoms

from tfgen._tensorflow import compiled_for
from tfgen.descriptors.acsf import ACSF
from tfgen.descriptors.base import Descriptor, check_structures
from tfgen.descriptors.evaluator import Evaluator
from tfgen.fingerprints.poolings import POOLINGS
from tfgen.fingerprints.presets import PRESETS
from tfgen.structures.batch import StructureBatch
from tfgen.structures.checks import as_structures
from tfgen.structures.neighbours.displacements import check_batch

__all__ = ["Fingerprint"]

# The smallest scale of a feature, as a share of what the scales of three quarters of its block are
# below.
SCALE_FLOOR = 0.1


class Fingerprint:
    """A vector of fixed size that describes a whole structure.

    It does not change when the structure is moved or rotated or its atoms are listed in another
    order. Each pooling reduces the features of the atoms to numbers of the structure; the results
    follow one another in the order given: F = [pool_1(d_1..d_n), pool_2(d_1..d_n), ...].

    Fingerprints of the same configuration are equal, and share what TensorFlow has compiled.

    Args:
        descriptor: maps structures to per-atom features, [batch, atoms, descriptor.size].
        pooling: names in `tfgen.fingerprints.poolings.POOLINGS`: max, min, mean, std (of the
            population), moment3 (the third central moment), covariance (over atoms, of each
            feature with the six that follow it in the descriptor's order, across kinds of
            functions and elements too: first all with the next, then with the one after, ...).
        per_species: whether to pool over the atoms of each element apart (0 where there are none),
            which tells the elements of an alloy apart; for one element it makes no difference.

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
        return cls(**PRESETS[name](species))

    @property
    def species(self) -> list[str]:
        """The elements that may occur, as chemical symbols."""
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
        return [POOLINGS[name].width(self.descriptor.size) for name in self.pooling]

    @property
    def triples(self) -> bool:
        """Whether its cost is that of all triples of atoms, unless the descriptor denies it."""
        return getattr(self.descriptor, "triples", True)

    @property
    def differentiable(self) -> np.ndarray:
        """[size] bool, features that are so everywhere: no largest or smallest value over atoms."""
        pooled = np.repeat([POOLINGS[n].differentiable for n in self.pooling], self._widths)
        return np.tile(pooled, self._groups)

    @functools.cached_property
    def cheap_part(self) -> tuple[Fingerprint, np.ndarray] | None:
        """The part of it that costs much less than the whole, if the descriptor has one.

        Returns:
            A fingerprint, and the places [its size] of its features in this one; or None.
        """
        descriptor = getattr(self.descriptor, "cheap_part", lambda: None)()
        if descriptor is None:
            return None
        starts = np.cumsum([0, *self._widths * self._groups])
        places = np.concatenate(
            [
                start + POOLINGS[name].columns(self.descriptor.size, descriptor.size)
                for start, name in zip(starts, self.pooling * self._groups, strict=False)
            ]
        )
        if len(places) == 0:  # one function alone has no covariance
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
            config: as from `get_config`. It is data: nothing in it is imported or run.
            descriptors: the user's classes that it may name, besides tfgen's own.

        Raises:
            ValueError: if it names a descriptor that is not among them, or lacks an entry.
        """
        classes: list[type[Any]] = [ACSF, *descriptors]
        known = {c.__name__: c for c in classes}
        try:
            name, arguments = config["descriptor"], config["descriptor_config"]
            if name not in known:
                raise ValueError(
                    f"descriptor is {name!r}; known are {', '.join(known)}, and classes that "
                    "are given"
                )
            return cls(known[name](**arguments), config["pooling"], config["per_species"])
        except (KeyError, TypeError) as error:
            raise ValueError(f"malformed fingerprint configuration: {error}") from None

    @functools.cached_property
    def _identity(self) -> tuple[type[Any], type[Any], str]:
        config = json.dumps(self.get_config(), sort_keys=True, default=repr)
        return type(self), type(self.descriptor), config

    def __eq__(self, other: object) -> bool:
        """Whether the other is of the same descriptor, with the same configuration."""
        return isinstance(other, Fingerprint) and self._identity == other._identity

    def __hash__(self) -> int:
        return hash(self._identity)

    def __repr__(self) -> str:
        return (
            f"<Fingerprint size={self.size}, pooling={self.pooling}, "
            f"per_species={self.per_species}, descriptor={self.descriptor!r}>"
        )

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
        # Poolings need an atom: without any, all are pooled, and the result is replaced by zeros.
        some = tf.reduce_any(mask, axis=1)[:, None]
        mask = (mask | ~some)[..., None]
        pooled = tf.concat([POOLINGS[name].pool(features, mask) for name in self.pooling], axis=-1)
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
        """Computes the unit in which differences of each feature count: its spread over a sample.

        scale_f = max(std_f, 0.1 q_b, 0.001 max std_b), where b is the feature's block, that of one
        pooling (and element), and q_b the 75 % quantile of std in it. Without the floor, features
        that hardly vary would dominate every difference. Each block has its own, as third moments
        of large clusters vary a thousand times as much as means. A block that varies only by
        rounding gets a thousandth of the largest floor, or 1 if no block varies.

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
        # Such as the third moments of two equal atoms, or all features of a single atom in a cell.
        floor[floor <= 1e-12 * np.abs(vectors).max()] = 0.0
        floor = np.maximum(floor, 1e-3 * floor.max())
        return np.maximum(spread, np.repeat(np.where(floor > 0, floor, 1.0), widths))

    @property
    def _evaluator(self) -> Evaluator:
        return compiled_for(self, "evaluator", lambda: Evaluator(self, self.descriptor.r_cut))
