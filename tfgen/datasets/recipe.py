"""Recipes: what a data set is built from, as strictly checked TOML.

```toml
name = "pt13"
description = "Local minima of Pt13"

[sample]
formula = "Pt13"                # or a list of formulas
count = 2000                    # starts per formula
kinds = ["packing", "motif"]    # an equal share of the starts each; also "bulk"
shapes = ["compact", "oblate"]  # of the packings, an equal share each
min_distance = 0.8              # in sums of covalent radii
packing = 0.5                   # share of the volume the atoms fill

[relax]
potential = "emt"               # batched; or an ASE calculator, like "ase.calculators.emt:EMT"
# arguments = { asap_cutoff = true }  # of that ASE calculator
# time_limit = 3600               # seconds for one structure with an ASE calculator
# vacuum = 0.0                    # Å around each structure, for an ASE calculator that needs a box
fmax = 0.001                    # eV/Å; 0.01 with an ASE calculator if not given
max_steps = 2000
rattle = 0.1                    # Å; shakes structures off saddle points, then relaxes again
snapshots = [0, 10]             # steps after which the unrelaxed structure is kept too; optional

[explore]                       # optional: rounds of moves from minima found before
rounds = 5
count = 400                     # new structures per formula and round
parents = 50                    # minima of each formula that they are made from
higher = 0.3                    # share of the parents that are not among the lowest
moves = ["rattle", "relocate", "twist", "splice"]  # also "exchange" of unlike atoms
grow = 0.2                      # share that comes from neighbouring compositions in the recipe

[select]
duplicate_tolerance = 0.05      # Å
energy_window = 0.3             # eV/atom above the lowest of the same composition; optional
max_count = 1000                # keep this many; optional
method = "random"               # which; or "farthest": as different from each other as can be

[split]
train = 0.8
validation = 0.1
test = 0.1
```

Only `name`, `sample.formula` and `sample.count` have to be given, and `explore.rounds` and
`explore.count` if there is a section `[explore]`. Other elements than those of "emt" need an ASE
calculator. A recipe that names one runs its code: build only recipes of people you trust.
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
from ase.calculators.emt import parameters as emt_parameters
from ase.data import chemical_symbols

from tfgen.datasets import _fields as fields
from tfgen.potentials.ase import is_import_path
from tfgen.sampling.initial import KINDS, SHAPES
from tfgen.sampling.moves import MOVES

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["Explore", "Recipe", "Relax", "Sample", "Select", "Split", "find_recipe", "load_recipe"]

POTENTIALS = ("emt",)
METHODS = ("random", "farthest")

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
        kinds: what the starts are, from `sampling.KINDS`; each gets an equal share.
        shapes: outlines of the packings, from `sampling.SHAPES`; each gets an equal share.
        min_distance: least distance, in sums of covalent radii.
        packing: share of the volume that the atoms fill.
    """

    formula: tuple[str, ...]
    count: int
    kinds: tuple[str, ...] = ("packing",)
    shapes: tuple[str, ...] = ("compact", "oblate", "prolate")
    min_distance: float = 0.8
    packing: float = 0.5


@dataclass(frozen=True)
class Relax:
    """How starts become minima.

    Attributes:
        potential: "emt", or the import path MODULE:NAME of an ASE calculator.
        arguments: of the calculator.
        time_limit: after which a structure is given up, s; with an ASE calculator only.
        vacuum: empty space on all sides of a structure in the box that an ASE calculator sees, Å.
            0: no box.
        fmax: largest force on an atom at a minimum, eV/Å. At 0.01 one in eight is still on a slope
            or a flat saddle point, from which kicks come back.
        max_steps: steps after which a start is given up.
        rattle: standard deviation of the random kicks that move relaxed structures off saddle
            points, where forces vanish too, before they are relaxed again, Å. 0: no kicks.
        snapshots: steps of the relaxation after which structures that have not converged are kept
            as they are, in addition to the minimum they lead to.
    """

    potential: str = "emt"
    arguments: dict[str, Any] = field(default_factory=dict)
    time_limit: float = 3600.0
    vacuum: float = 0.0
    fmax: float = 0.001
    max_steps: int = 2000
    rattle: float = 0.1
    snapshots: tuple[int, ...] = ()

    @property
    def batched(self) -> bool:
        """Whether it is one of tfgen's own potentials, which relax many structures at once."""
        return self.potential in POTENTIALS


@dataclass(frozen=True)
class Explore:
    """Rounds of moves from the minima found before, which are relaxed in turn.

    Attributes:
        rounds: number of rounds.
        count: new structures per formula and round.
        parents: most minima of each formula that a round starts from.
        moves: what is done to them, from `moves.MOVES`; each with the same probability.
        grow: share of the new structures that come from neighbouring compositions in the recipe, by
            adding, removing or exchanging one atom.
        higher: share of the parents that are not among the lowest minima.
    """

    rounds: int
    count: int
    parents: int = 50
    moves: tuple[str, ...] = MOVES
    grow: float = 0.2
    higher: float = 0.3


@dataclass(frozen=True)
class Select:
    """Which structures stay.

    Attributes:
        duplicate_tolerance: structures whose sorted distances differ by no more are one, Å.
        energy_window: highest energy above the lowest of the composition, eV/atom; None: no limit.
        max_count: most structures to keep; None: no limit.
        method: how they are chosen then: at random, or "farthest", each as far as possible from
            those chosen before in sorted distances and energy, starting with the lowest energy.
    """

    duplicate_tolerance: float = 0.05
    energy_window: float | None = None
    max_count: int | None = None
    method: str = "random"


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
        sample, relax, explore, select, split: the sections.
        description: one sentence for people.
        text: the TOML text it came from.
    """

    name: str
    sample: Sample
    description: str = ""
    relax: Relax = field(default_factory=Relax)
    explore: Explore | None = None
    select: Select = field(default_factory=Select)
    split: Split = field(default_factory=Split)
    text: str = ""

    def starts(self) -> dict[str, Any]:
        """What decides which minima come out of relaxation, before any is selected; JSON-able."""
        sections = {
            name: None if part is None else dataclasses.asdict(part)
            for name, part in (
                ("sample", self.sample),
                ("relax", self.relax),
                ("explore", self.explore),
            )
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
    fields.known_keys(table, {f.name for f in dataclasses.fields(Recipe)} - {"text"}, "")
    for key, section in (("name", "name"), ("sample", "section [sample]")):
        if key not in table:
            raise ValueError(f"{section} is missing")
    name = fields.text(table, "name", "")
    if not re.fullmatch(r"[\w.+-]+", name):
        raise ValueError(f"name is {name!r}; letters, digits and . _ + - are allowed")
    relax = _relax(fields.section(table, "relax", Relax))
    explore = fields.section(table, "explore", Explore) if "explore" in table else None
    return Recipe(
        name=name,
        description=fields.text(table, "description", ""),
        sample=_sample(fields.section(table, "sample", Sample), relax),
        relax=relax,
        explore=None if explore is None else _explore(explore),
        select=_select(fields.section(table, "select", Select)),
        split=_split(fields.section(table, "split", Split)),
        text=text,
    )


def _required(section: dict[str, Any], name: str, keys: tuple[str, ...]) -> None:
    for key in keys:
        if key not in section:
            raise ValueError(f"{name}.{key} is missing")


def _sample(section: dict[str, Any], relax: Relax) -> Sample:
    prefix = "sample."
    _required(section, "sample", ("formula", "count"))
    formulas = fields.texts(section, "formula", prefix)
    compositions = [_composition(formula, relax) for formula in formulas]
    for place, composition in enumerate(compositions):
        earlier = compositions.index(composition)
        if earlier < place:
            raise ValueError(
                f"sample.formula holds {formulas[earlier]!r} and {formulas[place]!r}, which are "
                "the same composition"
            )
    return Sample(
        formula=formulas,
        count=fields.integer(section, "count", prefix, 1, 1),
        kinds=fields.choices(section, "kinds", prefix, Sample.kinds, KINDS),
        shapes=fields.choices(section, "shapes", prefix, Sample.shapes, SHAPES),
        min_distance=fields.number(section, "min_distance", prefix, Sample.min_distance, 0.0, 1.5),
        packing=fields.number(section, "packing", prefix, Sample.packing, 0.0, 1.0),
    )


def _composition(formula: str, relax: Relax) -> tuple[int, ...]:
    from tfgen.structures.formulas import numbers_from_formula

    numbers = numbers_from_formula(formula, "sample.formula")
    if len(numbers) < 2:
        raise ValueError(f"sample.formula {formula!r} is a single atom; at least 2 are needed")
    missing = sorted({chemical_symbols[z] for z in numbers} - set(emt_parameters))
    if missing and relax.batched:
        raise ValueError(
            f"sample.formula {formula!r} holds {', '.join(missing)}, which the potential 'emt' "
            f"does not know; it knows {', '.join(emt_parameters)}"
        )
    return tuple(numbers.tolist())


def _relax(section: dict[str, Any]) -> Relax:
    prefix = "relax."
    potential = fields.text(section, "potential", prefix, Relax.potential)
    if potential not in POTENTIALS:
        if not is_import_path(potential):
            raise ValueError(
                f"relax.potential is {potential!r}; allowed is "
                f"{', '.join(map(repr, POTENTIALS))} or an ASE calculator like "
                "'ase.calculators.emt:EMT' (MODULE:NAME)"
            )
    else:
        for key in ("arguments", "time_limit", "vacuum"):
            if key in section:
                raise ValueError(f"relax.{key} goes with an ASE calculator, not with {potential!r}")
    # Forces of most calculators are not that smooth, and every step costs.
    fmax = Relax.fmax if potential in POTENTIALS else 0.01
    max_steps = fields.integer(section, "max_steps", prefix, Relax.max_steps, 1)
    snapshots = fields.integers(section, "snapshots", prefix)
    if snapshots and snapshots[-1] >= max_steps:
        raise ValueError(
            f"relax.snapshots holds {snapshots[-1]}; it must be below relax.max_steps, {max_steps}"
        )
    return Relax(
        potential=potential,
        arguments=fields.plain(section, "arguments", prefix),
        time_limit=fields.number(section, "time_limit", prefix, Relax.time_limit, 0.0, 1e8),
        vacuum=fields.number(section, "vacuum", prefix, Relax.vacuum, 0.0, 100.0, True),
        fmax=fields.number(section, "fmax", prefix, fmax, 0.0, np.inf),
        max_steps=max_steps,
        rattle=fields.number(section, "rattle", prefix, Relax.rattle, 0.0, 0.5, True),
        snapshots=snapshots,
    )


def _explore(section: dict[str, Any]) -> Explore:
    prefix = "explore."
    _required(section, "explore", ("rounds", "count"))
    return Explore(
        rounds=fields.integer(section, "rounds", prefix, 1, 1),
        count=fields.integer(section, "count", prefix, 1, 1),
        parents=fields.integer(section, "parents", prefix, Explore.parents, 1),
        moves=fields.choices(section, "moves", prefix, Explore.moves, MOVES),
        grow=fields.number(section, "grow", prefix, Explore.grow, 0.0, 1.0, True),
        higher=fields.number(section, "higher", prefix, Explore.higher, 0.0, 1.0, True),
    )


def _select(section: dict[str, Any]) -> Select:
    prefix = "select."
    window = most = None
    if "energy_window" in section:
        window = fields.number(section, "energy_window", prefix, 0.0, 0.0, np.inf)
    if "max_count" in section:
        most = fields.integer(section, "max_count", prefix, 1, 1)
    method = fields.text(section, "method", prefix, Select.method)
    if method not in METHODS:
        raise ValueError(f"select.method is {method!r}; allowed are {', '.join(METHODS)}")
    if "method" in section and most is None:
        raise ValueError("select.method goes with select.max_count, which is missing")
    tolerance = fields.number(
        section, "duplicate_tolerance", prefix, Select.duplicate_tolerance, 0.0, np.inf, True
    )
    return Select(tolerance, window, most, method)


def _split(section: dict[str, Any]) -> Split:
    prefix = "split."
    split = Split(
        train=fields.number(section, "train", prefix, Split.train, 0.0, 1.0),
        validation=fields.number(section, "validation", prefix, Split.validation, 0.0, 1.0, True),
        test=fields.number(section, "test", prefix, Split.test, 0.0, 1.0, True),
    )
    total = split.train + split.validation + split.test
    if abs(total - 1.0) > 1e-6:
        raise ValueError(f"split.train, validation and test add up to {total:g}; 1 is needed")
    return split
