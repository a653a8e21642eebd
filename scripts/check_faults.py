"""Tries damaged and hostile files and kills, and prints what came: a table for each kind of fault.

    python scripts/check_faults.py readers --count 10000
    python scripts/check_faults.py models --count 400
    python scripts/check_faults.py kills --count 200

The seeds are fixed, so that the same command tries the same files again. An input is refused well
with an error that the command line reports in one line; unforeseen is any other error, and a hang
or too much memory is more than 5 s or 500 MB for a file of some kilobytes.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

import click
from faults import attempts
from tqdm import tqdm


@click.group()
def main() -> None:
    """Try faults of a kind, and print a table of what came of them."""


@main.command()
@click.option("--count", type=click.IntRange(1), default=10_000, show_default=True)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--first", type=click.IntRange(0), default=0, help="Number of the first attempt.")
def readers(count: int, seed: int, first: int) -> None:
    """Damaged and hostile files, for everything that reads files."""
    numbers = range(first, first + count)
    _report(tqdm(attempts.run("faults.readers", seed, numbers), total=count, unit=" files"))


@main.command()
@click.option("--count", type=click.IntRange(1), default=400, show_default=True)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--first", type=click.IntRange(0), default=0, help="Number of the first attempt.")
def models(count: int, seed: int, first: int) -> None:
    """Damaged folders of models."""
    numbers = range(first, first + count)
    _report(tqdm(attempts.run("faults.models", seed, numbers), total=count, unit=" folders"))


@main.command()
@click.option("--count", type=click.IntRange(0), default=200, show_default=True)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--epochs", type=click.IntRange(1), default=30, show_default=True)
def kills(count: int, seed: int, epochs: int) -> None:
    """Trainings that are killed at random moments, and resumed each time."""
    from faults.kills import run

    with tempfile.TemporaryDirectory() as folder:
        found = run(seed, count, epochs, Path(folder))
        _report(tqdm(found, total=count + 1, unit=" trainings"))


def _report(found: Iterable[attempts.Attempt]) -> None:
    """Prints the table, and ends the process with 1 if there is anything bad in it."""
    made = list(found)
    click.echo(attempts.table(made))
    sys.exit(any(attempt.outcome in attempts.OUTCOMES[2:] for attempt in made))


if __name__ == "__main__":
    main()
