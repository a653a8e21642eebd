"""The trained model as an artefact: one folder that knows everything generation needs."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from ase import Atoms
from ase.data import atomic_numbers

from tfgen.datasets.messages import InvalidValuesError
from tfgen.execution.results import array_digest
from tfgen.fingerprints.fingerprint import Fingerprint
from tfgen.models._keras import in_float32
from tfgen.models.artefact import (
    NNP_FILE,
    SCHEMA,
    SCHEMA_VERSION,
    WEIGHTS_FILE,
    read_config,
    read_structures,
    read_weights,
    write_folder,
)
from tfgen.models.condition import Condition, join_conditions, sample_normal_given
from tfgen.models.config import NNPConfig, check_config
from tfgen.models.cvae import CVAE
from tfgen.models.neural_potential import EnergyNetwork, NeuralPotential, select_broad
from tfgen.models.settings import NNPSettings, TrainingSettings
from tfgen.models.summary import describe, summarize
from tfgen.structures.factors import BOND_FACTOR, OVERLAP_FACTOR
from tfgen.structures.validity import ValidityThresholds, thresholds_from
from tfgen.targets import TargetValue, check_targets

__all__ = ["Condition", "Model"]


@dataclass(frozen=True, eq=False, repr=False)
class Model:
    """A fingerprint, a CVAE trained on it, and what its conditions mean.

    The CVAE's condition vector is [properties..., number of atoms of each element...], the
    properties in the order of `conditions`, the elements in that of `fingerprint.species`.

    Attributes:
        fingerprint: what the CVAE's vectors are.
        cvae: the trained network; its scaling is among its weights.
        conditions: the properties.
        mean, covariance: [conditions] and [conditions, conditions] of the training split: the
            normal distribution from which properties that a request leaves open are sampled.
        formulas: compositions of the training split with their counts.
        tolerance: the loss (`tfgen.fingerprints.loss`) under which a structure counts as having the
            fingerprint asked for: the median distance between nearest neighbours of the training
            split.
        potential: what computed the energies of the data set: "emt", MODULE:NAME of an ASE
            calculator, or None where that is not known.
        nnp: network of the neural-network potential (NNP), learned around the training structures;
            None if nothing could compute their energies.
        minima: whether the training structures are minima; if not, what is generated for them is no
            minimum either, unless it is relaxed.
        training_structures: of the training split, so that new structures can be told from them.
        settings: how the CVAE was trained; None if that is not known.
        nnp_settings: how the NNP was learned; None without one.
        provenance: of data set and training; JSON-able.

    Example:
        >>> model = tfgen.Model.load("model")
        >>> model.summary()
        >>> tfgen.generate(model, "Pt13", {"energy_per_atom": 0.75}, count=10)
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
    training_structures: tuple[Atoms, ...] = ()
    settings: TrainingSettings | None = None
    nnp_settings: NNPSettings | None = None
    provenance: dict[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        return describe(self)

    @property
    def calculator(self) -> dict[str, Any] | None:
        """What computed the energies of the data set: "name", "arguments" and "vacuum", as text.

        None if that is not known, or is a potential of tfgen's own.
        """
        found = self.provenance.get("potential")
        return found if isinstance(found, dict) else None

    def summary(self, print_fn: Callable[[str], Any] = print) -> None:
        """Prints what the model is: properties, compositions, fingerprint, networks, provenance.

        Args:
            print_fn: called once with the whole text, as in Keras' `Model.summary`.
        """
        print_fn(summarize(self))

    @functools.cached_property
    def neural_potential(self) -> NeuralPotential | None:
        """The NNP as a potential: one object, for which compiled functions are found again."""
        return None if self.nnp is None else NeuralPotential(self.fingerprint.descriptor, self.nnp)

    @functools.cached_property
    def digest(self) -> str:
        """A text that is the same only for the same weights of both networks."""
        arrays = self.cvae.get_weights() + ([] if self.nnp is None else self.nnp.get_weights())
        return " ".join(array_digest(array) for array in arrays)

    @functools.cached_property
    def validity_thresholds(self) -> ValidityThresholds:
        """What counts as valid: what nearly all training structures are, as in `tfgen.evaluate`."""
        if not self.training_structures:
            return ValidityThresholds(OVERLAP_FACTOR, BOND_FACTOR, 1.0)
        return thresholds_from(self.training_structures)

    @property
    def scale(self) -> np.ndarray:
        """[features], the spread of each feature over the training split."""
        return np.asarray(self.cvae.feature_scale, np.float64)

    def condition_vectors(self, properties: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        """Joins properties and composition to the vectors that the CVAE is conditioned on.

        Args:
            properties: [n, conditions].
            numbers: [n, atoms] or [atoms], atomic numbers; 0 pads.

        Returns:
            [n, conditions + elements] float64.
        """
        return join_conditions(properties, numbers, self.fingerprint.species)

    def sample_properties(
        self, targets: Mapping[str, TargetValue], count: int, rng: np.random.Generator
    ) -> np.ndarray:
        """Samples the properties of `count` requests.

        A value is taken as it is, a range is sampled uniformly; what is not asked for is sampled
        from the normal distribution of the training split, given what is.

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
        return sample_normal_given(asked, self.mean, self.covariance, count, rng)

    def sample(self, conditions: np.ndarray, seed: int) -> np.ndarray:
        """Samples fingerprints for condition vectors: [n, conditions + elements] -> [n, features].

        The latent vectors come from the prior; the fingerprints are the means of the likelihood.
        """
        z = self.cvae.prior([len(conditions)]).sample(seed=np.array([seed, 0], np.int32))
        return self.cvae.decode(z, tf.constant(conditions, tf.float32)).numpy().astype(np.float64)

    def predict_properties(self, fingerprints: np.ndarray) -> np.ndarray:
        """Predicts properties by the surrogate: [n, features] -> [n, conditions]."""
        fingerprints = tf.constant(fingerprints, tf.float32)
        return self.cvae.predict_properties(fingerprints).numpy().astype(np.float64)

    def config(self) -> dict[str, Any]:
        """Returns everything but weights and structures, JSON-able."""
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
            "settings": None if self.settings is None else self.settings.to_json(),
            "nnp_settings": None if self.nnp_settings is None else self.nnp_settings.to_json(),
            "provenance": self.provenance,
        }

    def save(self, folder: str | os.PathLike[str], overwrite: bool = False) -> None:
        """Writes a new folder: config.json, weights, structures, and their check sums.

        The weights are in Keras' HDF5, the structures in training_structures.npz (NumPy),
        sizes and SHA-256 check sums of the other files in checksums.json. What it writes,
        `load` reads: it writes nothing that `load` would refuse.

        Raises:
            FileExistsError: if the folder exists and `overwrite` is false, or is no model.
            ValueError: if the parts of the model do not fit together, or `provenance` cannot be
                JSON.
        """
        self.check()
        structures = self.training_structures
        write_folder(folder, self.config(), self.cvae, self.nnp, structures, overwrite)

    @classmethod
    @in_float32()
    def load(cls, folder: str | os.PathLike[str], descriptors: Sequence[type[Any]] = ()) -> Model:
        """Reads a model that `save` has written. Runs no code that came with it.

        Args:
            folder: the model.
            descriptors: the user's classes that its fingerprint may name.

        Raises:
            FileNotFoundError: if the folder or a file in it is missing.
            ValueError: if a file is damaged or has been changed, or is of another version.
        """
        folder = Path(folder)
        try:
            config = check_config(read_config(folder))
            cvae = config.cvae
            widths = [cvae.features + cvae.conditions, *cvae.hidden, cvae.latent]
            model = cls(
                fingerprint=Fingerprint.from_config(asdict(config.fingerprint), descriptors),
                cvae=read_weights(folder, WEIGHTS_FILE, lambda: CVAE(**asdict(cvae)), widths),
                conditions=tuple(Condition(**asdict(c)) for c in config.conditions),
                mean=np.array(config.mean, np.float64),
                covariance=np.array(config.covariance, np.float64),
                formulas=config.formulas,
                tolerance=config.tolerance,
                potential=config.potential,
                nnp=None if config.nnp is None else _read_nnp(folder, config.nnp),
                minima=config.minima,
                training_structures=read_structures(folder),
                settings=_optional(TrainingSettings, config.settings),
                nnp_settings=_optional(NNPSettings, config.nnp_settings),
                provenance=config.provenance,
            )
            model.check()
            return model
        except FileNotFoundError:
            raise
        except InvalidValuesError as error:
            where = f"model folder {str(folder)!r} is damaged: config.json"
            raise InvalidValuesError([f"{where}: {line}" for line in error.problems]) from error
        except (KeyError, TypeError, ValueError, OSError) as error:
            reason = f"{error} is missing" if isinstance(error, KeyError) else error
            raise ValueError(f"model folder {str(folder)!r} is damaged: {reason}") from error

    def check(self) -> None:
        """Checks that the parts fit together.

        Raises:
            ValueError: if they do not.
        """
        _check(self)


def _check(model: Model) -> None:
    count, elements = len(model.conditions), len(model.fingerprint.species)
    if model.fingerprint.size != model.cvae.features:
        raise ValueError(
            f"its network takes {model.cvae.features} features, its fingerprint has "
            f"{model.fingerprint.size}"
        )
    if count != model.cvae.properties or count + elements != model.cvae.conditions:
        raise ValueError(
            f"its network takes {model.cvae.properties} properties and {model.cvae.conditions} "
            f"conditions, but it names {count} properties and {elements} elements"
        )
    if model.mean.shape != (count,) or model.covariance.shape != (count, count):
        raise ValueError("mean or covariance is of the wrong shape")
    if not np.isfinite([*model.mean, *model.covariance.ravel()]).all():
        raise ValueError("mean or covariance is not finite")
    if not (np.isfinite(model.tolerance) and model.tolerance > 0):
        raise ValueError(f"its tolerance is {model.tolerance}; it must be above 0")
    if model.nnp is not None and (
        model.nnp.features != select_broad(model.fingerprint.descriptor).size
        or model.nnp.elements != elements
    ):
        raise ValueError("its NNP is not of its fingerprint's descriptor; train it again")
    for network, what in ((model.cvae, "CVAE"), (model.nnp, "NNP")):
        if network is not None and not all(np.isfinite(w).all() for w in network.get_weights()):
            raise ValueError(f"weights of its {what} are not finite")
    for condition in model.conditions:
        if not -np.inf < condition.low <= condition.high < np.inf:
            raise ValueError(
                f"its values of {condition.name!r} are from {condition.low} to {condition.high}"
            )
    known = {atomic_numbers[symbol] for symbol in model.fingerprint.species}
    for i, structure in enumerate(model.training_structures):
        unknown = set(structure.numbers.tolist()) - known
        if unknown:
            raise ValueError(
                f"its training structure {i} has elements that its fingerprint does not know: "
                f"atomic numbers {', '.join(map(str, sorted(unknown)))}"
            )
        if not np.isfinite(structure.positions).all():
            raise ValueError(f"positions of its training structure {i} are not finite")
    if not isinstance(model.potential, str | None):
        raise ValueError(
            f"its potential is {model.potential!r}; a name is needed, or None (null in JSON)"
        )


def _read_nnp(folder: Path, config: NNPConfig) -> EnergyNetwork:
    widths = [config.features + config.elements, *config.hidden]
    return read_weights(folder, NNP_FILE, lambda: EnergyNetwork(**asdict(config)), widths)


def _optional(kind: type[Any], values: Any) -> Any:
    return None if values is None else kind.from_json(values)
