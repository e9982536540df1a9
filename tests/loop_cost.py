"""What the loop of a sweep costs by itself: its CPU time a cell must not grow with the number of cells.

`python tests/loop_cost.py 1000 10000` prints a line for each number; it takes a few minutes.
"""

from __future__ import annotations

import argparse
import io
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from test_sweep import FakeLauncher

from vbench.commands.progress import Progress
from vbench.files import write_text
from vbench.flops.estimate import Estimate
from vbench.jobs.launch import Ending
from vbench.plan import Case, Protocol, Sweep, plan
from vbench.reports.grid import pipes
from vbench.reports.write import filled
from vbench.results import store
from vbench.sweeps import loop as sweeping
from vbench.sweeps.companies import companies
from vbench.sweeps.rehearse import rehearse
from vbench.sweeps.turns import Taken

PROTOCOL = Protocol(launches=2, turns_s=0.05, rounds=5, company_s=0.0)


def cells(count: int) -> list[Case]:
    """So many cells that can be measured: two models, one in two modes, at many sizes."""
    sizes = tuple((side, side) for side in range(32, 32 + 32 * (count // 3 + 1), 32) if side <= 65_536)
    widths = tuple((height, width) for height, _ in sizes[:60] for width in range(32, 32 + 32 * (count // 150 + 1), 32))
    found = plan(Sweep(("vig_t", "deit_t"), tuple(dict.fromkeys([*sizes, *widths]))))
    return [case for case in found if not case.unsupported][:count]


class Quick(FakeLauncher):
    """Answers at once. Its blocks of turns take no processes: see `quick_turns`."""

    def run(self, job: str, argument: dict[str, Any], timeout_s: float) -> Ending:
        ending = super().run(job, argument, timeout_s)
        if job == "measure":
            self.measured.clear()
            ending.parts["latency"] = {**ending.parts["latency"], "samples_ms": [1.0, 1.1, 0.9, 1.0, 1.05]}
        return ending


def quick_turns(turns: Any, protocol: Protocol, *_: Any, **__: Any) -> Taken:
    latency = {"batch": 1, "samples_ms": [1.0] * 5, "throttled": None, "host_ms": None}
    ending = Ending("ok", None, {"latency": latency, "spent": {"measured_s": 0.1, "warmup_s": 0.1}})
    samples = [[1.0 + 0.01 * ((place * 7 + turn * 3) % 5) for turn in range(5)] for place in range(len(turns.cases))]
    return Taken([ending] * len(turns.cases), samples, [1] * len(turns.cases), "5 rounds")


def cost(count: int, *, pairs: str, budget: bool = False) -> tuple[float, int]:
    """The seconds of CPU time of a sweep of so many cells, and its launches and blocks."""
    cases, console = cells(count), Console(file=io.StringIO(), width=200)
    sweeping.table.take = quick_turns  # type: ignore[assignment]
    store.os.fsync = lambda _: None  # type: ignore[assignment]  # the disk's time is not the loop's
    with tempfile.TemporaryDirectory() as folder:
        deadline = time.monotonic() + 1e9 if budget else None
        settings = sweeping.Settings(Path(folder), "cpu", memory=Path(folder) / "m", pairs=pairs, deadline=deadline)
        begin = time.process_time()
        with Progress(console) as progress:
            records = sweeping.run(cases, settings, PROTOCOL, Quick(), progress)
        return time.process_time() - begin, len(records) + len(store.read_turns(Path(folder)))


def cost_of_rehearsal(count: int, budget_s: float | None) -> tuple[float, int]:
    cases = cells(count)
    guesses = {case: Estimate(0.01 * (1 + n % 7), 2.0, 1.5, 10**8) for n, case in enumerate(cases)}
    together = companies(cases)
    begin = time.process_time()
    found = rehearse(guesses, together, replace(PROTOCOL, launches=4), budget_s)
    return time.process_time() - begin, sum(found.launches.values()) + found.blocks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("counts", nargs="*", type=int, default=[1000, 10_000])
    parser.add_argument("--page", type=Path, help="write the figures into this page")
    asked, costs = parser.parse_args(), dict[str, list[str]]()
    ways = {
        "sweep": lambda count: cost(count, pairs="none"),
        "sweep in turns": lambda count: cost(count, pairs="auto"),
        "sweep with a budget": lambda count: cost(count, pairs="none", budget=True),
        "rehearsal": lambda count: cost_of_rehearsal(count, None),
        "rehearsal with a budget": lambda count: cost_of_rehearsal(count, 20.0 * count),
    }
    for name, way in ways.items():
        for count in asked.counts:
            seconds, steps = way(count)
            each = f"{seconds / count * 1e3:.2f} ms a cell"
            sys.stdout.write(f"{name:24} {count:6} cells {steps:6} steps {seconds:8.1f} s {each}\n")
            costs.setdefault(name, []).append(f"{seconds / count * 1e3:.1f} ms")
    if asked.page:
        heads = [f"{count:,} cells" for count in asked.counts]
        lines = pipes(["CPU time a cell", *heads], [[name, *costs[name]] for name in ways], heads)
        write_text(asked.page, filled(asked.page.read_text(encoding="utf-8"), "loop", "\n".join(lines)))


if __name__ == "__main__":
    main()
