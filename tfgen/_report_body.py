"""The sections of the HTML report. Whatever comes from a file is escaped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms

from tfgen import plotting
from tfgen._report_text import asked, axis, percent, statuses, unit, value_text, wanted_text
from tfgen.records import STAGES, raw_structures

if TYPE_CHECKING:
    from tfgen.datasets.storage import Dataset

__all__ = ["body"]

_PICTURES = 12


def body(generated: Sequence[Atoms], dataset: Dataset, metrics: Mapping[str, Any]) -> str:
    """Returns the body of the page: see `tfgen.report.write_report`."""
    train = dataset.select("train")
    return "\n".join(
        [
            _header(metrics, dataset),
            "<main>",
            _target_section(metrics),
            _chart_section(generated, train, metrics),
            _gallery(generated, metrics),
            _structure_table(metrics),
            _method(metrics),
            "</main>",
            _provenance(dataset),
        ]
    )


def _final(row: Mapping[str, Any]) -> dict[str, float | None]:
    """Returns the properties of the structure as it stands in the file."""
    stage: dict[str, float | None] = row["relaxed"] or row["reconstructed"]
    return stage


def _properties(metrics: Mapping[str, Any]) -> list[str]:
    """Returns the properties to show: those asked for, or else all that were recorded."""
    asked = {name: None for entry in metrics["targets"] for name in entry["target"]}
    return list(asked or metrics["units"])


def _header(metrics: Mapping[str, Any], dataset: Dataset) -> str:
    def card(name: str, value: str, note: str = "") -> str:
        note = f"<small>{note}</small>" if note else ""
        return f'<div class="card"><dt>{name}</dt><dd>{value}{note}</dd></div>'

    converged = metrics["status"].get("converged", 0)
    cards = [
        card("structures", str(metrics["count"]), f"{converged} converged" if converged else ""),
        card("valid", percent(metrics["validity"]), "finite, no overlap, one piece"),
        card("unique", percent(metrics["uniqueness"]), "of the valid ones"),
        card("new", percent(metrics["novelty"]), "not in the training set"),
    ]
    for stage in ("relaxed", "reconstructed"):
        known = [t for t in metrics["targets"] if t["hit_rate"][stage] is not None]
        if known:
            rate = float(np.mean([t["hit_rate"][stage] for t in known]))
            draws = [t["baseline"]["hit_rate"] for t in known]
            note = ""
            if None not in draws:
                note = f"draws from training: {percent(float(np.mean(draws)))}"
            cards.append(card(f"on target, {stage}", percent(rate), note))
            break
    if metrics["seconds_per_structure"] is not None:
        cards.append(card("seconds a structure", f"{metrics['seconds_per_structure']:.2g}"))
    name = escape(str(dataset.metadata.get("name") or "the data set"))
    return (
        f"<header><h1>Generated structures</h1>"
        f'<p class="soft">Compared with the {metrics["training_structures"]} training structures '
        f"of {name}.</p>"
        f'<dl class="cards">{"".join(cards)}</dl></header>'
    )


def _target_section(metrics: Mapping[str, Any]) -> str:
    if not metrics["targets"]:
        return (
            "<section><h2>Targets</h2><p>No structure carries a record of what was asked for, so "
            "there are no hit rates.</p></section>"
        )
    columns = "".join(f"<th>{name}</th>" for name in (*STAGES, "draws") * 2)
    rows = []
    for entry in metrics["targets"]:
        rates = [entry["hit_rate"][stage] for stage in STAGES] + [entry["baseline"]["hit_rate"]]
        span = f' rowspan="{len(entry["target"])}"'
        for k, (name, wanted) in enumerate(entry["target"].items()):
            errors = [entry["mae"][stage][name] for stage in STAGES]
            errors.append(entry["baseline"]["mae"][name])
            shared = [str(entry["count"]), *map(percent, rates)]
            rows.append(
                f'<tr><th class="text">{escape(asked(name, wanted, metrics))}</th>'
                + ("".join(f"<td{span}>{cell}</td>" for cell in shared) if k == 0 else "")
                + "".join(f"<td>{value_text(error, 3)}</td>" for error in errors)
                + "</tr>"
            )
    return f"""<section><h2>Targets</h2>
<p>A hit has every property asked for within its tolerance or range, and is a valid structure at
that stage; failures count as misses. <em>Draws</em> are training structures of the same
composition, taken blindly: what a method has to beat.</p>
<div class="wide"><table>
<thead><tr><th class="text" rowspan="2">target</th><th rowspan="2">count</th>
<th class="group" colspan="4">hit rate</th><th class="group" colspan="4">mean distance to the target
</th></tr><tr>{columns}</tr></thead>
<tbody>{"".join(rows)}</tbody></table></div></section>"""


def _chart_section(generated: Sequence[Atoms], train: Dataset, metrics: Mapping[str, Any]) -> str:
    charts = [_target_chart(name, train, metrics) for name in _properties(metrics)]
    pairs = [_histogram(name, train, metrics) for name in _properties(metrics)]
    pairs.append(_distances(generated, train, metrics))
    losses: dict[str, list[float]] = {name: [] for name in statuses(metrics, 5)}
    for row in metrics["structures"]:
        if row["fingerprint_loss"] is not None:
            status = row["status"] or "not recorded"
            losses[status if status in losses else "other"].append(row["fingerprint_loss"])
    if any(losses.values()):
        chart = plotting.loss_chart({k: np.maximum(v, 0.0) for k, v in losses.items() if v})
        pairs.append(
            _figure(chart, "How far the fingerprint of each structure is from the one decoded.")
        )
    wide = "".join(filter(None, charts))
    heading = "<h2>Target against property</h2>" if wide else ""
    return (
        f"<section>{heading}{wide}</section><section><h2>Distributions</h2>"
        f'<div class="pair">{"".join(filter(None, pairs))}</div></section>'
    )


def _figure(content: str, caption: str) -> str:
    return f"<figure>{content}<figcaption>{caption}</figcaption></figure>"


def _training_values(name: str, train: Dataset, rows: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """Returns a property of the training structures of the compositions generated, or of all."""
    if name not in train.properties:
        return np.zeros(0)
    same = _same_composition(train, rows)
    return train.properties[name][same if same.any() else slice(None)]


def _same_composition(train: Dataset, rows: Sequence[Mapping[str, Any]]) -> np.ndarray:
    formulas = {row["formula"] for row in rows}
    return np.array([s.get_chemical_formula("metal") in formulas for s in train.structures])


def _stage_values(
    rows: Sequence[Mapping[str, Any]], stage: str, name: str
) -> tuple[np.ndarray, np.ndarray]:
    """Returns a property at a stage, [n] with NaN where there is none, and valid, [n] bool."""
    found = [row[stage].get(name) for row in rows]
    value = np.array([np.nan if v is None else v for v in found], float)
    judged = {"reconstructed": "valid_reconstructed", "relaxed": "valid"}
    return value, np.array([stage == "decoded" or row[judged[stage]] for row in rows], bool)


def _target_chart(name: str, train: Dataset, metrics: Mapping[str, Any]) -> str:
    asked_rows: dict[str, list[Mapping[str, Any]]] = {}
    for row in metrics["structures"]:
        if name in (row["target"] or {}):
            asked_rows.setdefault(repr(row["target"][name]), []).append(row)
    groups = list(asked_rows.values())
    wanted = [group[0]["target"][name] for group in groups]
    values = {
        stage: [_stage_values(group, stage, name) for group in groups]
        for stage in STAGES
        if any(group_row[stage].get(name) is not None for g in groups for group_row in g)
    }
    if not values:
        return ""
    tolerance = metrics["thresholds"]["hit_tolerance"].get(name, {}).get("value")
    training = _training_values(name, train, [row for group in groups for row in group])
    chart = plotting.target_chart(wanted, values, training, axis(name, metrics), tolerance)
    return _figure(
        chart,
        f"Every structure: {escape(axis(name, metrics))} over its target. Crosses are structures "
        "that are not valid; arrow heads lie beyond the axis.",
    )


def _histogram(name: str, train: Dataset, metrics: Mapping[str, Any]) -> str:
    rows = metrics["structures"]
    series = {}
    for stage in ("reconstructed", "relaxed"):
        value = _stage_values(rows, stage, name)[0]
        if np.isfinite(value).any():
            series[stage] = value[np.isfinite(value)]
    training = _training_values(name, train, rows)
    if not series:
        return ""
    wanted = [t["target"][name] for t in metrics["targets"] if name in t["target"]]
    marks = {end for value in wanted for end in (value if isinstance(value, list) else [value])}
    chart = plotting.property_chart(series, training, axis(name, metrics), sorted(marks))
    return _figure(
        chart,
        f"Generated next to training: {escape(axis(name, metrics))}. The outermost bars hold "
        "everything beyond them.",
    )


def _distances(generated: Sequence[Atoms], train: Dataset, metrics: Mapping[str, Any]) -> str:
    rows = metrics["structures"]
    same = _same_composition(train, rows)
    known = [s for s, k in zip(train.structures, same, strict=True) if k or not same.any()]
    final = [atoms for atoms, row in zip(generated, rows, strict=True) if row["valid"]]
    sets = {"training": known}
    if any("reconstructed_positions" in atoms.arrays for atoms in generated):
        raw = zip(raw_structures(generated), rows, strict=True)
        sets["reconstructed"] = [s for s, row in raw if row["valid_reconstructed"]]
        sets["relaxed"] = final
    else:
        sets["reconstructed"] = final
    reach = max((np.ptp(s.positions, axis=0).max() for s in known), default=0.0)
    reach = min(max(1.2 * reach, 4.0), 6.0 if any(s.pbc.any() for s in known) else 15.0)
    edges = np.linspace(0.0, reach, 121)
    series = {k: (plotting.pair_distances(v, edges), len(v)) for k, v in sets.items() if v}
    # Nothing happens below the shortest distance; leave that out.
    used = np.flatnonzero(sum(counts for counts, _ in series.values()))
    if len(used) == 0:
        return ""
    start = max(0, used[0] - 3)
    series = {k: (counts[start:], n) for k, (counts, n) in series.items()}
    return _figure(
        plotting.distance_chart(series, edges[start:]),
        "Interatomic distances of valid structures, generated next to training of the same "
        "composition"
        + (" (in brackets: structures)." if same.any() else ": there is none, so all."),
    )


def _gallery(generated: Sequence[Atoms], metrics: Mapping[str, Any]) -> str:
    rows = metrics["structures"]
    chosen = np.unique(np.linspace(0, len(rows) - 1, min(_PICTURES, len(rows))).round().astype(int))
    figures = []
    for k in chosen:
        row = rows[k]
        facts = [f"<strong>{escape(row['formula'] or 'no atoms')}</strong> #{k}"]
        for name, wanted in (row["target"] or {}).items():
            got = value_text(_final(row).get(name), 4)
            facts.append(f"{escape(name.replace('_', ' '))}: {got} for {wanted_text(wanted, 4)}")
        if not row["valid"]:
            facts.append('<span class="no">not valid</span>')
        picture = plotting.picture(generated[k], f"structure {k}, {row['formula']}")
        figures.append(_figure(picture, "<br>".join(facts)))
    numbers = {int(n) for k in chosen for n in generated[k].numbers}
    which = f"{len(chosen)} of {len(rows)}, evenly spaced through the file, none picked by hand"
    which = "All of them" if len(chosen) == len(rows) else which
    return (
        f"<section><h2>Structures</h2><p>{which}. Below each: what it has for what was asked.</p>"
        f'{plotting.element_gradients(numbers)}<div class="gallery">{"".join(figures)}</div>'
        "</section>"
    )


def _structure_table(metrics: Mapping[str, Any]) -> str:
    names = _properties(metrics)
    heads: list[tuple[str, str]] = [("#", "number"), ("formula", "text")]
    heads += [(key, "number") for _ in names for key in ("target", *STAGES)]
    heads += [("loss", "number"), ("seconds", "number")]
    heads += [(key, "text") for key in ("valid", "unique", "novel", "status")]
    groups = '<th colspan="2"></th>'
    groups += "".join(
        f'<th class="group" colspan="4">{escape(axis(n, metrics))}</th>' for n in names
    )
    groups += '<th colspan="6"></th>'
    buttons = "".join(
        f'<th{_text_class(kind)}><button type="button" data-column="{k}" data-kind="{kind}">'
        f"{name}</button></th>"
        for k, (name, kind) in enumerate(heads)
    )
    body = "".join(_structure_row(k, row, names) for k, row in enumerate(metrics["structures"]))
    return f"""<section><h2>Every structure</h2>
<p class="soft">Click a column's title to sort by it.</p>
<div class="wide tall"><table class="sortable">
<thead><tr>{groups}</tr><tr>{buttons}</tr></thead>
<tbody>{body}</tbody></table></div></section>"""


def _text_class(kind: str) -> str:
    return ' class="text"' if kind == "text" else ""


def _structure_row(index: int, row: Mapping[str, Any], names: list[str]) -> str:
    def number(value: float | None, digits: int = 5) -> str:
        key = "" if value is None else repr(value)
        return f'<td data-v="{key}">{value_text(value, digits)}</td>'

    def flag(value: bool | None) -> str:
        if value is None:
            return '<td class="text" data-v="">-</td>'
        word = "yes" if value else "no"
        return f'<td class="text {word}" data-v="{word}">{word}</td>'

    formula = escape(row["formula"])
    cells = [
        f'<td data-v="{index}">{index}</td>',
        f'<td class="text" data-v="{formula}">{formula}</td>',
    ]
    for name in names:
        wanted = (row["target"] or {}).get(name)
        middle = sum(wanted) / 2 if isinstance(wanted, list) else wanted
        shown = "-" if wanted is None else wanted_text(wanted)
        cells.append(f'<td data-v="{"" if middle is None else repr(middle)}">{shown}</td>')
        cells += [number(row[stage].get(name)) for stage in STAGES]
    cells += [number(row["fingerprint_loss"], 3), number(row["seconds"], 3)]
    cells += [flag(row[key]) for key in ("valid", "unique", "novel")]
    status = escape(row["status"] or "")
    cells.append(f'<td class="text status" data-v="{status}">{status or "-"}</td>')
    return f"<tr>{''.join(cells)}</tr>"


def _method(metrics: Mapping[str, Any]) -> str:
    limits = metrics["thresholds"]
    equal = f"all sorted interatomic distances within {limits['duplicate_tolerance']:g} Å"
    entries = [
        ("overlap", f"closer than {limits['overlap_factor']:g} × the sum of covalent radii"),
        ("bond", f"within {limits['bond_factor']:g} × the sum of covalent radii"),
        ("training structures that pass", percent(limits["training_pass_rate"])),
        ("equal", f"{equal} (so up to rotation, reflection and permutation)"),
    ]
    for name, tolerance in limits["hit_tolerance"].items():
        width = f"{tolerance['value']:.3g} {unit(name, metrics)}".rstrip()
        entries.append((f"hit, {name}", f"within {width} of the target"))
    if metrics["raw"]:
        raw = ", ".join(
            f"{word} {percent(metrics['raw'][key])}"
            for word, key in (("valid", "validity"), ("unique", "uniqueness"), ("new", "novelty"))
        )
        entries.append(("as reconstructed, before relaxation", raw))
    entries += [(f"status: {name}", str(n)) for name, n in statuses(metrics, 20).items()]
    return (
        "<section><h2>How it was measured</h2>"
        + _definitions(entries)
        + "<p>Relaxed structures are judged by their relaxed positions. Shares of valid structures "
        "count all structures, those of unique ones the valid, those of new ones the unique.</p>"
        "</section>"
    )


def _definitions(entries: Sequence[tuple[str, str]]) -> str:
    pairs = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in entries)
    return f'<dl class="plain">{pairs}</dl>'


def _provenance(dataset: Dataset) -> str:
    entries = []
    for key, value in dataset.metadata.items():
        if key == "recipe" or value in (None, "", {}, []):
            continue
        if isinstance(value, Mapping):
            value = ", ".join(f"{k}: {v}" for k, v in value.items())
        entries.append((key, str(value)))
    recipe = dataset.metadata.get("recipe")
    recipe = f"<details><summary>recipe</summary><pre>{escape(str(recipe))}</pre></details>"
    recipe = recipe if dataset.metadata.get("recipe") else ""
    return f"<footer><h2>Data set</h2>{_definitions(entries)}{recipe}</footer>"
