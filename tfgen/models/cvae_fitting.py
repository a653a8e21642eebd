"""Fits the CVAE by Keras, with backups from which an interrupted training is resumed."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tfgen._files import OutputExistsError, new_file, require_folder_replaceable
from tfgen.models._keras import keras
from tfgen.models.batches import choose_steps_per_execution, make_batches
from tfgen.models.callbacks import BackUpEvery, KeepBest, KLWarmUp, ShowProgress
from tfgen.models.cvae import CVAE
from tfgen.models.settings import TrainingSettings

__all__ = [
    "Fit",
    "can_be_resumed",
    "fit_cvae",
    "open_checkpoint",
    "remove_checkpoint",
    "without_optimizer",
]

CONTENTS = ("task.json", "best.weights.h5", "fit.json", "backup")


@dataclass(frozen=True)
class Fit:
    """How the training of a CVAE went.

    Attributes:
        history: loss or metric -> its value after the last epoch.
        best_epoch: epoch, from 1, with the lowest validation loss, whose weights are kept; None if
            it lies before an interruption.
        best_val_loss: that loss.
    """

    history: dict[str, float]
    best_epoch: int | None
    best_val_loss: float


def fit_cvae(
    cvae: CVAE,
    inputs: Mapping[str, np.ndarray],
    validation: Mapping[str, np.ndarray],
    folder: Path,
    *,
    epochs: int,
    seed: int,
    settings: TrainingSettings,
    backups: bool = False,
    logs: str | os.PathLike[str] | None = None,
    progress: bool = False,
) -> Fit:
    """Trains a CVAE, and leaves it with its best weights.

    Args:
        cvae: the network, adapted to the inputs.
        inputs: "fingerprint" and "condition" of the training split.
        validation: the same of the validation split.
        folder: keeps the best weights and the backups; what an interrupted training has left there
            is gone on with.
        epochs: passes through the inputs.
        seed: of the order of the inputs.
        settings: of the training.
        backups: whether to write backups.
        logs: folder for TensorBoard; none are written if None.
        progress: show a progress bar.

    Raises:
        ArithmeticError: if the training diverges.
    """
    best, backup, done = (folder / name for name in ("best.weights.h5", "backup", "fit.json"))
    if done.exists():  # what came after it was interrupted
        cvae.load_weights(best)
        return Fit(**json.loads(done.read_text(encoding="utf-8")))
    batches, steps = make_batches(inputs, settings.batch_size, seed)
    schedule = keras.optimizers.schedules.CosineDecay(settings.learning_rate, epochs * steps)
    cvae.compile(
        optimizer=keras.optimizers.Adam(schedule, clipnorm=settings.clip_norm),
        steps_per_execution=choose_steps_per_execution(steps),
    )
    # Built by `fit`, while it traces a step, the optimiser makes TensorFlow trace the step twice.
    cvae.optimizer.build(cvae.trainable_variables)
    whole = tf.data.Dataset.from_tensors(validation)
    every = max(1, epochs // settings.max_validations)
    threshold = np.inf
    # Without a backup yet, the training starts again from its first weights.
    if best.exists() and backup.exists():
        # What was best before the interruption is still to be undercut.
        cvae.load_weights(best)
        threshold = cvae.evaluate(whole, verbose=0, return_dict=True)["loss"]
    bar = ShowProgress(epochs, disable=not progress)
    callbacks: list[keras.callbacks.Callback] = [
        KLWarmUp(int(settings.kl_warm_up * epochs)),
        KeepBest(str(best), threshold),
        keras.callbacks.TerminateOnNaN(),
        bar,
    ]
    if backups:
        callbacks.append(BackUpEvery(str(backup), settings.backup_interval))
    if logs is not None:
        callbacks.append(keras.callbacks.TensorBoard(str(logs)))
    try:
        fitted = cvae.fit(
            batches,
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
    last = {name: float(values[-1]) for name, values in fitted.history.items()}
    if not np.isfinite([*last.values()]).all():
        raise ArithmeticError(
            f"training diverged: the loss is not finite after epoch {fitted.epoch[-1] + 1}; a "
            "lower learning rate may help"
        )
    cvae.load_weights(best)
    validated = [epoch + 1 for epoch in fitted.epoch if (epoch + 1) % every == 0]
    losses = fitted.history.get("val_loss", [])  # a resumed training may end without a validation
    lowest = int(np.nanargmin(losses)) if losses else None
    fit = (
        Fit(last, None, float(threshold))
        if lowest is None or threshold < losses[lowest]
        else Fit(last, validated[lowest], float(losses[lowest]))
    )
    with new_file(done, overwrite=True) as temporary:
        temporary.write_text(json.dumps(asdict(fit)), encoding="utf-8")
    return fit


def without_optimizer(cvae: CVAE) -> CVAE:
    """Returns a copy that is not compiled, as an artefact needs no optimiser."""
    copy: CVAE = CVAE.from_config(cvae.get_config())
    copy.build()
    copy.set_weights(cvae.get_weights())
    return copy


@contextlib.contextmanager
def open_checkpoint(
    folder: str | os.PathLike[str] | None,
    task: Mapping[str, Any],
    overwrite: bool,
    keep: bool = False,
) -> Iterator[Path]:
    """Yields the folder of a training's checkpoints; it stays if the training is interrupted.

    Args:
        folder: where it is to be; None takes a temporary one.
        task: JSON-able; what the training depends on.
        overwrite: discard the checkpoints of another task.
        keep: leave the folder in the end, too; `remove_checkpoint` removes it.

    Raises:
        FileExistsError: if the folder keeps another task and `overwrite` is false, or holds
            anything that is no checkpoint.
    """
    if folder is None:
        with tempfile.TemporaryDirectory() as scratch:
            yield Path(scratch)
        return
    folder, text = Path(folder), json.dumps(task, sort_keys=True)
    record = folder / "task.json"
    # Whatever its name: a folder that holds anything else is not ours to remove.
    require_folder_replaceable(folder, True, CONTENTS)
    if record.exists() and record.read_text(encoding="utf-8") != text:
        if not overwrite:
            raise OutputExistsError(folder, "keeps another, interrupted training")
        shutil.rmtree(folder)
    folder.mkdir(exist_ok=True)
    with new_file(record, overwrite=True) as temporary:
        temporary.write_text(text, encoding="utf-8")
    try:
        yield folder
    except ArithmeticError:
        shutil.rmtree(folder)  # training cannot continue from NaN
        raise
    if not keep:
        remove_checkpoint(folder)


def can_be_resumed(folder: Path) -> bool:
    """Whether a folder of checkpoints holds more than the record of its task."""
    return (folder / "backup").exists() or (folder / "fit.json").exists()


def remove_checkpoint(folder: str | os.PathLike[str]) -> None:
    """Removes the folder of a training's checkpoints, if there is one.

    Raises:
        FileExistsError: if it holds anything that is no checkpoint.
    """
    if Path(folder).exists():
        shutil.rmtree(require_folder_replaceable(folder, True, CONTENTS))
