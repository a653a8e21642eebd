"""The structures in the HTML report: pictures, the table of all, and the data that turns them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols, covalent_radii

from tfgen.evaluation.report import pictures
from tfgen.evaluation.report.text import axis, narrow, unit, value_text, wanted_text
from tfgen.generation.records import STAGES, raw_structures
from tfgen.structures.similarity import aligned

if TYPE_CHECKING:
    from tfgen.datasets.storage import Dataset

__all__ = ["figure", "gallery", "properties", "scene", "structure_table"]

_PICTURES = 12
# Orientations looked at, and tried, to lay a training structure onto a generated one: good enough
# for a picture.
_LOOKS, _STARTS = 400, 4
# Atoms up to so many sums of their covalent radii apart are drawn with a bond, where asked for;
# validity is more generous, pictures would fill with lines.
_BOND = 1.2


def figure(content: str, caption: str, attributes: str = "") -> str:
    """Returns a figure with its caption, HTML both."""
    return f"<figure{attributes}>{content}<figcaption>{caption}</figcaption></figure>"


def properties(metrics: Mapping[str, Any]) -> list[str]:
    """Returns the properties to show: those asked for, or else all that were recorded."""
    asked = {name: None for entry in metrics["targets"] for name in entry["target"]}
    return list(asked or metrics["units"])


def gallery(generated: Sequence[Atoms], metrics: Mapping[str, Any]) -> str:
    """Returns the section with pictures of some structures."""
    rows = metrics["structures"]
    chosen = np.unique(np.linspace(0, len(rows) - 1, min(_PICTURES, len(rows))).round().astype(int))
    figures = []
    for k in chosen:
        row = rows[k]
        facts = [f"<strong>{escape(row['formula'] or 'no atoms')}</strong> #{k}"]
        final = row["relaxed"] or row["reconstructed"]
        for name, wanted in (row["target"] or {}).items():
            got = value_text(final.get(name), 4)
            facts.append(f"{escape(name.replace('_', ' '))}: {got} for {wanted_text(wanted, 4)}")
        if not row["valid"]:
            facts.append('<span class="no">not valid</span>')
        picture = pictures.picture(generated[k], f"structure {k}, {row['formula']}")
        figures.append(figure(picture, "<br>".join(facts), f' data-k="{k}"'))
    numbers = {int(n) for k in chosen for n in generated[k].numbers}
    which = f"{len(chosen)} of {len(rows)}, evenly spaced through the file, none picked by hand"
    which = "All of them" if len(chosen) == len(rows) else which
    return (
        f"<section><h2>Structures</h2><p>{which}. Below each: what it has for what was asked. Drag "
        'one to turn it. <label><input type="checkbox" id="bonds"> show bonds</label></p>'
        f'{pictures.element_gradients(numbers)}<div class="gallery">{"".join(figures)}</div>'
        "</section>"
    )


# --- The table ----------------------------------------------------------------------------------


def structure_table(metrics: Mapping[str, Any]) -> str:
    """Returns the section with one row per structure."""
    names = properties(metrics)
    stages = _stages(metrics)
    heads: list[tuple[str, str]] = [("#", "number"), ("formula", "text")]
    heads += [(narrow(key), "number") for _ in names for key in ("target", *stages)]
    heads += [("hit", "text"), ("loss", "number"), ("moved (Å)", "number")]
    heads += [(key, "text") for key in ("valid", "unique", "new")]
    heads += [("number", "number"), ("apart (Å)", "number")]
    heads += [("status", "text"), ("seconds", "number")]
    groups = '<th colspan="2"></th>'
    groups += "".join(
        f'<th class="group" colspan="{1 + len(stages)}">{escape(axis(n, metrics))}</th>'
        for n in names
    )
    groups += (
        '<th colspan="6"></th><th class="group" colspan="2">nearest in training</th>'
        '<th colspan="2"></th>'
    )
    buttons = "".join(
        f'<th{_text_class(kind)}><button type="button" data-column="{k}" data-kind="{kind}">'
        f"{name}</button></th>"
        for k, (name, kind) in enumerate(heads)
    )
    body = "".join(_row(k, row, names, stages) for k, row in enumerate(metrics["structures"]))
    return f"""<section><h2>Every structure</h2>
<p class="soft">Click a column's title to sort by it, and a row to see the structure as
reconstructed, relaxed, and next to the most similar one in training.</p>
<div class="wide tall"><table class="sortable">
<thead><tr>{groups}</tr><tr>{buttons}</tr></thead>
<tbody>{body}</tbody></table></div></section>"""


def _text_class(kind: str) -> str:
    return ' class="text"' if kind == "text" else ""


def _stages(metrics: Mapping[str, Any]) -> tuple[str, ...]:
    """Returns the stages that have columns."""
    predicted = any(row["predicted"] for row in metrics["structures"])
    return ("decoded", "reconstructed", "predicted", "relaxed") if predicted else STAGES


def _row(index: int, row: Mapping[str, Any], names: list[str], stages: tuple[str, ...]) -> str:
    def number(value: float | None, digits: int = 5) -> str:
        key = "" if value is None else repr(value)
        return f'<td data-v="{key}">{value_text(value, digits)}</td>'

    def whole(value: int | None) -> str:
        return (
            f'<td data-v="{"" if value is None else value}">{"-" if value is None else value}</td>'
        )

    def flag(value: bool | None) -> str:
        if value is None:
            return '<td class="text" data-v="">-</td>'
        word = "yes" if value else "no"
        return f'<td class="text {word}" data-v="{word}">{word}</td>'

    formula = escape(row["formula"])
    opener = f'class="open" data-k="{index}" aria-expanded="false"'
    cells = [
        f'<td data-v="{index}"><button type="button" {opener}>{index}</button></td>',
        f'<td class="text" data-v="{formula}">{formula}</td>',
    ]
    for name in names:
        wanted = (row["target"] or {}).get(name)
        middle = sum(wanted) / 2 if isinstance(wanted, list) else wanted
        shown = "-" if wanted is None else wanted_text(wanted)
        cells.append(f'<td data-v="{"" if middle is None else repr(middle)}">{shown}</td>')
        cells += [number(row[stage].get(name)) for stage in stages]
    nearest = row["nearest"] or {"index": None, "distance": None}
    cells += [flag(row["hit"]), number(row["fingerprint_loss"], 3), number(row["basin_rmsd"], 3)]
    cells += [flag(row[key]) for key in ("valid", "unique", "novel")]
    cells += [whole(nearest["index"]), number(nearest["distance"], 3)]
    status = escape(row["status"] or "")
    cells.append(f'<td class="text status" data-v="{status}">{status or "-"}</td>')
    cells.append(number(row["seconds"], 3))
    return f"<tr>{''.join(cells)}</tr>"


# --- What the script draws ----------------------------------------------------------------------


def scene(generated: Sequence[Atoms], dataset: Dataset, metrics: Mapping[str, Any]) -> str:
    """Returns the data block with all structures, as JSON; `_report_page.js` reads it.

    Coordinates are in hundredths of Å, as seen from the structure's flat side.
    """
    raw = raw_structures(generated)
    structures = [
        _structure(k, generated[k], raw[k], row, dataset, metrics)
        for k, row in enumerate(metrics["structures"])
    ]
    elements = {
        number: [
            chemical_symbols[number],
            pictures.element_colour(number),
            float(covalent_radii[number]),
        ]
        for number in sorted({z for s in structures for z in s["numbers"]})
    }
    content = {
        "elements": elements,
        "bond": _BOND,
        "structures": structures,
    }
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    # Nothing in a name may end the block.
    text = text.replace("<", "\\u003c")
    return f'<script type="application/json" id="structures">{text}</script>'


def _structure(
    k: int,
    atoms: Atoms,
    raw: Atoms,
    row: Mapping[str, Any],
    dataset: Dataset,
    metrics: Mapping[str, Any],
) -> dict[str, Any]:
    label = f"structure {k}, {row['formula']}"
    result: dict[str, Any] = {
        "label": label, "numbers": [], "views": [], "shown": 0, "cell": [], "reach": 1.0
    }  # fmt: skip
    if not pictures.drawable(atoms):
        return result
    relaxed = raw is not atoms
    shown = [("relaxed" if relaxed else "reconstructed", atoms.positions, row)]
    if relaxed and pictures.drawable(raw):
        shown.insert(0, ("reconstructed", raw.positions, row))
    order = np.argsort(atoms.numbers, kind="stable")
    views = [
        (_caption(stage, row[stage], metrics), positions[order]) for stage, positions, _ in shown
    ]
    if row["nearest"] is not None:
        index, distance = row["nearest"]["index"], row["nearest"]["distance"]
        known = dataset.structures[index]
        if not known.pbc.any():
            known = aligned(known, atoms, starts=_STARTS, looks=_LOOKS)
        values = {n: float(v[index]) for n, v in dataset.properties.items()}
        title = f"nearest in training, number {index}, {distance:.3g} Å apart"
        place = np.argsort(known.numbers, kind="stable")
        views.append((_caption(title, values, metrics), known.positions[place]))
    middle = atoms.positions.mean(axis=0)
    turn = pictures.view(atoms.positions - middle)
    result["numbers"] = atoms.numbers[order].tolist()
    result["shown"] = len(shown) - 1
    result["cell"] = pictures.cell_edges(atoms, middle, turn).reshape(-1, 6).round(3).tolist()
    reach = float(np.abs(result["cell"]).max()) * 1.5 if result["cell"] else 0.0
    radii = covalent_radii[atoms.numbers[order]]
    for title, positions in views:
        # Each about its own centre: a picture that jumps from one to the next tells nothing.
        seen = (positions - positions.mean(axis=0)) @ turn
        reach = max(reach, float((np.linalg.norm(seen, axis=1) + radii).max()))
        result["views"].append([title, (100 * seen).round().astype(int).ravel().tolist()])
    result["reach"] = round(reach * 1.03, 3)
    return result


def _caption(title: str, values: Mapping[str, float | None], metrics: Mapping[str, Any]) -> str:
    facts = [
        f"{name.replace('_', ' ')} {value_text(values[name])} {unit(name, metrics)}".rstrip()
        for name in properties(metrics)
        if values.get(name) is not None
    ]
    return ": ".join([title, ", ".join(facts)]) if facts else title
