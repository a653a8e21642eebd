"""Checks that a descriptor of your own has to pass."""

from tfgen.testing.descriptors import check_descriptor, check_fingerprint

__all__ = ["check_descriptor", "check_fingerprint"]
