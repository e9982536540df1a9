"""The memory of this process: what the kernel says of it, what it may take, and what the C allocator does with it."""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import sys
import threading
from bisect import bisect
from collections.abc import Iterable, Sequence
from contextlib import suppress
from itertools import islice, takewhile
from pathlib import Path

_STATUS = Path("/proc/self/status")
_SMAPS = Path("/proc/self/smaps")
_MAPS = Path("/proc/self/maps")
_STATM = Path("/proc/self/statm")
PERIOD_S = 0.001  # between samples of the resident set
STACK_BYTES = 2**18  # of the thread that takes them; the usual 8 MiB would count under a limit on memory


def status_bytes(name: str) -> int | None:
    """A size that the kernel tells of this process, such as VmData; None if it does not (not Linux)."""
    with suppress(OSError):
        for line in _STATUS.read_text().splitlines():
            if line.startswith(name + ":"):
                return int(line.split()[1]) * 1024
    return None


def reset_peak() -> bool:
    """Forget the peak so far; False if the system cannot."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def peak_bytes() -> int:
    """The peak resident set of the whole process, libraries included."""
    peak = status_bytes("VmHWM")
    if peak is not None:
        return peak
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def backed_bytes() -> int:
    """What is resident of files and of shared memory: libraries, and what is mapped from elsewhere."""
    return (status_bytes("RssFile") or 0) + (status_bytes("RssShmem") or 0)


class AnonymousPeak:
    """The most of this process's own memory, without files and shared memory, that a thread saw until `stop`.

    It looks every `PERIOD_S`, while Python lets it: what lasts shorter may be missed. Where the system tells
    nothing it sees nothing.
    """

    def __init__(self) -> None:
        self._done, self._most = threading.Event(), 0
        self._thread = threading.Thread(target=self._look, daemon=True)
        if _STATM.exists():
            usual = threading.stack_size(STACK_BYTES)
            try:
                self._thread.start()
            finally:
                threading.stack_size(usual)

    def _look(self) -> None:
        page = resource.getpagesize()
        file = os.open(_STATM, os.O_RDONLY)
        try:
            while not self._done.wait(PERIOD_S):
                _, resident, backed, *_ = map(int, os.pread(file, 256, 0).split())
                self._most = max(self._most, (resident - backed) * page)
        finally:
            os.close(file)

    def stop(self) -> int | None:
        """End the thread. Returns: the most that it saw, in bytes; None if it saw nothing."""
        self._done.set()
        if self._thread.ident is not None:
            self._thread.join()
        return self._most or None


def mapped_bytes(places: Iterable[tuple[int, int]]) -> int:
    """How much of these places in memory is no memory of the process's own: mapped files, and shared memory.

    Pages of a private mapping that were written to are the process's own.

    Args:
        places: (address, bytes) of each, none twice.
    """
    wanted, found, overlap = sorted(places), 0, 0
    with suppress(OSError):
        if not any(_overlap(line, wanted) for line in _MAPS.read_text().splitlines()):
            return 0  # without the second file, for which the kernel walks through every page
        for line in _SMAPS.read_text().splitlines():
            head, *rest = line.split(maxsplit=2)
            if not head.endswith(":"):
                overlap = _overlap(line, wanted)
            elif overlap and head == "Anonymous:":
                found, overlap = found + max(0, overlap - int(rest[0]) * 1024), 0
    return found


def file_bytes(*folders: Path) -> int:
    """What is resident of files in these folders, mapped in by this process, without pages that were written to."""
    found, within = 0, False
    begin = tuple(f"{folder.resolve()}/" for folder in folders)
    with suppress(OSError):
        for line in _SMAPS.read_text().splitlines():
            head, *rest = line.split(maxsplit=5)
            if not head.endswith(":"):
                within = len(rest) == 5 and rest[4].startswith(begin)
            elif within and head in ("Rss:", "Anonymous:"):
                found += int(rest[0]) * (1024 if head == "Rss:" else -1024)
    return found


def _overlap(line: str, places: Sequence[tuple[int, int]]) -> int:
    """The bytes of these sorted places that the mapping of this line has, if it is of a file or of shared memory."""
    addresses, *rest = line.split(maxsplit=5)
    if len(rest) < 5 or rest[4].startswith("["):
        return 0
    begin, end = (int(each, 16) for each in addresses.split("-"))
    first = max(0, bisect(places, (begin, 0)) - 1)  # what begins before may reach into it
    within = takewhile(lambda place: place[0] < end, islice(places, first, None))
    return sum(max(0, min(end, at + size) - max(begin, at)) for at, size in within)


def lift_limit() -> None:
    """Take the limit on this process's memory away again, as far as the system allows."""
    _, most = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))


def hand_back() -> bool:
    """Have the C allocator return every block from 64 KiB up as it is freed; True if it can be told (glibc).

    By default glibc raises that size to that of the largest block it has seen freed, up to 32 MiB. What is freed
    below it stays resident as holes. What is handed back must be fetched again, zeroed page by page: a pass of many
    temporaries takes up to twice as long. Time nothing before `keep_freed`.
    """
    m_mmap_threshold = -3
    return _mallopt({m_mmap_threshold: 2**16})


def keep_freed() -> bool:
    """Let the C allocator keep what is freed, as CUDA's does; True if it can be told (glibc).

    By default glibc returns large blocks to the kernel and fetches them back, zeroed page by page, at the
    next pass: at 2048 px a quarter of a model's time, and none of its work.
    """
    m_trim_threshold, m_mmap_max = -1, -4
    return _mallopt({m_mmap_max: 0, m_trim_threshold: 2**31 - 1})


def trim() -> None:
    """Have the C allocator return what lies free between blocks in use (glibc); nothing is timed right after."""
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)


def _mallopt(options: dict[int, int]) -> bool:
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return all(bool(mallopt(option, value)) for option, value in options.items())
