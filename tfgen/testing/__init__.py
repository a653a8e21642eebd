"""Checks that a descriptor or fingerprint of your own has to pass; no test framework is needed."""

from tfgen.testing.descriptors import check_descriptor, check_fingerprint

__all__ = ["check_descriptor", "check_fingerprint"]
