"""Files that appear whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from vbench.errors import OutputError


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all, and make its folder. Raises: OutputError if it cannot be written."""
    with writing(path.parent, path):
        write_whole(path, lambda part: part.write_text(text, encoding="utf-8", newline="\n"))


@contextmanager
def writing(folder: Path, named: Path | None = None) -> Iterator[None]:
    """Make a folder to write into. Raises: OutputError, which names what cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise OutputError(f"{named or folder} cannot be written: {error.strerror}") from None


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` make a file under a name of this process, then move it to `path`. Raises: OSError."""
    part = path.with_name(f".part{os.getpid()}-{path.name}")
    try:
        write(part)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
