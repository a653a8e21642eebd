"""From a data set to a trained model."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from ase.data import chemical_symbols
from tqdm import tqdm

from tfgen.cvae import CVAE, KLWarmUp
from tfgen.datasets.storage import Dataset, provenance
from tfgen.fingerprint import Fingerprint
from tfgen.model import Condition, Model
from tfgen.properties import ENERGY_PER_ATOM

__all__ = ["train"]

# Share of the epochs over which the KL term rises to its full weight.
WARM_UP = 0.25
# Structures whose nearest neighbours set the tolerance of the inversion.
NEIGHBOUR_SAMPLE = 256


def train(
    dataset: Dataset,
    properties: Sequence[str] = (ENERGY_PER_ATOM,),
    *,
    fingerprint: Fingerprint | None = None,
    epochs: int = 400,
    seed: int = 0,
    batch_size: int = 64,
    learning_rate: float = 1e-3,
    latent: int = 10,
    hidden: Sequence[int] = (256, 256),
    kl_weight: float = 1.0,
    logs: str | os.PathLike[str] | None = None,
    progress: bool = False,
) -> Model:
    """Trains a CVAE on the fingerprints of a data set by Keras `fit`, keeping the best weights.

    Best is the lowest loss on the validation split (on the training split if that is empty).

    Args:
        dataset: with training and, better, validation structures.
        properties: names of the data set's properties to condition on.
        fingerprint: the "default" preset for the data set's elements if None.
        epochs: number of epochs.
        seed: of weights, noise and shuffling.
        batch_size: structures per step.
        learning_rate: Adam's, falling to 0 as a half cosine.
        latent: size of the latent vector.
        hidden: widths of the hidden layers.
        kl_weight: weight of the KL term.
        logs: folder for TensorBoard; none are written if None.
        progress: show a progress bar.

    Returns:
        The model; `model.provenance["history"]` has the last epoch's losses.

    Raises:
        ValueError: on an unknown property, epochs < 1, no training structures, elements that the
            fingerprint does not know.
        ArithmeticError: if the training diverges.
    """
    properties = list(dict.fromkeys(properties))
    unknown = [name for name in properties if name not in dataset.properties]
    if unknown or not properties:
        raise ValueError(
            f"property {', '.join(map(repr, unknown)) or 'list is empty'}: the data set has "
            f"{', '.join(dataset.properties) or 'no properties'}"
        )
    if epochs < 1 or batch_size < 1:
        raise ValueError(f"epochs and batch_size are {epochs}, {batch_size}; both must be >= 1")
    training = dataset.select("train")
    if len(training) < 2:
        raise ValueError(f"the training split has {len(training)} structures; 2 are the least")
    validation = dataset.select("validation")
    if fingerprint is None:
        numbers = sorted({int(z) for s in dataset.structures for z in s.numbers})
        fingerprint = Fingerprint.preset("default", [chemical_symbols[z] for z in numbers])

    table = np.stack([training.properties[name] for name in properties], axis=1)
    keras.utils.set_random_seed(seed)
    cvae = CVAE(
        features=fingerprint.size,
        conditions=len(properties) + len(fingerprint.species),
        properties=len(properties),
        latent=latent,
        hidden=tuple(hidden),
        kl_weight=kl_weight,
        seed=seed,
    )
    model = Model(
        fingerprint=fingerprint,
        cvae=cvae,
        conditions=tuple(
            Condition(name, dataset.units[name], float(column.min()), float(column.max()))
            for name, column in zip(properties, table.T, strict=True)
        ),
        mean=table.mean(axis=0),
        covariance=np.atleast_2d(np.cov(table, rowvar=False)),
        formulas=dict(training.summary()["compositions"]),
        tolerance=0.0,
        potential=dataset.metadata.get("potential"),
    )
    inputs = _inputs(model, training, properties)
    cvae.adapt(inputs["fingerprint"], inputs["condition"])
    checked = _inputs(model, validation, properties) if len(validation) else inputs

    steps = epochs * -(-len(training) // batch_size)
    schedule = keras.optimizers.schedules.CosineDecay(learning_rate, steps)
    cvae.compile(optimizer=keras.optimizers.Adam(schedule, clipnorm=10.0))
    with tempfile.TemporaryDirectory() as scratch:
        best = Path(scratch) / "best.weights.h5"
        callbacks: list[keras.callbacks.Callback] = [
            KLWarmUp(int(WARM_UP * epochs)),
            keras.callbacks.ModelCheckpoint(
                best, monitor="val_loss", save_best_only=True, save_weights_only=True
            ),
            keras.callbacks.TerminateOnNaN(),
            _Progress(epochs, disable=not progress),
        ]
        if logs is not None:
            callbacks.append(keras.callbacks.TensorBoard(str(logs)))
        history = cvae.fit(
            inputs,
            validation_data=(checked, None),
            epochs=epochs,
            batch_size=batch_size,
            callbacks=callbacks,
            verbose=0,
        ).history
        if not np.isfinite([values[-1] for values in history.values()]).all():
            epoch = len(history["loss"])
            raise ArithmeticError(
                f"training diverged: the loss is not finite after epoch {epoch}; a lower learning "
                "rate may help"
            )
        cvae.load_weights(best)

    record = {
        "dataset": {k: dataset.metadata.get(k) for k in ("name", "kind", "seed", "created")},
        "training_structures": len(training),
        "validation_structures": len(validation),
        "epochs": epochs,
        "best_epoch": int(np.nanargmin(history["val_loss"])) + 1,
        "seed": seed,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "history": {name: float(values[-1]) for name, values in history.items()},
        "best_val_loss": float(np.nanmin(history["val_loss"])),
        "decoder_error": _decoder_error(cvae, checked),
        "surrogate_mae": _surrogate_errors(cvae, checked),
        **provenance(),
    }
    return Model(
        **{
            **{name: getattr(model, name) for name in model.__dataclass_fields__},
            "tolerance": _tolerance(inputs["fingerprint"], model.scale, seed),
            "provenance": record,
        }
    )


def _inputs(model: Model, dataset: Dataset, properties: Sequence[str]) -> dict[str, np.ndarray]:
    """The network's inputs, float32: fingerprints and condition vectors of a data set."""
    table = np.stack([dataset.properties[name] for name in properties], axis=1)
    numbers = np.zeros([len(dataset), max(len(s) for s in dataset.structures)], int)
    for row, structure in zip(numbers, dataset.structures, strict=True):
        row[: len(structure)] = structure.numbers
    return {
        "fingerprint": model.fingerprint.create(dataset.structures).astype(np.float32),
        "condition": model.condition_vectors(table, numbers).astype(np.float32),
    }


def _tolerance(fingerprints: np.ndarray, scale: np.ndarray, seed: int) -> float:
    """Median distance of a structure's fingerprint to the nearest other, in the inversion's loss.

    A structure that is nearer than this to a drawn fingerprint is the one it stands for, rather
    than some other.
    """
    scaled = fingerprints / scale.astype(np.float32)
    rng = np.random.default_rng(seed)
    sample = rng.permutation(len(scaled))[:NEIGHBOUR_SAMPLE]
    nearest = []
    for i in sample:
        distance = np.abs(scaled - scaled[i]).mean(axis=1)
        distance[i] = np.inf
        nearest.append(distance.min())
    return float(np.median(nearest))


def _decoder_error(cvae: CVAE, inputs: dict[str, np.ndarray]) -> float:
    """How far decoded fingerprints are from those encoded, in the inversion's loss; the median."""
    decoded = cvae.predict(inputs, verbose=0)["fingerprint"]
    error = np.abs(decoded - inputs["fingerprint"]) / np.asarray(cvae.feature_scale)
    return float(np.median(error.mean(axis=1)))


def _surrogate_errors(cvae: CVAE, inputs: dict[str, np.ndarray]) -> list[float]:
    """Mean absolute error of the surrogate, per property."""
    predicted = np.asarray(cvae.predict_properties(inputs["fingerprint"]))
    return np.abs(predicted - inputs["condition"][:, : cvae.properties]).mean(axis=0).tolist()


class _Progress(keras.callbacks.Callback):
    """One bar for the whole training, with the losses and the time left."""

    def __init__(self, epochs: int, disable: bool) -> None:
        super().__init__()
        self._bar = tqdm(total=epochs, desc="training", unit=" epochs", disable=disable)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        logs = logs or {}
        shown = {k: f"{logs[k]:.3f}" for k in ("loss", "val_loss", "kl") if k in logs}
        self._bar.set_postfix(shown, refresh=False)
        self._bar.update()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        self._bar.close()
