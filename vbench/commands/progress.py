"""Progress of a sweep on stderr: the cell, the time left, and the last result."""

from __future__ import annotations

import time
from dataclasses import asdict
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.progress import Progress as Bar

from vbench.plan import Case
from vbench.results.pairs import Key, PairedRatio, alike
from vbench.results.statistics import median_interval
from vbench.results.store import Record, TurnBlock
from vbench.sweep.agenda import Place, Turns


class Progress:
    """Shows the progress of a sweep; a context manager. Without a terminal it prints one line for each launch."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(bar_width=10),
            MofNCompleteColumn(),
            TextColumn("{task.fields[left]}  last: {task.fields[last]}"),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("starting", total=None, left="", last="none yet")
        self._begin = time.monotonic()
        self._weight = 0.0  # of the launches in this run; launches of an earlier run take no time
        self._launches = 0

    def __enter__(self) -> Progress:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def doing(self, what: str) -> None:
        self._bar.update(self._task, description=what)
        if not self._console.is_terminal and what.startswith("verifying"):
            self._console.print(what, markup=False)

    def done(self, record: Record, rest: list[Place | Turns]) -> None:
        case = Case(**record.case)
        number = f" (launch {record.launch + 1})" if record.launch else ""
        self._ended(f"{case}{number}: {_figure(record)}", _weight(case), rest)

    def took_turns(self, block: TurnBlock, known: dict[Key, PairedRatio], rest: list[Place | Turns]) -> None:
        cases = [Case(**case) for case in block.cases]
        text = f"in turns: {' / '.join(map(str, cases))}: {block.reason or _ratio(cases, known)}"
        self._ended(text, sum(map(_weight, cases)), rest)

    def _ended(self, text: str, weight: float, rest: list[Place | Turns]) -> None:
        self._launches += 1
        self._weight += weight
        weights = sum(sum(map(_weight, task.cases)) if isinstance(task, Turns) else _weight(task[0]) for task in rest)
        left_s = (time.monotonic() - self._begin) / self._weight * weights
        left = f"about {left_s / 60:.0f} min left" if left_s > 90 else f"about {left_s:.0f} s left"
        total = self._launches + len(rest)
        self._bar.update(self._task, completed=self._launches, total=total, left=left, last=text)
        if not self._console.is_terminal:
            self._console.print(f"[{self._launches}/{total}] {text}  ({left})", markup=False)


def _ratio(cases: list[Case], known: dict[Key, PairedRatio]) -> str:
    """The ratio of the first two cells of a block."""
    ratio = known.get((alike(asdict(cases[0])), alike(asdict(cases[1]))))
    return "" if ratio is None else f"{ratio.value:.3f}×, ±{ratio.half_width:.1%}"


def _weight(case: Case) -> float:
    """A rough weight of a launch's time. An unsupported cell takes almost none."""
    return 1e-3 if case.unsupported else 1 + 1.4 * (case.height * case.width / 2**20) ** 1.3


def _figure(record: Record) -> str:
    if record.status != "ok" or not record.latency or not record.memory:
        return f"{record.status}, {record.reason}" if record.reason else record.status
    middle, low, high, _ = median_interval(record.latency["samples_ms"])
    return f"{middle:.4g} ms [{low:.4g}, {high:.4g}], {record.memory['peak_bytes'] / 2**20:.0f} MiB"
