"""Tries damaged and hostile files, and prints what came of each: a table for each kind of fault.

    python scripts/check_faults.py readers --count 10000

The seeds are fixed, so that the same command tries the same files again. An input is refused well
with an error that the command line reports in one line; unforeseen is any other error, and a hang
or too much memory is more than 5 s or 500 MB for a file of some kilobytes.
"""

from __future__ import annotations

import sys

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
    found = list(tqdm(attempts.run("faults.readers", seed, numbers), total=count, unit="files"))
    click.echo(attempts.table(found))
    sys.exit(any(attempt.outcome in attempts.OUTCOMES[2:] for attempt in found))


if __name__ == "__main__":
    main()
