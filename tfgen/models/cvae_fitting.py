"""Fits the CVAE by Keras; an interrupted training ends as one that was not."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tfgen.models._keras import keras
from tfgen.models.batches import choose_steps_per_execution, make_batches
from tfgen.models.callbacks import KeepProgress, KLWarmUp, ShowProgress, state_of
from tfgen.models.checkpoints import Progress, read_checkpoint
from tfgen.models.cvae import CVAE
from tfgen.models.settings import TrainingSettings

__all__ = ["Fit", "fit_cvae", "without_optimizer"]


@dataclass(frozen=True)
class Fit:
    """How the training of a CVAE went.

    Attributes:
        history: loss or metric -> its last value.
        best_epoch: epoch, from 1, with the lowest validation loss, whose weights are kept.
        best_val_loss: that loss.
        epochs: how many there were.
    """

    history: dict[str, float]
    best_epoch: int
    best_val_loss: float
    epochs: int


def fit_cvae(
    cvae: CVAE,
    inputs: Mapping[str, np.ndarray],
    validation: Mapping[str, np.ndarray],
    folder: Path | None,
    *,
    epochs: int,
    seed: int,
    settings: TrainingSettings,
    optimizer: keras.optimizers.Optimizer | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    logs: str | os.PathLike[str] | None = None,
    progress: bool = False,
) -> Fit:
    """Trains a CVAE, and leaves it with its best weights.

    Args:
        cvae: the network, adapted to the inputs.
        inputs: "fingerprint" and "condition" of the training split.
        validation: the same of the validation split.
        folder: of the checkpoints; what an interrupted training has left there is gone on with.
            None: none are written.
        epochs: passes through the inputs.
        seed: of the order of the inputs.
        settings: of the training.
        optimizer: what is used instead of Adam with the learning rate of `settings`.
        callbacks: further ones.
        logs: folder for TensorBoard; none are written if None.
        progress: show a progress bar.

    Raises:
        ArithmeticError: if the training diverges.
    """
    steps = make_batches(inputs, settings.batch_size, seed)[1]
    cvae.compile(
        optimizer=_make_optimizer(optimizer, settings, epochs * steps),
        steps_per_execution=choose_steps_per_execution(steps),
    )
    # Built by `fit`, while it traces a step, the optimiser makes TensorFlow trace the step twice.
    cvae.optimizer.build(cvae.trainable_variables)
    reached = _resume(cvae, folder)
    bar = ShowProgress(epochs, disable=not progress)
    warm_up = int(settings.kl_warm_up * epochs)
    keeper = KeepProgress(
        reached, folder, settings.backup_interval, patience=settings.patience, warm_up=warm_up
    )
    every = [KLWarmUp(warm_up), keeper, keras.callbacks.TerminateOnNaN(), bar]
    if logs is not None:
        every.append(keras.callbacks.TensorBoard(str(logs)))
    try:
        if not keeper.is_over(epochs):
            taken = int(cvae.optimizer.iterations.numpy())
            cvae.fit(
                make_batches(inputs, settings.batch_size, seed, taken)[0],
                steps_per_epoch=steps,
                validation_data=tf.data.Dataset.from_tensors(validation),
                validation_freq=max(1, epochs // settings.max_validations),
                shuffle=False,  # they are already
                initial_epoch=reached.epoch,
                epochs=epochs,
                callbacks=[*every, *callbacks],
                verbose=0,
            )
    finally:
        bar.on_train_end()  # Keras calls it only if nothing was raised
    if not reached.best or not np.isfinite([*reached.history.values()]).all():
        raise ArithmeticError(
            f"training diverged: the loss is not finite after epoch {reached.epoch}; a lower "
            "learning rate may help"
        )
    cvae.set_weights(reached.best)
    return Fit(reached.history, reached.best_epoch, reached.best_val_loss, reached.epoch)


def _make_optimizer(
    given: keras.optimizers.Optimizer | None, settings: TrainingSettings, steps: int
) -> keras.optimizers.Optimizer:
    """Returns a new optimizer: one that has been used belongs to the weights of another network."""
    if given is not None:
        return type(given).from_config(given.get_config())
    rate: Any = settings.learning_rate
    if settings.learning_rate_schedule == "cosine":
        rate = keras.optimizers.schedules.CosineDecay(rate, steps)
    elif settings.learning_rate_schedule == "linear":
        rate = keras.optimizers.schedules.PolynomialDecay(rate, steps, end_learning_rate=0.0)
    return keras.optimizers.Adam(rate, clipnorm=settings.clip_norm)


def _resume(cvae: CVAE, folder: Path | None) -> Progress:
    """Returns how far a training is; the network is as it was then."""
    if folder is None:
        return Progress()
    variables = state_of(cvae)
    state = [v.numpy() for v in variables]
    progress = read_checkpoint(folder, cvae.get_weights(), state)
    if progress is None:
        return Progress()
    for variable, value in zip(variables, progress.state, strict=True):
        variable.assign(value)
    return progress


def without_optimizer(cvae: CVAE) -> CVAE:
    """Returns a copy that is not compiled, as an artefact needs no optimiser."""
    copy: CVAE = CVAE.from_config(cvae.get_config())
    copy.build()
    copy.set_weights(cvae.get_weights())
    return copy
