"""`tfgen train`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tfgen._tensorflow import load_quietly
from tfgen.cli._options import (
    fingerprint_from,
    fingerprint_option,
    output_option,
    overwrite_option,
    path_argument,
    reserve_output,
    seed_option,
    shown_warnings,
)
from tfgen.cli._output import echo
from tfgen.cli._potential_options import (
    Running,
    open_potential,
    potential_argument_option,
    running_options,
)
from tfgen.models.settings import NNPSettings, TrainingSettings

if TYPE_CHECKING:
    from tfgen.models.model import Model


def _read_widths(
    _context: click.Context, _parameter: click.Parameter, value: str
) -> tuple[int, ...]:
    try:
        widths = tuple(int(part) for part in value.split(","))
    except ValueError:
        widths = ()
    if not widths or min(widths) < 1:
        raise click.BadParameter(f"{value!r} is not a list of whole numbers from 1 on, as 256,256")
    return widths


@click.command(short_help="Train a model on a data set.")
@path_argument("dataset", "FILE.h5")
@output_option("MODEL", "Folder of the model.")
@click.option(
    "--property", "properties", multiple=True, metavar="NAME", default=["energy_per_atom"],
    show_default=True, help="Property to condition on; may be repeated.",
)  # fmt: skip
@fingerprint_option
@click.option("--epochs", type=click.IntRange(1), default=300, show_default=True,
              help="Passes through the training structures.")  # fmt: skip
@click.option("--batch-size", type=click.IntRange(1), default=TrainingSettings.batch_size,
              show_default=True, help="Structures per step.")  # fmt: skip
@click.option("--learning-rate", type=click.FloatRange(0, min_open=True),
              default=TrainingSettings.learning_rate, show_default=True,
              help="Of Adam in the first step; it falls to 0.")  # fmt: skip
@click.option("--latent", type=click.IntRange(1), default=TrainingSettings.latent,
              show_default=True, help="Length of the latent vector.")  # fmt: skip
@click.option("--hidden", metavar="N,N,...", callback=_read_widths,
              default=",".join(map(str, TrainingSettings.hidden)), show_default=True,
              help="Widths of the hidden layers.")  # fmt: skip
@click.option("--patience", type=click.IntRange(1), metavar="EPOCHS",
              help="End after so many epochs without a lower validation loss.  [default: never]",
              )  # fmt: skip
@click.option("--kl-weight", type=click.FloatRange(0), default=TrainingSettings.kl_weight,
              show_default=True, help="Weight of the KL term.")  # fmt: skip
@click.option(
    "--potential", default="auto", show_default=True, metavar="auto|emt|none|MODULE:NAME",
    help="What computed the data set's energies. A neural-network potential is learned from it, "
    "with which generation is more often on target. auto is EMT if the data set's energies are "
    "EMT's; MODULE:NAME is an ASE calculator.",
)  # fmt: skip
@potential_argument_option
@running_options
@click.option(
    "--logs", type=click.Path(path_type=Path), metavar="FOLDER",
    help="TensorBoard logs.  [default: MODEL.logs]",
)  # fmt: skip
@seed_option
@overwrite_option
def train(
    dataset: Path,
    output: Path,
    properties: tuple[str, ...],
    fingerprint: str,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    latent: int,
    hidden: tuple[int, ...],
    patience: int | None,
    kl_weight: float,
    potential: str,
    arguments: tuple[tuple[str, Any], ...],
    running: Running,
    logs: Path | None,
    seed: int,
    overwrite: bool,
) -> None:
    """Train a model on the fingerprints of a data set, and keep its best weights."""
    load_quietly()
    from tfgen._files import OutputExistsError, require_folder_replaceable
    from tfgen.datasets.storage import Dataset
    from tfgen.execution.results import ResultStore
    from tfgen.models.artefact import CONTENTS
    from tfgen.models.checkpoints import can_be_resumed, remove_checkpoint
    from tfgen.models.training import train as run

    reserve_output(output)
    require_folder_replaceable(output, overwrite, CONTENTS)
    results = ResultStore(output.with_name(output.name + ".calculations"))
    data = Dataset.load(dataset)
    elements = sorted({str(e) for s in data.structures for e in s.symbols})
    logs = logs or output.with_name(output.name + ".logs")
    partial = output.with_name(output.name + ".partial")
    calculators = open_potential(potential, arguments, running, results=results, output=output)
    try:
        with shown_warnings(), calculators as calculator:
            model = run(
                data,
                properties,
                fingerprint=fingerprint_from(fingerprint, elements),
                epochs=epochs,
                settings=TrainingSettings(
                    batch_size=batch_size,
                    learning_rate=learning_rate,
                    latent=latent,
                    hidden=hidden,
                    patience=patience,
                    kl_weight=kl_weight,
                ),
                potential=calculator,
                seed=seed,
                logs=logs,
                checkpoint=partial,
                keep_checkpoint=True,
                overwrite=overwrite,
                progress=True,
            )
    except KeyboardInterrupt:
        kept = can_be_resumed(partial) or len(results)
        raise click.ClickException(
            f"interrupted; {_goes_on(partial)}"
            if kept
            else "interrupted before there was anything to keep"
        ) from None
    try:
        model.save(output, overwrite)
    except OutputExistsError:
        raise  # what to do about it is said there
    except OSError as error:
        raise click.ClickException(f"{error}; {_goes_on(partial)}") from None
    remove_checkpoint(partial)
    results.remove()
    _report(model)
    echo(f"model in {output}, TensorBoard logs in {logs}")


def _goes_on(partial: Path) -> str:
    return f"{str(partial)!r} keeps what is done, the same command continues there"


def _report(model: Model) -> None:
    from tfgen.models.summary import count_calculations

    record = model.provenance
    echo(
        f"trained on {record['training_structures']} structures for {record['epochs']} epochs; "
        f"best validation loss {record['best_val_loss']:.3f}, KL {record['history']['kl']:.1f} nats"
    )
    if not record["validation_structures"]:
        echo("  no validation structures: these errors are those on the training structures")
    for condition, error, spread in zip(
        model.conditions, record["surrogate_mae"], record["spread"], strict=True
    ):
        unit = "" if condition.unit in ("1", "unknown") else f" {condition.unit}"
        echo(
            f"  {condition.name}: {condition.low:.4f} to {condition.high:.4f}{unit}, "
            f"predicted within {error:.4f} on average, spread {spread:.4f}"
        )
        if error > NNPSettings.max_relative_error * spread:
            echo(
                f"  warning: the model can hardly tell structures apart by {condition.name}; more "
                "training structures, epochs or another fingerprint may help"
            )
    learned = record["nnp"]
    if learned is not None:
        echo(
            f"  neural-network potential from {count_calculations(learned)}: energies within "
            f"{learned['energy_error']:.4f} eV/atom on average, "
            f"spread {learned['energy_spread']:.4f}"
        )
        counts = {"failed": "failed", "too_high": "too high", "too_low": "too low"}
        left_out = [f"{learned[key]} {text}" for key, text in counts.items() if learned[key]]
        if left_out:
            echo(f"  left out of these: {', '.join(left_out)}")
    if record["nnp_problem"] is not None:
        echo(f"  warning: no neural-network potential is used: {record['nnp_problem']}")
