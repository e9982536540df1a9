"""What the CPU did during a measurement: other processes, clocks, limits."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from math import inf
from pathlib import Path
from time import monotonic, process_time
from types import TracebackType
from typing import Any

import psutil

ROOT = Path("/")


class CpuWatch:
    """Sees what the processors do for this process and for others. Use as a context manager.

    After leaving, `seen` is JSON-able: `wall_s`; `cpu_s`, processor time of this process, all threads; `threads`, as
    given; `cores` of the machine and `usable_cores`; `others_busy_share` and `stolen_share`, the shares of processor
    time that other processes and a hypervisor took; `load_1min_before` and `load_1min_after`;
    `voluntary_switches` and `involuntary_switches` of this process; `cgroup_throttled_s`, for how long a quota held the
    groups of this process back, summed over them; `thermal_throttle_events`; `cpu_mhz`. A value that cannot be known is
    None, and `unknown` gives the reason, by name.
    """

    def __init__(self, threads: int, *, root: Path = ROOT) -> None:
        self._threads, self._root = threads, root
        self.seen: dict[str, Any] = {}

    def __enter__(self) -> CpuWatch:
        self._begin = _counters(self._root)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        begin, end = self._begin, _counters(self._root)

        def grew(key: str) -> Any:
            return None if begin[key] is None or end[key] is None else end[key] - begin[key]

        cores = os.cpu_count() or 1
        wall, own, stolen = grew("wall_s"), grew("cpu_s"), grew("steal_s")
        seen = {
            "wall_s": wall,
            "cpu_s": own,
            "threads": self._threads,
            "cores": cores,
            "usable_cores": usable_cores(),
            "others_busy_share": min(1.0, max(0.0, grew("busy_s") - own) / (wall * cores)),
            "stolen_share": None if stolen is None else min(1.0, max(0.0, stolen) / (wall * cores)),
            "load_1min_before": begin["load_1min"],
            "load_1min_after": end["load_1min"],
            "voluntary_switches": grew("voluntary"),
            "involuntary_switches": grew("involuntary"),
            "cgroup_throttled_s": grew("throttled_s"),
            "thermal_throttle_events": grew("thermal"),
            "cpu_mhz": _mhz(),
        }
        why = {
            "stolen_share": "this system does not count it",
            "cgroup_throttled_s": "no control group of this process counts it",
            "thermal_throttle_events": "the processor does not tell",
            "cpu_mhz": "the processor does not tell",
        }
        self.seen = {**seen, "unknown": {key: reason for key, reason in why.items() if seen[key] is None}}


def _counters(root: Path) -> dict[str, Any]:
    """Counters that only grow, and the load."""
    times, used = psutil.cpu_times(), resource.getrusage(resource.RUSAGE_SELF)
    return {
        "wall_s": monotonic(),
        "cpu_s": process_time(),
        "busy_s": sum(getattr(times, name, 0.0) for name in ("user", "nice", "system", "irq", "softirq")),
        "steal_s": getattr(times, "steal", None),
        "load_1min": os.getloadavg()[0],
        "voluntary": used.ru_nvcsw,
        "involuntary": used.ru_nivcsw,
        "throttled_s": cgroup_throttled_s(root),
        "thermal": _thermal_events(root),
    }


def usable_cores() -> int:
    """How many cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _mhz() -> float | None:
    now = psutil.cpu_freq()
    return now.current if now and now.current else None


def _thermal_events(root: Path) -> int | None:
    counts = [_number(file) for file in root.glob("sys/devices/system/cpu/cpu[0-9]*/thermal_throttle/*_throttle_count")]
    known = [count for count in counts if count is not None]
    return sum(known) if known else None


def _number(file: Path) -> int | None:
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return None


def cgroup_throttled_s(root: Path = ROOT) -> float | None:
    """For how many seconds so far quotas held this process's control groups back; None if no group counts it.

    Source: cpu.stat, `throttled_usec` (version 2) or `throttled_time` in ns (version 1).
    """
    units = {"throttled_usec": 1e6, "throttled_time": 1e9}
    waits = []
    for folder in _cgroups(root):
        try:
            lines = (folder / "cpu.stat").read_text().splitlines()
        except OSError:
            continue
        waits += [int(value) / units[key] for key, value in map(str.split, lines) if key in units]
    return sum(waits) if waits else None


def cgroup_quota_cores(root: Path = ROOT) -> float | None:
    """How many cores' time the control groups allow: `inf` without a quota, None if no group can be read.

    Source: cpu.max (version 2), or cpu.cfs_quota_us and cpu.cfs_period_us (version 1).
    """
    quotas = []
    for folder in _cgroups(root):
        try:
            quota, period = (folder / "cpu.max").read_text().split()
        except (OSError, ValueError):
            whole, slices = _number(folder / "cpu.cfs_quota_us"), _number(folder / "cpu.cfs_period_us")
            if whole is None or not slices:
                continue
            quota, period = "max" if whole < 0 else str(whole), str(slices)
        quotas.append(inf if quota == "max" else int(quota) / int(period))
    return min(quotas, default=None)


def _cgroups(root: Path) -> Iterator[Path]:
    """The folders of this process's control groups, up to the topmost that can be seen."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, inside = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        mount = root / "sys/fs/cgroup" / ("cpu" if controllers else "")
        here = mount / inside.lstrip("/")
        while mount in here.parents:
            yield here
            here = here.parent
        yield mount
