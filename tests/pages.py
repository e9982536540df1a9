"""The pages that a reader reads, README.md and docs/: their blocks, the commands they name, their links."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md")))
SHELL = ("sh", "")  # languages of blocks that hold commands; the README's block names none
FENCE = re.compile(r'^```([\w{}-]*)(?: title="([^"]+)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)
PROGRAMS = ("vbench", "pip", "make", "pytest", "python", "git")


class Fence(NamedTuple):
    """A fenced block of a page."""

    language: str
    title: str | None
    text: str


def fences(page: Path) -> list[Fence]:
    return [Fence(language, title or None, text) for language, title, text in FENCE.findall(page.read_text("utf-8"))]


def prose(page: Path) -> str:
    """The page without its fenced blocks."""
    return FENCE.sub("", page.read_text("utf-8"))


def spans(page: Path) -> list[str]:
    """What stands between backticks in the prose, on one line."""
    return [" ".join(span.replace("\\|", "|").split()) for span in re.findall(r"`([^`]+)`", prose(page))]


def commands(page: Path) -> Iterator[list[str]]:
    """Every command that the page names, in words: lines of its shell blocks, and what backticks hold in its prose."""
    found = [fence.text.replace("\\\n", " ") for fence in fences(page) if fence.language in SHELL and not fence.title]
    found += [span for span in spans(page) if span.split()[0] in PROGRAMS and span not in PROGRAMS]
    for line in (line for text in found for line in text.splitlines()):
        for part in line.split("&&"):
            if words := shlex.split(part, comments=True):
                yield words


def links(page: Path) -> list[str]:
    """The targets of the page's links and images that lie in the repository."""
    text = re.sub(r"`[^`]+`", "", prose(page))
    return [found for found in re.findall(r"\]\(([^)\s]+)\)", text) if not found.startswith(("http:", "https:"))]


def anchors(page: Path) -> set[str]:
    """The names by which links reach the page's headings."""
    heads = re.findall(r"^#{1,3} (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


def contents(page: Path) -> list[Path]:
    """The pages that the page's tables of contents list."""
    listed = [fence.text for fence in fences(page) if fence.language == "{toctree}"]
    names = [line for text in listed for line in text.splitlines() if line and not line.startswith(":")]
    return [page.parent / f"{name}.md" for name in names]
