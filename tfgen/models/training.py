"""From a data set to a trained model."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from ase.calculators.calculator import BaseCalculator
from ase.data import chemical_symbols

from tfgen._files import require_folder_replaceable
from tfgen.datasets.storage import Dataset, provenance
from tfgen.fingerprints.fingerprint import Fingerprint
from tfgen.fingerprints.loss import fingerprint_loss, scaled_errors
from tfgen.models._keras import in_float32, keras
from tfgen.models.artefact import encode_config
from tfgen.models.checkpoints import can_be_resumed, open_checkpoint
from tfgen.models.condition import Condition
from tfgen.models.cvae import CVAE
from tfgen.models.cvae_fitting import Fit, fit_cvae, without_optimizer
from tfgen.models.fine_tuning import check_initial_model, describe_initial_model, require_model
from tfgen.models.model import Model
from tfgen.models.nnp_learning import LearnedNNP, learn_nnp
from tfgen.models.settings import NNPSettings, TrainingSettings
from tfgen.models.training_arrays import estimate_tolerance, make_inputs, tabulate
from tfgen.potentials.ase import AsePotential
from tfgen.potentials.base import Potential
from tfgen.potentials.emt import EMT
from tfgen.potentials.evaluation import adapt_potential
from tfgen.structures.properties import ENERGY_PER_ATOM

__all__ = ["train"]


@in_float32()
def train(
    dataset: Dataset,
    properties: Sequence[str] = (ENERGY_PER_ATOM,),
    *,
    fingerprint: Fingerprint | None = None,
    epochs: int = 300,
    seed: int = 0,
    settings: TrainingSettings | None = None,
    nnp: NNPSettings | None = None,
    potential: Potential | AsePotential | BaseCalculator | str | None = "auto",
    initial_model: Model | None = None,
    optimizer: keras.optimizers.Optimizer | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    logs: str | os.PathLike[str] | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    keep_checkpoint: bool = False,
    overwrite: bool = False,
    progress: bool = False,
) -> Model:
    """Trains a CVAE on the fingerprints of a data set by Keras `fit`, keeping the best weights.

    The best weights are those with the lowest loss on the validation split (on the training split
    if that is empty). If a potential is at hand, a neural-network potential (NNP, see
    `tfgen.models.nnp_fitting`) is learned from it, too, with which generation is far more often on
    target; it takes a few single-point calculations for each training structure. Energies and
    forces that the data set has, and its snapshots of relaxations, save some of them. An NNP whose
    training fails, or whose error is too large to tell the structures apart, is not used; nor is
    one of a potential with other energies than those of the data set, if one is trained on.

    Args:
        dataset: with training and, better, validation structures.
        properties: names of the data set's properties to condition on.
        fingerprint: the "default" preset for the data set's elements if None.
        epochs: number of epochs.
        seed: of weights, noise and shuffling; it sets Keras' global generators, too.
        settings: how the CVAE is trained; the defaults if None.
        nnp: how the NNP is learned; the defaults if None.
        potential: what computed the data set's energies: a tfgen potential, an ASE calculator,
            None (no NNP is learned), or "auto": EMT if the data set says so. If it does not, an
            NNP is learned from the energies and forces that the data set has, if it has them of
            enough structures on the way to minima.
        initial_model: a model of the same fingerprint, properties and architecture, whose network
            the training begins with (fine-tuning). Its scaling stays; all else that the new model
            says (tolerance, ranges, NNP, training structures) is of `dataset`.
        optimizer: of Keras; what is used instead of Adam with the learning rate of `settings`.
        callbacks: of Keras; further ones. What they keep to themselves is not in a checkpoint.
        logs: folder for TensorBoard; none are written if None. What an earlier training has
            written there is replaced, as TensorBoard would draw one over the other.
        checkpoint: folder that keeps an interrupted training, which the same call resumes, and
            that is removed in the end; None keeps nothing.
        keep_checkpoint: leave it, for a caller that removes it when the model stands on disk.
        overwrite: discard a checkpoint of another training, and its logs.
        progress: show a progress bar.

    Returns:
        The model. `model.provenance` has the losses of the last epoch ("history"), the errors of
        surrogate ("surrogate_mae", to be compared with "spread", both of the validation split, or
        of the training split if that is empty) and decoder, what the NNP was learned from ("nnp")
        and why it is not used ("nnp_problem").

    Raises:
        ValueError: on an unknown property, what is no potential, epochs < 1, no training
            structures, elements that the fingerprint or the potential does not know, fingerprints
            that are not finite or all the same.
        FileExistsError: if `checkpoint` keeps another training and `overwrite` is false, or is the
            folder of anything else; if there are logs and `overwrite` is false.
        ArithmeticError: if the training of the CVAE diverges.

    Warns:
        TfgenWarning: if there is a potential, but no NNP that can be used.

    Example:
        >>> dataset = tfgen.Dataset.load("pt13.h5")
        >>> model = tfgen.train(dataset, settings=tfgen.TrainingSettings(latent=20))
        >>> model.save("model")
    """
    if initial_model is not None:
        initial = require_model(initial_model)
        settings = settings or initial.settings
    settings, nnp_settings = settings or TrainingSettings(), nnp or NNPSettings()
    names = _check_request(dataset, properties, epochs)
    calculator = _find_potential(potential, dataset)
    begun = checkpoint is not None and (Path(checkpoint) / "task.json").exists()
    if logs is not None:
        require_folder_replaceable(logs, overwrite or begun, ("train", "validation"))
    fingerprint = fingerprint or _choose_fingerprint(dataset, initial_model)
    if initial_model is not None:
        units = [dataset.units[name] for name in names]
        check_initial_model(initial_model, fingerprint, names, units, settings)
    training, held_out = dataset.select("train"), dataset.select("validation")
    inputs = make_inputs(fingerprint, training, names)
    validation = make_inputs(fingerprint, held_out, names) if len(held_out) else inputs
    model = _prepare_model(dataset, names, fingerprint, inputs, seed, settings, initial_model)
    if isinstance(calculator, AsePotential):
        encode_config(calculator.describe())  # what cannot be saved is refused now
    task = {
        "data": [len(training), len(held_out), float(inputs["fingerprint"].sum(dtype=float))],
        "settings": [epochs, seed],
        **_describe_task(model, optimizer, initial_model),
    }
    learned = LearnedNNP()
    with open_checkpoint(checkpoint, task, overwrite, keep_checkpoint) as folder:
        if logs is not None and not (folder and can_be_resumed(folder)):
            shutil.rmtree(logs, ignore_errors=True)
        fit = fit_cvae(
            model.cvae,
            inputs,
            validation,
            folder,
            epochs=epochs,
            seed=seed,
            settings=settings,
            optimizer=optimizer,
            callbacks=callbacks,
            logs=logs,
            progress=progress,
        )
        if calculator is not None or (potential == "auto" and training.forces is not None):
            learned = learn_nnp(model, training, calculator, seed, nnp_settings, progress)
    return replace(
        model,
        cvae=without_optimizer(model.cvae),
        nnp=learned.network,
        minima=learned.record is None or learned.record.minima >= nnp_settings.minima_share,
        nnp_settings=None if learned.network is None else nnp_settings,
        provenance={
            **model.provenance,
            "training_structures": len(training),
            "validation_structures": len(held_out),
            "epochs": fit.epochs,
            "seed": seed,
            "initial_model": describe_initial_model(initial_model),
            **_measure(model.cvae, validation, fit),
            "nnp": None if learned.record is None else learned.record.to_json(),
            "nnp_problem": learned.problem,
            "potential": _describe_potential(dataset, calculator, learned),
            **provenance(),
        },
    )


def _choose_fingerprint(dataset: Dataset, initial_model: Model | None) -> Fingerprint:
    """Returns that of the model that a training begins with, or the default for the elements."""
    if initial_model is not None:
        return initial_model.fingerprint
    numbers = sorted({int(z) for s in dataset.structures for z in s.numbers})
    return Fingerprint.preset("default", [chemical_symbols[z] for z in numbers])


def _describe_task(
    model: Model, optimizer: keras.optimizers.Optimizer | None, initial_model: Model | None
) -> dict[str, Any]:
    """Returns by what, besides its data, an interrupted training is known again."""
    return {
        "config": model.config(),
        "optimizer": None if optimizer is None else keras.saving.serialize_keras_object(optimizer),
        "initial_model": None if initial_model is None else initial_model.digest,
    }


def _check_request(dataset: Dataset, properties: Sequence[str], epochs: int) -> list[str]:
    """Returns the properties, each once.

    Raises:
        ValueError: if there is nothing to train, or not on this data set.
    """
    names = list(dict.fromkeys(properties))
    unknown = [name for name in names if name not in dataset.properties]
    if unknown or not names:
        raise ValueError(
            f"property {', '.join(map(repr, unknown)) or 'list is empty'}: the data set has "
            f"{', '.join(dataset.properties) or 'no properties'}"
        )
    if epochs < 1:
        raise ValueError(f"epochs is {epochs}; at least 1 is needed")
    if any(s.pbc.any() for s in dataset.structures):
        raise ValueError(
            "the data set holds periodic structures, and generation knows clusters only; for "
            "clusters in a box, import them with pbc switched off"
        )
    count = len(dataset.select("train"))
    if count < 2:
        raise ValueError(f"the training split has {count} structures; at least 2 are needed")
    return names


def _find_potential(
    potential: Potential | AsePotential | BaseCalculator | str | None, dataset: Dataset
) -> Potential | AsePotential | None:
    if isinstance(potential, str) and potential == "auto":
        potential = EMT() if dataset.metadata.get("potential") == "emt" else None
    adapted = adapt_potential("potential", potential)
    if adapted is not None:
        adapted.check(dataset.structures)
    return adapted


def _prepare_model(
    dataset: Dataset,
    names: Sequence[str],
    fingerprint: Fingerprint,
    inputs: Mapping[str, np.ndarray],
    seed: int,
    settings: TrainingSettings,
    initial: Model | None,
) -> Model:
    """Returns the model before its training: scaling, conditions and tolerance are known.

    Raises:
        ValueError: if it could not be saved after the training.
    """
    training = dataset.select("train")
    table = tabulate(training, names)
    keras.utils.set_random_seed(seed)
    cvae = CVAE(
        features=fingerprint.size,
        conditions=len(names) + len(fingerprint.species),
        properties=len(names),
        latent=settings.latent,
        hidden=settings.hidden,
        kl_weight=settings.kl_weight,
        surrogate_weight=settings.surrogate_weight,
        likelihood_family=settings.likelihood_family,
        seed=seed,
        name="cvae",
    )
    vectors = inputs["fingerprint"]
    if initial is None:
        cvae.adapt(vectors, inputs["condition"], fingerprint.scale(vectors))
    else:  # the weights belong to that scaling
        cvae.build()
        cvae.set_weights(initial.cvae.get_weights())
    scale = np.asarray(cvae.feature_scale, np.float64)
    model = Model(
        fingerprint=fingerprint,
        cvae=cvae,
        conditions=tuple(
            Condition(name, dataset.units[name], float(column.min()), float(column.max()))
            for name, column in zip(names, table.T, strict=True)
        ),
        mean=table.mean(axis=0),
        covariance=np.atleast_2d(np.cov(table, rowvar=False)),
        formulas=dict(training.summary()["compositions"]),
        tolerance=estimate_tolerance(vectors, scale, seed, settings.tolerance_structures),
        potential=dataset.metadata.get("potential"),
        training_structures=tuple(training.structures),
        settings=settings,
        provenance={
            "dataset": {k: dataset.metadata.get(k) for k in ("name", "kind", "seed", "created")}
        },
    )
    model.check()
    encode_config(model.config())
    return model


def _measure(cvae: CVAE, inputs: Mapping[str, np.ndarray], fit: Fit) -> dict[str, Any]:
    """Returns losses and errors for the provenance.

    The error of the decoder is the median distance of decoded fingerprints to those that were
    encoded, in the inversion's loss; that of the surrogate the mean absolute one of each property,
    which is to be compared with the spread, the mean absolute deviation from the median.
    """
    decoded = cvae.predict(inputs, verbose=0)["fingerprint"]
    scale = np.asarray(cvae.feature_scale)
    losses = fingerprint_loss(scaled_errors(decoded, inputs["fingerprint"], scale))
    predicted = np.asarray(cvae.predict_properties(inputs["fingerprint"]))
    values = inputs["condition"][:, : cvae.properties]
    errors = np.abs(predicted - values)
    return {
        "best_epoch": fit.best_epoch,
        "best_val_loss": fit.best_val_loss,
        "history": fit.history,
        "decoder_error": float(np.median(losses)),
        "surrogate_mae": errors.mean(axis=0).tolist(),
        "spread": np.abs(values - np.median(values, axis=0)).mean(axis=0).tolist(),
    }


def _describe_potential(
    dataset: Dataset, calculator: Potential | AsePotential | None, learned: LearnedNNP
) -> dict[str, Any] | None:
    """Returns name, arguments and box of what computed the energies, as far as that is known."""
    recorded = dataset.metadata.get("calculator")
    if isinstance(recorded, dict):
        return recorded
    if isinstance(calculator, AsePotential) and not learned.other_potential:
        return calculator.describe()
    return None
