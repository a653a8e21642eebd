"""The rules for descriptors and fingerprints, as checks that users can run on their own ones.

A broken rule is an AssertionError that names it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ase import Atoms

from tfgen.descriptors.base import Descriptor
from tfgen.fingerprints.fingerprint import Fingerprint
from tfgen.structures.checks import as_structures
from tfgen.testing._rules import RULES, check_protocol, check_shape_and_dtype
from tfgen.testing._subject import Subject

__all__ = ["check_descriptor", "check_fingerprint"]


def check_descriptor(
    descriptor: Descriptor,
    structures: Atoms | Sequence[Atoms] | None = None,
    *,
    chiral: bool = False,
    seed: int = 0,
) -> None:
    """Checks all that pooling, training, inversion, saving and export require of a descriptor.

    The rules are checked in this order:

    - it has the attributes of the protocol (`tfgen.descriptors.base.Descriptor`);
    - the result has the right shape and dtype;
    - the configuration is complete, and survives JSON;
    - padding and the other structures of a batch have no influence;
    - translation, rotation and reflection change nothing;
    - when atoms are reordered, rows are reordered alike;
    - atoms beyond `r_cut` have no influence, and features are continuous there;
    - values and gradients are finite where atoms coincide, lie on a line or are alone;
    - gradients agree with finite differences;
    - eager mode, graphs of unknown shape and XLA give the same;
    - the input and the configuration stay as they are;
    - different structures have different features;
    - if its attribute `periodic` is true, the features of a crystal do not depend on the cell that
      describes it.

    Args:
        descriptor: what to check; see `Descriptor` for what it needs.
        structures: those it is checked on, besides degenerate ones; random clusters (and cells, if
            it is `periodic`) of its species if None. Two to ten atoms each are best: every
            coordinate of the first cluster and of the first cell is displaced for the finite
            differences.
        chiral: whether it is meant to tell mirror images apart.
        seed: of all random numbers.

    Example:
        >>> tfgen.testing.check_descriptor(ACSF(["Cu", "Au"], r_cut=5.0, g2_params=[[1.0, 2.5]]))

    Raises:
        AssertionError: names the first rule that is broken, where, and by how much.
        ValueError: if `structures` is empty or holds something that is not a structure.
    """
    _run(descriptor, descriptor, structures, chiral, seed)


def check_fingerprint(
    fingerprint: Fingerprint,
    structures: Atoms | Sequence[Atoms] | None = None,
    *,
    chiral: bool = False,
    seed: int = 0,
) -> None:
    """Checks a fingerprint by the rules of `check_descriptor` that apply to whole structures.

    Args:
        fingerprint: what to check; its descriptor is best checked first.
        structures: as in `check_descriptor`.
        chiral: whether it is meant to tell mirror images apart.
        seed: of all random numbers.

    Raises:
        AssertionError: names the first rule that is broken, where, and by how much.
        ValueError: if `structures` is empty or holds something that is not a structure.
    """
    _run(fingerprint, fingerprint.descriptor, structures, chiral, seed)


def _run(
    subject: Any,
    descriptor: Any,
    structures: Atoms | Sequence[Atoms] | None,
    chiral: bool,
    seed: int,
) -> None:
    given = [] if structures is None else as_structures(structures)
    rule = "protocol"
    try:
        check_protocol(descriptor)
        rule = "shape and dtype"
        checked = Subject(subject, descriptor, given, seed)
        check_shape_and_dtype(checked)
        for rule, check in RULES.items():
            if rule == "reflection" and chiral:
                continue
            if rule == "locality" and checked.pooled:
                continue
            if rule == "periodicity" and not checked.crystals:
                continue
            check(checked)
    except AssertionError as broken:
        raise AssertionError(f"{type(subject).__name__}, {rule}: {broken}") from None
    except Exception as error:
        raise AssertionError(
            f"{type(subject).__name__}, {rule}: {type(error).__name__}: {error}"
        ) from error
