"""Shapes that chemists know."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.cluster import Octahedron


def octahedron() -> Atoms:
    return Atoms("Pt6", positions=Octahedron("Pt", 2).positions)


def tetrahedron() -> Atoms:
    corners = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]])
    return Atoms("Pt4", positions=2.7 / np.sqrt(8) * corners)


def pentagonal_bipyramid(edge: float = 2.7) -> Atoms:
    angle = 2 * np.pi * np.arange(5) / 5
    radius = edge / (2 * np.sin(np.pi / 5))
    height = np.sqrt(edge**2 - radius**2)
    ring = np.c_[radius * np.cos(angle), radius * np.sin(angle), 0 * angle]
    return Atoms("Pt7", positions=[*ring, [0, 0, height], [0, 0, -height]])


def planar_hexagon() -> Atoms:
    """With an atom in its middle."""
    angle = 2 * np.pi * np.arange(6) / 6
    return Atoms(
        "Pt7", positions=[*(2.65 * np.c_[np.cos(angle), np.sin(angle), 0 * angle]), [0] * 3]
    )


def helix() -> Atoms:
    """Has a mirror image that is another structure."""
    turn = 1.7 * np.arange(6)
    return Atoms("Pt6", positions=np.c_[1.9 * np.cos(turn), 1.9 * np.sin(turn), 0.9 * np.arange(6)])


def chain() -> Atoms:
    return Atoms("Pt5", positions=np.c_[2.6 * np.arange(5), np.zeros([5, 2])])


def prism() -> Atoms:
    """Trigonal."""
    angle = 2 * np.pi * np.arange(3) / 3
    triangle = 2.7 / np.sqrt(3) * np.c_[np.cos(angle), np.sin(angle), 0 * angle]
    return Atoms("Pt6", positions=[*triangle, *(triangle + np.array([0, 0, 2.7]))])


SOLIDS = (octahedron(), pentagonal_bipyramid(), prism())
