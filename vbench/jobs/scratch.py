"""The folder for temporary files: one a process, with its number and the time at which it started in the name.

It goes with the process. What a killed one has left, the next one removes.
"""

from __future__ import annotations

import atexit
import fcntl
import os
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from vbench.errors import OutputError

NAME = re.compile(r"vbench-(?P<pid>\d{1,18})-(?P<start>\d{1,18})")
OWNER = "owner"  # a file that the owner holds a lock on
MAKING_S = 60.0  # a folder without that file may be one that is just being made
_LOCK = threading.Lock()
_homes: dict[int, tuple[Path, int]] = {}  # of this process, and the descriptor of its lock


def home() -> Path:
    """The folder of this process, made if it is not there. Raises: OutputError."""
    with _LOCK:
        held = _homes.get(os.getpid())
        if held is not None and (held[0] / OWNER).exists():
            return held[0]
        place = Path(tempfile.gettempdir())
        path = place / f"vbench-{os.getpid()}-{start_of(os.getpid())}"
        try:
            if held is None:
                clear(place)
                atexit.register(_leave, os.getpid())
            else:  # somebody has removed it
                os.close(held[1])
            path.mkdir(mode=0o700, exist_ok=True)
            lock = os.open(path / OWNER, os.O_RDWR | os.O_CREAT, 0o600)
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise OutputError(f"{path} cannot be written: {error.strerror}; set TMPDIR to a folder that can") from None
        _homes[os.getpid()] = path, lock
        return path


@contextmanager
def folder(name: str) -> Iterator[Path]:
    """A folder within, which is removed at the end. Raises: OutputError."""
    try:
        path = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=home()))
    except OSError as error:
        raise OutputError(f"{home()} cannot be written: {error.strerror}; set TMPDIR to a folder that can") from None
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def shared(name: str) -> Path:
    """A folder that this run's processes share, made if it is not there; it goes with the run. Raises: OutputError."""
    place = Path(tempfile.gettempdir())  # a child's own lies in that of the run
    path = (place.parent if NAME.fullmatch(place.parent.name) else home()) / name
    try:
        path.mkdir(exist_ok=True)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror}; set TMPDIR to a folder that can") from None
    return path


def clear(place: Path) -> list[Path]:
    """Remove the folders in `place` whose owner has ended, if they are this user's. Returns: those."""
    found = []
    with suppress(OSError):
        for path in place.iterdir():
            name = NAME.fullmatch(path.name)
            if name and not _lives(int(name["pid"]), int(name["start"])) and _is_free(path):
                shutil.rmtree(path, ignore_errors=True)
                found.append(path)
    return found


def start_of(pid: int) -> int:
    """When a process started, in ticks since the machine did; 0 if the system does not tell, -1 if it has ended."""
    with suppress(OSError, ValueError, IndexError):
        facts = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return -1 if facts[0] in "ZX" else int(facts[19])
    return 0


def _lives(pid: int, start: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        pass
    return start_of(pid) in (0, start)


def _is_free(path: Path) -> bool:
    """Whether this user owns a folder and nobody holds its lock: another container has other numbers of processes."""
    try:
        if path.is_symlink() or not path.is_dir() or path.lstat().st_uid != os.getuid():
            return False
        lock = os.open(path / OWNER, os.O_RDWR | os.O_NOFOLLOW)
    except FileNotFoundError:
        return time.time() - path.lstat().st_mtime > MAKING_S
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(lock)
    return True


def _leave(pid: int) -> None:
    if pid == os.getpid() and pid in _homes:  # a fork of the owner has its handlers too
        path, lock = _homes.pop(pid)
        shutil.rmtree(path, ignore_errors=True)
        os.close(lock)
