"""Which atoms are bonded, and which overlap: factors on the sum of their covalent radii."""

from __future__ import annotations

__all__ = ["BOND_FACTOR", "OVERLAP_FACTOR"]

OVERLAP_FACTOR = 0.7
"""Atoms closer than this times the sum of their covalent radii overlap, unless asked otherwise."""

BOND_FACTOR = 1.3
"""Atoms within this times the sum of their covalent radii are bonded, unless asked otherwise."""
