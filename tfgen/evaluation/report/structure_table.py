"""The report's table of every structure, as plain data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tfgen.evaluation.report.format import format_axis, format_number, format_wanted
from tfgen.evaluation.results import Metrics
from tfgen.evaluation.structure_results import StructureMetrics
from tfgen.generation.records import STAGES

__all__ = ["Cell", "Column", "Group", "Table", "tabulate_structures"]


@dataclass(frozen=True)
class Column:
    """A column of the table.

    Attributes:
        title: its title.
        kind: "number" or "text": how the page sorts by it.
    """

    title: str
    kind: str


@dataclass(frozen=True)
class Group:
    """A title above several columns.

    Attributes:
        title: may be empty.
        width: the number of columns below it.
    """

    title: str
    width: int


@dataclass(frozen=True)
class Cell:
    """A cell of the table.

    Attributes:
        text: what is read.
        sort_key: what the page sorts by; empty comes last.
        style: classes of the style sheet, separated by spaces.
    """

    text: str
    sort_key: str
    style: str = ""


@dataclass(frozen=True)
class Table:
    """The table of every structure.

    Attributes:
        groups: titles above the columns.
        columns: the columns; the first one is the number of the structure.
        rows: one for each structure, with a cell for each column but the first.
    """

    groups: list[Group]
    columns: list[Column]
    rows: list[list[Cell]]


def tabulate_structures(metrics: Metrics) -> Table:
    """Returns the table of every structure."""
    names = metrics.properties
    predicted = any(row.predicted for row in metrics.structures)
    stages = ("decoded", "reconstructed", "predicted", "relaxed") if predicted else STAGES
    number = [(key, "number") for _ in names for key in ("target", *stages)]
    columns = [
        ("#", "number"), ("formula", "text"), *number,
        ("hit", "text"), ("loss", "number"), ("moved (Å)", "number"),
        ("valid", "text"), ("unique", "text"), ("new", "text"),
        ("number", "number"), ("apart (Å)", "number"),
        ("status", "text"), ("seconds", "number"),
    ]  # fmt: skip
    groups = [
        Group("", 2),
        *(Group(format_axis(name, metrics.units), 1 + len(stages)) for name in names),
        Group("", 6),
        Group("nearest in training", 2),
        Group("", 2),
    ]
    return Table(
        groups=groups,
        columns=[Column(title, kind) for title, kind in columns],
        rows=[_tabulate_structure(row, names, stages) for row in metrics.structures],
    )


def _tabulate_structure(
    row: StructureMetrics, names: Sequence[str], stages: Sequence[str]
) -> list[Cell]:
    cells = [Cell(row.formula, row.formula, "text")]
    for name in names:
        target = row.target(name)
        if target is None:
            cells.append(Cell("-", ""))
        else:
            middle = repr((target.low + target.high) / 2)
            cells.append(Cell(format_wanted(target), middle))
        for stage in stages:
            guessed = stage != "predicted" and not row.is_calculated(stage, name)
            cells.append(_number_cell(row.stage(stage).get(name), guessed=guessed))
    cells += [
        _flag_cell(row.hit),
        _number_cell(row.fingerprint_loss, 3),
        _number_cell(row.basin_rmsd, 3),
    ]
    cells += [_flag_cell(row.valid), _flag_cell(row.unique), _flag_cell(row.novel)]
    if row.nearest is None:
        cells += [Cell("-", ""), Cell("-", "")]
    else:
        index = str(row.nearest.index)
        cells += [Cell(index, index), _number_cell(row.nearest.distance, 3)]
    status = ": ".join(filter(None, (row.status, row.status_detail)))
    cells.append(Cell(status or "-", status, "text status"))
    cells.append(_number_cell(row.seconds, 3))
    return cells


def _number_cell(value: float | None, digits: int = 5, *, guessed: bool = False) -> Cell:
    text = format_number(value, digits)
    shown = f"({text})" if guessed and value is not None else text
    return Cell(shown, "" if value is None else repr(value))


def _flag_cell(value: bool | None) -> Cell:
    if value is None:
        return Cell("-", "", "text")
    word = "yes" if value else "no"
    return Cell(word, word, f"text {word}")
