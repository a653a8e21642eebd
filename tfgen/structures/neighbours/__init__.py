"""Which atoms are near which: lists for large structures and cells, and displacements."""
