"""Keras callbacks of the CVAE's training."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from tfgen.models._keras import keras
from tfgen.models.checkpoints import Progress, write_checkpoint

__all__ = ["KLWarmUp", "KeepProgress", "ShowProgress", "state_of"]


class KLWarmUp(keras.callbacks.Callback):
    """Raises the KL term from nothing to its full weight over the first epochs.

    Without it, the decoder may learn to ignore the latent vector before that carries any
    information (posterior collapse).

    Args:
        epochs: length of the rise.

    References:
        S. R. Bowman et al., arXiv:1511.06349, section 3.1.
    """

    def __init__(self, epochs: int) -> None:
        super().__init__()
        self.epochs = epochs

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Sets the share for this epoch."""
        self.model.kl_warmth.assign(min(1.0, (epoch + 1) / max(1, self.epochs)))


class KeepProgress(keras.callbacks.Callback):
    """Keeps how far the training is: losses, the best weights, checkpoints.

    Writing checkpoints in each epoch would take longer than the training of a small network.

    Args:
        progress: is changed.
        folder: of the checkpoints; None: none are written.
        interval: epochs between two checkpoints; one is written after the last epoch, too.
        patience: epochs without a lower validation loss after which the training ends; None: never.
        warm_up: epochs at first that do not count for that.
    """

    def __init__(
        self,
        progress: Progress,
        folder: Path | None,
        interval: int,
        *,
        patience: int | None = None,
        warm_up: int = 0,
    ) -> None:
        super().__init__()
        self.progress, self.folder, self.interval = progress, folder, interval
        self.patience, self.warm_up = patience, warm_up

    def is_over(self, epochs: int) -> bool:
        """Whether a training of so many epochs has ended, with all of them or without patience."""
        progress = self.progress
        in_vain = progress.epoch - max(progress.best_epoch, self.warm_up)
        return progress.epoch >= epochs or (self.patience is not None and in_vain >= self.patience)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Takes the losses over, and the weights if they are the best; not all are validated."""
        progress, values = self.progress, {k: float(v) for k, v in (logs or {}).items()}
        progress.epoch = epoch + 1
        progress.history.update(values)
        if values.get("val_loss", math.inf) < progress.best_val_loss:
            progress.best_epoch, progress.best_val_loss = epoch + 1, values["val_loss"]
            progress.best = self.model.get_weights()
        self.model.stop_training |= (over := self.is_over(self.params["epochs"]))
        due = over or (epoch + 1) % self.interval == 0
        # From what is not finite, no training goes on.
        if self.folder is not None and due and np.isfinite([*progress.history.values()]).all():
            progress.state = [v.numpy() for v in state_of(self.model)]
            write_checkpoint(self.folder, progress)


def state_of(model: keras.Model) -> list[keras.Variable]:
    """Returns all that a training changes: weights, random numbers, the optimiser's state."""
    return [*model.variables, *model.optimizer.variables]


class ShowProgress(keras.callbacks.Callback):
    """Shows one bar for the whole training, with the losses and the time that is left.

    Args:
        epochs: of the training.
        disable: show nothing.
    """

    def __init__(self, epochs: int, disable: bool = False) -> None:
        super().__init__()
        self.epochs, self.disable = epochs, disable
        self._bar = tqdm(total=epochs, desc="training", unit=" epochs", disable=disable)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Moves the bar on."""
        logs = logs or {}
        shown = {k: f"{logs[k]:.3f}" for k in ("loss", "val_loss", "kl") if k in logs}
        self._bar.set_postfix(shown, refresh=False)
        self._bar.update(epoch + 1 - self._bar.n)  # a resumed training starts further on

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Closes the bar."""
        self._bar.close()
