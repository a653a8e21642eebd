"""CIF files; large structures without symmetry in time and memory that grow with their atoms."""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO

import numpy as np
from ase import Atoms
from ase.io.cif import CIFBlock, parse_cif

__all__ = ["read_cif"]

# From this many sites on, ASE's search for equivalent sites, which compares all pairs of them in
# Python, takes seconds.
_LARGE = 200


def read_cif(file: IO[bytes]) -> Iterator[Atoms]:
    """Yields the structures of a CIF file.

    Raises:
        Exception: whatever ASE's parser trips over.
    """
    for block in parse_cif(file):
        if not block.has_structure():
            continue
        if len(block.get_symbols()) >= _LARGE and _has_no_symmetry(block):
            yield _without_symmetry(block)
        else:
            yield block.get_atoms()


def _has_no_symmetry(block: CIFBlock) -> bool:
    operations = block.get("_space_group_symop_operation_xyz") or block.get(
        "_symmetry_equiv_pos_as_xyz"
    )
    if isinstance(operations, str):
        operations = [operations]
    if operations:
        return [str(text).replace(" ", "").lower() for text in operations] == ["x,y,z"]
    name = block.get("_space_group_name_h-m_alt") or block.get("_symmetry_space_group_name_h-m")
    return str(name).replace(" ", "").upper() == "P1"


def _without_symmetry(block: CIFBlock) -> Atoms:
    atoms = block.get_unsymmetrized_structure()
    if atoms.cell.rank == 3:
        atoms.pbc = True
        atoms.wrap()
    shares = block.get("_atom_site_occupancy")
    if shares is not None:
        part = [i for i, share in enumerate(shares) if not np.isclose(float(share), 1.0)]
        atoms.info["occupancy"] = {str(i): {atoms.symbols[i]: float(shares[i])} for i in part}
    return atoms
