"""Files that appear whole or not at all."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from vbench.errors import OutputError
from vbench.options import shown

PART = re.compile(r"\.part-(?P<place>[0-9a-f]{8})-(?P<pid>\d{1,10})-[0-9a-f]{8}-|\.part\d+-")
OLD_S = 86_400.0  # a part that is older than this is a left-over, whoever made it


def is_file(path: Path) -> bool:
    """Whether there is such a file. Raises: OutputError if nobody can look: too long a name, no permission."""
    try:
        return path.is_file()
    except OSError as error:
        raise OutputError(f"{shown(path)} cannot be read: {error.strerror}") from None


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
    """Let `write` make a file under a name of its own, then move it to `path`: of several, the last one stays.

    Before the first file in a folder, what dead processes have left there is removed. Raises: OSError.
    """
    _clear(path.parent)
    part = path.with_name(f".part-{place()}-{os.getpid()}-{secrets.token_hex(4)}-{path.name}")
    try:
        write(part)
        part.replace(path)
    finally:
        with suppress(OSError):  # on a file system that has become read-only the first error counts
            part.unlink(missing_ok=True)


@cache
def _clear(folder: Path) -> None:
    """Remove the parts of dead processes; once a folder."""
    with suppress(OSError):
        for entry in os.scandir(folder):
            if (match := PART.match(entry.name)) and _left_over(match, Path(entry.path)):
                with suppress(OSError):
                    Path(entry.path).unlink()


def _left_over(match: re.Match[str], part: Path) -> bool:
    if match["place"] == place() and not alive(int(match["pid"])):
        return True
    with suppress(OSError):
        return time.time() - part.stat().st_mtime > OLD_S
    return False


def alive(pid: int) -> bool:
    """Whether there is a process with that number here."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True


@cache
def place() -> str:
    """Where the numbers of processes are ours: a digest of this start of the machine and this space of processes."""
    facts = [os.uname().nodename]
    with suppress(OSError):
        facts.append(Path("/proc/sys/kernel/random/boot_id").read_text())
    with suppress(OSError):
        facts.append(str(Path("/proc/self/ns/pid").readlink()))
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:8]
