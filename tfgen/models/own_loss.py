"""What tfgen's networks have in common as Keras models."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from tfgen.models._keras import keras

__all__ = ["OwnLossModel"]

STATE = "optimizer_state"  # in the configuration of compilation: whether a file has it


class OwnLossModel(keras.Model):
    """A Keras model with a loss and metrics of its own, saved without its optimiser's state."""

    _saves_optimizer = True

    def compile(
        self,
        optimizer: Any = "rmsprop",
        loss: Any = None,
        loss_weights: Any = None,
        metrics: Any = None,
        weighted_metrics: Any = None,
        **options: Any,
    ) -> None:
        """Compiles as Keras does.

        Raises:
            ValueError: if a loss or metrics are given, which would have no effect.
        """
        for name, value in (
            ("loss", loss),
            ("loss_weights", loss_weights),
            ("metrics", metrics),
            ("weighted_metrics", weighted_metrics),
        ):
            if value is not None:
                raise ValueError(
                    f"{name} is {value!r}; {type(self).__name__} has a loss and metrics of its own:"
                    " compile it without"
                )
        super().compile(optimizer, **options)

    def fit(
        self, x: Any = None, y: Any = None, *arguments: Any, sample_weight: Any = None, **other: Any
    ) -> Any:
        """Trains as Keras does, which heeds weights only where there are labels.

        Raises:
            ValueError: if a sample weight is negative or not finite.
        """
        y = _labels_for(sample_weight, y)
        return super().fit(x, y, *arguments, sample_weight=sample_weight, **other)

    def evaluate(
        self, x: Any = None, y: Any = None, *arguments: Any, sample_weight: Any = None, **other: Any
    ) -> Any:
        """Evaluates as Keras does; see `fit`."""
        y = _labels_for(sample_weight, y)
        return super().evaluate(x, y, *arguments, sample_weight=sample_weight, **other)

    def get_compile_config(self) -> dict[str, Any]:
        """Returns how the model was compiled."""
        config = super().get_compile_config()
        return {**config, STATE: self._saves_optimizer} if config else config

    def compile_from_config(self, config: Mapping[str, Any]) -> None:
        """Compiles as a model was that had this configuration."""
        config = dict(config)
        has_state = config.pop(STATE, True)
        self.compile(**keras.saving.deserialize_keras_object(config))
        if has_state and self.built:  # Keras loads the state into what is built
            self.optimizer.build(self.trainable_variables)

    def save(
        self,
        filepath: str | os.PathLike[str],
        overwrite: bool = True,
        zipped: bool | None = None,
        include_optimizer: bool = False,
        **options: Any,
    ) -> None:
        """Saves as Keras does.

        Args:
            filepath: of the file, which ends in .keras.
            overwrite: whether an old file may be replaced.
            zipped: whether it is to be one file, not a folder.
            include_optimizer: also save the optimiser's state, to go on with the training later; it
                makes the file three times as large.
            options: whatever else Keras takes.
        """
        saved = self
        if self.compiled and self.built and not include_optimizer:
            saved = type(self).from_config(self.get_config())
            saved.build()
            saved.set_weights(self.get_weights())
            saved.compile_from_config({**self.get_compile_config(), STATE: False})
            saved._saves_optimizer = False
        super(OwnLossModel, saved).save(filepath, overwrite, zipped, **options)


def _labels_for(sample_weight: Any, y: Any) -> Any:
    """Returns the labels, or some where there are only weights; checks these."""
    if sample_weight is None:
        return y
    weights = np.asarray(sample_weight, np.float64)
    if not (np.isfinite(weights) & (weights >= 0)).all():
        raise ValueError("a sample weight is negative or not finite")
    return np.zeros(len(weights), np.float32) if y is None else y
