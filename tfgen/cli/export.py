"""`tfgen export`."""

from __future__ import annotations

from pathlib import Path

import click

from tfgen._tensorflow import load_quietly
from tfgen.cli._options import (
    descriptor_option,
    imported,
    output_option,
    overwrite_option,
    path_argument,
    reserve_output,
)
from tfgen.cli._output import echo


@click.command(short_help="Export a SavedModel.")
@path_argument("model", "MODEL")
@output_option("SAVED_MODEL/", "Folder of the SavedModel.")
@click.option(
    "--rounds", type=click.IntRange(0), default=3, show_default=True,
    help="Rounds of search in the signature `generate`.",
)  # fmt: skip
@descriptor_option
@overwrite_option
def export(
    model: Path, output: Path, rounds: int, descriptors: tuple[str, ...], overwrite: bool
) -> None:
    """Export a model as a TensorFlow SavedModel that runs without tfgen."""
    load_quietly()
    from tfgen._files import require_folder_replaceable
    from tfgen.inversion.settings import GraphSearchSettings
    from tfgen.models.export import CONTENTS
    from tfgen.models.export import export as run
    from tfgen.models.model import Model

    reserve_output(output)
    require_folder_replaceable(output, overwrite, CONTENTS)
    loaded = Model.load(model, [imported(path) for path in descriptors])
    run(loaded, output, settings=GraphSearchSettings(rounds=rounds), overwrite=overwrite)
    echo(f"SavedModel in {output}: fingerprint, encode, decode, sample, generate")
