"""Export to a TensorFlow SavedModel that needs no tfgen to run, inversion included."""

from __future__ import annotations

import errno
import json
import os
from typing import Any

import tensorflow as tf

from tfgen._files import new_folder, require_folder_replaceable
from tfgen.inversion.graph_population import Candidates
from tfgen.inversion.graph_search import GraphSearch, Problem
from tfgen.inversion.settings import GraphSearchSettings
from tfgen.models._keras import in_float32, keras
from tfgen.models.model import Model
from tfgen.structures.batch import StructureBatch

__all__ = ["export"]

CONTENTS = ("assets", "assets.extra", "variables", "saved_model.pb", "fingerprint.pb")


@in_float32()
def export(
    model: Model,
    folder: str | os.PathLike[str],
    *,
    settings: GraphSearchSettings | None = None,
    overwrite: bool = False,
) -> None:
    """Writes a model as a SavedModel; load it with `tf.saved_model.load(folder)`.

    Signatures (float32 but where said; `features`, and `conditions` = properties, then the number
    of atoms of each element, as `assets.extra/config.json` lists them):

    - fingerprint(positions [n, atoms, 3] Å, numbers [n, atoms] int32, 0 pads) -> fingerprint
      [n, features]
    - encode(fingerprint [n, features], condition [n, conditions]) -> loc, scale [n, latent]
    - decode(latent [n, latent], condition) -> fingerprint, properties [n, properties]
    - sample(condition, seed [2] int32) -> fingerprint, properties
    - generate(condition, numbers [n, atoms] int32 sorted, unpadded, seed) -> positions
      [n, atoms, 3] Å, loss [n], fingerprint, properties: samples and inverts, all in the graph

    Args:
        model: the model.
        folder: where to write.
        settings: of the search inside `generate`; the defaults if None.
        overwrite: replace an older SavedModel.

    Raises:
        FileExistsError: if the folder exists and `overwrite` is false, or is no SavedModel.
        ValueError: if `settings` is no `GraphSearchSettings`.
    """
    settings = GraphSearchSettings() if settings is None else settings
    if not isinstance(settings, GraphSearchSettings):
        raise ValueError(f"settings is {settings!r}; a tfgen.GraphSearchSettings is needed")
    require_folder_replaceable(folder, overwrite, CONTENTS)
    cvae, fingerprint = model.cvae, model.fingerprint
    graph_search = GraphSearch(fingerprint, settings)

    def float_(*shape: int | None) -> tf.TensorSpec:
        return tf.TensorSpec(shape, tf.float32)

    def int_(*shape: int | None) -> tf.TensorSpec:
        return tf.TensorSpec(shape, tf.int32)

    def named(spec: tf.TensorSpec, name: str) -> tf.TensorSpec:
        return tf.TensorSpec(spec.shape, spec.dtype, name)

    features, condition = float_(None, cvae.features), float_(None, cvae.conditions)
    condition = named(condition, "condition")
    numbers, seed = named(int_(None, None), "numbers"), named(int_(2), "seed")

    def compute_fingerprint(positions: tf.Tensor, numbers: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"fingerprint": fingerprint(StructureBatch.of_clusters(positions, numbers))}

    def encode(fingerprint: tf.Tensor, condition: tf.Tensor) -> dict[str, tf.Tensor]:
        posterior = cvae.posterior(fingerprint, condition)
        return {"loc": posterior.mean(), "scale": posterior.stddev()}

    def decode(latent: tf.Tensor, condition: tf.Tensor) -> dict[str, tf.Tensor]:
        decoded = cvae.decode(latent, condition)
        return {"fingerprint": decoded, "properties": cvae.predict_properties(decoded)}

    def sample(condition: tf.Tensor, seed: tf.Tensor) -> dict[str, tf.Tensor]:
        return decode(cvae.prior([tf.shape(condition)[0]]).sample(seed=seed), condition)

    @tf.function(jit_compile=settings.jit_compile, autograph=False)
    def invert(
        targets: tf.Tensor, numbers: tf.Tensor, scale: tf.Tensor, seed: tf.Tensor
    ) -> Candidates:
        return graph_search.search(Problem(numbers, targets, scale), seed)

    # Traced once: while it saves, TensorFlow traces each endpoint again, with what it calls.
    inverted = invert.get_concrete_function(
        features, int_(None, None), float_(cvae.features), int_(2)
    )

    def generate(condition: tf.Tensor, numbers: tf.Tensor, seed: tf.Tensor) -> dict[str, tf.Tensor]:
        seeds = tf.random.split(seed, 2)
        sampled = sample(condition, seeds[0])
        scale = tf.convert_to_tensor(cvae.feature_scale)
        found = inverted(sampled["fingerprint"], numbers, scale, seeds[1])
        return {**sampled, "positions": found.positions[:, 0], "loss": found.loss[:, 0]}

    archive = keras.export.ExportArchive()
    archive.track(cvae)
    endpoints = {
        "fingerprint": (
            compute_fingerprint, [named(float_(None, None, 3), "positions"), numbers]
        ),
        "encode": (encode, [named(features, "fingerprint"), condition]),
        "decode": (decode, [named(float_(None, cvae.latent), "latent"), condition]),
        "sample": (sample, [condition, seed]),
        "generate": (generate, [condition, numbers, seed]),
    }  # fmt: skip
    for name, (function, signature) in endpoints.items():
        archive.add_endpoint(name, function, input_signature=signature)
    _write(archive, model, folder, overwrite)


def _write(archive: Any, model: Model, folder: str | os.PathLike[str], overwrite: bool) -> None:
    """Writes the SavedModel, and the configuration of the model beside it."""
    text = json.dumps(model.config(), indent=1, ensure_ascii=False, allow_nan=False)
    with new_folder(folder, overwrite) as temporary:
        try:
            archive.write_out(str(temporary), verbose=False)
        except tf.errors.OpError as error:  # TensorFlow does its own writing
            raise OSError(*_system_error(error)) from error
        extra = temporary / "assets.extra"
        extra.mkdir()
        (extra / "config.json").write_text(text + "\n", encoding="utf-8")


def _system_error(error: tf.errors.OpError) -> tuple[int, str]:
    """Returns the operating system's number and words for what TensorFlow could not write."""
    known = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EROFS)
    number = next((n for n in known if os.strerror(n) in error.message), errno.EIO)
    return number, os.strerror(number)
