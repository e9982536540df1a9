"""A long sweep of tiny cells through the real launcher: memory, handles and time a cell of the parent must stay flat.

`python tests/soak.py` measures 2,000 cells, each in a process of its own, and takes some minutes of one core. Every
seventh cell fails: its model refuses the size, or its process dies. It prints a line every hundred cells, and ends with
1 if a slope is above its bound.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import psutil
from fakes import make_record
from test_sweep import FakeLauncher, Silent

from vbench.files import write_text
from vbench.jobs.launch import Ending, Launcher
from vbench.plan import Case, Protocol, Sweep, plan
from vbench.reports.write import filled
from vbench.results.store import Record
from vbench.sweeps import loop as sweeping
from vbench.sweeps.rest import Rest

EVERY = 100  # cells between two lines
FAILS = 7  # of so many cells one fails
KEPT = ("memory", "warmup", "latency", "throughput", "state", "spent")  # parts of a launch
# From the 100th cell to the last: bytes of memory a cell (a record is kept, and is some 16 KiB); how many more handles,
# threads, children and files there may be at all; and by what factor a cell's CPU time of the parent may grow.
MOST_BYTES, MOST_MORE, MOST_FACTOR = 40_960, 8, 1.5


class Real:
    """Runs each launch in a real child of a real launcher, as a bare job; answers all else in this process."""

    def __init__(self, launcher: Launcher, parts: Path) -> None:
        self._launcher, self._rest, self._parts = launcher, FakeLauncher(), parts
        self._count = 0

    def run(self, job: str, argument: dict[str, Any], timeout_s: float) -> Ending:
        if job != "measure":
            return self._rest.run(job, argument, timeout_s)
        self._count += 1
        name = "measure" if self._count % FAILS else ("refuses", "dies")[self._count // FAILS % 2]
        given = {"parts": str(self._parts), "side": argument["case"]["height"]}
        return self._launcher.run(f"soak_jobs:{name}", given, timeout_s)


class Watch(Silent):
    """Notes every hundred cells what this process holds."""

    def __init__(self, temporary: Path) -> None:
        super().__init__()
        self.rows: list[dict[str, float]] = []
        self._me, self._temporary, self._cells = psutil.Process(), temporary, 0
        self._cpu_s, self._wall_s = time.process_time(), time.monotonic()

    def done(self, record: Record, rest: Rest) -> None:
        self.heard.clear()
        self._cells += 1
        if self._cells % EVERY:
            return
        gc.collect()
        cpu_s, wall_s = time.process_time(), time.monotonic()
        row = {
            "cells": self._cells,
            "rss_mib": self._me.memory_info().rss / 2**20,
            "handles": self._me.num_fds(),
            "threads": threading.active_count(),
            "children": len(self._me.children(recursive=True)),
            "files": sum(len(files) for _, _, files in os.walk(self._temporary)),
            "cpu_ms": (cpu_s - self._cpu_s) / EVERY * 1e3,
            "wall_ms": (wall_s - self._wall_s) / EVERY * 1e3,
        }
        self.rows.append(row)
        if len(self.rows) == 1:
            sys.stdout.write("".join(f"{name:>10}" for name in row) + "\n")
        sys.stdout.write("".join(f"{value:10.1f}" for value in row.values()) + "\n")
        sys.stdout.flush()
        self._cpu_s, self._wall_s = time.process_time(), time.monotonic()


def soak(count: int, folder: Path) -> list[dict[str, float]]:
    """Measure so many cells; returns the lines."""
    temporary = folder / "tmp"
    temporary.mkdir()
    tempfile.tempdir = os.environ["TMPDIR"] = str(temporary)
    sizes = tuple((height, width) for height in range(32, 1632, 32) for width in range(32, 32 * (count // 50 + 2), 32))
    cases = plan(Sweep(("deit_t",), sizes, ("parallel",), (1,)))[:count]
    made_up, parts = make_record("deit_t"), folder / "parts.json"
    parts.write_text(json.dumps({key: getattr(made_up, key) for key in KEPT}))
    settings = sweeping.Settings(folder / "run", "cpu", memory=folder / "memory", pairs="none")
    watch = Watch(temporary)
    with Launcher(preload=["vbench.jobs.launch", "soak_jobs"]) as launcher:
        records = sweeping.run(cases, settings, Protocol(launches=1), Real(launcher, parts), watch)
    failed = [record for record in records if record.status == "error"]
    assert len(records) == len(cases) == len({Case(**record.case).id for record in records})
    assert len(failed) == len(cases) // FAILS
    return watch.rows


def grown_bytes(rows: list[dict[str, float]]) -> float:
    """Of memory, a cell."""
    first, last = rows[0], rows[-1]
    return (last["rss_mib"] - first["rss_mib"]) * 2**20 / (last["cells"] - first["cells"])


def cpu_ms(rows: list[dict[str, float]]) -> tuple[float, float]:
    """The median time of a cell in the first and in the last third."""
    third = max(1, len(rows) // 3)
    early, late = (sorted(row["cpu_ms"] for row in part)[third // 2] for part in (rows[:third], rows[-third:]))
    return early, late


def told(rows: list[dict[str, float]]) -> str:
    """The figures of a page, in a sentence."""
    first, last, (early, late) = rows[0], rows[-1], cpu_ms(rows)
    most = {name: max(row[name] for row in rows) for name in ("handles", "threads", "children")}
    return (
        f"On {os.cpu_count()} cores, from cell {first['cells']:,.0f} to {last['cells']:,.0f}, the sweep's process grew "
        f"by {grown_bytes(rows) / 1024:.1f} KiB a cell\n(its records), held at most {most['handles']:.0f} handles, "
        f"{most['threads']:.0f} threads and {most['children']:.0f} children, and took {early:.1f} ms of CPU time\n"
        f"a cell at first and {late:.1f} ms at last."
    )


def slopes(rows: list[dict[str, float]]) -> list[str]:
    """What grows, in sentences; empty if all is flat."""
    first, last, said = rows[0], rows[-1], []
    cells, grown = last["cells"] - first["cells"], grown_bytes(rows)
    if grown > MOST_BYTES:
        said.append(f"memory grows by {grown / 1024:.1f} KiB a cell, more than {MOST_BYTES / 1024:.0f}")
    said += [
        f"{name}: {more:.0f} more after {cells:.0f} cells, more than {MOST_MORE}"
        for name in ("handles", "threads", "children", "files")
        if (more := last[name] - first[name]) > MOST_MORE
    ]
    early, late = cpu_ms(rows)
    if late > MOST_FACTOR * early:
        said.append(f"a cell takes {late:.1f} ms of CPU time, and {early:.1f} at first: more than {MOST_FACTOR} times")
    sys.stdout.write(f"{grown / 1024:.1f} KiB a cell; CPU time a cell {early:.1f} ms at first, {late:.1f} ms at last\n")
    return said


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=int, default=2000)
    parser.add_argument("--page", type=Path, help="write the figures into this page, if all is flat")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="vbench-soak-", ignore_cleanup_errors=True) as folder:
        rows = soak(asked.cells, Path(folder))
    found = slopes(rows)
    sys.stdout.writelines(f"NOT FLAT: {line}\n" for line in found)
    if asked.page and not found:
        write_text(asked.page, filled(asked.page.read_text(encoding="utf-8"), "soak", told(rows)))
    return 1 if found else 0


if __name__ == "__main__":
    raise SystemExit(main())
