"""The comment lines of xyz files as programs write them: names, numbers and their units."""

from __future__ import annotations

import re
from typing import Any

from ase.io.extxyz import key_val_str_to_dict

from tfgen.datasets.importing.values import ENERGIES, LENGTHS

__all__ = ["UNITS_KEY", "parse_comment"]

UNITS_KEY = "tfgen:units"
"""Where `parse_comment` puts the units that a line states: name -> unit."""

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
_WORD = r"[^\W\d][^\s:=,;|]*"
# "HOMO-LUMO gap: 0.3 eV", "energy = -54.2 eV": a name of one or, before a colon, several words.
_PAIR = re.compile(
    rf"(?:({_WORD}(?:[ ]{_WORD})*)\s*:|({_WORD})\s*=)\s*({_NUMBER})(?=[\s,;|]|$)"
    r"(?:\s+([^\s:=,;|]+)(?=[\s,;|]|$)(?!\s*[:=]))?"
)


def parse_comment(line: str) -> dict[str, Any]:
    """Reads a comment line; for `ase.io.extxyz.read_xyz(properties_parser=...)`.

    Lines in the manner of extxyz are ASE's business. In others, names and numbers may be separated
    by a colon, a number may be followed by its unit, and those of ORCA and xtb are in Hartree.

    Returns:
        name -> value; under `UNITS_KEY` the units that the line states, if any.
    """
    if "Properties=" in line or "Lattice=" in line:
        return dict(key_val_str_to_dict(line))
    for pattern in (_ORCA, _XTB):
        if (match := pattern.search(line)) is not None:
            return {"energy": float(match[1]), UNITS_KEY: {"energy": "Hartree"}}
    try:
        info = dict(key_val_str_to_dict(line))
    except (ValueError, IndexError):  # free text, which ASE takes for names and values
        info = {}
    units = {}
    for several, one, text, unit in _PAIR.findall(line):
        name = several or one
        info[name] = float(re.sub("[dD]", "e", text))
        if unit.lower().removesuffix("/atom") in _UNITS:
            units[name] = unit
    return {**info, UNITS_KEY: units} if units else info
