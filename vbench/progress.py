"""Progress of a sweep on stderr: the cell, an estimate of the time left, the last figure."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.progress import Progress as Bar

from vbench.plan import Case
from vbench.results.frame import median_interval
from vbench.results.store import Record


class Progress:
    """Use as a context manager; call `update` after each cell. Off a terminal it prints a line a cell."""

    def __init__(self, cases: list[Case], console: Console) -> None:
        self._cases, self._console = cases, console
        self._bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(bar_width=10),
            MofNCompleteColumn(),
            TextColumn("{task.fields[left]}  last: {task.fields[last]}"),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task(str(cases[0]), total=len(cases), left="", last="none yet")
        self._begin = time.monotonic()
        self._done = 0.0  # weight of the cells measured now; resumed ones took no time

    def __enter__(self) -> Progress:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def update(self, number: int, record: Record) -> None:
        """`number` of the plan's cells are done; `record` is the last one's."""
        last, rest = self._cases[number - 1], self._cases[number:]
        self._done += _weight(last)
        left_s = (time.monotonic() - self._begin) / self._done * sum(map(_weight, rest))
        left = f"about {left_s / 60:.0f} min left" if left_s > 90 else f"about {left_s:.0f} s left"
        text = f"{last}: {_figure(record)}"
        self._bar.update(
            self._task, completed=number, description=str(rest[0]) if rest else "done", left=left, last=text
        )
        if not self._console.is_terminal:
            self._console.print(f"[{number}/{len(self._cases)}] {text}  ({left})", markup=False)


def _weight(case: Case) -> float:
    """A guess at a cell's share of the time; cells that cannot exist take none."""
    return 0.0 if case.unsupported else 1 + 1.4 * (case.height * case.width / 2**20) ** 1.3


def _figure(record: Record) -> str:
    if record.status != "ok" or not record.latency or not record.memory:
        return f"{record.status}, {record.reason}" if record.reason else record.status
    middle, low, high, _ = median_interval(record.latency["samples_ms"])
    return f"{middle:.4g} ms [{low:.4g}, {high:.4g}], {record.memory['peak_bytes'] / 2**20:.0f} MiB"
