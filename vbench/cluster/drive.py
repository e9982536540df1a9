"""Sends shards to a scheduler until each is measured, and joins their records; of a sweep, or of evaluations.

A shard is measured when its newest attempt says so. One whose job is gone and that is not measured is sent again, at
most `Terms.again` times; it goes on where it ended.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from vbench.cluster import folder as files
from vbench.cluster.folder import Counted, Job, State
from vbench.cluster.merge import Merged
from vbench.cluster.shard import Errand


class Work(Protocol):
    """What is done in shards: a sweep, or evaluations."""

    kind: str  # of `Errand`: what a job of it runs
    lines: tuple[str, ...]  # files of an attempt that have a line a row

    @property
    def folder(self) -> Path:
        """That has `shards`."""

    @property
    def rows(self) -> Sequence[int]:
        """How many rows each shard has."""

    @property
    def code(self) -> str:
        """A digest of the code; shards that older code has done are done again."""

    def failures(self, attempt: Path) -> bool:
        """Whether an attempt has rows that `Terms.retry` tries again."""

    def join(self) -> Merged:
        """Join what the shards have so far, in the folder of the command. Raises: OutputError."""

    def grow(self) -> str | None:
        """Add shards that follow from what is joined. Returns: what was added, in words; None if nothing was."""


class Scheduler(Protocol):
    """Who starts jobs. Each raises UsageError if the scheduler cannot be asked."""

    name: str
    poll_s: float  # how often it may be asked
    settle_s: float  # how long what a job has written may take to be seen here, after its end
    lasts: bool  # whether its jobs go on when this command ends

    @property
    def beside(self) -> str | None:
        """What runs beside a shard on its machine, in words."""

    def submit(self, errands: Sequence[Errand]) -> list[str]:
        """Send jobs. Returns: their names, in that order."""

    def alive(self, names: Collection[str]) -> dict[str, str]:
        """Those of these jobs that are not over: "running", or "waiting" and why."""

    def ended(self, name: str) -> str:
        """How a job that is over has ended, in words."""

    def cancel(self, names: Collection[str]) -> None:
        """End jobs."""

    def rest(self) -> None:
        """All shards are done: let go of what their jobs leave here."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What is not part of a plan: limits, and what is measured again."""

    timeout_s: float
    retry: bool = False
    again: int = 2  # how often a shard that did not end well is sent once more
    detach: bool = False


@dataclass(frozen=True, slots=True)
class Tally:
    """Where a work in shards stands."""

    rows: int  # launches and blocks of turns that are on the disk
    of: int  # of all, as far as is known
    shards: int
    measured: int
    running: int
    waiting: dict[str, int]  # by the reason; "" if there is none
    failed: int


class Watch(Protocol):
    """Who watches a work in shards."""

    def stands(self, tally: Tally) -> None:
        """Where it stands now."""

    def says(self, line: str) -> None:
        """Something happened."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a work in shards ended: what is joined, why shards failed, and the jobs that go on."""

    merged: Merged | None
    failed: dict[int, str] = field(default_factory=dict)
    going_on: tuple[str, ...] = ()


@dataclass(slots=True)
class _Drive:
    work: Work
    scheduler: Scheduler
    terms: Terms
    watch: Watch
    jobs: dict[int, Job] = field(init=False)
    sent: Counter[int] = field(default_factory=Counter)
    failed: dict[int, str] = field(default_factory=dict)
    gone: dict[int, float] = field(default_factory=dict)  # since when a job is seen no more
    alive: dict[int, str] = field(default_factory=dict)
    counted: Counted = field(default_factory=Counted)
    folder: Path = field(init=False)
    code: str = field(init=False)
    again: set[int] = field(default_factory=set)  # measured shards with rows to try again
    new: dict[int, str] = field(default_factory=dict)  # the jobs that this command has sent

    def __post_init__(self) -> None:
        self.folder, self.code = self.work.folder, self.work.code
        self.jobs = {
            number: job for number, job in files.read_jobs(self.folder).items() if job.on == self.scheduler.name
        }
        self.sent.update(self.jobs.keys())
        for number in range(len(self.work.rows)) if self.terms.retry else ():
            newest = files.attempts(self.folder, number)[-1:]
            if self.complete(self.state(number)) and any(map(self.work.failures, newest)):
                self.again.add(number)

    def state(self, number: int) -> State | None:
        return files.state(self.folder, number)

    def complete(self, state: State | None) -> bool:
        """Whether a shard is measured by today's code, with today's limit."""
        done = state is not None and state.ended == files.COMPLETE and state.code == self.code
        return done and state is not None and state.timeout_s >= self.terms.timeout_s

    def measured(self, number: int) -> bool:
        state = self.state(number)
        fresh = number not in self.again or (state is not None and state.job == self.new.get(number))
        return fresh and self.complete(state)

    def was_measured(self, number: int) -> bool:
        """Whether a shard was measured, be it by older code, under a shorter limit, or with failures."""
        state = self.state(number)
        return state is not None and state.ended == files.COMPLETE

    def step(self) -> bool:
        """Look at all shards, and send those that need it. Returns: whether any is still to come."""
        open_ = [n for n in range(len(self.work.rows)) if n not in self.failed and not self.measured(n)]
        jobs = {number: self.jobs[number] for number in open_ if number in self.jobs}
        seen = self.scheduler.alive([job.id for job in jobs.values()]) if jobs else {}
        self.alive = {number: seen[job.id] for number, job in jobs.items() if job.id in seen}
        to_send = [number for number in open_ if number not in self.alive and self.may_be_sent(number)]
        if to_send:
            self.send(to_send)
        self.watch.stands(self.tally())
        return any(number not in self.failed for number in open_)

    def may_be_sent(self, number: int) -> bool:
        """Whether a shard without a job is to be sent: at once, or when what its last job wrote can be seen."""
        job = self.jobs.get(number)
        if job is None or (number not in self.new and self.was_measured(number)):
            return True
        since = self.gone.setdefault(number, time.monotonic())
        if time.monotonic() - since < self.scheduler.settle_s:
            return False
        if self.measured(number):
            return False
        del self.gone[number]
        why, final = self.why(number, job)
        if final or self.sent[number] > self.terms.again:
            self.failed[number] = why
            self.watch.says(f"shard {number} is given up after {_times(self.sent[number])}: {why}")
            return False
        self.watch.says(f"shard {number} is sent again: {why}")
        return True

    def why(self, number: int, job: Job) -> tuple[str, bool]:
        """Why a shard is not measured though its job is over, and whether that would be so again."""
        state = self.state(number)
        if state is None or state.job != job.id:
            place = files.own(self.folder, number)
            return (
                f"its job {job.id} {self.scheduler.ended(job.id)} and left nothing in {place}; the folder must be on a "
                f"disk that every node shares. See {self.folder / files.SHARDS / files.LOG}",
                False,
            )
        if state.ended in (files.REFUSED, files.FAILED):
            return state.reason or state.ended, state.ended == files.REFUSED
        return f"its job {job.id} {self.scheduler.ended(job.id)}", False

    def send(self, numbers: Sequence[int]) -> None:
        terms = self.terms
        beside = self.scheduler.beside
        errands = [
            Errand(str(self.folder.absolute()), number, terms.timeout_s, terms.retry, beside, kind=self.work.kind)
            for number in numbers
        ]
        for number, name in zip(numbers, self.scheduler.submit(errands), strict=True):
            self.jobs[number] = Job(self.scheduler.name, name)
            self.sent[number] += 1
            self.new[number] = name
            self.alive[number] = "waiting"
        files.write_jobs(self.folder, self.jobs)

    def tally(self) -> Tally:
        shards = self.work.rows
        done, rows = 0, 0
        measured = 0
        for number, own_rows in enumerate(shards):
            attempt = next(reversed(files.attempts(self.folder, number)), None)
            own = sum(self.counted.lines(attempt / name) for name in self.work.lines) if attempt else 0
            state = self.state(number)
            left = max(0, own_rows - own) if state is None or state.left is None else state.left
            done, rows, measured = done + own, rows + own + left, measured + self.measured(number)
        waiting = Counter(what.removeprefix("waiting").strip() for what in self.alive.values() if what != "running")
        running = sum(what == "running" for what in self.alive.values())
        return Tally(done, rows, len(shards), measured, running, dict(waiting), len(self.failed))


def run(work: Work, scheduler: Scheduler, terms: Terms, watch: Watch) -> Outcome:
    """Do the shards of a work, add those that follow from them, and join all records.

    The caller holds the folder. On KeyboardInterrupt the jobs of a scheduler that lasts go on; all others are ended.

    Raises: UsageError if the scheduler refuses; KeyboardInterrupt after what is said above.
    """
    drive = _Drive(work, scheduler, terms, watch)
    try:
        while True:
            while drive.step():
                if terms.detach:
                    return Outcome(None, drive.failed, _names(drive))
                time.sleep(scheduler.poll_s)
            merged = work.join()
            added = None if drive.failed else work.grow()
            if added is None:
                scheduler.rest()
                return Outcome(merged, drive.failed)
            watch.says(added)
    except BaseException as error:
        names = " ".join(_names(drive))
        if isinstance(error, KeyboardInterrupt):
            watch.says("interrupted; the records so far are kept. Run the same command again to resume")
        if not scheduler.lasts:
            scheduler.cancel(_names(drive))
        elif names:
            watch.says(f"the jobs go on: the same command attaches to them, and 'scancel {names}' ends them")
        raise


def _names(drive: _Drive) -> tuple[str, ...]:
    return tuple(drive.jobs[number].id for number in sorted(drive.alive))


def _times(count: int) -> str:
    return "one job" if count == 1 else f"{count} jobs"
