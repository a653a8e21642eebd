"""`tfgen demo`."""

from __future__ import annotations

from pathlib import Path

import click

from tfgen._tensorflow import load_quietly
from tfgen.cli._options import overwrite_option, reserve_output, seed_option, shown_warnings
from tfgen.cli._output import echo


@click.command(short_help="Run the whole path on Pt13.")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), default=Path("demo"), show_default=True,
    metavar="DIR", help="Folder for everything the demo makes.",
)  # fmt: skip
@seed_option
@overwrite_option
def demo(output: Path, seed: int, overwrite: bool) -> None:
    """Run the whole path on Pt13: build, train, generate, verify, report and export."""
    load_quietly()
    from tfgen.demo import run

    reserve_output(output)
    with shown_warnings():
        run(output, seed=seed, overwrite=overwrite, say=echo)
