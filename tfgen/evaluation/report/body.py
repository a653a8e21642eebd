"""The sections of the HTML report. Whatever comes from a file is escaped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms

from tfgen.evaluation.report import charts as plotting
from tfgen.evaluation.report.map import map_section
from tfgen.evaluation.report.structures import figure, gallery, properties, scene, structure_table
from tfgen.evaluation.report.text import asked, axis, narrow, percent, statuses, unit, value_text
from tfgen.generation.records import STAGES, raw_structures

if TYPE_CHECKING:
    from tfgen.datasets.storage import Dataset
    from tfgen.models.model import Model

__all__ = ["body"]


def body(
    generated: Sequence[Atoms],
    dataset: Dataset,
    metrics: Mapping[str, Any],
    model: Model | None = None,
) -> str:
    """Returns the body of the page: see `tfgen.evaluation.report.report.write_report`."""
    train = dataset.select("train")
    return "\n".join(
        [
            _header(metrics, dataset),
            "<main>",
            _target_section(metrics),
            _chart_section(generated, train, metrics),
            map_section(generated, train, metrics, model),
            gallery(generated, metrics),
            structure_table(metrics),
            _method(metrics),
            "</main>",
            _provenance(dataset),
            scene(generated, dataset, metrics),
        ]
    )


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
    verified = metrics["verified"]
    if verified:
        cost = verified["relaxations_per_hit"]
        cards.append(
            card(
                "relaxations per verified hit",
                "-" if cost is None else f"{cost:.3g}",
                f"{verified['hits']} hits that are valid, unique and new",
            )
        )
    if metrics["acceptance"]:
        tried = metrics["acceptance"]["candidates"]
        cards.append(
            card("accepted", percent(metrics["acceptance"]["rate"]), f"of {tried} candidates")
        )
    if metrics["basin"]["count"]:
        cards.append(
            card(
                "kept their basin",
                percent(metrics["basin"]["share"]),
                f"moved {metrics['basin']['median_rmsd']:.2f} Å by relaxing (median)",
            )
        )
    if metrics["coverage"]["count"]:
        covered = metrics["coverage"]
        cards.append(
            card(
                "test split found",
                percent(covered["share"]),
                f"{covered['found']} of {covered['count']} structures held out",
            )
        )
    if metrics["seconds_per_structure"] is not None:
        cards.append(card("seconds a structure", f"{metrics['seconds_per_structure']:.2g}"))
    name = escape(str(dataset.metadata.get("name") or "the data set"))
    return (
        f"<header><h1>Generated structures</h1>"
        f'<p class="soft">Compared with the {metrics["training_structures"]} training structures '
        f"of {name}.</p>"
        f'<dl class="cards">{"".join(cards)}</dl></header>'
    )


def _columns() -> tuple[str, ...]:
    return (*STAGES, "draws", *STAGES, "draws", *STAGES[1:])


def _target_section(metrics: Mapping[str, Any]) -> str:
    if not metrics["targets"]:
        return (
            "<section><h2>Targets</h2><p>No structure carries a record of what was asked for, so "
            "there are no hit rates.</p></section>"
        )
    columns = "".join(f"<th>{narrow(name)}</th>" for name in _columns())
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
                + "".join(
                    f"<td>{value_text(entry['bias'][stage][name], 2, sign=True)}</td>"
                    for stage in STAGES[1:]
                )
                + "</tr>"
            )
    return f"""<section><h2>Targets</h2>
<p>A hit has every property asked for within its tolerance or range, and is a valid structure at
that stage; failures count as misses. <em>Draws</em> are training structures of the same
composition, taken blindly: what a method has to beat.</p>
<div class="wide"><table>
<thead><tr><th class="text" rowspan="2">target</th><th rowspan="2">count</th>
<th class="group" colspan="4">hit rate</th><th class="group" colspan="4">mean distance to the target
</th><th class="group" colspan="2">mean deviation</th></tr><tr>{columns}</tr></thead>
<tbody>{"".join(rows)}</tbody></table></div></section>"""


def _chart_section(generated: Sequence[Atoms], train: Dataset, metrics: Mapping[str, Any]) -> str:
    charts = [_target_chart(name, train, metrics) for name in properties(metrics)]
    pairs = [_histogram(name, train, metrics) for name in properties(metrics)]
    pairs.append(_distances(generated, train, metrics))
    losses: dict[str, list[float]] = {name: [] for name in statuses(metrics, 5)}
    for row in metrics["structures"]:
        if row["fingerprint_loss"] is not None:
            status = row["status"] or "not recorded"
            losses[status if status in losses else "other"].append(row["fingerprint_loss"])
    if any(losses.values()):
        chart = plotting.loss_chart({k: np.maximum(v, 0.0) for k, v in losses.items() if v})
        pairs.append(
            figure(chart, "How far the fingerprint of each structure is from the one decoded.")
        )
    wide = "".join(filter(None, charts))
    heading = "<h2>Target against property</h2>" if wide else ""
    return (
        f"<section>{heading}{wide}</section><section><h2>Distributions</h2>"
        f'<div class="pair">{"".join(filter(None, pairs))}</div></section>'
    )


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
    return figure(
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
    return figure(
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
    return figure(
        plotting.distance_chart(series, edges[start:]),
        "Interatomic distances of valid structures, generated next to training of the same "
        "composition"
        + (" (in brackets: structures)." if same.any() else ": there is none, so all."),
    )


def _method(metrics: Mapping[str, Any]) -> str:
    limits = metrics["thresholds"]
    equal = f"all sorted interatomic distances within {limits['duplicate_tolerance']:g} Å"
    entries = [
        ("overlap", f"closer than {limits['overlap_factor']:g} × the sum of covalent radii"),
        ("bond", f"within {limits['bond_factor']:g} × the sum of covalent radii"),
        ("training structures that pass", percent(limits["training_pass_rate"])),
        ("equal", f"{equal} (so up to rotation, reflection and permutation)"),
    ]
    basin = f"moved by relaxing by at most {limits['basin_rmsd']:g} Å (RMSD, atoms matched)"
    entries.append(("kept its basin", basin))
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
        "count all structures, those of unique ones the valid, those of new ones the unique. A "
        "verified hit is valid, unique and new, and on target when relaxed; the relaxations of all "
        "structures count, and every candidate's where records tell.</p>"
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
