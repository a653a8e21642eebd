from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest

from tfgen.evaluation.report.format import (
    count_statuses,
    escape_svg,
    format_axis,
    format_number,
    format_share,
    format_target,
    format_wanted,
    make_printable,
)
from tfgen.targets import Target


def test_numbers_keep_their_digits():
    assert [format_number(v, 3) for v in (1.0, 0.12345, 12345.0, None)] == [
        "1.00", "0.123", "1.23e+04", "-"
    ]  # fmt: skip
    assert format_number(123.0, 3) == "123"  # no point at the end
    assert [format_number(v, 2, sign=True) for v in (0.5, -0.5)] == ["+0.50", "-0.50"]


def test_shares_are_in_per_cent():
    assert [format_share(v) for v in (0.0, 0.12345, 1.0, None)] == [
        "0.0 %",
        "12.3 %",
        "100.0 %",
        "-",
    ]


def test_targets_and_units():
    units = {"energy_per_atom": "eV/atom", "size": "1", "gap": "unknown"}
    value, some = Target.of("energy_per_atom", 0.75), Target.of("size", [0.1234567, 2.0])
    assert (format_wanted(value), format_wanted(some)) == ("0.75", "0.12346:2")
    assert format_target(value, units) == "energy per atom 0.75 eV/atom"
    assert format_target(some, units) == "size 0.12346:2"
    names = ("energy_per_atom", "size", "gap", "band_gap")
    assert [format_axis(name, units) for name in names] == [
        "energy per atom (eV/atom)", "size", "gap", "band gap"
    ]  # fmt: skip


def test_the_most_frequent_statuses_come_first():
    statuses = {"a": 1, "b": 5, "c": 2, "d": 1}
    assert count_statuses(statuses, 9) == {"b": 5, "c": 2, "a": 1, "d": 1}
    assert list(count_statuses(statuses, 2).items()) == [("b", 5), ("c", 2), ("other", 2)]


def test_text_from_files_cannot_steer_a_terminal():
    assert make_printable("\x1b[31mred\n") == "?[31mred?"
    assert make_printable(9 * "x", 5) == "xxxx…"


@pytest.mark.parametrize("text", ["<b>&amp;", "\"'><script>", "a & b"])
def test_svg_reads_back_what_was_escaped(text):
    element = ET.fromstring(f'<text label="{escape_svg(text)}">{escape_svg(text)}</text>')
    assert (element.text, element.get("label")) == (text, text)
