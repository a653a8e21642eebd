"""The category of tfgen's own warnings."""

__all__ = ["TfgenWarning"]


class TfgenWarning(UserWarning):
    """Something that the user should know while the work continues."""
