"""Fingerprints: a descriptor of every atom, pooled over the atoms."""
