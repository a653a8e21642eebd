"""Keras callbacks of the CVAE's training."""

from __future__ import annotations

import math
from typing import Any

from tqdm import tqdm

from tfgen.models._keras import keras

__all__ = ["BackUpEvery", "KLWarmUp", "KeepBest", "ShowProgress"]


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


class KeepBest(keras.callbacks.ModelCheckpoint):
    """Saves the weights with the lowest validation loss; not every epoch has a validation.

    Args:
        filepath: file of the weights.
        threshold: loss that has to be undercut, of an earlier part of the training.
    """

    def __init__(self, filepath: str, threshold: float = math.inf) -> None:
        super().__init__(
            filepath,
            monitor="val_loss",
            save_best_only=True,
            save_weights_only=True,
            initial_value_threshold=threshold,
        )

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Saves the weights if this epoch was validated, and is the best."""
        if logs and self.monitor in logs:
            super().on_epoch_end(epoch, logs)


class BackUpEvery(keras.callbacks.BackupAndRestore):
    """Backs up a training every few epochs, so that it can be resumed.

    Writing the weights in each epoch would take longer than the training of a small network.

    Args:
        folder: where the backup is kept.
        epochs: interval between two backups.
    """

    def __init__(self, folder: str, epochs: int) -> None:
        super().__init__(folder)
        self.epochs = epochs

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Writes a backup after every `epochs` epochs."""
        if (epoch + 1) % self.epochs == 0:
            super().on_epoch_end(epoch, logs)


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
