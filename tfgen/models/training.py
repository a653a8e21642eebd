"""From a data set to a trained model."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from ase import Atoms
from ase.calculators.calculator import BaseCalculator
from ase.data import chemical_symbols
from tqdm import tqdm

from tfgen._files import new_file, require_folder_replaceable
from tfgen.datasets.storage import Dataset, provenance
from tfgen.fingerprints.fingerprint import Fingerprint
from tfgen.models.batches import batches, steps_per_call
from tfgen.models.cvae import CVAE, KLWarmUp
from tfgen.models.model import Condition, Model
from tfgen.models.neural_potential import fit_nnp
from tfgen.potentials.base import Potential
from tfgen.potentials.emt import EMT
from tfgen.structures.properties import ENERGY_PER_ATOM

__all__ = ["train"]

# Share of the epochs over which the KL term rises to its full weight.
WARM_UP = 0.25
# Structures whose nearest neighbours set the tolerance of the inversion.
NEIGHBOUR_SAMPLE = 256
# Fingerprints closer than this, in units of the features' spread, are of the same structure.
COPY = 1e-6
# Share of minima from which on a set is one of minima.
MINIMA = 0.8
# Epochs between two backups of a training that can be resumed.
BACKUP_EPOCHS = 10
# Validations in a long training; one takes Keras about as long as an epoch of a small set.
VALIDATIONS = 200


def train(
    dataset: Dataset,
    properties: Sequence[str] = (ENERGY_PER_ATOM,),
    *,
    fingerprint: Fingerprint | None = None,
    epochs: int = 300,
    seed: int = 0,
    batch_size: int = 64,
    learning_rate: float = 1e-3,
    latent: int = 10,
    hidden: Sequence[int] = (256, 256),
    kl_weight: float = 1.0,
    potential: Potential | BaseCalculator | str | None = "auto",
    logs: str | os.PathLike[str] | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    progress: bool = False,
) -> Model:
    """Trains a CVAE on the fingerprints of a data set by Keras `fit`, keeping the best weights.

    Best is the lowest loss on the validation split (on the training split if that is empty).

    Args:
        dataset: with training and, better, validation structures.
        properties: names of the data set's properties to condition on.
        fingerprint: the "default" preset for the data set's elements if None.
        epochs: number of epochs.
        seed: of weights, noise and shuffling; Keras' global generators are set by it.
        batch_size: structures per step.
        learning_rate: Adam's, falling to 0 as a half cosine.
        latent: size of the latent vector.
        hidden: widths of the hidden layers.
        kl_weight: weight of the KL term.
        potential: what made the data set's energies: a tfgen potential, an ASE calculator, None,
            or "auto": EMT if the data set says so, else None. An NNP is learned from it (see
            `tfgen.models.neural_potential`), with which generation is far more often on target; it
            takes a few single calculations for each training structure, at most 8,000 in all.
        logs: folder for TensorBoard; none are written if None.
        checkpoint: folder that keeps an interrupted training, which the same call then goes on
            with, and that is removed in the end; None keeps nothing.
        overwrite: discard a checkpoint of another training.
        progress: show a progress bar.

    Returns:
        The model; `model.provenance["history"]` has the last epoch's losses.

    Raises:
        ValueError: on an unknown property, what is no potential, epochs < 1, no training
            structures, elements that the fingerprint does not know, fingerprints that are not
            finite or all the same, or a checkpoint of another training.
        ArithmeticError: if the training diverges.
    """
    properties = list(dict.fromkeys(properties))
    unknown = [name for name in properties if name not in dataset.properties]
    if unknown or not properties:
        raise ValueError(
            f"property {', '.join(map(repr, unknown)) or 'list is empty'}: the data set has "
            f"{', '.join(dataset.properties) or 'no properties'}; choose with --property"
        )
    if epochs < 1 or batch_size < 1:
        raise ValueError(f"epochs and batch_size are {epochs}, {batch_size}; both must be >= 1")
    if any(s.pbc.any() for s in dataset.structures):
        raise ValueError(
            "the data set holds periodic structures, and generation knows clusters only; for "
            "clusters in a box, import them with pbc switched off"
        )
    training = dataset.select("train")
    if len(training) < 2:
        raise ValueError(f"the training split has {len(training)} structures; 2 are the least")
    validation = dataset.select("validation")
    labeller = _labeller(potential, dataset)
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
        name="cvae",
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
        library=tuple(training.structures),
    )
    inputs = _inputs(model, training, properties)
    vectors = inputs["fingerprint"]
    cvae.adapt(vectors, inputs["condition"], fingerprint.scale(vectors))
    tolerance = _tolerance(inputs["fingerprint"], model.scale, seed)
    checked = _inputs(model, validation, properties) if len(validation) else inputs

    task = {
        "config": model.config(),
        "data": [len(training), len(validation), float(inputs["fingerprint"].sum(dtype=float))],
        "settings": [epochs, seed, batch_size, learning_rate],
    }
    feed, steps = batches(inputs, batch_size, seed)
    schedule = keras.optimizers.schedules.CosineDecay(learning_rate, epochs * steps)
    cvae.compile(
        optimizer=keras.optimizers.Adam(schedule, clipnorm=10.0),
        steps_per_execution=steps_per_call(steps),
    )
    every = max(1, epochs // VALIDATIONS)
    whole = tf.data.Dataset.from_tensors(checked)
    with _workspace(checkpoint, task, overwrite) as folder:
        best = folder / "best.weights.h5"
        threshold = None
        # Without a backup yet, the training starts anew, from its first weights.
        if best.exists() and (folder / "backup").exists():
            # What was best before the interruption is still to be beaten.
            cvae.optimizer.build(cvae.trainable_variables)  # its state is in the file too
            cvae.load_weights(best)
            threshold = cvae.evaluate(whole, verbose=0, return_dict=True)["loss"]
        bar = _Progress(epochs, disable=not progress)
        callbacks: list[keras.callbacks.Callback] = [
            KLWarmUp(int(WARM_UP * epochs)),
            _Best(
                best,
                monitor="val_loss",
                save_best_only=True,
                save_weights_only=True,
                initial_value_threshold=threshold,
            ),
            keras.callbacks.TerminateOnNaN(),
            bar,
        ]
        if checkpoint is not None:
            callbacks.append(_Backup(str(folder / "backup")))
        if logs is not None:
            callbacks.append(keras.callbacks.TensorBoard(str(logs)))
        try:
            fitted = cvae.fit(
                feed,
                steps_per_epoch=steps,
                validation_data=whole,
                validation_freq=every,
                shuffle=False,  # they are already
                epochs=epochs,
                callbacks=callbacks,
                verbose=0,
            )
        finally:
            bar.on_train_end()  # Keras calls it only if nothing was raised
        if not np.isfinite([values[-1] for values in fitted.history.values()]).all():
            raise ArithmeticError(
                f"training diverged: the loss is not finite after epoch {fitted.epoch[-1] + 1}; a "
                "lower learning rate may help"
            )
        cvae.load_weights(best)
        nnp, learned = None, None
        if labeller is not None:
            nnp, learned = fit_nnp(
                fingerprint.descriptor,
                training.structures,
                lambda structures: _single_points(labeller, structures),
                seed=seed,
                progress=progress,
            )

    history = fitted.history
    # The artefact needs no optimiser.
    trained = CVAE.from_config(cvae.get_config())
    trained.build()
    trained.set_weights(cvae.get_weights())
    validated = [epoch + 1 for epoch in fitted.epoch if (epoch + 1) % every == 0]
    lowest = int(np.nanargmin(history["val_loss"]))
    reached = float(history["val_loss"][lowest])
    earlier = threshold is not None and threshold < reached
    record = {
        "dataset": {k: dataset.metadata.get(k) for k in ("name", "kind", "seed", "created")},
        "training_structures": len(training),
        "validation_structures": len(validation),
        "epochs": epochs,
        "best_epoch": None if earlier else validated[lowest],
        "seed": seed,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "history": {name: float(values[-1]) for name, values in history.items()},
        "best_val_loss": reached if threshold is None else min(reached, threshold),
        "decoder_error": _decoder_error(cvae, checked),
        "surrogate_mae": _surrogate_errors(cvae, checked),
        "nnp": learned,
        **provenance(),
    }
    return replace(
        model,
        cvae=trained,
        tolerance=tolerance,
        nnp=nnp,
        minima=learned is None or learned["minima"] >= MINIMA,
        provenance=record,
    )


def _labeller(
    potential: Potential | BaseCalculator | str | None, dataset: Dataset
) -> Potential | BaseCalculator | None:
    if potential == "auto":
        return EMT() if dataset.metadata.get("potential") == "emt" else None
    if potential is None or (
        isinstance(potential, BaseCalculator | Potential) and not isinstance(potential, type)
    ):
        return potential
    raise ValueError(
        f"potential is {potential!r}; 'auto', None, a potential like tfgen.EMT() or an ASE "
        "calculator is needed"
    )


def _single_points(
    potential: Potential | BaseCalculator, structures: Sequence[Atoms]
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Energies [n], eV, NaN where a calculation fails, and forces, eV/Å."""
    if not isinstance(potential, BaseCalculator):
        found = potential.compute(structures)
        return np.asarray(found["energy"]), found["forces"]
    energies, forces = np.full(len(structures), np.nan), []
    for i, structure in enumerate(structures):
        atoms = structure.copy()
        atoms.calc = potential
        force = np.zeros_like(atoms.positions)
        # Calculators raise what they like; a structure less does no harm.
        with contextlib.suppress(Exception):
            force = np.asarray(atoms.get_forces())
            energies[i] = atoms.get_potential_energy()
        forces.append(force)
    return energies, forces


@contextlib.contextmanager
def _workspace(
    folder: str | os.PathLike[str] | None, task: dict[str, Any], overwrite: bool
) -> Iterator[Path]:
    """Yields the folder of a training's checkpoints; it stays if the training is interrupted."""
    if folder is None:
        with tempfile.TemporaryDirectory() as scratch:
            yield Path(scratch)
        return
    folder, text = Path(folder), json.dumps(task, sort_keys=True)
    record = folder / "task.json"
    # Whatever its name: a folder that holds anything else is not ours to remove.
    require_folder_replaceable(folder, True, ("task.json", "best.weights.h5", "backup"))
    if record.exists() and record.read_text(encoding="utf-8") != text:
        if not overwrite:
            raise ValueError(
                f"{str(folder)!r} keeps another, interrupted training; remove it or use --overwrite"
            )
        shutil.rmtree(folder)
    folder.mkdir(exist_ok=True)
    with new_file(record, overwrite=True) as temporary:
        temporary.write_text(text, encoding="utf-8")
    try:
        yield folder
    except ArithmeticError:
        shutil.rmtree(folder)  # nobody wants to go on with NaN
        raise
    shutil.rmtree(folder)


def _inputs(model: Model, dataset: Dataset, properties: Sequence[str]) -> dict[str, np.ndarray]:
    """The network's inputs, float32: fingerprints and condition vectors of a data set."""
    table = np.stack([dataset.properties[name] for name in properties], axis=1)
    numbers = np.zeros([len(dataset), max(len(s) for s in dataset.structures)], int)
    for row, structure in zip(numbers, dataset.structures, strict=True):
        row[: len(structure)] = structure.numbers
    fingerprints = model.fingerprint.create(dataset.structures)
    if not (np.abs(fingerprints) < np.finfo(np.float32).max).all():
        raise ValueError("the fingerprint of a structure is not finite in float32")
    return {
        "fingerprint": fingerprints.astype(np.float32),
        "condition": model.condition_vectors(table, numbers).astype(np.float32),
    }


def _tolerance(fingerprints: np.ndarray, scale: np.ndarray, seed: int) -> float:
    """Median distance of a structure's fingerprint to the nearest other, in the inversion's loss.

    A structure that is nearer than this to a drawn fingerprint is the one it stands for, rather
    than some other. Copies of it in the data set are not others.

    Raises:
        ValueError: if all fingerprints are the same.
    """
    scaled = fingerprints / scale.astype(np.float32)
    rng = np.random.default_rng(seed)
    sample = rng.permutation(len(scaled))[:NEIGHBOUR_SAMPLE]
    nearest = []
    for i in sample:
        distance = np.abs(scaled - scaled[i]).mean(axis=1)
        others = distance[distance > COPY]
        if others.size:
            nearest.append(others.min())
    if not nearest:
        raise ValueError(
            "the fingerprint is the same for all training structures; it must tell them apart"
        )
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


class _Best(keras.callbacks.ModelCheckpoint):
    """Keeps the best weights; knows that not every epoch is validated."""

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if logs and self.monitor in logs:
            super().on_epoch_end(epoch, logs)


class _Backup(keras.callbacks.BackupAndRestore):
    """Backs up every few epochs; writing the weights in each would take longer than training."""

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if (epoch + 1) % BACKUP_EPOCHS == 0:
            super().on_epoch_end(epoch, logs)


class _Progress(keras.callbacks.Callback):
    """One bar for the whole training, with the losses and the time left."""

    def __init__(self, epochs: int, disable: bool) -> None:
        super().__init__()
        self._bar = tqdm(total=epochs, desc="training", unit=" epochs", disable=disable)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        logs = logs or {}
        shown = {k: f"{logs[k]:.3f}" for k in ("loss", "val_loss", "kl") if k in logs}
        self._bar.set_postfix(shown, refresh=False)
        self._bar.update(epoch + 1 - self._bar.n)  # a resumed training starts further on

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        self._bar.close()
