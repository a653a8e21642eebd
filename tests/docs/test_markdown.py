"""What holds for every page: lines have room on a screen, and what a page points to is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from documents import PAGES, ROOT, prose

WIDTH = 120


def anchors(page: Path) -> set[str]:
    """The names under which GitHub links to a page's headings."""
    headings = (line.lstrip("#") for _, line in prose(page.read_text("utf-8")) if line[:1] == "#")
    return {
        re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-") for heading in headings
    }


def too_long(line: str) -> bool:
    """Whether a line is longer than it has to be: tables and links cannot be broken."""
    return not line.startswith("|") and len(re.sub(r"\]\([^)]*\)", "]()", line)) > WIDTH


@pytest.fixture(params=PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def page(request):
    return request.param


def test_finds_the_pages():
    assert {"README.md", "docs/inversion.md", "datasets/README.md"} <= {
        page.relative_to(ROOT).as_posix() for page in PAGES
    }


def test_lines_are_short(page):
    lines = prose(page.read_text("utf-8"))
    assert [number for number, line in lines if too_long(line)] == []


def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", page.read_text("utf-8")):
        name, _, anchor = target.partition("#")
        linked = page.parent / name if name else page
        assert linked.exists(), target
        if anchor:
            assert anchor in anchors(linked), target


def test_files_that_are_named_exist(page):
    text = page.read_text("utf-8")
    named = re.findall(r"`((?:datasets|docs|scripts|tests|tfgen)/[\w./-]+\.[a-z]+)`", text)
    named += re.findall(r"python (scripts/[\w./-]+)", text)
    for name in named:
        assert (ROOT / name).is_file(), name


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("x" * 120, False),
        ("x" * 121, True),
        ("Å" * 120, False),
        ("| " + "x" * 200, False),
        (f"[text]({'x' * 200})", False),
        (f"[text]({'x' * 200}) {'x' * 120}", True),
    ],
)
def test_long_lines_are_told(line, wanted):
    assert too_long(line) is wanted


def test_code_is_no_prose():
    assert prose("a\n```python\nb\n```\nc") == [(1, "a"), (5, "c")]


def test_every_folder_of_the_package_is_in_the_tree():
    tree = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    folders = [path.parent.name for path in (ROOT / "tfgen").glob("*/__init__.py")]
    assert [name for name in folders if not re.search(rf"^  {name}/ +\w", tree, re.MULTILINE)] == []
