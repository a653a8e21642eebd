"""What `reconstruct` refuses, and what it says then."""

from __future__ import annotations

import numpy as np
import pytest
import shapes
import small
from ase import Atoms

from tfgen.inversion import reconstruct as reconstruction
from tfgen.inversion.reconstruct import reconstruct

START = {"initial_structures": [shapes.octahedron()]}


class TestBadInput:
    @pytest.fixture(autouse=True)
    def no_work(self, monkeypatch):
        monkeypatch.setattr(
            reconstruction, "_search_all", lambda *_: pytest.fail("the search has begun")
        )

    @pytest.mark.parametrize("shape", [(12,), (2, 11), (0, 12), (1, 2, 12), ()], ids=str)
    def test_targets_of_another_shape(self, shape):
        with pytest.raises(ValueError, match=r"targets has shape .*; \[n, 12\] is needed"):
            reconstruct(small.fingerprint(), np.zeros(shape), "Pt5")

    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_targets_that_are_not_finite(self, value):
        targets = np.zeros([3, 12])
        targets[1, 4] = value
        with pytest.raises(ValueError, match=r"targets\[1\] holds values that are not finite"):
            reconstruct(small.fingerprint(), targets, "Pt5")

    @pytest.mark.parametrize(
        ("formula", "message"),
        [
            ("nonsense", "formula 'nonsense' is not a formula"),
            ("", "formula '' is not a formula"),
            ("Pt0", "formula 'Pt0' is not a formula"),
            ("Pt", "formula 'Pt' has a single atom"),
            ("Pt5Au", "formula 'Pt5Au' holds Au; the fingerprint's species are Pt"),
            (["Pt5"], "1 formulas were given for 2 targets"),
            (["Pt5", "Pt"], "formula 'Pt' has a single atom"),
            ([], "0 formulas were given for 2 targets"),
            (None, "formula is None; one like 'Pt13', or a list"),
            (13, "formula is 13; one like 'Pt13', or a list"),
            ([["Pt5"], ["Pt5"]], r"formula is \[\['Pt5'\], \['Pt5'\]\]; one like 'Pt13'"),
            ("Pt1001", "formula 'Pt1001' has 1001 atoms; at most 200 are allowed"),
        ],
    )
    def test_formulas(self, formula, message):
        with pytest.raises(ValueError, match=message):
            reconstruct(small.fingerprint(), np.zeros([2, 12]), formula)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"max_rounds": -1}, "max_rounds is -1; a whole number >= 0 is needed"),
            ({"max_rounds": 2.5}, "max_rounds is 2.5; a whole number"),
            ({"max_rounds": np.nan}, "max_rounds is nan; a whole number"),
            ({"max_rounds": "3"}, "max_rounds is '3'; a whole number"),
            ({"seed": -1}, "seed is -1; a whole number >= 0 is needed"),
            ({"seed": None}, "seed is None; a whole number"),
            ({"tolerance": 0.0}, "tolerance is 0.0; a number above 0 is needed"),
            ({"tolerance": np.nan}, "tolerance is nan; a number above 0"),
            ({"tolerance": "x"}, "tolerance is 'x'; a number above 0"),
            ({"time_limit": 0}, "time_limit is 0; a number of seconds above 0 is needed"),
            ({"time_limit": -1.0}, "time_limit is -1.0; a number of seconds"),
            ({"time_limit": np.nan}, "time_limit is nan; a number of seconds"),
            ({"time_limit": "1"}, "time_limit is '1'; a number of seconds"),
            ({"settings": 1}, r"settings is 1; a tfgen\.SearchSettings is needed"),
            ({"executor": 4}, "executor is 4; a concurrent.futures.Executor is needed"),
            ({"scale": "abc"}, "scale must be an array of real numbers, not str"),
            ({"scale": np.full(12, 1e-300)}, "scale must be 12 finite positive numbers"),
            ({"scale": 1.0}, "scale must be 12 finite positive numbers"),
            ({"scale": np.ones(11)}, "scale must be 12 finite positive numbers"),
            ({"scale": np.zeros(12)}, "scale must be 12 finite positive numbers"),
            ({"scale": np.full(12, np.nan)}, "scale must be 12 finite positive numbers"),
            ({"scale": [1.0] * 11 + [-1.0]}, "scale must be 12 finite positive numbers"),
            ({"scale": np.full(12, np.inf)}, "scale must be 12 finite positive numbers"),
        ],
    )
    def test_options(self, options, message):
        with pytest.raises(ValueError, match=message):
            reconstruct(small.fingerprint(), np.zeros([1, 12]), "Pt5", **options)

    @pytest.mark.parametrize(
        "targets",
        ["abc", [[1.0], [1.0, 2.0]], np.zeros([1, 12], complex), shapes.octahedron()],
        ids=["text", "ragged", "complex", "structure"],
    )
    def test_targets_that_are_no_numbers(self, targets):
        with pytest.raises(ValueError, match="targets must be an array of real numbers, not "):
            reconstruct(small.fingerprint(), targets, "Pt5")

    @pytest.mark.parametrize("value", [1e38, -1e300])
    def test_targets_out_of_range(self, value):
        targets = np.zeros([3, 12])
        targets[2, 1] = value
        with pytest.raises(ValueError, match=r"targets\[2\] holds values beyond 1e\+30"):
            reconstruct(small.fingerprint(), targets, "Pt5")

    def test_a_descriptor_is_no_fingerprint(self):
        with pytest.raises(ValueError, match=r"fingerprint is <.*ACSF.*>; a tfgen\.Fingerprint"):
            reconstruct(small.fingerprint().descriptor, np.zeros([1, 12]), "Pt5")

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (
                {"initial_structures": None},
                "initial_structures is a NoneType; an ase.Atoms or a list",
            ),
            ({"initial_structures": "Pt6"}, "initial_structures is a str; an ase.Atoms or a list"),
            ({"initial_structures": [1]}, r"initial_structures\[0\] is a int, not an ase.Atoms"),
            (
                {"initial_structures": shapes.SOLIDS},
                r"initial_structures\[1\] is Pt7; wanted is Pt6",
            ),
            (
                {"initial_structures": [Atoms("Au6")]},
                r"initial_structures\[0\] is Au6; wanted is Pt6",
            ),
            (
                {"initial_structures": [Atoms("Pt6", positions=np.full([6, 3], np.nan))]},
                r"initial_structures\[0\] has positions that are not finite",
            ),
            (
                {
                    "initial_structures": [
                        Atoms("Pt6", positions=np.eye(6, 3), cell=[9] * 3, pbc=True)
                    ]
                },
                r"initial_structures\[0\] is periodic in another cell than the one given",
            ),
            ({"fixed": [0]}, "fixed needs initial_structures"),
            ({"fixed": [6], **START}, r"fixed is \[6\]; places from 0 to 5 are allowed"),
            ({"fixed": [-1], **START}, r"fixed is \[-1\]; places from 0 to 5 are allowed"),
            ({"fixed": range(6), **START}, "fixed holds all atoms; nothing is left to find"),
            ({"fixed": [True, False], **START}, r"fixed is \[True, False\]; a list of places"),
            ({"fixed": [0.5], **START}, r"fixed is \[0.5\]; a list of places"),
            ({"fixed": 1, **START}, "fixed is 1; a list of places"),
            ({"fixed": None, **START}, "fixed is None; a list of places"),
            ({"cell": [9, 9, 9]}, "cell: a structure in it is periodic; the descriptor is for"),
        ],
        ids=lambda x: repr(x)[:30],
    )
    def test_initial_structures_fixed_and_cell(self, options, message):
        with pytest.raises(ValueError, match=message):
            reconstruct(small.fingerprint(), np.zeros([1, 12]), "Pt6", **options)

    def test_fixed_atoms_of_two_compositions(self):
        with pytest.raises(ValueError, match="fixed needs targets of one composition"):
            reconstruct(
                small.fingerprint(),
                np.zeros([2, 12]),
                ["Pt6", "Pt5"],
                initial_structures=[shapes.octahedron()],
                fixed=[0],
            )

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"cell": "abc"}, "cell is 'abc', pbc is True: "),
            ({"cell": [1, 2]}, r"cell is \[1, 2\], pbc is True: "),
            ({"cell": [4, 4, 4], "pbc": [True, True]}, r"pbc is \[True, True\]: "),
            ({"cell": [4, 4, 0]}, "cell: a structure in it is periodic along an axis without"),
            ({"cell": [1e-2] * 3}, "cell: a structure in it is periodic in a cell of volume 1e-06"),
            (
                {"cell": [[1, 0, 0], [2, 0, 0], [0, 0, 1]]},
                "cell: a structure in it is periodic in a cell of volume 0",
            ),
            (
                {
                    "cell": [4, 4, 4],
                    "initial_structures": [
                        Atoms("Pt4", positions=np.eye(4, 3), cell=[5, 4, 4], pbc=True)
                    ],
                },
                r"initial_structures\[0\] is periodic in another cell",
            ),
        ],
        ids=lambda x: repr(x)[:30],
    )
    def test_cells(self, options, message):
        fingerprint = small.of_crystals()
        with pytest.raises(ValueError, match=message):
            reconstruct(fingerprint, np.zeros([1, fingerprint.size]), "Pt4", **options)
