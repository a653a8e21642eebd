"""Damage to files, at random from a seed: bits, bytes, fields, numbers, values of any type."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import numpy as np

__all__ = ["damage_bytes", "damage_json", "damage_text", "damage_toml"]

# What stands in the place of a field of a text.
FIELDS = (
    "99999999999", "2147483648", "-1", "0", "1.5", "nan", "inf", "-inf", "1e400", "1e308", "1e-320",
    "9" * 400, "", "x", "Pt", "Qq", "None", "T", "[[[[", "]", "\x1b[2J", "é\u202e", "\x00", "0x10",
    "1_0", "'", '"', "=", ":", "a=b", "{", "#", ",", "1 2", "H" * 5000,
)  # fmt: skip
# What stands in the place of a value of JSON.
VALUES: tuple[Any, ...] = (
    None, True, False, -1, 0, 1, 7, 1.5, 1e308, -1e308, 1e-320, float("nan"), float("inf"),
    2**31 - 1, 2**31, 2**63, 10**400, "", "x", "y" * 1000, "\x1b[2J\u202e", "\ud800", "1", [], {},
    [1, [2]], {"a": 1}, [None], ["a", "b"], [[0.0] * 3] * 3, "@deep@", [1e400, -1], "Pt300",
)  # fmt: skip
# What stands in the place of a value of TOML.
LITERALS = (
    "-1", "0", "1", "1.5", "nan", "inf", "-inf", "1e308", "1e-320", "2147483647", "2147483648",
    "9" * 400, "0x" + "f" * 400, '""', '"x"', '"\\u001b[2J"', "true", "[]", "{}", "[1, 2]", '["a"]',
    '["Pt5", "Pt5"]', "{ a = 1 }", "1979-05-27", "07:32:00", "[[[[]]]]", "[" * 3000, '"Pt300"',
    "'''a\nb'''", '"a:b"', '["emt"]', "{ a = [1, { b = 2 }] }", '"Pt999999999"', "\x00", "",
    "[" * 3000 + "]" * 3000,
)  # fmt: skip
_DEEP = "[" * 3000 + "]" * 3000


def damage_bytes(rng: np.random.Generator, data: bytes) -> bytes:
    """Damages a file as disks, networks and programs that do not know its format do."""
    array = np.frombuffer(data, np.uint8).copy()
    length = int(min(len(array), rng.choice([1, 2, 8, 64, 512])))
    start = int(rng.integers(len(array) - length + 1))
    piece = slice(start, start + length)
    kind = rng.integers(7)
    if kind == 0:
        places = rng.integers(len(array), size=rng.integers(1, 9))
        array[places] ^= np.uint8(1) << rng.integers(8, size=len(places), dtype=np.uint8)
    elif kind == 1:
        return data[: int(rng.integers(len(data)))]
    elif kind == 2:
        array[piece] = rng.integers(256, size=length)
    elif kind == 3:
        array[piece] = rng.choice([0, 255])
    elif kind == 4:
        return data[:start] + rng.bytes(length) + data[start:]
    elif kind == 5:
        return data[:start] + data[piece] + data[start:]
    else:
        return data[:start] + data[start + length :]
    return array.tobytes()


def damage_text(rng: np.random.Generator, data: bytes) -> bytes:
    """Damages the fields or lines of a text, up to three times."""
    text = data.decode(errors="surrogateescape")
    for _ in range(rng.integers(1, 4)):
        text = str(rng.choice([_replace_field, _swap_fields, _change_lines])(rng, text))
    return text.encode(errors="surrogateescape")


def _fields(text: str) -> list[re.Match[str]]:
    return list(re.finditer(r"[^\s=:,\"']+", text)) or list(re.finditer(r"^", text))


def _replace_field(rng: np.random.Generator, text: str) -> str:
    found = _fields(text)
    field = found[rng.integers(len(found))]
    return text[: field.start()] + FIELDS[rng.integers(len(FIELDS))] + text[field.end() :]


def _swap_fields(rng: np.random.Generator, text: str) -> str:
    found = _fields(text)
    first, second = (found[i] for i in sorted(rng.integers(len(found), size=2)))
    if first is second:
        return text
    between = text[first.end() : second.start()]
    return text[: first.start()] + second[0] + between + first[0] + text[second.end() :]


def _change_lines(rng: np.random.Generator, text: str) -> str:
    lines = text.splitlines(keepends=True) or [text]
    first, second = rng.integers(len(lines), size=2)
    kind = rng.integers(3)
    if kind == 0:
        del lines[first]
    elif kind == 1:
        lines.insert(int(second), lines[first])
    else:
        lines[first], lines[second] = lines[second], lines[first]
    return "".join(lines)


def damage_json(rng: np.random.Generator, data: bytes) -> bytes:
    """Replaces, adds or removes a value of JSON, wherever it stands."""
    root = {"root": json.loads(data)}
    places: list[tuple[Any, Any]] = []
    _collect(root, places)
    holder, key = places[rng.integers(len(places))]
    kind = rng.integers(6)
    if kind == 0 and holder is not root:
        del holder[key]
    elif kind == 1 and isinstance(holder[key], dict):
        holder[key]["more"] = VALUES[rng.integers(len(VALUES))]
    elif kind == 2 and isinstance(holder[key], list):
        holder[key] *= int(rng.integers(2, 5))
    else:
        holder[key] = VALUES[rng.integers(len(VALUES))]
    text = json.dumps(root["root"]).replace('"@deep@"', _DEEP)
    return text.encode()


def _collect(value: Any, places: list[tuple[Any, Any]]) -> None:
    for key in value if isinstance(value, dict) else range(len(value)):
        places.append((value, key))
        if isinstance(value[key], dict | list):
            _collect(value[key], places)


def damage_toml(rng: np.random.Generator, data: bytes) -> bytes:
    """Replaces values of TOML, each on a line of its own."""
    lines = data.decode().splitlines()
    places = [i for i, line in enumerate(lines) if "=" in line]
    for place in rng.choice(places, size=rng.integers(1, 3)):
        key = lines[place].split("=")[0]
        lines[place] = f"{key}= {LITERALS[rng.integers(len(LITERALS))]}"
    return "\n".join(lines).encode()


Damage = Callable[[np.random.Generator, bytes], bytes]
