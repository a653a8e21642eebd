"""Recipes say what is wrong with them: file, key, what came, what is allowed."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tfgen.datasets.recipe as module
from tfgen.datasets.recipe import (
    Explore,
    Recipe,
    RecipeError,
    Relax,
    Sample,
    Select,
    Split,
    _checked,
    find_recipe,
    load_recipe,
)

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

GOOD = """
name = "x"
[sample]
formula = "Pt5"
count = 10
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "recipe.toml"
    path.write_text(text, "utf-8")
    return path


def test_the_shortest_recipe_has_defaults(tmp_path):
    recipe = load_recipe(write(tmp_path, GOOD))
    assert isinstance(recipe, Recipe)
    assert (recipe.name, recipe.sample.formula, recipe.sample.count) == ("x", ("Pt5",), 10)
    assert (recipe.relax.potential, recipe.relax.fmax) == ("emt", 0.001)
    assert recipe.split.train == 0.8
    assert recipe.text == GOOD


def test_the_recipe_in_the_documentation_is_valid(tmp_path):
    text = module.__doc__.split("```toml\n")[1].split("```")[0]
    recipe = load_recipe(write(tmp_path, text))
    assert recipe.select.max_count == 1000
    assert recipe.explore == Explore(5, 400, moves=("rattle", "relocate", "twist", "splice"))
    assert recipe.relax.snapshots == (0, 10)


def test_the_recipes_in_the_documentation_of_calculators_are_valid(tmp_path):
    text = (Path(__file__).parents[2] / "docs" / "cluster.md").read_text("utf-8")
    blocks = [block.split("```")[0] for block in text.split("```toml\n")[1:]]
    assert len(blocks) == 5
    for block in blocks:
        whole = block if "[sample]" in block else GOOD + block
        recipe = load_recipe(write(tmp_path, whole))
        assert not recipe.relax.batched
    for block in text.split("```python\n")[1:]:
        compile(block.split("```")[0], "cluster.md", "exec")


def test_functions_that_compute_properties(tmp_path):
    table = '[compute]\ngap = "my.module:Class.gap"\ndipole = "calculator"\n'
    recipe = load_recipe(write(tmp_path, ASE + table))
    assert recipe.compute == {"gap": "my.module:Class.gap", "dipole": "calculator"}
    for line, message in (
        ('gap = "my.module"', "compute is .*; a table like { gap = .*; gap is 'my.module'"),
        ("gap = 1", "a table like { gap = .*; gap is 1"),
        ('gap = "calculator"', "gap is no property of calculators; these are free_energy"),
    ):
        with pytest.raises(RecipeError, match=message):
            load_recipe(write(tmp_path, f"{ASE}[compute]\n{line}\n"))
    with pytest.raises(RecipeError, match="compute is 1; a table"):
        load_recipe(write(tmp_path, f"compute = 1\n{ASE}"))
    with pytest.raises(RecipeError, match="compute.dipole is 'calculator', .*not with 'emt'"):
        load_recipe(write(tmp_path, GOOD + '[compute]\ndipole = "calculator"\n'))


def test_every_key_is_in_the_documentation():
    text = module.__doc__
    for section in (Sample, Relax, Explore, Select, Split):
        for field in dataclasses.fields(section):
            assert f"{field.name} = " in text, field.name


def test_the_record_of_what_is_made_is_plain_and_leaves_out_the_selection(tmp_path):
    text = module.__doc__.split("```toml\n")[1].split("```")[0]
    recipe = load_recipe(write(tmp_path, text))
    assert json.loads(json.dumps(recipe.describe_sampling())) == recipe.describe_sampling()
    assert set(recipe.describe_sampling()) == {"sample", "relax", "explore"}
    changed = dataclasses.replace(recipe, select=Select(), split=Split(1.0, 0.0, 0.0))
    assert changed.describe_sampling() == recipe.describe_sampling()
    for change in (
        {"sample": dataclasses.replace(recipe.sample, kinds=("bulk",))},
        {"relax": dataclasses.replace(recipe.relax, fmax=0.5)},
        {"explore": None},
    ):
        assert (
            dataclasses.replace(recipe, **change).describe_sampling() != recipe.describe_sampling()
        )


ASE = """
name = "x"
[sample]
formula = "Fe5"
count = 10
[relax]
potential = "my.package:factory.from_file"
time_limit = 60
[relax.arguments]
path = "a"
n = [1, 2.5, true]
[relax.arguments.deeper]
x = "y"
"""


def test_an_ase_calculator_knows_all_elements(tmp_path):
    recipe = load_recipe(write(tmp_path, ASE))
    assert not recipe.relax.batched
    assert recipe.relax.potential == "my.package:factory.from_file"
    assert (recipe.relax.time_limit, recipe.relax.fmax) == (60.0, 0.01)
    assert recipe.relax.arguments == {"path": "a", "n": [1, 2.5, True], "deeper": {"x": "y"}}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("time_limit = 60", "time_limit = 0"), "relax.time_limit is 0; a number > 0 and <= 1e.08"),
        (("time_limit = 60", "vacuum = -1"), "relax.vacuum is -1; a number >= 0"),
        (
            ('path = "a"', "path = 1979-05-27"),
            "arguments is {path = 1979-05-27, .*only texts, finite",
        ),
        (
            ('path = "a"', "path = inf"),
            "arguments is {path = inf, .*; only texts, finite numb",
        ),
        (("[relax.arguments]", "[relax.argument]"), "unknown key 'relax.argument'"),
        (('"my.package:factory.from_file"', '"emt"'), "Fe.* 'emt' does not know|goes with an ASE"),
        (('"my.package:factory.from_file"', '"my.package"'), "is 'my.package'; allowed is 'emt'"),
    ],
)
def test_bad_calculators(tmp_path, change, message):
    assert change[0] in ASE
    with pytest.raises(ValueError, match=message):
        load_recipe(write(tmp_path, ASE.replace(*change)))


@pytest.mark.parametrize("name", ["pt13", "pt10", "pt-subnm", "cuau13"])
def test_recipes_are_found_by_name(name):
    assert load_recipe(name).name == name
    assert find_recipe(name).parent.name == name


def test_a_folder_with_a_recipe_will_do(tmp_path):
    assert find_recipe(tmp_path.joinpath(write(tmp_path, GOOD).parent)).parent == tmp_path


@pytest.mark.parametrize("recipe", ["pt14", "../pt13", "no/such.toml", ""])
def test_missing_recipes(recipe):
    with pytest.raises(FileNotFoundError, match="neither a file nor one of the recipes .*pt13"):
        find_recipe(recipe)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("name", "nmae"), "unknown key 'nmae'; allowed are compute, description, explore"),
        (("count", "cuont"), "unknown key 'sample.cuont'; allowed are count"),
        (('name = "x"', ""), "name is missing"),
        (("[sample]", "[relax]"), "sample. is missing"),
        (('formula = "Pt5"', ""), "sample.formula is missing"),
        (("count = 10", ""), "sample.count is missing"),
        (('"x"', "7"), "name is 7; text in quotes is needed"),
        (('"x"', '"a/b"'), "name is 'a/b'; letters"),
        (("10", "0"), "sample.count is 0; a whole number >= 1"),
        (("10", "-3"), "sample.count is -3"),
        (("10", "2.5"), "sample.count is 2.5"),
        (("10", "true"), "sample.count is true"),
        (("10", '"many"'), "sample.count is 'many'"),
        (('"Pt5"', '"Fe5"'), "'Fe5' holds Fe, .* 'emt' does not know; it knows Al, Cu"),
        (('"Pt5"', '"Pt0"'), "sample.formula is 'Pt0'; the text 'Pt0' is not a formula"),
        (('"Pt5"', '"Xy3"'), "is not a formula"),
        (('"Pt5"', '""'), "is not a formula"),
        (('"Pt5"', '"Pt"'), "'Pt' is a single atom; at least 2"),
        (('"Pt5"', "13"), "sample.formula is 13; text in quotes or a list"),
        (('"Pt5"', "[]"), r"sample.formula is \[\]"),
        (('"Pt5"', '["Pt5", 5]'), "text in quotes or a list of such"),
        (('"Pt5"', '["Pt5", "Pt5"]'), "at least one entry is needed, and none twice"),
        (
            ("[sample]", '[sample]\nshapes = ["round"]'),
            r"sample.shapes is \['round'\]; allowed are compact, .*, not 'round'",
        ),
        (("[sample]", "[sample]\nshapes = []"), r"sample.shapes is \[\]"),
        (("[sample]", "[sample]\npacking = 0"), "sample.packing is 0; a number > 0 and <= 1"),
        (("[sample]", "[sample]\nmin_distance = -1"), "sample.min_distance is -1"),
        (("[sample]", "[sample]\nmin_distance = nan"), "sample.min_distance is nan"),
        (("[sample]", '[relax]\npotential = "dft"\n[sample]'), "relax.potential is 'dft'"),
        (("[sample]", '[relax]\npotential = ":"\n[sample]'), "MODULE:NAME"),
        (("[sample]", "[relax]\narguments = {a=1}\n[sample]"), "arguments goes with an ASE calc"),
        (("[sample]", "[relax]\ntime_limit = 9\n[sample]"), "time_limit goes with an ASE calc"),
        (("[sample]", "[relax]\nsnapshots = 3\n[sample]"), "relax.snapshots is 3; a list of grow"),
        (
            ("[sample]", "[relax]\nsnapshots = [3, 3]\n[sample]"),
            r"snapshots is \[3, 3\]; a list of",
        ),
        (("[sample]", "[relax]\nsnapshots = [-1]\n[sample]"), r"snapshots is \[-1\]"),
        (("[sample]", "[relax]\nsnapshots = [true]\n[sample]"), r"snapshots is \[true\]"),
        (
            ("[sample]", "[relax]\nsnapshots = [2000]\n[sample]"),
            "must be below relax.max_steps, 2000",
        ),
        (("[sample]", "[explore]\ncount = 3\n[sample]"), "explore.rounds is missing"),
        (("[sample]", "[explore]\nrounds = 3\n[sample]"), "explore.count is missing"),
        (("[sample]", "[explore]\nrounds = 0\ncount = 3\n[sample]"), "explore.rounds is 0"),
        (("[sample]", "[explore]\nrounds = 1\ncount = 0\n[sample]"), "explore.count is 0"),
        (
            ("[sample]", "[explore]\nrounds = 1\ncount = 1\nparents = 0\n[sample]"),
            "explore.parents is 0",
        ),
        (
            ("[sample]", "[explore]\nrounds = 1\ncount = 1\ngrow = 1.1\n[sample]"),
            "explore.grow is 1.1",
        ),
        (
            ("[sample]", "[explore]\nrounds = 1\ncount = 1\nhigher = -1\n[sample]"),
            "explore.higher is -1",
        ),
        (
            ("[sample]", '[explore]\nrounds = 1\ncount = 1\nmoves = "hop"\n[sample]'),
            "explore.moves is 'hop'; allowed are rattle",
        ),
        (
            ("[sample]", '[sample]\nkinds = ["crystal"]'),
            r"sample.kinds is \['crystal'\]; allowed are packing",
        ),
        (('"Pt5"', '["PtAu", "AuPt"]'), "'PtAu' and 'AuPt' are the same composition"),
        (
            ("[sample]", '[select]\nmax_count = 5\nmethod = "best"\n[sample]'),
            "method is 'best'; allowed are random, farthest",
        ),
        (("[sample]", '[select]\nmethod = "farthest"\n[sample]'), "goes with select.max_count"),
        (("[sample]", "[relax]\nfmax = 0.0\n[sample]"), "relax.fmax is 0.0; a number > 0"),
        (("[sample]", '[relax]\nfmax = "1"\n[sample]'), "relax.fmax is '1'"),
        (("[sample]", "[relax]\nmax_steps = 0\n[sample]"), "relax.max_steps is 0"),
        (("[sample]", "[relax]\nrattle = -0.1\n[sample]"), "relax.rattle is -0.1; a number >= 0"),
        (("[sample]", "[select]\nduplicate_tolerance = -1\n[sample]"), "duplicate_tolerance is -1"),
        (("[sample]", "[select]\nenergy_window = 0\n[sample]"), "select.energy_window is 0"),
        (("[sample]", "[select]\nmax_count = 0\n[sample]"), "select.max_count is 0"),
        (("[sample]", "[split]\ntrain = 0.5\n[sample]"), "add up to 0.7; 1 is needed"),
        (("[sample]", "[split]\ntrain = 0\n[sample]"), "split.train is 0; a number > 0"),
        (("[sample]", "[split]\ntest = true\n[sample]"), "split.test is true"),
        (('name = "x"', 'name = "x"\nsplit = 3'), r"split is 3; a section \[split\]"),
        (("[sample]", "[sample"), "is not valid TOML"),
    ],
)
def test_bad_recipes(tmp_path, change, message):
    assert change[0] in GOOD
    path = write(tmp_path, GOOD.replace(*change))
    with pytest.raises(ValueError, match=message) as caught:
        load_recipe(path)
    assert str(path) in str(caught.value)


def test_every_wrong_value_has_a_line_of_its_own(tmp_path):
    text = GOOD.replace("10", "0") + 'colour = 1\n[relax]\nfmax = "low"\n[split]\ntest = 2\n'
    path = write(tmp_path, f"text = 1\n{text}")
    with pytest.raises(RecipeError) as caught:
        load_recipe(path)
    start = f"recipe {str(path)!r}: "
    assert all(line.startswith(start) for line in caught.value.problems)
    assert {line.removeprefix(start).split(";")[0] for line in caught.value.problems} == {
        "unknown key 'text'",
        "unknown key 'sample.colour'",
        "sample.count is 0",
        "relax.fmax is 'low'",
        "split.test is 2",
    }
    assert str(caught.value).splitlines() == list(caught.value.problems)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a = " + "[" * 5000 + "]" * 5000, "is not valid TOML: it is nested too deeply"),
        (GOOD.replace("10", "9" * 5000), "is not valid TOML: Exceeds the limit"),
        (GOOD.replace("10", "0x" + "f" * 6000), "sample.count is a number of 7225 digits; a whole"),
        (
            GOOD.replace("10", "1_000_000_001"),
            "count is 1000000001; .* and <= 1000000000 is needed",
        ),
        (GOOD + "[relax]\nfmax = 0x" + "f" * 400, "relax.fmax is a number of 482 digits; a number"),
        (GOOD + "count = 11\n", "is not valid TOML: Cannot overwrite a value"),
        (GOOD.replace("10", "1979-05-27T07:32:00Z"), "sample.count is 1979-05-27 07:32:00"),
        (GOOD.replace("10", "{ a = [1, true] }"), r"count is {a = \[1, true\]}; a whole number"),
        (
            GOOD.replace('"Pt5"', '"' + "(" * 9000 + '"'),
            r"formula is '\(+...; .* at most 100 ",
        ),
        (GOOD.replace('"Pt5"', '"Pt' + "9" * 90 + '"'), "has .* atoms; at most 1000 are allowed"),
        (GOOD.replace('"Pt5"', '"Pt1001"'), "'Pt1001' has 1001 atoms; at most 1000 are allowed"),
        (
            GOOD.replace('"Pt5"', "[[[[]]]]"),
            r"formula is \[\[\[\[\]\]\]\]; text in quotes or",
        ),
        (GOOD.replace('"x"', '"' + "y" * 99 + ' "'), "name is 'y+...; letters, digits and"),
        ("sample = [{ count = 1 }]\n" + 'name = "x"', r"a section \[sample\] is needed"),
        ('"" = 1\n' + GOOD, "unknown key ''"),
        (GOOD + '"a.b" = 1', "unknown key 'sample.a.b'"),
        (GOOD.replace("10", "10_000_001"), "make 10,000,001 structures; .* at most 10,000,000 are"),
        (
            GOOD + '[explore]\nrounds = 1000\ncount = 1000\n[relax]\npotential = "a:B"\n',
            "explore.rounds times explore.count, .* 1,000,010 .* 'a:B' at most 1,000,000 are",
        ),
        (f"{'.'.join('a' * 3000)} = 1", "it is nested too deeply"),
        ("#" * 100_001, "has 100,001 bytes; at most 100,000 are allowed"),
        (GOOD + '"a\\nb" = 1', r"unknown key 'sample.a\\nb'"),
    ],
    ids=lambda value: value[-30:],
)
def test_strange_toml(tmp_path, text, message):
    with pytest.raises(RecipeError, match=message) as caught:
        load_recipe(write(tmp_path, text))
    (line,) = caught.value.problems
    assert "\n" not in line
    assert len(line) < 500


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.dates()
    | st.sampled_from(["Pt5", "emt", "bulk", 10**400, "a:b"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=200)
@given(st.data())
def test_any_value_is_taken_or_refused_in_one_line(data):
    """Values that TOML can hold, and None, which it cannot."""
    table = tomllib.loads(module.__doc__.split("```toml\n")[1].split("```")[0])
    place = data.draw(st.sampled_from(sorted(k for k, v in table.items() if isinstance(v, dict))))
    key = data.draw(st.sampled_from(sorted(table[place])))
    value = data.draw(VALUES)
    table[place][key] = value
    try:
        recipe = _checked(table, "", "x")
    except RecipeError as error:
        for line in error.problems:
            assert line.startswith(("x: ", f"x: {place}.{key}"))
            assert "pydantic" not in line
            assert "Input should be" not in line
    else:
        taken = getattr(getattr(recipe, place), key)
        assert taken == (tuple(value) if isinstance(value, list) else value) or taken == (value,)


def test_recipes_wait_neither_for_tensorflow_nor_for_pydantic_in_the_help():
    code = (
        "import sys, tfgen.datasets.recipe as r; r.load_recipe('pt13'); "
        "sys.exit('tensorflow' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    code = "import sys, tfgen.cli.dataset; sys.exit('pydantic' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_bytes_that_are_no_text(tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="is not valid TOML"):
        load_recipe(path)
