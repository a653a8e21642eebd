"""What is a list of structures, and what is said of what is none."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms

from tfgen.structures.checks import as_structures


def test_takes_one_or_many():
    atoms = Atoms("Pt")
    assert as_structures(atoms) == [atoms]
    assert as_structures((atoms, atoms)) == [atoms, atoms]


@pytest.mark.parametrize(
    ("structures", "message"),
    [
        ([], "given is empty"),
        ([Atoms("Pt"), Atoms()], r"given\[1\] has no atoms"),
        (["Pt"], r"given\[0\] is a str, not an ase.Atoms"),
        ([Atoms("Pt", [[0, 0, np.nan]])], r"given\[0\] has positions that are not finite"),
        ([Atoms("Pt", [[0, 0, -np.inf]])], r"given\[0\] has positions that are not finite"),
        ([Atoms("Pt", cell=[1, np.inf, 1])], r"given\[0\] has a cell that is not finite"),
        ([Atoms("XPt")], r"given\[0\] holds dummy atoms"),
        ([Atoms("Pt", pbc=[0, 1, 0])], r"given\[0\] is periodic along an axis without a cell"),
    ],
)
def test_refuses(structures, message):
    with pytest.raises(ValueError, match=message):
        as_structures(structures, "given")
