"""`tfgen reconstruct`."""

from __future__ import annotations

from pathlib import Path

import click

from tfgen._tensorflow import load_quietly
from tfgen.cli._options import (
    check_extxyz,
    fingerprint_from,
    fingerprint_option,
    output_option,
    overwrite_option,
    path_argument,
    seed_option,
)

# Structures whose sorted distances differ by less, Å, count as the same.
SAME = 0.05


@click.command(short_help="Invert the fingerprints of known clusters.")
@path_argument("file", "FILE")
@output_option("OUT.extxyz", "Reconstructed structures, in the order of FILE.")
@fingerprint_option
@click.option(
    "--max-rounds", type=click.IntRange(0), default=12, show_default=True,
    help="Rounds of search spent on a structure that is not found at once.",
)  # fmt: skip
@seed_option
@overwrite_option
def reconstruct(
    file: Path, output: Path, fingerprint: str, max_rounds: int, seed: int, overwrite: bool
) -> None:
    """Fingerprint the clusters of FILE, forget their positions, invert the fingerprints."""
    check_extxyz(output)
    load_quietly()
    from tfgen._files import require_absent
    from tfgen.datasets.importing import read_structures
    from tfgen.generation import write
    from tfgen.reconstruction import CONVERGED
    from tfgen.reconstruction import reconstruct as run
    from tfgen.similarity import deviations

    require_absent(output, overwrite)
    structures = read_structures(file)
    for row, atoms in enumerate(structures):
        if atoms.pbc.any():
            raise ValueError(f"{str(file)!r}, structure {row}: periodic; clusters are needed")
    elements = sorted({str(e) for s in structures for e in s.symbols})
    chosen = fingerprint_from(fingerprint, elements)
    targets = chosen.create(structures)
    formulas = [s.get_chemical_formula() for s in structures]
    result = run(chosen, targets, formulas, seed=seed, max_rounds=max_rounds, progress=True)
    same = deviations(result.structures, structures) <= SAME
    for i, atoms in enumerate(result.structures):
        atoms.info.update(
            fingerprint_loss=float(result.loss[i]),
            status=result.status[i],
            same_structure=bool(same[i]),
            seed=seed,
            seconds=float(result.seconds[i]),
        )
    write(result.structures, output, overwrite)
    converged = sum(status == CONVERGED for status in result.status)
    click.echo(
        f"{len(structures)} structures: {converged} fingerprints reached, {int(same.sum())} "
        f"found again (every distance within {SAME} Å), "
        f"{result.seconds.mean():.2f} s each; in {output}"
    )
