"""Pictures of structures, as SVG text that stands inside a page."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols, covalent_radii
from ase.data.colors import jmol_colors

from tfgen.evaluation.report.format import escape_svg

__all__ = [
    "define_gradients",
    "draw_structure",
    "find_cell_edges",
    "find_colour",
    "find_view",
    "is_drawable",
]


def find_colour(number: int) -> str:
    """Returns the colour of an element (Jmol's), like "#d0d0e0"."""
    return _format_colour(jmol_colors[number])


def define_gradients(numbers: Iterable[int]) -> str:
    """Returns the hidden SVG with the shadings of elements that `draw_structure` refers to."""
    gradients = []
    for number in sorted({int(n) for n in numbers}):
        colour = jmol_colors[number]
        light, dark = colour + 0.75 * (1 - colour), colour * 0.42
        stops = zip((0, 45, 100), (light, colour, dark), strict=True)
        gradients.append(
            f'<radialGradient id="el-{chemical_symbols[number]}" cx="36%" cy="32%" r="72%">'
            + "".join(f'<stop offset="{at}%" stop-color="{_format_colour(c)}"/>' for at, c in stops)
            + "</radialGradient>"
        )
    return (
        '<svg width="0" height="0" style="position:absolute" aria-hidden="true"><defs>'
        + "".join(gradients)
        + "</defs></svg>"
    )


def draw_structure(atoms: Atoms, label: str) -> str:
    """Draws a structure as shaded spheres, seen along its shortest axis, far atoms faded.

    Args:
        atoms: the structure; its cell is drawn where it is periodic.
        label: says what is seen, for those who cannot see it.
    """
    label = escape_svg(label)
    if not is_drawable(atoms):
        return (
            f'<svg viewBox="-1 -1 2 2" role="img" aria-label="{label}"><text y="0.1" '
            'text-anchor="middle" font-size="0.2" fill="currentColor">cannot be drawn</text></svg>'
        )
    middle = atoms.positions.mean(axis=0)
    turn = find_view(atoms.positions - middle)
    seen = (atoms.positions - middle) @ turn
    radii = 0.95 * covalent_radii[atoms.numbers]
    lines = ""
    edge = find_cell_edges(atoms, middle, turn)
    if len(edge):
        lines = "".join(
            f'<line x1="{p[0]:.3f}" y1="{-p[1]:.3f}" x2="{q[0]:.3f}" y2="{-q[1]:.3f}"/>'
            for p, q in edge
        )
        lines = f'<g stroke="currentColor" stroke-opacity="0.45" stroke-width="0.05">{lines}</g>'
    reach = np.concatenate(
        [np.abs(seen[:, :2]) + radii[:, None], np.abs(edge[..., :2]).reshape(-1, 2)]
    )
    half = reach.max() * 1.04
    depth = seen[:, 2].max() - seen[:, 2]
    fade = 0.5 * depth / max(depth.max(), 2.0)
    spheres = []
    for k in np.argsort(seen[:, 2], kind="stable"):
        at = f'cx="{seen[k, 0]:.3f}" cy="{-seen[k, 1]:.3f}" r="{radii[k]:.3f}"'
        symbol = chemical_symbols[atoms.numbers[k]]
        spheres.append(f'<circle {at} fill="url(#el-{symbol})" class="atom"/>')
        if fade[k] > 0.01:
            spheres.append(f'<circle {at} fill-opacity="{fade[k]:.2f}" class="fog"/>')
    return (
        f'<svg viewBox="{-half:.3f} {-half:.3f} {2 * half:.3f} {2 * half:.3f}" role="img" '
        f'aria-label="{label}"><title>{label}</title>{lines}{"".join(spheres)}</svg>'
    )


def is_drawable(atoms: Atoms) -> bool:
    """Says whether there is anything to draw, and nothing beyond all bounds."""
    return len(atoms) > 0 and bool((np.abs(atoms.positions) < 1e6).all())


def find_view(positions: np.ndarray) -> np.ndarray:
    """Returns the rotation [3, 3] that shows centred positions [n, 3] from their flat side."""
    axes = np.linalg.eigh(positions.T @ positions)[1][:, ::-1]
    axes[:, 2] *= np.linalg.det(axes)  # no mirror images
    # A little off the axis, or symmetric structures hide their own back.
    a, b = np.deg2rad(14.0), np.deg2rad(-18.0)
    turn = np.array([[math.cos(a), 0, math.sin(a)], [0, 1, 0], [-math.sin(a), 0, math.cos(a)]])
    tilt = np.array([[1, 0, 0], [0, math.cos(b), -math.sin(b)], [0, math.sin(b), math.cos(b)]])
    return axes @ turn.T @ tilt.T


def find_cell_edges(atoms: Atoms, middle: np.ndarray, turn: np.ndarray) -> np.ndarray:
    """Returns both ends of the cell's edges, [12, 2, 3]; none if nothing is periodic.

    Args:
        atoms: the structure.
        middle: [3], Å, where the origin of the picture is.
        turn: [3, 3], from `find_view`.
    """
    cell = atoms.cell.array
    if not atoms.pbc.any() or not (np.abs(cell) < 1e6).all():
        return np.zeros([0, 2, 3])
    corner = np.array(list(np.ndindex(2, 2, 2)))
    p, q = np.nonzero(np.triu(np.abs(corner[:, None] - corner[None]).sum(-1) == 1))
    return (np.stack([corner[p] @ cell, corner[q] @ cell], axis=1) - middle) @ turn


def _format_colour(colour: np.ndarray) -> str:
    return "#" + "".join(f"{round(255 * float(c)):02x}" for c in colour)
