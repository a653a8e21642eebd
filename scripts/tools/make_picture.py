"""Draws the README's picture from a demo's results: the targets, and what was generated.

python scripts/tools/make_picture.py demo/generated.extxyz -o docs/generated.svg
"""

from __future__ import annotations

import math
import re
from pathlib import Path

import click
import numpy as np


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path))
@click.option("--columns", default=4, show_default=True, help="Structures of each target.")
def main(file: Path, output: Path, columns: int) -> None:
    """Draw the structures nearest to each target, with their energies, and count the hits."""
    from tfgen._files import new_file
    from tfgen.evaluation.report.svg_structures import define_gradients, draw_structure
    from tfgen.generation.records import read_generated
    from tfgen.targets import DEFAULT_TOLERANCES, Target

    name, size, margin = "energy_per_atom", 150, 170
    rows: dict[float, list] = {}
    for atoms in read_generated(file):
        rows.setdefault(atoms.info["target"][name], []).append(atoms)
    parts = []
    for row, (target, members) in enumerate(sorted(rows.items())):
        asked = Target.of(name, target, DEFAULT_TOLERANCES[name])
        values = [atoms.info["relaxed"][name] for atoms in members]
        values = [math.nan if value is None else value for value in values]
        distances = np.nan_to_num(np.abs(asked.error(np.array(values))), nan=np.inf)

        top = row * (size + 30)
        hits = asked.hit(np.array(values)).sum()
        parts.append(
            f'<text x="8" y="{top + 64}" class="t">asked for</text>'
            f'<text x="8" y="{top + 86}" class="t b">{target:.3f} eV/atom</text>'
            f'<text x="8" y="{top + 108}" class="t">{hits} of {len(members)} within '
            f"{asked.tolerance:g}</text>"
        )
        for column, place in enumerate(np.argsort(distances, kind="stable")[:columns]):
            atoms, left = members[place], margin + column * size
            drawn = draw_structure(atoms, f"{atoms.symbols} cluster")
            tag = f'<svg x="{left}" y="{top}" width="{size - 8}" height="{size - 8}" '
            parts.append(re.sub(r"^<svg ", tag, drawn))
            value = atoms.info["relaxed"][name]
            shown = "-" if value is None else f"{value:.3f}"
            parts.append(
                f'<text x="{left + size / 2 - 4}" y="{top + size + 10}" class="t c">{shown}</text>'
            )
    width, height = margin + columns * size, len(rows) * (size + 30)
    style = (
        ".t{font:15px system-ui,sans-serif;fill:#57606a}.b{font-weight:600}.c{text-anchor:middle}"
        ".fog{fill:#fff}"
    )
    text = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}"><style>{style}</style><rect width="100%" height="100%" fill="#fff"/>'
        f"{define_gradients(z for m in rows.values() for a in m for z in a.numbers)}"
        f"{''.join(parts)}</svg>"
    )
    output.parent.mkdir(exist_ok=True)
    with new_file(output, overwrite=True) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")
    click.echo(f"{output}: {len(rows)} targets, {columns} structures each")


if __name__ == "__main__":
    main()
