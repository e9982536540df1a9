"""All files that a sweep leaves beside its records, from the records alone."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd

from vbench.errors import OutputError

FILES = ("summary.csv", "summary.parquet", "table.md", "resolution.png", "resolution.pdf", "resolution.txt")


def write_all(table: pd.DataFrame, folder: Path) -> list[Path]:
    """Write `FILES` into a folder; each appears whole or not at all.

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
    """Write a file, whole or not at all; its folder is made. Raises: OutputError if it cannot be written."""
    with writing(path.parent, path):
        whole(path, lambda part: part.write_text(text, encoding="utf-8", newline="\n"))


@contextmanager
def writing(folder: Path, named: Path | None = None) -> Iterator[None]:
    """Make a folder to write into. Raises: OutputError, which names what cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise OutputError(f"{named or folder} cannot be written: {error.strerror}") from None


def whole(path: Path, write: Callable[[Path], object]) -> None:
    """Have `write` make a file under another name, then move it to `path`. Raises: OSError."""
    part = path.with_name(f".part-{path.name}")
    try:
        write(part)
        os.replace(part, path)  # noqa: PTH105
    finally:
        part.unlink(missing_ok=True)
