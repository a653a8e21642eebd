"""The comment lines of xyz files as programs write them: names, numbers and their units."""

from __future__ import annotations

import contextlib
import json
import re
from typing import Any

from ase.io.extxyz import key_val_str_to_dict

from tfgen.datasets.importing.values import ENERGIES, LENGTHS, LONE_NUMBER

__all__ = ["UNITS_KEY", "parse_comment"]

UNITS_KEY = "tfgen:units"
"""Where `parse_comment` puts the units that a line states: name -> unit."""

_QUOTED = re.compile(r"""(["'])(?:(?!\1).)*\1""")
_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eEdD][-+]?\d+)?"
# "Coordinates from ORCA-job water E -76.03"
_ORCA = re.compile(rf"ORCA-job\s.*\sE\s+({_NUMBER})")
# "energy: -5.07 gnorm: 0.0004 xtb: 6.4.1 (unknown)"
_XTB = re.compile(rf"^\s*energy:\s*({_NUMBER})\s.*(?:\bgnorm:|\bxtb:)")
# Words after a number that are its unit; others belong to what follows.
_UNITS = {
    *ENERGIES,
    *LENGTHS,
    "debye",
    "d",
    "e",
    "k",
    "gpa",
    "cm-1",
    "1/cm",
    "mub",
    "ev/ang",
    "ev/å",
}
# Most words of a name, and how much of a line is searched for names: the time grows with both.
_MOST_WORDS = 8
_LONGEST = 2000
_WORD = r"[^\W\d][^\s:=,;|]*"
_NAME = rf"{_WORD}(?:[ ]{_WORD}){{0,{_MOST_WORDS - 1}}}?"
# "HOMO-LUMO gap: 0.3 eV", "energy = -54.2 eV", "Energy (eV): -54.2": a name of one word or,
# before a colon, of several.
_PAIR = re.compile(
    rf"(?:({_NAME})(?:\s*[(\[]([^)\]]*)[)\]])?\s*:|({_WORD})\s*=)"
    rf"\s*({_NUMBER})(?=[\s,;|]|$)(?:\s+([^\s:=,;|]+)(?=[\s,;|]|$)(?!\s*[:=]))?"
)
# "-54.2", "Pt4 -54.2 eV": one number with a decimal point, which could be anything.
_LONE = re.compile(rf"(?<!\S)({_NUMBER})(?=[\s,;|]|$)(?:\s*([^\s\d:=,;|]+))?")


def parse_comment(line: str) -> dict[str, Any]:
    """Reads a comment line; for `ase.io.extxyz.read_xyz(properties_parser=...)`.

    Lines in the manner of extxyz are ASE's business. In others, names and numbers may be separated
    by a colon, a number may be followed by its unit, and those of ORCA and xtb are in Hartree.

    Returns:
        name -> value; a number without a name stands under `LONE_NUMBER`, the units that the line
        states under `UNITS_KEY`.
    """
    if "Properties=" in line or "Lattice=" in line:
        return dict(key_val_str_to_dict(line))
    for pattern in (_ORCA, _XTB):
        if (match := pattern.search(line[:_LONGEST])) is not None:
            return {"energy": float(match[1]), UNITS_KEY: {"energy": "Hartree"}}
    try:
        info = dict(key_val_str_to_dict(line))
    except (ValueError, IndexError):  # free text, which ASE takes for names and values
        info = {}
    if line.lstrip().startswith("{"):
        with contextlib.suppress(ValueError):
            return {**info, **json.loads(line)}
    units = {}
    line = _QUOTED.sub(" ", line[:_LONGEST])
    pairs = [(several or one, text, before or after) for several, before, one, text, after in
             _PAIR.findall(line)]  # fmt: skip
    numbers = [(text, unit) for text, unit in _LONE.findall(line) if "." in text]
    if not pairs and len(numbers) == 1:
        pairs = [(LONE_NUMBER, *numbers[0])]
    for name, text, unit in pairs:
        # What ASE has read stays as it is.
        if isinstance(info.get(name, ""), str | bool):
            info[name] = float(re.sub("[dD]", "e", text))
        if unit.lower().removesuffix("/atom") in _UNITS:
            units[name] = unit
    return {**info, UNITS_KEY: units} if units else info
