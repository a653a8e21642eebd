"""Recipes: what a data set is built from, as strictly checked TOML.

```toml
name = "pt13"
description = "Local minima of Pt13"

[sample]
formula = "Pt13"                # or a list of formulas
count = 2000                    # starts per formula
shapes = ["compact", "oblate"]  # an equal share of the starts each
min_distance = 0.8              # in sums of covalent radii
packing = 0.5                   # share of the volume the atoms fill

[relax]
potential = "emt"
fmax = 0.01                     # eV/Å
max_steps = 2000
rattle = 0.1                    # Å; shakes structures off saddle points, then relaxes again

[select]
duplicate_tolerance = 0.05      # Å
energy_window = 0.3             # eV/atom above the lowest of the same composition; optional
max_count = 1000                # a random choice of this many; optional

[split]
train = 0.8
validation = 0.1
test = 0.1
```

Only `name`, `sample.formula` and `sample.count` have to be given.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import chemical_symbols

from tfgen.datasets.sampling import SHAPES
from tfgen.potentials.emt import EMT
from tfgen.structures import numbers_from_formula

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["Recipe", "Relax", "Sample", "Select", "Split", "find_recipe", "load_recipe"]

POTENTIALS = ("emt",)

_FOLDERS = (
    Path(__file__).parent / "recipes",  # where the wheel puts them
    Path(__file__).parents[2] / "datasets",  # a checkout
)


@dataclass(frozen=True)
class Sample:
    """The start structures.

    Attributes:
        formula: compositions.
        count: starts for each formula.
        shapes: outlines of the packings, from `sampling.SHAPES`; each gets an equal share.
        min_distance: least distance, in sums of covalent radii.
        packing: share of the volume that the atoms fill.
    """

    formula: tuple[str, ...]
    count: int
    shapes: tuple[str, ...] = ("compact", "oblate", "prolate")
    min_distance: float = 0.8
    packing: float = 0.5


@dataclass(frozen=True)
class Relax:
    """How starts become minima.

    Attributes:
        potential: name of the potential.
        fmax: largest force on an atom at a minimum, eV/Å.
        max_steps: steps after which a start is given up.
        rattle: standard deviation of the random kicks that move relaxed structures off saddle
            points, where forces vanish too, before they are relaxed again, Å. 0: no kicks.
    """

    potential: str = "emt"
    fmax: float = 0.01
    max_steps: int = 2000
    rattle: float = 0.1


@dataclass(frozen=True)
class Select:
    """Which minima stay.

    Attributes:
        duplicate_tolerance: minima whose sorted distances differ by no more are one, Å.
        energy_window: highest energy above the lowest minimum of the composition, eV/atom; None:
            no limit.
        max_count: most structures to keep, chosen at random; None: no limit.
    """

    duplicate_tolerance: float = 0.05
    energy_window: float | None = None
    max_count: int | None = None


@dataclass(frozen=True)
class Split:
    """Shares of the structures in each split, in the order of `SPLITS`; they add up to 1."""

    train: float = 0.8
    validation: float = 0.1
    test: float = 0.1


@dataclass(frozen=True)
class Recipe:
    """A checked recipe; see the module for the file format.

    Attributes:
        name: of the data set.
        sample, relax, select, split: the sections.
        description: one sentence for people.
        text: the TOML text it came from.
    """

    name: str
    sample: Sample
    description: str = ""
    relax: Relax = field(default_factory=Relax)
    select: Select = field(default_factory=Select)
    split: Split = field(default_factory=Split)
    text: str = ""

    def starts(self) -> dict[str, Any]:
        """What decides which minima come out of relaxation, before any is selected; JSON-able."""
        sections = {
            "sample": dataclasses.asdict(self.sample),
            "relax": dataclasses.asdict(self.relax),
        }
        # Through JSON and back, so that it equals what a file gives back: lists, not tuples.
        return dict(json.loads(json.dumps(sections)))


def find_recipe(recipe: str | os.PathLike[str]) -> Path:
    """Returns the file of a recipe given by its path or by its name in `datasets/`.

    Raises:
        FileNotFoundError: if it is neither; lists the names there are.
    """
    path = Path(recipe)
    if path.is_file():
        return path
    named = isinstance(recipe, str) and re.fullmatch(r"[\w.-]+", recipe) is not None
    for folder in _FOLDERS if named else ():
        candidate = folder / recipe / "recipe.toml"
        if candidate.is_file():
            return candidate
    if (path / "recipe.toml").is_file():  # a folder in the shape of datasets/NAME
        return path / "recipe.toml"
    known = sorted({f.parent.name for folder in _FOLDERS for f in folder.glob("*/recipe.toml")})
    raise FileNotFoundError(
        f"recipe {str(recipe)!r} is neither a file nor one of the recipes {', '.join(known)}"
    )


def load_recipe(recipe: str | os.PathLike[str]) -> Recipe:
    """Reads and checks a recipe.

    Args:
        recipe: path of a TOML file, or a name in `datasets/`.

    Raises:
        FileNotFoundError: if there is no such recipe.
        ValueError: if it is not TOML, or has an unknown or missing key, a wrong type or a value out
            of range; names file, key, what came and what is allowed.
    """
    path = find_recipe(recipe)
    try:
        text = path.read_bytes().decode()
        table = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"recipe {str(path)!r} is not valid TOML: {error}") from error
    try:
        return _recipe(table, text)
    except ValueError as error:
        raise ValueError(f"recipe {str(path)!r}: {error}") from error


def _recipe(table: dict[str, Any], text: str) -> Recipe:
    _known_keys(table, {f.name for f in dataclasses.fields(Recipe)} - {"text"}, "")
    for key, section in (("name", "name"), ("sample", "section [sample]")):
        if key not in table:
            raise ValueError(f"{section} is missing")
    name = _text(table, "name", "")
    if not re.fullmatch(r"[\w.+-]+", name):
        raise ValueError(f"name is {name!r}; letters, digits and . _ + - are allowed")
    return Recipe(
        name=name,
        description=_text(table, "description", ""),
        sample=_sample(_section(table, "sample", Sample)),
        relax=_relax(_section(table, "relax", Relax)),
        select=_select(_section(table, "select", Select)),
        split=_split(_section(table, "split", Split)),
        text=text,
    )


def _sample(section: dict[str, Any]) -> Sample:
    for key in ("formula", "count"):
        if key not in section:
            raise ValueError(f"sample.{key} is missing")
    formulas = _texts(section, "formula", "sample.")
    for formula in formulas:
        _check_formula(formula)
    shapes = _texts(section, "shapes", "sample.") if "shapes" in section else Sample.shapes
    for shape in shapes:
        if shape not in SHAPES:
            raise ValueError(f"sample.shapes holds {shape!r}; allowed are {', '.join(SHAPES)}")
    return Sample(
        formula=formulas,
        count=_integer(section, "count", "sample.", 1, 1),
        shapes=shapes,
        min_distance=_number(section, "min_distance", "sample.", Sample.min_distance, 0.0, 1.5),
        packing=_number(section, "packing", "sample.", Sample.packing, 0.0, 1.0),
    )


def _check_formula(formula: str) -> None:
    numbers = numbers_from_formula(formula, "sample.formula")
    if len(numbers) < 2:
        raise ValueError(f"sample.formula {formula!r} is a single atom; at least 2 are needed")
    species = EMT().species
    missing = sorted({chemical_symbols[z] for z in numbers} - set(species))
    if missing:
        raise ValueError(
            f"sample.formula {formula!r} holds {', '.join(missing)}, which the potential 'emt' "
            f"does not know; it knows {', '.join(species)}"
        )


def _relax(section: dict[str, Any]) -> Relax:
    potential = _text(section, "potential", "relax.", Relax.potential)
    if potential not in POTENTIALS:
        raise ValueError(
            f"relax.potential is {potential!r}; allowed is {', '.join(map(repr, POTENTIALS))}"
        )
    return Relax(
        potential=potential,
        fmax=_number(section, "fmax", "relax.", Relax.fmax, 0.0, np.inf),
        max_steps=_integer(section, "max_steps", "relax.", Relax.max_steps, 1),
        rattle=_number(section, "rattle", "relax.", Relax.rattle, 0.0, 0.5, True),
    )


def _select(section: dict[str, Any]) -> Select:
    window = most = None
    if "energy_window" in section:
        window = _number(section, "energy_window", "select.", 0.0, 0.0, np.inf)
    if "max_count" in section:
        most = _integer(section, "max_count", "select.", 1, 1)
    tolerance = _number(
        section, "duplicate_tolerance", "select.", Select.duplicate_tolerance, 0.0, np.inf, True
    )
    return Select(duplicate_tolerance=tolerance, energy_window=window, max_count=most)


def _split(section: dict[str, Any]) -> Split:
    split = Split(
        train=_number(section, "train", "split.", Split.train, 0.0, 1.0),
        validation=_number(section, "validation", "split.", Split.validation, 0.0, 1.0, True),
        test=_number(section, "test", "split.", Split.test, 0.0, 1.0, True),
    )
    total = split.train + split.validation + split.test
    if abs(total - 1.0) > 1e-6:
        raise ValueError(f"split.train, validation and test add up to {total:g}; 1 is needed")
    return split


def _known_keys(table: dict[str, Any], allowed: set[str], prefix: str) -> None:
    for key in table:
        if key not in allowed:
            raise ValueError(
                f"unknown key {prefix + key!r}; allowed are {', '.join(sorted(allowed))}"
            )


def _section(table: dict[str, Any], name: str, kind: type) -> dict[str, Any]:
    section = table.get(name, {})
    if not isinstance(section, dict):
        raise ValueError(f"{name} is {section!r}; a section [{name}] is needed")
    _known_keys(section, {f.name for f in dataclasses.fields(kind)}, name + ".")
    return section


def _text(table: dict[str, Any], key: str, prefix: str, default: str = "") -> str:
    value = table.get(key, default)
    if not isinstance(value, str):
        raise ValueError(f"{prefix}{key} is {value!r}; a text in quotes is needed")
    return value


def _texts(table: dict[str, Any], key: str, prefix: str) -> tuple[str, ...]:
    value = table[key]
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list) or not values or not all(isinstance(v, str) for v in values):
        raise ValueError(
            f"{prefix}{key} is {value!r}; a text in quotes or a list of such is needed"
        )
    if len(set(values)) < len(values):
        raise ValueError(f"{prefix}{key} is {value!r}; an entry comes twice")
    return tuple(values)


def _integer(table: dict[str, Any], key: str, prefix: str, default: int, least: int) -> int:
    value = table.get(key, default)
    # TOML's true is Python's True, which is an int.
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"{prefix}{key} is {value!r}; a whole number >= {least} is needed")
    return value


def _number(
    table: dict[str, Any],
    key: str,
    prefix: str,
    default: float,
    above: float,
    up_to: float,
    or_equal: bool = False,
) -> float:
    value = table.get(key, default)
    good = (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and np.isfinite(value)
        and (above < value or (or_equal and above == value))
        and value <= up_to
    )
    if not good:
        lower = f"{'>=' if or_equal else '>'} {above:g}"
        upper = "" if np.isinf(up_to) else f" and <= {up_to:g}"
        raise ValueError(f"{prefix}{key} is {value!r}; a number {lower}{upper} is needed")
    return float(value)
