"""The pages of the repository, and their parts."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
# The folders that have pages; a clone holds others (.venv, demo), too.
FOLDERS = ("docs", "datasets", "scripts")
PAGES = sorted([*ROOT.glob("*.md"), *(p for name in FOLDERS for p in (ROOT / name).rglob("*.md"))])


def prose(text: str) -> list[tuple[int, str]]:
    """The numbered lines outside fenced code."""
    lines, fenced = [], False
    for number, line in enumerate(text.splitlines(), 1):
        if line.lstrip().startswith("```"):
            fenced = not fenced
        elif not fenced:
            lines.append((number, line))
    return lines


def code(page: Path) -> str:
    """All fenced code of a page; lines that a backslash continues are one."""
    fenced = re.compile(r"^```.*?\n(.*?)^```", re.DOTALL | re.MULTILINE)
    text = "\n".join(fenced.findall(page.read_text("utf-8")))
    return re.sub(r" *\\\n *", " ", text)


class Recorder:
    """Stands for a function: checks the arguments by its signature, and returns what it is told."""

    def __init__(self, function: Callable[..., Any], result: Any = None) -> None:
        self.signature, self.result = inspect.signature(function), result
        self.arguments: dict[str, Any] = {}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.arguments = self.signature.bind(*args, **kwargs).arguments
        return self.result
