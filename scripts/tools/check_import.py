"""Measures how much memory the import of a large extxyz file takes, and how fast it is.

The script writes structures sampled with a fixed seed and imports them with `tfgen dataset import`
in a separate process. It prints structures per second, and the peak memory of that process above
the memory of an interpreter with the same modules loaded. It exits with 1 if that is more than
`--limit`.

    python scripts/tools/check_import.py --count 100000 --atoms 13 55
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TextIO

import click
import numpy as np
from tqdm import tqdm

SEED = 30_000
# ru_maxrss counts kilobytes on Linux and bytes on macOS.
RSS_UNIT = 1 if sys.platform == "darwin" else 1024


def write_samples(file: TextIO, count: int, least: int, most: int) -> None:
    """Writes `count` pieces of fcc platinum of random place, size and distortion."""
    rng = np.random.default_rng(SEED)
    half = np.array([p for p in itertools.product(range(-6, 7), repeat=3) if sum(p) % 2 == 0])
    lattice = 1.96 * half
    for _ in tqdm(range(count), "writing", unit=""):
        centred = lattice - rng.uniform(-1.0, 1.0, 3)
        size = int(rng.integers(least, most + 1))
        nearest = np.argpartition((centred**2).sum(axis=1), size)[:size]
        positions = centred[nearest] + rng.normal(scale=0.15, size=(size, 3))
        file.write(
            f"{size}\nProperties=species:S:1:pos:R:3 energy={rng.normal():.10f} "
            f'gap={rng.random():.10f} pbc="F F F"\n'
        )
        file.writelines(f"Pt {x:.8f} {y:.8f} {z:.8f}\n" for x, y, z in positions.tolist())


def measure(*arguments: str) -> tuple[float, float, float]:
    """Runs Python with arguments; returns seconds, those of the processor, and peak memory, MiB."""
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, *arguments], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise click.ClickException(f"{' '.join(arguments)} ended with {process.returncode}")
    used = usage.ru_utime + usage.ru_stime
    return time.perf_counter() - start, used, usage.ru_maxrss * RSS_UNIT / 2**20


@click.command()
@click.option("--count", type=click.IntRange(min=1), default=100_000, show_default=True)
@click.option(
    "--atoms",
    type=(click.IntRange(min=2), click.IntRange(max=500)),
    default=(13, 55),
    show_default=True,
    help="Smallest and largest number of atoms in a structure.",
)
@click.option("--limit", default=1024.0, show_default=True, help="Memory allowed, MiB.")
@click.option(
    "--folder", type=click.Path(file_okay=False, exists=True), help="Folder of temporary files."
)
def main(count: int, atoms: tuple[int, int], limit: float, folder: str | None) -> None:
    """Measure how fast a large file is imported, and in how much memory."""
    if atoms[0] > atoms[1]:
        raise click.UsageError(f"--atoms {atoms[0]} {atoms[1]}: the smaller number comes first")
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        source, output = Path(scratch, "set.extxyz"), Path(scratch, "set.h5")
        with source.open("w", encoding="utf-8") as file:
            write_samples(file, count, *atoms)
        modules = "import tfgen.cli.dataset, tfgen.datasets.importing, ase.io"
        _, _, base = measure("-c", modules)
        seconds, used, peak = measure(
            *("-m", "tfgen", "dataset", "import", str(source), "-o", str(output)),
            *("--property", "gap", "--unit", "gap=eV"),
        )
        megabytes = [path.stat().st_size / 1e6 for path in (source, output)]
    click.echo(f"{count} structures of {atoms[0]} to {atoms[1]} atoms")
    click.echo(f"extxyz                     {megabytes[0]:10.1f} MB")
    click.echo(f"data set                   {megabytes[1]:10.1f} MB")
    click.echo(f"time                       {seconds:10.1f} s")
    click.echo(f"time of the processor      {used:10.1f} s")
    click.echo(f"structures per second      {count / seconds:10.0f}")
    click.echo(f"memory of the interpreter  {base:10.0f} MiB")
    click.echo(f"memory above that, at most {peak - base:10.0f} MiB")
    if peak - base > limit:
        raise click.ClickException(f"more than {limit:g} MiB of memory were needed")


if __name__ == "__main__":
    main()
