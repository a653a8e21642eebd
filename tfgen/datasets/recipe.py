"""Recipes: what a data set is built from, as strictly checked TOML.

```toml
name = "pt13"
description = "Local minima of Pt13"

[sample]
formula = "Pt13"                # or a list of formulas
count = 2000                    # initial structures for each formula
kinds = ["packing", "motif"]    # an equal share each; also "bulk"
shapes = ["compact", "oblate"]  # of the random structures ("packing"), an equal share each
min_distance = 0.8              # in sums of covalent radii
packing = 0.5                   # share of the volume that the atoms fill

[relax]
potential = "emt"               # batched; or an ASE calculator, like "ase.calculators.emt:EMT"
# arguments = { asap_cutoff = true }  # of that ASE calculator
# time_limit = 3600               # seconds for one structure with an ASE calculator
# vacuum = 0.0                    # Å around each structure, for an ASE calculator that needs a box
fmax = 0.001                    # eV/Å; 0.01 with an ASE calculator if not given
max_steps = 2000
rattle = 0.1                    # Å; moves structures off saddle points, before they relax again
snapshots = [0, 10]             # steps after which the unrelaxed structure is kept too; optional

[explore]                       # optional: rounds of moves from the minima found before
rounds = 5
count = 400                     # new structures for each formula and round
parents = 50                    # minima of each formula that they are made from
higher = 0.3                    # share of the parents that are not among the lowest
moves = ["rattle", "relocate", "twist", "splice"]  # also "exchange" of unlike atoms
grow = 0.2                      # share that comes from neighbouring compositions in the recipe

[select]
duplicate_tolerance = 0.05      # Å
energy_window = 0.3             # eV/atom above the lowest of the same composition; optional
max_count = 1000                # keep this many; optional
method = "random"               # how they are chosen; or "farthest": as different as can be

[split]
train = 0.8
validation = 0.1
test = 0.1

[compute]                       # optional: further properties of the structures that are kept
gap = "my_properties:gap"       # MODULE:FUNCTION of an ase.Atoms, whose `calc` is the potential
# dipole = "calculator"         # a property of an ASE calculator itself, by its ASE name
```

A recipe has to give only `name`, `sample.formula` and `sample.count`, and `explore.rounds` and
`explore.count` if it has a section `[explore]`. The potential "emt" knows some metals; other
elements need an ASE calculator. A recipe that names one runs its code: build only recipes of people
you trust.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import sys
from dataclasses import field
from pathlib import Path
from typing import Annotated, Any

from ase.calculators.emt import parameters as emt_parameters
from ase.data import chemical_symbols
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, model_validator
from pydantic.dataclasses import dataclass

from tfgen.datasets._fields import (
    CALCULATOR,
    POTENTIALS,
    AboveZero,
    Count,
    Formulas,
    Functions,
    Growing,
    Kinds,
    Method,
    Moves,
    Name,
    NotNegative,
    Plain,
    Potential,
    Shapes,
    Share,
    Text,
)
from tfgen.datasets.messages import NOT_IN_FILE, InvalidValuesError, problems, unknown_key
from tfgen.sampling.moves import MOVES
from tfgen.structures.formulas import numbers_from_formula

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = [
    "CALCULATOR",
    "Explore",
    "Recipe",
    "RecipeError",
    "Relax",
    "Sample",
    "Select",
    "Split",
    "find_recipe",
    "load_recipe",
]

_FOLDERS = (
    Path(__file__).parent / "recipes",  # where the wheel puts them
    Path(__file__).parents[2] / "datasets",  # a checkout
)
# Largest force at a minimum if the recipe says nothing, eV/Å. The forces of most ASE calculators
# are not as smooth as those of "emt", and every step costs more.
_FMAX_OF_CALCULATORS = 0.01
# Most structures that a build makes: all wait in memory for the selection. With an ASE calculator
# each of them is a task of its own.
_MOST, _MOST_WITH_CALCULATOR = 10_000_000, 1_000_000
# Largest file, bytes, and a key of many parts, over which the parser of TOML takes a time that
# grows with the square of their number.
_LARGEST = 100_000
_LONG_KEY = re.compile(r"""(?:[\w"'-]{1,60}[ \t]*\.[ \t]*){100}""")
_STRICT = ConfigDict(extra="forbid")


class RecipeError(InvalidValuesError):
    """A recipe is not valid."""


@dataclass(frozen=True, config=_STRICT)
class Sample:
    """The initial structures.

    Attributes:
        formula: compositions.
        count: initial structures for each formula.
        kinds: what they are, from `sampling.initial.KINDS`; each kind gets an equal share.
        shapes: outlines of the random structures, from `sampling.initial.SHAPES`; each gets an
            equal share.
        min_distance: smallest distance, in sums of covalent radii.
        packing: share of the volume that the atoms fill.
    """

    formula: Formulas
    count: Count
    kinds: Kinds = ("packing",)
    shapes: Shapes = ("compact", "oblate", "prolate")
    min_distance: Annotated[AboveZero, Field(le=1.5)] = 0.8
    packing: Annotated[AboveZero, Field(le=1.0)] = 0.5


@dataclass(frozen=True, config=_STRICT)
class Relax:
    """How initial structures become minima.

    Attributes:
        potential: "emt", or the import path MODULE:NAME of an ASE calculator.
        arguments: of the calculator.
        time_limit: seconds after which a structure is given up; with an ASE calculator only.
        vacuum: empty space on all sides of a structure in the box that an ASE calculator sees, Å.
            0: no box.
        fmax: largest force on an atom at a minimum, eV/Å. With 0.01, one structure in eight is
            still on a slope or a flat saddle point, to which rattled structures return.
        max_steps: steps after which a structure is given up.
        rattle: standard deviation of the random displacements that move relaxed structures off
            saddle points, where forces vanish too, before they are relaxed again, Å. 0: none.
        snapshots: steps of the relaxation after which structures that have not converged are kept
            as they are, in addition to the minimum they lead to.
    """

    potential: Potential = "emt"
    arguments: Plain = field(default_factory=dict)
    time_limit: Annotated[AboveZero, Field(le=1e8)] = 3600.0
    vacuum: Annotated[NotNegative, Field(le=100.0)] = 0.0
    fmax: AboveZero = 0.001
    max_steps: Count = 2000
    rattle: Annotated[NotNegative, Field(le=0.5)] = 0.1
    snapshots: Growing = ()

    @property
    def batched(self) -> bool:
        """Whether it is one of tfgen's own potentials, which relax many structures at once."""
        return self.potential in POTENTIALS

    @model_validator(mode="after")
    def _agree(self) -> Relax:
        for name, default in (("arguments", {}), ("time_limit", 3600.0), ("vacuum", 0.0)):
            if self.batched and getattr(self, name) != default:
                raise ValueError(
                    f"relax.{name} goes with an ASE calculator, not with {self.potential!r}"
                )
        if self.snapshots and self.snapshots[-1] >= self.max_steps:
            raise ValueError(
                f"relax.snapshots holds {self.snapshots[-1]}; it must be below relax.max_steps, "
                f"{self.max_steps}"
            )
        return self


@dataclass(frozen=True, config=_STRICT)
class Explore:
    """Rounds of moves from the minima found before, which are relaxed in turn.

    Attributes:
        rounds: number of rounds.
        count: new structures for each formula and round.
        parents: most minima of each formula that a round makes new structures from.
        moves: what is done to them, from `sampling.moves.MOVES`; each with the same probability.
        grow: share of the new structures that come from neighbouring compositions in the recipe, by
            adding, removing or exchanging one atom.
        higher: share of the parents that are not among the lowest minima.
    """

    rounds: Count
    count: Count
    parents: Count = 50
    moves: Moves = MOVES
    grow: Share = 0.2
    higher: Share = 0.3


@dataclass(frozen=True, config=_STRICT)
class Select:
    """Which structures stay.

    Attributes:
        duplicate_tolerance: structures whose sorted distances differ by no more are equal, and only
            the one of lowest energy stays, Å.
        energy_window: highest energy above the lowest of the composition, eV/atom; None: no limit.
        max_count: most structures to keep; None: no limit.
        method: how they are chosen then: at random, or "farthest", each as far as possible from
            those chosen before in sorted distances and energy, beginning with the lowest energy.
    """

    duplicate_tolerance: NotNegative = 0.05
    energy_window: AboveZero | None = None
    max_count: Count | None = None
    method: Method = "random"

    @model_validator(mode="after")
    def _agree(self) -> Select:
        if self.method != "random" and self.max_count is None:
            raise ValueError("select.method goes with select.max_count, which is missing")
        return self


@dataclass(frozen=True, config=_STRICT)
class Split:
    """Shares of the structures in each split, in the order of `SPLITS`; they add up to 1."""

    train: Annotated[AboveZero, Field(le=1.0)] = 0.8
    validation: Share = 0.1
    test: Share = 0.1

    @model_validator(mode="after")
    def _agree(self) -> Split:
        total = self.train + self.validation + self.test
        if abs(total - 1.0) > 1e-6:
            raise ValueError(f"split.train, validation and test add up to {total:g}; 1 is needed")
        return self


@dataclass(frozen=True, config=_STRICT)
class Recipe:
    """A checked recipe; the module describes the file format.

    Attributes:
        name: of the data set.
        sample, relax, explore, select, split: the sections.
        compute: property -> the import path MODULE:FUNCTION of what computes it, or `CALCULATOR`.
        description: one sentence for people.
        text: the TOML text it came from.
    """

    name: Name
    sample: Sample
    description: Text = ""
    relax: Relax = field(default_factory=Relax)
    explore: Explore | None = None
    select: Select = field(default_factory=Select)
    split: Split = field(default_factory=Split)
    compute: Functions = field(default_factory=dict)
    text: str = field(default="", metadata=NOT_IN_FILE)

    @model_validator(mode="after")
    def _agree(self) -> Recipe:
        for formula in self.sample.formula if self.relax.batched else ():
            symbols = {chemical_symbols[z] for z in numbers_from_formula(formula)}
            if missing := sorted(symbols - set(emt_parameters)):
                raise ValueError(
                    f"sample.formula {formula!r} holds {', '.join(missing)}, which the potential "
                    f"'emt' does not know; it knows {', '.join(emt_parameters)}"
                )
        for name, path in self.compute.items():
            if path == CALCULATOR and self.relax.batched:
                raise ValueError(
                    f"compute.{name} is {CALCULATOR!r}, which goes with an ASE calculator, not "
                    f"with {self.relax.potential!r}"
                )
        return self

    @model_validator(mode="after")
    def _fit(self) -> Recipe:
        explored = self.explore.rounds * self.explore.count if self.explore else 0
        total = len(self.sample.formula) * (self.sample.count + explored)
        most = _MOST if self.relax.batched else _MOST_WITH_CALCULATOR
        if total > most:
            more = " and explore.rounds times explore.count" if self.explore else ""
            raise ValueError(
                f"sample.count{more}, for {len(self.sample.formula)} formulas, make {total:,} "
                f"structures; with the potential {self.relax.potential!r} at most {most:,} are "
                "allowed"
            )
        return self

    def describe_sampling(self) -> dict[str, Any]:
        """Returns what decides which minima relaxation finds, before any is selected; JSON-able."""
        sections = dataclasses.asdict(self)
        chosen = {name: sections[name] for name in ("sample", "relax", "explore")}
        # Through JSON and back, so that it equals what a file gives back: lists, not tuples.
        return dict(json.loads(json.dumps(chosen)))


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
        RecipeError: if it is not TOML, or has unknown or missing keys, wrong types or values out of
            range; has one line for each, which names file, key, what came and what is allowed.
    """
    path = find_recipe(recipe)
    if (size := path.stat().st_size) > _LARGEST:
        raise RecipeError(
            [f"recipe {str(path)!r} has {size:,} bytes; at most {_LARGEST:,} are allowed"]
        )
    try:
        text = path.read_bytes().decode()
        if _LONG_KEY.search(text):
            raise RecursionError
        table = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # numbers of too many digits; nested too deeply
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise RecipeError([f"recipe {str(path)!r} is not valid TOML: {reason}"]) from error
    return _checked(table, text, f"recipe {str(path)!r}")


def _checked(table: dict[str, Any], text: str, what: str) -> Recipe:
    relax = table.get("relax")
    if isinstance(relax, dict) and relax.get("potential", "emt") not in POTENTIALS:
        relax.setdefault("fmax", _FMAX_OF_CALCULATORS)
    found = [unknown_key("text", Recipe)] if "text" in table else []
    try:
        loaded = TypeAdapter(Recipe).validate_python({**table, "text": text})
    except ValidationError as error:
        found += problems(error, Recipe)
    if found:
        raise RecipeError([f"{what}: {problem}" for problem in found])
    return loaded
