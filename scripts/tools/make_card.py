"""Makes the figures and the tables of a data set's card.

The script writes `structures.svg` (the lowest and some typical structures) and `charts.svg`
(energies and distances). It writes tables of the file's contents between the lines
`<!-- tables -->` and `<!-- end of tables -->` of the card `README.md`; people write the rest.

    tfgen dataset build pt13 -o pt13.h5
    python scripts/tools/make_card.py pt13.h5 -o datasets/pt13
"""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np

from tfgen._tensorflow import load_quietly

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from tfgen.datasets.storage import Dataset

ENERGY = "energy_per_atom"
WIDTH = 120  # of a line of Markdown
BEGIN, END = "<!-- tables -->", "<!-- end of tables -->"
COLUMNS, SIZE = 5, 150
INK, FILL, LINE = "#57606a", "#8fb4d9", "#d97a1e"
# What the card calls the stages that a build counts.
STAGES = {
    "sampled": "initial structures",
    "explored": "structures from moves",
    "snapshots": "snapshots on the way",
    "not converged": "not converged",
    "disconnected": "disconnected (bonds: up to {bond_factor} times the sum of covalent radii)",
    "duplicates": "duplicates (no sorted distance differs by more than {duplicate_tolerance} Å)",
    "above the maximum count": "not chosen",
}


class Table:
    """The parts of a data set that pictures and tables need, by composition."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset
        self.energy = dataset.properties[ENERGY]
        formulas = [s.get_chemical_formula("metal") for s in dataset.structures]
        self.members = {
            f: np.flatnonzero([f == g for g in formulas]) for f in dict.fromkeys(formulas)
        }
        for formula, rows in self.members.items():
            self.members[formula] = rows[np.argsort(self.energy[rows], kind="stable")]
        self.above = self.energy.copy()
        for rows in self.members.values():
            self.above[rows] -= self.energy[rows[0]]

    @property
    def mixed(self) -> bool:
        """Whether there are several compositions."""
        return len(self.members) > 1

    def chosen(self) -> tuple[list[int], list[int]]:
        """Places of the structures that are shown: the lowest, and typical ones."""
        if self.mixed:
            names = list(self.members)
            some = [names[k] for k in np.linspace(0, len(names) - 1, COLUMNS).round().astype(int)]
            rows = [self.members[name] for name in some]
            return [int(r[0]) for r in rows], [int(r[len(r) // 2]) for r in rows]
        (rows,) = self.members.values()
        typical = np.quantile(np.arange(len(rows)), [0.1, 0.3, 0.5, 0.7, 0.9]).round().astype(int)
        return rows[:COLUMNS].tolist(), rows[typical].tolist()


def pictures(table: Table) -> str:
    """The lowest structures above typical ones, as SVG."""
    from tfgen.evaluation.report.svg_structures import define_gradients, draw_structure

    second = "median energy" if table.mixed else "10, 30, 50, 70, 90 % quantile"
    parts = []
    for row, (title, places) in enumerate(zip(("lowest", second), table.chosen(), strict=True)):
        top = row * (SIZE + 56)
        parts.append(f'<text x="10" y="{top + 18}" class="b">{title} (eV/atom)</text>')
        for column, place in enumerate(places):
            atoms, left = table.dataset.structures[place], column * SIZE
            drawn = draw_structure(atoms, f"{atoms.symbols} cluster")
            size = f'x="{left + 5}" y="{top + 24}" width="{SIZE - 10}" height="{SIZE - 10}"'
            parts.append(re.sub(r"^<svg ", f"<svg {size} ", drawn))
            value = f"{table.energy[place]:.4f}"
            label = f"{atoms.get_chemical_formula('metal')}: {value}" if table.mixed else value
            parts.append(
                f'<text x="{left + SIZE / 2}" y="{top + SIZE + 30}" class="c">{label}</text>'
            )
    numbers = {int(z) for places in table.chosen() for p in places
               for z in table.dataset.structures[p].numbers}  # fmt: skip
    width, height = COLUMNS * SIZE, 2 * (SIZE + 56)
    style = (
        f"text{{font:13px system-ui,sans-serif;fill:{INK}}}.b{{font-weight:600}}"
        ".c{text-anchor:middle}.fog{fill:#fff}"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}"><style>{style}</style><rect width="100%" height="100%" fill="#fff"/>'
        f"{define_gradients(numbers)}{''.join(parts)}</svg>\n"
    )


def charts(table: Table, path: Path) -> None:
    """Energies, lowest energies by composition if there are several, and distances, as SVG."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    from tfgen.evaluation.report.svg_charts import count_distances

    look = {
        "svg.fonttype": "none",
        "svg.hashsalt": "card",
        "font.size": 9.0,
        "axes.spines.top": False,
        "axes.spines.right": False,
        **dict.fromkeys(("axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK),
    }
    with mpl.rc_context(look):
        figure = Figure(figsize=(3.1 * (2 + table.mixed), 2.6), layout="constrained")
        axes = list(figure.subplots(1, 2 + table.mixed))
        value, label = (
            (table.above, "above the lowest (eV/atom)")
            if table.mixed
            else (table.energy, "energy (eV/atom)")
        )
        axes[0].hist(value, 40, color=FILL)
        axes[0].set(xlabel=label, ylabel="structures")
        edges = np.arange(1.5, 30.0, 0.05)
        pairs = count_distances(table.dataset.structures, edges)
        # Up to where all but one pair in a thousand lie.
        far = float(edges[np.searchsorted(np.cumsum(pairs), 0.999 * pairs.sum()) + 1])
        axes[-1].stairs(pairs / len(table.dataset) / np.diff(edges), edges, fill=True, color=FILL)
        axes[-1].set(xlabel="distance (Å)", ylabel="pairs per structure and Å", xlim=(1.5, far))
        if table.mixed:
            _by_composition(table, axes[1])
        figure.savefig(path, format="svg", metadata={"Date": None})


def _by_composition(table: Table, ax: Axes) -> None:
    names, rows = list(table.members), list(table.members.values())
    spread = np.array([np.quantile(table.energy[r], [0.0, 0.5, 0.95]) for r in rows])
    x = np.arange(len(names))
    ax.fill_between(
        x, spread[:, 0], spread[:, 2], color=FILL, alpha=0.6, lw=0, label="to the 95 % quantile"
    )
    ax.plot(x, spread[:, 1], color="#2f7fc1", lw=1.2, label="median")
    ax.plot(x, spread[:, 0], ".-", color=LINE, lw=1.0, label="lowest")
    some = np.unique(np.linspace(0, len(names) - 1, 3).round().astype(int))
    ax.set_xticks(some, [names[k] for k in some])
    ax.set_ylabel("energy (eV/atom)")
    ax.legend(frameon=False, fontsize=8)


def tables(table: Table) -> str:
    """Makes the tables: what became of the structures, properties, and lowest energies."""
    dataset = table.dataset
    counts, limits = dataset.metadata["counts"], dataset.metadata["thresholds"]
    lines = ["| stage | structures |", "|---|---|"]
    for stage, number in counts.items():
        text = STAGES.get(stage, stage).format(**limits)
        lines.append(
            f"| **{text}** | **{number:,}** |" if stage == "kept" else f"| {text} | {number:,} |"
        )
    parts = [f"{(dataset.split == k).sum():,}" for k in range(3)]
    lines.append(f"| train / validation / test, split at random | {' / '.join(parts)} |")
    if rounds := dataset.metadata.get("rounds"):
        found = ", ".join(f"{round_['minima']:,}" for round_ in rounds)
        text = f"Minima known after the initial structures and after each round of moves: {found}."
        lines += ["", *textwrap.wrap(text, WIDTH)]
    lines += [
        "",
        "| property | unit | lowest | 5 % | median | 95 % | highest |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, values in dataset.properties.items():
        quantiles = [f"{q:.4g}" for q in np.quantile(values, [0, 0.05, 0.5, 0.95, 1])]
        lines.append(f"| {name} | {dataset.units[name]} | {' | '.join(quantiles)} |")
    nearest = np.concatenate(_nearest(dataset))
    lines += [
        "",
        f"Nearest neighbours: {nearest.mean():.2f} Å on average, at least {nearest.min():.2f} Å.",
        "",
        "| composition | structures | lowest, eV | eV/atom | second, above it, eV |",
        "|---|---|---|---|---|",
    ]
    for formula, rows in table.members.items():
        atoms = len(dataset.structures[rows[0]])
        energy = table.energy[rows] * atoms
        second = f"{energy[1] - energy[0]:.3f}" if len(rows) > 1 else ""
        lines.append(
            f"| {formula} | {len(rows):,} | {energy[0]:.4f} | {energy[0] / atoms:.4f} | {second} |"
        )
    return "\n".join(lines)


def _nearest(dataset: Dataset) -> list[np.ndarray]:
    """The distance of each atom to its nearest neighbour, Å, for all structures of a size."""
    found = []
    sizes = np.array([len(s) for s in dataset.structures])
    for size in np.unique(sizes):
        x = np.array([s.positions for s in dataset.structures if len(s) == size])
        squared = ((x[:, :, None] - x[:, None, :]) ** 2).sum(axis=3)
        squared[:, np.arange(size), np.arange(size)] = np.inf
        found.append(np.sqrt(squared.min(axis=2)).ravel())
    return found


@click.command()
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path, file_okay=False))
def main(file: Path, output: Path) -> None:
    """Make the figures of the data set FILE and the tables of the card in the folder OUTPUT."""
    load_quietly()
    from tfgen._files import new_file
    from tfgen.datasets.storage import Dataset

    table = Table(Dataset.load(file))
    output.mkdir(parents=True, exist_ok=True)
    with new_file(output / "structures.svg", overwrite=True) as temporary:
        temporary.write_text(pictures(table), encoding="utf-8")
    with new_file(output / "charts.svg", overwrite=True) as temporary:
        charts(table, temporary)
    card = output / "README.md"
    block = f"{BEGIN}\n{tables(table)}\n{END}"
    text = card.read_text(encoding="utf-8") if card.exists() else f"# {output.name}\n\n{block}\n"
    if not (BEGIN in text and END in text):
        text += f"\n{block}\n"
    before, rest = text.split(BEGIN, 1)
    with new_file(card, overwrite=True) as temporary:
        temporary.write_text(before + block + rest.split(END, 1)[1], encoding="utf-8")
    click.echo(f"{output}: {len(table.dataset)} structures")


if __name__ == "__main__":
    main()
