"""Progress of a sweep on stderr: what it does, the time left, and the last result."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from math import inf, isfinite
from time import monotonic
from types import TracebackType

from rich.console import RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, TextColumn
from rich.progress import Progress as Live
from rich.progress import Task as Row
from rich.table import Column
from rich.text import Text

from vbench.commands.console import Terminal
from vbench.plan import Case, Protocol
from vbench.results.pairs import Key, PairedRatio, alike
from vbench.results.statistics import median_interval
from vbench.results.store import Record, TurnBlock
from vbench.results.text import tame
from vbench.sweeps.prepare import Task
from vbench.sweeps.rest import PROCESS_S, Rest, guess_s

SILENT_S = 3.0  # a thing that takes longer says for how long it has been going on


class _Since(ProgressColumn):
    """The seconds since the thing that is shown began: they move, whatever else stands still."""

    def render(self, task: Row) -> Text:
        seconds = monotonic() - task.fields["since"]
        return Text(f"for {seconds:.0f} s now" if seconds >= SILENT_S else "")


class _Bar(Live):
    """A line with the bar, the counts and the time left; under it what is being done, and the last result. A narrow
    terminal wraps these two."""

    def get_renderables(self) -> Iterable[RenderableType]:
        yield self.make_tasks_table(self.tasks)
        for task in self.tasks:
            yield Text(f"now:  {task.description}")
            yield Text(f"last: {task.fields['last']}")


class Progress:
    """Shows the progress of a sweep; a context manager. Without a terminal it prints a line for each task and launch.

    A cell that cannot be measured is no progress: its row is shown, and not counted.

    The time left is that of the tasks, as they were guessed, and of the launches: by the protocol at first, then as
    much longer or shorter as the launches so far were.
    """

    def __init__(self, console: Terminal, deadline: float | None = None) -> None:
        """`deadline`: a time of `monotonic` at which the sweep is over."""
        self._console = console
        self._deadline = deadline
        self._bar = _Bar(
            BarColumn(bar_width=10),
            MofNCompleteColumn(table_column=Column(no_wrap=True)),
            TextColumn("{task.fields[left]}", markup=False, table_column=Column(no_wrap=True)),
            _Since(table_column=Column(no_wrap=True)),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("starting", total=None, left="", last="none yet", since=monotonic())
        self._protocol = Protocol()
        self._tasks: list[Task] = []
        self._rest = Rest()
        self._sums_s = {True: (0.0, 0.0), False: (0.0, 0.0)}  # of first launches, of others: guessed, taken
        self._launches = 0  # launches of an earlier run take no time

    def __enter__(self) -> Progress:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def planned(self, rest: Rest, tasks: list[Task], protocol: Protocol) -> None:
        """Show how many launches there are, and how long all will take."""
        self._rest, self._tasks, self._protocol = rest, tasks, protocol
        self._bar.update(self._task, completed=0, total=len(rest), left=self._left(0))

    def prepares(self, number: int) -> None:
        """Show a task with its number, beside the launches that wait for it."""
        what, left = tame(f"{self._tasks[number]} {number + 1}/{len(self._tasks)}"), self._left(number)
        self._bar.update(self._task, description=what, left=left, since=monotonic())
        if not self._console.is_terminal:
            self._console.print(f"[{self._launches}/{self._launches + len(self._rest)}] {what}  ({left})")

    def doing(self, what: str) -> None:
        """Show what is measured."""
        self._bar.update(self._task, description=tame(what), since=monotonic())

    def done(self, record: Record, rest: Rest) -> None:
        """Show the figure of a launch, and the time that is left now."""
        case, first = Case(**record.case), record.launch == 0
        measured = record.status != "unsupported"
        if measured:
            guessed, taken = self._sums_s[first]
            self._sums_s[first] = guessed + guess_s(case, record.launch, self._protocol), taken + _taken_s(record)
        number = "" if first else f" (launch {record.launch + 1})"
        self._ended(f"{case}{number}: {_figure(record)}", rest, measured=measured)

    def took_turns(self, block: TurnBlock, known: dict[Key, PairedRatio], rest: Rest) -> None:
        """Show the ratios of the cells of a block, and the time that is left now."""
        cases = sorted((Case(**case) for case in block.cases), key=lambda case: not case.spec.baseline)
        self._ended(f"in turns: {block.reason or _ratios(cases, known)}", rest)

    def stopped(self, wishes: list[str]) -> None:
        """Say what more time would buy."""
        for wish in wishes or ["all is as well known as was asked for"]:
            self._console.print(f"the time is over: {wish}")

    def _ended(self, text: str, rest: Rest, *, measured: bool = True) -> None:
        text = tame(text)
        self._launches += measured
        self._rest = rest
        left = self._left(len(self._tasks))
        total = self._launches + len(rest)
        now = monotonic()
        self._bar.update(self._task, completed=self._launches, total=total, left=left, last=text, since=now)
        if not self._console.is_terminal:
            self._console.print(f"[{self._launches}/{total}] {text}  ({left})")

    def _left(self, tasks_done: int) -> str:
        first, later = self._factor(first=True), self._factor(first=False)
        rest = self._rest
        launches_s = max(0.0, rest.first_s * first + rest.later_s * later + rest.turns_s)
        left_s = launches_s + sum(task.seconds for task in self._tasks[tasks_done:])
        allowed_s = inf if self._deadline is None else max(0.0, self._deadline - monotonic())
        about, left_s = ("about", left_s) if left_s <= allowed_s else ("at most", allowed_s)
        return f"{about} {left_s / 60:.0f} min left" if left_s > 90 else f"{about} {left_s:.0f} s left"

    def _factor(self, *, first: bool) -> float:
        """How much longer launches took than they were guessed; of first ones alone, as long as there are no others."""
        guessed, taken = self._sums_s[first] if self._sums_s[first][0] else self._sums_s[True]
        return taken / guessed if guessed else 1.0


def _ratios(cases: list[Case], known: dict[Key, PairedRatio]) -> str:
    """The ratios of the cells of a block to its first."""
    base, *others = cases
    said = []
    for case in others:
        ratio = known.get((alike(asdict(case)), alike(asdict(base))))
        if ratio is not None:
            width = f" ±{ratio.half_width:.1%}" if isfinite(ratio.half_width) else ""
            said.append(f"{case} {ratio.value:.3f}×{width}")
    return f"{', '.join(said)} of {base}"


def _taken_s(record: Record) -> float:
    """The seconds of a launch, without the wait for torch to be imported, which the first one of a run has."""
    if not record.spent:
        return record.wall_s
    energy_s = float((record.energy or {}).get("wall_s", 0.0))
    return PROCESS_S + float(record.spent["measured_s"]) + float(record.spent["warmup_s"]) + energy_s


def _figure(record: Record) -> str:
    if record.status != "ok":
        return f"{record.status}, {record.reason}" if record.reason else record.status
    said = []
    if record.latency and record.latency["samples_ms"]:
        middle, low, high, _ = median_interval(record.latency["samples_ms"])
        said.append(f"{middle:.4g} ms [{low:.4g}, {high:.4g}]")
    if record.memory:
        said.append(f"{record.memory['peak_bytes'] / 2**20:.0f} MiB")
    return ", ".join(said or ["ok"])
