"""The category of tfgen's own warnings."""

__all__ = ["TfgenWarning"]


class TfgenWarning(UserWarning):
    """Something a user should know, though the work goes on."""
