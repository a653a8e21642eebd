from __future__ import annotations

import numpy as np
from ase import Atoms

from tfgen.evaluation.report import svg_charts


def test_pair_distances_by_hand():
    edges = np.array([0.0, 1.5, 2.5, 3.5, 4.5])
    chain = Atoms("Pt3", positions=[[0, 0, 0], [0, 0, 2], [0, 0, 4]])
    square = Atoms("Pt4", positions=[[0, 0, 0], [2, 0, 0], [2, 2, 0], [0, 2, 0]])
    counts = svg_charts.count_distances([chain, square, Atoms("Pt"), Atoms()], edges)
    np.testing.assert_array_equal(counts, [0, 2 + 4, 2, 1])
    cubic = Atoms("Pt", cell=[2, 9, 9], pbc=True)  # at 2 and 4 Å in each direction: half of four
    np.testing.assert_array_equal(svg_charts.count_distances([cubic], edges), [0, 1, 0, 1])
