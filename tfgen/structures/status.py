"""How the work on one structure ended."""

from __future__ import annotations

import enum

__all__ = ["Status"]


class Status(str, enum.Enum):
    """How an inversion, a relaxation or a generation of one structure ended.

    Members are strings: `status == "converged"` holds, and JSON and extxyz take them as they are.
    What can be said beyond that (how many structures are ambiguous, the message of a calculator)
    stands apart, in a `detail`.
    """

    CONVERGED = "converged"
    NOT_CONVERGED = "not converged"
    """The budget of rounds or steps was used up before the loss or the forces were small enough."""
    AMBIGUOUS = "ambiguous"
    """Several different structures have the fingerprint."""
    UNREACHABLE = "unreachable"
    """No structure seems to have the fingerprint."""
    OVERLAPPING_ATOMS = "overlapping atoms"
    NO_FINGERPRINT = "no finite fingerprint"
    NOT_VALID = "no valid structure"
    """The structure has atoms too close to each other, or is in several pieces."""
    RELAXATION_NOT_CONVERGED = "relaxation not converged"
    CALCULATOR_FAILED = "calculator failed"
    """An energy or a force is missing, or is not finite."""
    PROPERTY_FAILED = "property failed"
    """The function that computes a property raised an error, or returned no finite number."""
    CRASHED = "crashed"
    """The process that worked on the structure died."""
    TIME_LIMIT = "time limit"
    """The work on the structure took too long and was stopped."""

    def __str__(self) -> str:
        return self.value
