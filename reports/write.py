"""Files of reports: those beside the records of a sweep, and how a file is written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd

from vbench.errors import OutputError

FILES = ("summary.csv", "summary.parquet", "table.md", "resolution.png", "resolution.pdf", "resolution.txt")


def write_all(table: pd.DataFrame, folder: Path) -> list[Path]:
    """Write `FILES` into a folder, each whole or not at all.

    Raises: OutputError if the folder cannot be written.
    """
    from vbench.reports import tables
    from vbench.reports.figures import draw

    with writing(folder):
        whole(folder / "summary.csv", lambda path: table.to_csv(path, index=False))
        whole(folder / "summary.parquet", lambda path: table.to_parquet(path, index=False))
    write_text(folder / "table.md", tables.to_markdown(table))
    draw.write(draw.Request(("resolution",)), table, folder)
    return [folder / name for name in FILES]


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all, and make its folder. Raises: OutputError if it cannot be written."""
    with writing(path.parent, path):
        whole(path, lambda part: part.write_text(text, encoding="utf-8", newline="\n"))


@contextmanager
def writing(folder: Path, named: Path | None = None) -> Iterator[None]:
    """Make a folder and write into it. Raises: OutputError, which names the path that cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise OutputError(f"{named or folder} cannot be written: {error.strerror}") from None


def whole(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` make a file under another name, then move it to `path`. Raises: OSError."""
    part = path.with_name(f".part-{path.name}")
    try:
        write(part)
        os.replace(part, path)  # noqa: PTH105
    finally:
        part.unlink(missing_ok=True)


def filled(page: str, name: str, text: str) -> str:
    """A page with `text` between its markers of that name. Raises: ValueError if a marker is missing."""
    begin, end = f"<!-- {name} -->\n", f"\n<!-- /{name} -->"
    before, opened, rest = page.partition(begin)
    _, closed, after = rest.partition(end)
    if not opened or not closed:
        raise ValueError(f"the page has no {begin.strip()} ... {end.strip()}")
    return before + begin + text + end + after
