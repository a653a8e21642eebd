"""Export to a TensorFlow SavedModel that needs no tfgen to run, inversion included."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from tfgen._files import new_folder, require_folder_replaceable
from tfgen.inversion.graph_population import Candidates
from tfgen.inversion.graph_search import GraphSearch, Problem
from tfgen.inversion.settings import GraphSearchSettings
from tfgen.models._keras import in_float32, keras
from tfgen.models.cvae import CVAE
from tfgen.models.guard import Guard, require_same_rows, without_answers
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
    - sample_rows, generate_rows: the same with a seed for each row, [n, 2], as row-wise requests
      to a server have them: a row does not depend on the others; rows come one after the other

    A row whose inputs make no sense gets NaN in every output: elements that the model does not
    know, conditions that are not finite or whose numbers of atoms are not whole, `numbers` that are
    padded, not sorted or not those of the condition, positions that are not finite. Inputs of
    different numbers of rows are an error. For each new shape of `numbers`, XLA compiles the search
    in `generate` anew, which takes seconds.

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

    features, condition = _float(None, cvae.features), _float(None, cvae.conditions)
    condition = _named(condition, "condition")
    numbers, seed = _named(_int(None, None), "numbers"), _named(_int(2), "seed")
    seeds = _named(_int(None, 2), "seed")

    guard = Guard(fingerprint.species)

    def compute_fingerprint(positions: tf.Tensor, numbers: tf.Tensor) -> dict[str, tf.Tensor]:
        require_same_rows(positions, numbers, axes=2)
        found = {"fingerprint": fingerprint(StructureBatch.of_clusters(positions, numbers))}
        return without_answers(found, guard.structures(positions, numbers))

    encode, decode, sample = _make_network(cvae, guard)

    @tf.function(jit_compile=settings.jit_compile, autograph=False)
    def invert(
        targets: tf.Tensor, numbers: tf.Tensor, scale: tf.Tensor, seed: tf.Tensor
    ) -> Candidates:
        return graph_search.search(Problem(numbers, targets, scale), seed)

    # Traced once: while it saves, TensorFlow traces each endpoint again, with what it calls.
    inverted = invert.get_concrete_function(
        features, _int(None, None), _float(cvae.features), _int(2)
    )

    def generate(condition: tf.Tensor, numbers: tf.Tensor, seed: tf.Tensor) -> dict[str, tf.Tensor]:
        require_same_rows(condition, numbers)
        seeds = tf.random.split(seed, 2)
        sampled = sample(condition, seeds[0])
        scale = tf.convert_to_tensor(cvae.feature_scale)
        found = inverted(sampled["fingerprint"], numbers, scale, seeds[1])
        made = {**sampled, "positions": found.positions[:, 0], "loss": found.loss[:, 0]}
        return without_answers(made, guard.requests(condition, numbers))

    def sample_rows(condition: tf.Tensor, seed: tf.Tensor) -> dict[str, tf.Tensor]:
        return _row_by_row(sample, condition, seed)

    def generate_rows(
        condition: tf.Tensor, numbers: tf.Tensor, seed: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        return _row_by_row(generate, condition, numbers, seed)

    archive = keras.export.ExportArchive()
    archive.track(cvae)
    endpoints = {
        "fingerprint": (
            compute_fingerprint, [_named(_float(None, None, 3), "positions"), numbers]
        ),
        "encode": (encode, [_named(features, "fingerprint"), condition]),
        "decode": (decode, [_named(_float(None, cvae.latent), "latent"), condition]),
        "sample": (sample, [condition, seed]),
        "generate": (generate, [condition, numbers, seed]),
        "sample_rows": (sample_rows, [condition, seeds]),
        "generate_rows": (generate_rows, [condition, numbers, seeds]),
    }  # fmt: skip
    for name, (function, signature) in endpoints.items():
        archive.add_endpoint(name, function, input_signature=signature)
    _write(archive, model, folder, overwrite)


def _float(*shape: int | None) -> tf.TensorSpec:
    return tf.TensorSpec(shape, tf.float32)


def _int(*shape: int | None) -> tf.TensorSpec:
    return tf.TensorSpec(shape, tf.int32)


def _named(spec: tf.TensorSpec, name: str) -> tf.TensorSpec:
    return tf.TensorSpec(spec.shape, spec.dtype, name)


def _make_network(
    cvae: CVAE, guard: Guard
) -> tuple[
    Callable[[tf.Tensor, tf.Tensor], dict[str, tf.Tensor]],
    Callable[[tf.Tensor, tf.Tensor], dict[str, tf.Tensor]],
    Callable[[tf.Tensor, tf.Tensor], dict[str, tf.Tensor]],
]:
    """Returns the endpoints `encode`, `decode` and `sample`, which need no structures."""

    def encode(fingerprint: tf.Tensor, condition: tf.Tensor) -> dict[str, tf.Tensor]:
        require_same_rows(fingerprint, condition)
        posterior = cvae.posterior(fingerprint, condition)
        finite = tf.reduce_all(tf.math.is_finite(fingerprint), axis=1)
        found = {"loc": posterior.mean(), "scale": posterior.stddev()}
        return without_answers(found, guard.conditions(condition) & finite)

    def decode(latent: tf.Tensor, condition: tf.Tensor) -> dict[str, tf.Tensor]:
        require_same_rows(latent, condition)
        decoded = cvae.decode(latent, condition)
        finite = tf.reduce_all(tf.math.is_finite(latent), axis=1)
        found = {"fingerprint": decoded, "properties": cvae.predict_properties(decoded)}
        return without_answers(found, guard.conditions(condition) & finite)

    def sample(condition: tf.Tensor, seed: tf.Tensor) -> dict[str, tf.Tensor]:
        return decode(cvae.prior([tf.shape(condition)[0]]).sample(seed=seed), condition)

    return encode, decode, sample


def _row_by_row(
    function: Callable[..., dict[str, tf.Tensor]], *inputs: tf.Tensor
) -> dict[str, tf.Tensor]:
    """Calls a function of batches with each row, and the row of its last input, the seed."""
    require_same_rows(*inputs)

    def one(row: tuple[tf.Tensor, ...]) -> dict[str, tf.Tensor]:
        *batches, seed = row
        found = function(*(batch[None] for batch in batches), seed)
        return {name: values[0] for name, values in found.items()}

    names = ("fingerprint", "properties", "positions", "loss")
    made = names if len(inputs) == 3 else names[:2]
    return tf.map_fn(one, inputs, fn_output_signature=dict.fromkeys(made, tf.float32))


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
