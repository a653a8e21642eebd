"""The structures in the report: pictures of some, and what the page's script needs to draw all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols, covalent_radii

from tfgen.evaluation.report import svg_structures
from tfgen.evaluation.report.format import (
    format_name,
    format_number,
    format_unit,
    format_wanted,
)
from tfgen.evaluation.results import Metrics
from tfgen.evaluation.structure_results import Nearest, StructureMetrics
from tfgen.generation.records import raw_structures
from tfgen.structures.similarity.equality import align

if TYPE_CHECKING:
    from tfgen.datasets.storage import Dataset

__all__ = ["Gallery", "Picture", "choose_pictures", "describe_scene"]

# To superpose a training structure on a generated one, this many orientations are screened, and the
# best of them are refined: enough for a picture.
_SCREENED, _REFINED = 400, 4
# Atoms up to this many sums of their covalent radii apart are drawn with a bond, where bonds are
# shown. What is valid may have longer bonds, but they would fill pictures with lines.
_BOND = 1.2


@dataclass(frozen=True)
class Picture:
    """One structure of the gallery.

    Attributes:
        index: its place in the file.
        formula: its composition; empty if it has no atoms.
        drawing: SVG.
        facts: what it has for what was asked, a line for each property.
        valid: whether it is valid.
    """

    index: int
    formula: str
    drawing: str
    facts: list[str]
    valid: bool


@dataclass(frozen=True)
class Gallery:
    """Pictures of some structures.

    Attributes:
        count: structures that there are.
        pictures: of some of them.
        gradients: SVG that the drawings refer to.
    """

    count: int
    pictures: list[Picture]
    gradients: str


def choose_pictures(generated: Sequence[Atoms], metrics: Metrics, most: int) -> Gallery:
    """Draws some structures, evenly spaced through the file.

    Args:
        generated: the structures.
        metrics: of the structures.
        most: the number of pictures, if there are as many structures.
    """
    rows = metrics.structures
    chosen = np.linspace(0, len(rows) - 1, min(most, len(rows))).round().astype(int)
    indices = np.unique(chosen).tolist()
    numbers = {int(n) for k in indices for n in generated[k].numbers}
    return Gallery(
        count=len(rows),
        pictures=[_draw_picture(k, generated[k], rows[k]) for k in indices],
        gradients=svg_structures.define_gradients(numbers),
    )


def _draw_picture(index: int, atoms: Atoms, row: StructureMetrics) -> Picture:
    facts = []
    for target in row.targets:
        got = format_number(row.final.get(target.name), 4)
        facts.append(f"{format_name(target.name)}: {got} for {format_wanted(target, 4)}")
    drawing = svg_structures.draw_structure(atoms, _name_structure(index, row))
    return Picture(index, row.formula, drawing, facts, row.valid)


def _name_structure(index: int, row: StructureMetrics) -> str:
    return f"structure {index}, {row.formula}"


# --- What the script draws ----------------------------------------------------------------------


def describe_scene(
    generated: Sequence[Atoms], dataset: Dataset, metrics: Metrics
) -> dict[str, Any]:
    """Returns all structures as plain JSON types; the page's script (`page.js`) draws them.

    Coordinates are in hundredths of Å, as seen from the structure's flat side.

    Args:
        generated: the structures.
        dataset: the data set, for the most similar training structures.
        metrics: of the structures.
    """
    raw = raw_structures(generated)
    structures = [
        _describe_structure(k, generated[k], raw[k], row, dataset, metrics)
        for k, row in enumerate(metrics.structures)
    ]
    elements = {
        number: [
            chemical_symbols[number],
            svg_structures.find_colour(number),
            float(covalent_radii[number]),
        ]
        for number in sorted({z for s in structures for z in s["numbers"]})
    }
    return {"elements": elements, "bond": _BOND, "structures": structures}


def _describe_structure(
    index: int,
    atoms: Atoms,
    raw: Atoms,
    row: StructureMetrics,
    dataset: Dataset,
    metrics: Metrics,
) -> dict[str, Any]:
    result: dict[str, Any] = {
        "label": _name_structure(index, row), "numbers": [], "views": [], "shown": 0, "cell": [],
        "reach": 1.0,
    }  # fmt: skip
    if not svg_structures.is_drawable(atoms):
        return result
    relaxed = raw is not atoms
    shown = [("relaxed" if relaxed else "reconstructed", atoms.positions)]
    if relaxed and svg_structures.is_drawable(raw):
        shown.insert(0, ("reconstructed", raw.positions))
    order = np.argsort(atoms.numbers, kind="stable")
    views = [
        (_write_caption(stage, row.stage(stage), metrics), positions[order])
        for stage, positions in shown
    ]
    if row.nearest is not None:
        views.append(_describe_nearest(atoms, row.nearest, dataset, metrics))
    middle = atoms.positions.mean(axis=0)
    turn = svg_structures.find_view(atoms.positions - middle)
    result["numbers"] = atoms.numbers[order].tolist()
    result["shown"] = len(shown) - 1
    result["cell"] = (
        svg_structures.find_cell_edges(atoms, middle, turn).reshape(-1, 6).round(3).tolist()
    )
    reach = float(np.abs(result["cell"]).max()) * 1.5 if result["cell"] else 0.0
    radii = covalent_radii[atoms.numbers[order]]
    for title, positions in views:
        # Each view is about its own centre, or the pictures would jump from one to the next.
        seen = (positions - positions.mean(axis=0)) @ turn
        reach = max(reach, float((np.linalg.norm(seen, axis=1) + radii).max()))
        result["views"].append([title, (100 * seen).round().astype(int).ravel().tolist()])
    result["reach"] = round(reach * 1.03, 3)
    return result


def _describe_nearest(
    atoms: Atoms, nearest: Nearest, dataset: Dataset, metrics: Metrics
) -> tuple[str, np.ndarray]:
    """Returns the caption and the positions of the most similar training structure, superposed."""
    known = dataset.structures[nearest.index]
    if not known.pbc.any():
        known = align(known, atoms, orientations=_REFINED, screened=_SCREENED)
    values = {name: float(v[nearest.index]) for name, v in dataset.properties.items()}
    title = f"nearest in training, number {nearest.index}, {nearest.distance:.3g} Å apart"
    order = np.argsort(known.numbers, kind="stable")
    return _write_caption(title, values, metrics), known.positions[order]


def _write_caption(title: str, values: Mapping[str, float | None], metrics: Metrics) -> str:
    facts = [
        f"{format_name(name)} {format_number(values[name])} {format_unit(name, metrics.units)}"
        for name in metrics.properties
        if values.get(name) is not None
    ]
    return ": ".join([title, ", ".join(fact.rstrip() for fact in facts)]) if facts else title
