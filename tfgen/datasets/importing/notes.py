"""What was done to the input, and has to be said."""

from __future__ import annotations

import warnings

from tfgen.warnings import TfgenWarning

__all__ = ["Notes"]


class Notes:
    """Sentences for the user, each once, with the number of structures and the first of them."""

    def __init__(self) -> None:
        self._count: dict[str, int] = {}
        self._first: dict[str, str] = {}

    def add(self, sentence: str, where: str) -> None:
        """Adds a sentence without its full stop, about the file or row `where`."""
        self._count[sentence] = self._count.get(sentence, 0) + 1
        self._first.setdefault(sentence, where)

    def warn(self) -> None:
        """Issues one `TfgenWarning` for each sentence."""
        for sentence, count in self._count.items():
            more = f" (and {count - 1} more)" if count > 1 else ""
            text = f"{self._first[sentence]}{more}: {sentence}"
            warnings.warn(text, TfgenWarning, stacklevel=4)
