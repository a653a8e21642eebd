"""Option types that several scripts share."""

from __future__ import annotations

from collections.abc import Iterable

import click

COUNT = click.IntRange(min=1)
POSITIVE = click.FloatRange(min=0, min_open=True)


def check_formulas(formulas: Iterable[str]) -> None:
    """Checks, before any work, that EMT knows the elements of formulas like Pt13 or Cu6Au7.

    Raises:
        click.BadParameter: if not, or if one is not a formula.
    """
    from ase import Atoms

    from tfgen.potentials.emt import EMT
    from tfgen.structures.formulas import numbers_from_formula

    formula = ""
    try:
        for formula in formulas:
            EMT().check([Atoms(numbers_from_formula(formula))])
    except ValueError as error:
        raise click.BadParameter(str(error).replace("structures[0]", formula)) from None
