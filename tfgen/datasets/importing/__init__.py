"""Imports structures and properties from the files people have: whatever ASE reads, and more.

`importing` is the entry; `collecting` goes through all files, `files` finds out what a file is,
`readers` and `lammps` read it row by row, `comments` reads the comment lines of xyz files, `values`
finds properties and energies, `checks` refuses what cannot be right, and `notes` keeps what the
user has to be told.
"""

from tfgen.datasets.importing.checks import COINCIDENT
from tfgen.datasets.importing.importing import import_files, read_structures

__all__ = ["COINCIDENT", "import_files", "read_structures"]
