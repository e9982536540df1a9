"""A file of JSON lines, read line by line and appended to. A bad line is named and left where it is.

Each append looks first whether the file that is open is still the file at that path, and is on the disk when it
returns. What was written in part is taken back.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from vbench.errors import OutputError
from vbench.results.clean import text

Line = TypeVar("Line")
LONGEST = 2**26  # bytes of a line; a longer one is no record
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
BUFFER = 2**18  # bytes that are read at once
NAMED = 3  # bad lines that a warning names


@dataclass(frozen=True, slots=True)
class Damage:
    """A line that is no record: its file, its number from 1, and why."""

    file: Path
    line: int
    reason: str

    def __str__(self) -> str:
        return text(f"damaged: line {self.line} of {self.file} was left out: it {self.reason}")


class DamagedLineWarning(UserWarning):
    """Lines of a file are no records, and were left out. An incomplete last line, as after a kill, is one."""


class CutError(ValueError):
    """A line that ends within a record."""


def scan(
    path: Path, parse: Callable[[bytes], Line], begins: bytes, elsewhere: Callable[[bytes], bool] | None = None
) -> Iterator[tuple[Line | Damage | None, int]]:
    """Each line, parsed or damaged, with the byte offset of its end. Empty if there is no such file.

    A last line that has no end, cannot be parsed and begins as records do was cut as it was written: it is None, and
    the offset is that of its beginning.

    Args:
        parse: raises ValueError with the reason for a line that is no record.
        begins: how each record begins.
        elsewhere: whether a line is left to somebody else.

    Raises: OutputError if the file cannot be read.
    """
    offset = number = 0
    try:
        with path.open("rb", buffering=BUFFER) as file:
            while line := file.readline(LONGEST + 1):
                number += 1
                offset += len(line)
                if elsewhere is not None and elsewhere(line):
                    continue
                if len(line) > LONGEST:
                    while line and not line.endswith(b"\n"):
                        line = file.readline(LONGEST)
                        offset += len(line)
                    yield Damage(path, number, f"has more than {LONGEST >> 20} MiB"), offset
                    continue
                try:
                    yield parse(line), offset
                except ValueError as error:
                    if isinstance(error, CutError) and not line.endswith(b"\n") and _begun(line, begins):
                        yield None, offset - len(line)
                        return
                    yield Damage(path, number, str(error)), offset
    except FileNotFoundError:
        return
    except OSError as error:
        raise OutputError(f"{path} cannot be read: {error.strerror}") from None


def _begun(line: bytes, begins: bytes) -> bool:
    """Whether a line is the beginning of a record, or what a power cut leaves of one: zeros."""
    return line.startswith(begins) or begins.startswith(line) or not line.strip(b"\0")


def told(damaged: list[Damage]) -> str:
    """Bad lines of one file in one line."""
    named = [f"line {one.line} (it {one.reason})" for one in damaged[:NAMED]]
    more = f" and {len(damaged) - NAMED} more" if len(damaged) > NAMED else ""
    were = "was" if len(damaged) == 1 else "were"
    return f"{damaged[0].file}: {', '.join(named)}{more} {were} left out: no record of vbench"


class Growing:
    """A file of lines that grows. It comes to be with its first line, or at once if `now`.

    Args:
        end: the offset after which nothing is to be kept.
        folder: its folder, open.

    Raises: OutputError if it cannot be written.
    """

    def __init__(self, path: Path, end: int, folder: int, *, now: bool) -> None:
        self.path, self._end, self._folder = path, end, folder
        self._file: int | None = None
        if now or path.exists():
            self._open()

    def append(self, data: bytes) -> None:
        """Write one line to the disk.

        Raises: OutputError if it cannot be written, or if the folder or the file is no longer the one that was opened.
        """
        check_there(self._folder, self.path.parent)
        file = self._open()
        check_there(file, self.path)
        begin = os.fstat(file).st_size
        try:
            _write(file, data + b"\n")
            os.fsync(file)
        except OSError as error:
            with suppress(OSError):
                os.ftruncate(file, begin)
            raise self._unwritable(error) from None

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _open(self) -> int:
        if self._file is None:
            try:
                self._file = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
                os.ftruncate(self._file, self._end)
                if self._end and os.pread(self._file, 1, self._end - 1) != b"\n":
                    _write(self._file, b"\n")
                os.fsync(self._folder)
            except OSError as error:
                raise self._unwritable(error) from None
        return self._file

    def _unwritable(self, error: OSError) -> OutputError:
        do = "make room, then run the same command again" if error.errno in FULL else "run the same command again"
        return OutputError(f"{self.path} cannot be written: {error.strerror}; what it holds is kept: {do}")


def check_there(file: int, path: Path) -> None:
    """Raises: OutputError if what is open is no longer what is at that path."""
    own = os.fstat(file)
    try:
        there = os.stat(path)  # noqa: PTH116 - beside os.fstat
    except OSError as error:
        raise OutputError(
            f"{path} is gone ({error.strerror}): something deleted or moved it during the sweep; put it back, or run "
            "the same command again to begin anew"
        ) from None
    if (own.st_dev, own.st_ino) != (there.st_dev, there.st_ino):
        raise OutputError(
            f"{path} is another one than the sweep has opened: something replaced it; run the same command again"
        )


def _write(file: int, data: bytes) -> None:
    """Write all of it. Raises: OSError."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(file, rest) :]
