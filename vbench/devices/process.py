"""The memory of this process: what the kernel says of it, what it may take, and what the C allocator does with it."""

from __future__ import annotations

import ctypes
import platform
import resource
import sys
from contextlib import suppress
from pathlib import Path

_STATUS = Path("/proc/self/status")


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


def _mallopt(options: dict[int, int]) -> bool:
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return all(bool(mallopt(option, value)) for option, value in options.items())
