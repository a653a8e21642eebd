"""The trained model as an artefact: one folder that knows everything generation needs."""

from __future__ import annotations

import functools
import json
import os
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from ase import Atoms
from ase.data import atomic_numbers

from tfgen._files import new_folder, require_folder_replaceable
from tfgen.fingerprints.fingerprint import Fingerprint
from tfgen.models.cvae import CVAE
from tfgen.models.neural_potential import EnergyNetwork, NeuralPotential, seen
from tfgen.targets import TargetValue, check_targets

__all__ = ["CONTENTS", "MODEL_FILES", "SCHEMA", "SCHEMA_VERSION", "Condition", "Model"]

SCHEMA = "tfgen-model"
SCHEMA_VERSION = 2
MODEL_FILES = ("config.json", "weights.weights.h5", "library.npz")
NNP_FILE = "nnp.weights.h5"  # only where there is one
CONTENTS = (*MODEL_FILES, NNP_FILE)


@dataclass(frozen=True)
class Condition:
    """A property the model is conditioned on, as the training split has it.

    Attributes:
        name: of the property.
        unit: "1" for a pure number, "unknown" if nobody said.
        low, high: range of the training split.
    """

    name: str
    unit: str
    low: float
    high: float


@dataclass(frozen=True)
class Model:
    """A fingerprint, a CVAE trained on it, and what its conditions mean.

    The CVAE's condition vector is [properties..., number of atoms of each element...], the
    properties in the order of `conditions`, the elements in that of `fingerprint.species`.

    Attributes:
        fingerprint: what the CVAE's vectors are.
        cvae: the trained network; its scaling is among its weights.
        conditions: the properties.
        mean, covariance: [conditions] and [conditions, conditions] of the training split, by
            which properties that a request leaves open are drawn.
        formulas: compositions of the training split with their counts.
        tolerance: the loss (see `Inverter`) under which a structure counts as having the
            fingerprint asked for: the median distance between nearest neighbours of the training
            split.
        potential: "emt" if the energies are EMT's, else None.
        nnp: energies around the training structures; None if nothing could compute them.
        minima: whether the training structures are minima; if not, what is generated for them is no
            minimum either, unless it is relaxed.
        library: the training structures, so that what comes out can be told from them.
        provenance: of data set and training; JSON-able.
    """

    fingerprint: Fingerprint
    cvae: CVAE
    conditions: tuple[Condition, ...]
    mean: np.ndarray
    covariance: np.ndarray
    formulas: dict[str, int]
    tolerance: float
    potential: str | None = None
    nnp: EnergyNetwork | None = None
    minima: bool = True
    library: tuple[Atoms, ...] = ()
    provenance: dict[str, Any] = field(default_factory=dict)

    @functools.cached_property
    def neural_potential(self) -> NeuralPotential | None:
        """The NNP as a potential: one object, for which compiled functions are found again."""
        return None if self.nnp is None else NeuralPotential(self.fingerprint.descriptor, self.nnp)

    @property
    def scale(self) -> np.ndarray:
        """[features], the spread of each feature over the training split."""
        return np.asarray(self.cvae.feature_scale, np.float64)

    def condition_vectors(self, properties: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        """Joins properties and composition to what the CVAE is conditioned on.

        Args:
            properties: [n, conditions].
            numbers: [n, atoms] or [atoms], atomic numbers; 0 pads.

        Returns:
            [n, conditions + elements] float64.
        """
        elements = np.array([atomic_numbers[symbol] for symbol in self.fingerprint.species])
        counts = (np.asarray(numbers)[..., None] == elements).sum(axis=-2)
        counts = np.broadcast_to(counts, [len(properties), len(elements)])
        return np.concatenate([np.asarray(properties, np.float64), counts], axis=1)

    def sample_properties(
        self, targets: Mapping[str, TargetValue], count: int, rng: np.random.Generator
    ) -> np.ndarray:
        """Draws the properties of `count` requests.

        A value is taken as it is, a range uniformly; what is not asked for is drawn from the
        normal distribution of the training split, given what is.

        Returns:
            [count, conditions].

        Raises:
            ValueError: on a property the model does not know, or a range with low > high.
        """
        names = [c.name for c in self.conditions]
        asked = {}
        for target in check_targets(targets, names):
            asked[names.index(target.name)] = (
                np.full(count, target.low)
                if target.is_value
                else rng.uniform(target.low, target.high, count)
            )
        given = sorted(asked)
        rest = [i for i in range(len(names)) if i not in asked]
        result = np.empty([count, len(names)])
        for i in given:
            result[:, i] = asked[i]
        if rest:
            cross = self.covariance[np.ix_(rest, given)]
            # The pseudo-inverse also serves constant and collinear properties.
            gain = cross @ np.linalg.pinv(self.covariance[np.ix_(given, given)], rcond=1e-9)
            loc = self.mean[rest] + (result[:, given] - self.mean[given]) @ gain.T
            remaining = self.covariance[np.ix_(rest, rest)] - gain @ cross.T
            values, vectors = np.linalg.eigh(remaining)
            root = vectors * np.sqrt(np.maximum(values, 0.0))
            result[:, rest] = loc + rng.standard_normal([count, len(rest)]) @ root.T
        return result

    def sample(self, conditions: np.ndarray, seed: int) -> np.ndarray:
        """Draws fingerprints for condition vectors: [n, conditions + elements] -> [n, features]."""
        z = self.cvae.prior([len(conditions)]).sample(seed=np.array([seed, 0], np.int32))
        return self.cvae.decode(z, tf.constant(conditions, tf.float32)).numpy().astype(np.float64)

    def predict_properties(self, fingerprints: np.ndarray) -> np.ndarray:
        """The surrogate's properties of fingerprints: [n, features] -> [n, conditions]."""
        fingerprints = tf.constant(fingerprints, tf.float32)
        return self.cvae.predict_properties(fingerprints).numpy().astype(np.float64)

    def config(self) -> dict[str, Any]:
        """Everything but the weights, JSON-able."""
        return {
            "schema": SCHEMA,
            "schema_version": SCHEMA_VERSION,
            "fingerprint": self.fingerprint.get_config(),
            "cvae": self.cvae.get_config(),
            "conditions": [asdict(c) for c in self.conditions],
            "mean": self.mean.tolist(),
            "covariance": self.covariance.tolist(),
            "formulas": self.formulas,
            "tolerance": self.tolerance,
            "potential": self.potential,
            "nnp": None if self.nnp is None else self.nnp.get_config(),
            "minima": self.minima,
            "provenance": self.provenance,
        }

    def save(self, folder: str | os.PathLike[str], overwrite: bool = False) -> None:
        """Writes a new folder: config.json, weights (Keras' HDF5), library.npz (NumPy).

        Raises:
            FileExistsError: if the folder exists and `overwrite` is false, or is no model.
        """
        require_folder_replaceable(folder, overwrite, CONTENTS)
        with new_folder(folder, overwrite) as temporary:
            text = json.dumps(self.config(), indent=1, ensure_ascii=False, allow_nan=False)
            (temporary / MODEL_FILES[0]).write_text(text + "\n", encoding="utf-8")
            self.cvae.save_weights(temporary / MODEL_FILES[1])
            _save_library(temporary / MODEL_FILES[2], self.library)
            if self.nnp is not None:
                self.nnp.save_weights(temporary / NNP_FILE)

    @classmethod
    def load(cls, folder: str | os.PathLike[str], descriptors: Sequence[type[Any]] = ()) -> Model:
        """Reads a model that `save` has written. Runs no code that came with it.

        Args:
            folder: the model.
            descriptors: classes of one's own that its fingerprint may name.

        Raises:
            FileNotFoundError: if the folder or a file in it is missing.
            ValueError: if a file is damaged, or of another version.
        """
        folder = Path(folder)
        if not folder.is_dir():
            problem = "is a file" if folder.exists() else "does not exist"
            raise FileNotFoundError(f"model folder {str(folder)!r} {problem}")
        for name in MODEL_FILES:
            if not (folder / name).is_file():
                raise FileNotFoundError(f"model folder {str(folder)!r} lacks {name}")
        try:
            config = json.loads((folder / MODEL_FILES[0]).read_text(encoding="utf-8"))
            if not isinstance(config, dict) or config.get("schema") != SCHEMA:
                raise ValueError("config.json is not a tfgen model's")
            if config.get("schema_version") != SCHEMA_VERSION:
                raise ValueError(
                    f"it has schema version {config.get('schema_version')}; this version of "
                    f"tfgen reads {SCHEMA_VERSION}, so train it anew"
                )
            own = ("features", "conditions", "properties", "latent", "hidden", "kl_weight",
                   "surrogate_weight", "seed")  # fmt: skip
            cvae = CVAE(**{name: config["cvae"][name] for name in own})
            cvae.build()
            cvae.load_weights(folder / MODEL_FILES[1])
            fingerprint = Fingerprint.from_config(config["fingerprint"], descriptors)
            if fingerprint.size != cvae.features:
                raise ValueError(
                    f"its network takes {cvae.features} features, its fingerprint has "
                    f"{fingerprint.size}"
                )
            nnp = None
            if config.get("nnp") is not None:
                names = ("features", "elements", "hidden", "seed")
                nnp = EnergyNetwork(**{name: config["nnp"][name] for name in names})
                nnp.build()
                nnp.load_weights(folder / NNP_FILE)
            model = cls(
                fingerprint=fingerprint,
                cvae=cvae,
                conditions=tuple(
                    Condition(str(c["name"]), str(c["unit"]), float(c["low"]), float(c["high"]))
                    for c in config["conditions"]
                ),
                mean=np.array(config["mean"], np.float64),
                covariance=np.array(config["covariance"], np.float64),
                formulas={str(k): int(v) for k, v in dict(config["formulas"]).items()},
                tolerance=float(config["tolerance"]),
                potential=config["potential"],
                nnp=nnp,
                minima=bool(config["minima"]),
                library=_load_library(folder / MODEL_FILES[2]),
                provenance=dict(config["provenance"]),
            )
            model._check()
            return model
        except (KeyError, TypeError, ValueError, OSError) as error:
            reason = f"{error} is missing" if isinstance(error, KeyError) else error
            raise ValueError(f"model folder {str(folder)!r} is damaged: {reason}") from error

    def _check(self) -> None:
        """Raises ValueError if the parts do not fit together."""
        count, elements = len(self.conditions), len(self.fingerprint.species)
        if count != self.cvae.properties or count + elements != self.cvae.conditions:
            raise ValueError(
                f"its network takes {self.cvae.properties} properties and {self.cvae.conditions} "
                f"conditions, but it names {count} properties and {elements} elements"
            )
        if self.mean.shape != (count,) or self.covariance.shape != (count, count):
            raise ValueError("mean or covariance is of the wrong shape")
        if not np.isfinite([*self.mean, *self.covariance.ravel()]).all():
            raise ValueError("mean or covariance is not finite")
        if not (np.isfinite(self.tolerance) and self.tolerance > 0):
            raise ValueError(f"its tolerance is {self.tolerance}; it must be above 0")
        if self.nnp is not None and (
            self.nnp.features != seen(self.fingerprint.descriptor).size
            or self.nnp.elements != elements
        ):
            raise ValueError("its NNP is not of its fingerprint's descriptor; train it anew")
        if self.potential not in (None, "emt"):
            raise ValueError(f"its potential is {self.potential!r}; 'emt' or null is allowed")


def _save_library(path: Path, structures: Sequence[Atoms]) -> None:
    np.savez_compressed(
        path,
        sizes=np.array([len(s) for s in structures], np.int32),
        numbers=np.concatenate([np.zeros(0, np.int16), *(s.numbers for s in structures)]).astype(
            np.int16
        ),
        positions=np.concatenate([np.zeros([0, 3]), *(s.positions for s in structures)]).astype(
            np.float32
        ),
    )


def _load_library(path: Path) -> tuple[Atoms, ...]:
    try:
        # NumPy leaves a file open that it opened itself and that turns out to be damaged.
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            sizes, numbers, positions = (file[k] for k in ("sizes", "numbers", "positions"))
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise ValueError(f"{path.name}: {error}") from None
    if sizes.sum() != len(numbers) or positions.shape != (len(numbers), 3) or (sizes < 0).any():
        raise ValueError(f"{path.name}: its arrays do not fit together")
    ends = np.cumsum(sizes)
    return tuple(
        Atoms(numbers[end - size : end], positions=positions[end - size : end])
        for size, end in zip(sizes, ends, strict=True)
    )
