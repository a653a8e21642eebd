"""Options that several commands share, in a command that prints what it was given."""

from __future__ import annotations

import json

import click
import pytest
from click.testing import CliRunner

from tfgen.cli._options import compute_option


@click.command()
@compute_option
def command(compute):
    click.echo(json.dumps(compute))


def run(*arguments):
    return CliRunner().invoke(command, arguments)


def test_compute_names_functions_and_properties_of_the_calculator():
    result = run("--compute", "gap=mine.folder:Class.gap", "--compute", "dipole")
    assert json.loads(result.output) == {"gap": "mine.folder:Class.gap", "dipole": None}
    assert json.loads(run().output) == {}


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (["gap"], "'gap' is neither NAME=MODULE:FUNCTION nor one of free_energy, magmom"),
        (["=mine:gap"], "'=mine:gap'"),
        (["gap=mine"], "'gap=mine'"),
        (["gap=/mine.py:gap"], "'gap=/mine.py:gap'"),
        (["the gap=mine:gap"], "'the gap=mine:gap'"),
        (["gap=mine:gap", "gap=mine:other"], "gap is given twice"),
        (["dipole", "dipole=mine:gap"], "dipole is given twice"),
    ],
)
def test_compute_refuses_other_forms(values, words):
    result = run(*(word for value in values for word in ("--compute", value)))
    assert result.exit_code == 2
    assert words in result.stderr
