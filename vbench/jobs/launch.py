"""Runs each job in a child process of its own, forked from a server that has torch imported.

Children share no allocator, no cache and no CUDA context. However a child ends, the result is an `Ending`: a crash,
running out of memory and a time-out are results, not exceptions.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

from vbench import jobs
from vbench.errors import OutputError, UsageError
from vbench.jobs import forks, scratch
from vbench.jobs.child import LOST
from vbench.jobs.forks import GRACE_S, Child, ServerGoneError
from vbench.kernels.registry import OPS
from vbench.models.registry import MODELS

Result = TypeVar("Result")
Status = Literal["ok", "oom", "unsupported", "error", "timeout"]
PRELOAD = [
    *("vbench.jobs.child", "torch", "timm", "torch.utils.flop_counter", "vbench.sweeps.measure"),
    *sorted({row.build.partition(":")[0] for row in MODELS.values()}),
    *(f"vbench.kernels.{op}.cost" for op in OPS),
    *("vbench.flops.estimate", "vbench.flops.count", "vbench.flops.ledger", "vbench.flops.peak"),
    *("vbench.models.closed_forms", "vbench.meters.workload", "vbench.meters.timing", "vbench.meters.throughput"),
]


@dataclass(frozen=True, slots=True)
class Ending:
    """How a child ended: its status, one line of reason, and the parts that it had yielded."""

    status: Status
    reason: str | None = None
    parts: dict[str, Any] = field(default_factory=dict)


class Runner(Protocol):
    """Anything that runs jobs: a `Launcher`, a `RevisionRunner` or a `Memo`."""

    def run(self, job: str, argument: dict[str, Any], timeout_s: float) -> Ending:
        """Run one job to its end."""


START_LIMIT_S = 300.0  # for the server to import torch, once, and for a process to begin
FORK_LIMIT_S = 30.0  # for a server that has imported it to fork
LOOK_S = 0.5  # between two looks whether it has, or the launcher was left
JUNK = "the process sent {} where vbench expects its answers: its code writes to a descriptor that is not its own"
CLOSED = "the process cannot answer any more: its code has closed descriptors that are not its own"


def side_by_side(runner: Runner, asks: Sequence[jobs.Ask], timeout_s: float) -> list[Ending]:
    """The endings of jobs, in order; two children run at a time. Raises: UsageError if a job raised it."""
    return list(two_at_a_time([partial(runner.run, *ask, timeout_s) for ask in asks]))


def two_at_a_time(calls: Sequence[Callable[[], Result]]) -> Iterator[Result]:
    """The results of calls, in order, two threads at a time. After an early exit it does not wait for the others."""
    pool = ThreadPoolExecutor(2)
    try:
        yield from pool.map(lambda call: call(), calls)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


class Launcher:
    """Runs jobs, one child each. Use as a context manager; on exit it kills the children that still run.

    A job is a name of `jobs.JOBS`, or "module:function". What it has yielded is kept, however it ends.

    Raises: OutputError if there is no room for temporary files.
    """

    def __init__(self, preload: list[str] | None = None) -> None:
        self._preload = PRELOAD if preload is None else preload
        scratch.home()
        self._running: set[Child] = set()
        self._left = False

    def __enter__(self) -> Launcher:
        return self

    def __exit__(self, *_: object) -> None:
        self._left = True
        for child in list(self._running):
            child.kill()

    def renew(self) -> None:
        """Let later children come from a new server: those of one server share its layout of memory. None may run."""
        forks.end()

    def run(self, job: str, argument: dict[str, Any], timeout_s: float) -> Ending:
        """Run one job to its end, for at most `timeout_s` seconds after its child has started.

        The child has `START_LIMIT_S` to start. The job runs once more if something kills the child (signal 9) and the
        kernel's out-of-memory killer did not, or if the fork server ends or does not answer.

        Raises: UsageError if the job raised one.
        """
        ending, again = self._once(job, argument, timeout_s)
        if again and not self._left:
            ending, _ = self._once(job, argument, timeout_s)
        return ending

    def _once(self, job: str, argument: dict[str, Any], timeout_s: float) -> tuple[Ending, bool]:
        """One try: its ending, and whether that may be nothing of the job's own."""
        with ExitStack() as stack:
            try:
                temporary = stack.enter_context(scratch.folder("child"))
                child = stack.enter_context(forks.running(self._preload).fork())
            except ServerGoneError as gone:
                return Ending("error", f"no process could be started: {gone}"), True
            except OSError as error:
                return Ending("error", f"no process could be started: {error.strerror}"), False
            except OutputError as error:
                return Ending("error", f"no process could be started: {error}"), False
            self._running.add(child)
            stack.callback(self._running.discard, child)
            child.ask({**_surroundings(), "temporary": str(temporary), "job": job, "argument": argument})
            return self._follow(child, timeout_s)

    def _follow(self, child: Child, timeout_s: float) -> tuple[Ending, bool]:
        course = _Course(child, timeout_s)
        while True:
            if (found := course.ending()) is not None:
                return found
            if self._left:
                return Ending("error", "the run was left before the job had ended", course.parts), False
            limit = course.limit()
            child.hear(limit if child.pid else min(limit, time.monotonic() + LOOK_S))
            if time.monotonic() >= limit:  # what has come until now still counts
                return course.ending() or course.too_late()


class _Course:
    """How far a child has come."""

    def __init__(self, child: Child, timeout_s: float) -> None:
        self.parts: dict[str, Any] = {}
        self._child, self._timeout_s, self._kills = child, timeout_s, _oom_kills()
        self._begin = time.monotonic()
        self._ready: float | None = None  # since when its server could fork
        self._started: float | None = None  # since when the job runs

    def ending(self) -> tuple[Ending, bool] | None:
        """Its ending, and whether the job may have nothing to do with that; None if it goes on. Raises: UsageError."""
        child = self._child
        while child.messages:
            message = child.messages.popleft()
            if "started" in message:
                self._started = self._started or time.monotonic()
            elif "part" in message:
                self.parts[message["part"]] = message["value"]
            else:
                return _told(message, child, self.parts), False
        if child.junk is not None:
            return Ending("error", JUNK.format(ascii(child.junk[:40].decode(errors="replace"))), self.parts), False
        return self._crash() if child.ended else None

    def limit(self) -> float:
        """The time until which there must be an ending."""
        child, now = self._child, time.monotonic()
        limit = self._begin + START_LIMIT_S if self._started is None else self._started + self._timeout_s
        if child.pid is None:
            if self._ready is None and child.server.ready:
                self._ready = now
            limit = limit if self._ready is None else min(limit, self._ready + FORK_LIMIT_S)
        return limit if child.closed is None else min(limit, child.closed + GRACE_S)

    def too_late(self) -> tuple[Ending, bool]:
        """The ending of a child that has none at its limit. A server that is to blame is ended."""
        child = self._child
        if child.closed is not None:
            return Ending("error", CLOSED, self.parts), False
        if self._started is not None:
            return Ending("timeout", f"took longer than {self._timeout_s:g} s", self.parts), False
        if child.pid is not None:
            return Ending("timeout", f"its process did not start within {START_LIMIT_S:g} s"), False
        forks.end(child.server)
        allowed_s = START_LIMIT_S if self._ready is None else FORK_LIMIT_S
        return Ending("timeout", f"the fork server did not answer within {allowed_s:g} s"), self._ready is not None

    def _crash(self) -> tuple[Ending, bool]:
        """The ending of a child that has ended without a word."""
        child = self._child
        if child.pid is not None and child.pid < 0:
            return Ending("error", f"no process could be started: {os.strerror(-child.pid)}"), False
        if child.code is None:
            what = "no process could be started" if child.pid is None else "the process died with its server"
            return Ending("error", f"{what}: {child.server.epitaph()}", self.parts), True
        if child.code == -signal.SIGKILL and _oom_kills() > self._kills:
            return Ending("oom", "the kernel's out-of-memory killer ended the process", self.parts), False
        if child.code == LOST:
            return Ending("error", CLOSED, self.parts), False
        how = f"the process died ({forks.ended(child.code)}){child.last_words}"
        return Ending("error", how, self.parts), child.code == -signal.SIGKILL


def _surroundings() -> dict[str, Any]:
    """What a child shares with this process. A program's main module is not among it: it would run once more."""
    try:
        folder = str(Path.cwd())
    except OSError:  # somebody has removed it
        folder = None
    path = [each or folder for each in sys.path if each or folder]
    return {"path": path, "argv": (sys.argv or [""])[0], "folder": folder}


def _told(message: dict[str, Any], child: Child, parts: dict[str, Any]) -> Ending:
    """The ending that a child has sent. Raises: UsageError if it is one."""
    reason = message.get("reason")
    if message.get("exited"):
        child.hear(0.0)
        reason = f"{reason}{child.last_words}"
    if message["status"] == "usage":
        raise UsageError(reason)
    return Ending(message["status"], reason, parts)


def _oom_kills() -> int:
    """How many processes the kernel has killed for lack of memory so far, as far as this process can see."""
    total = 0
    for file in ("/proc/vmstat", "/sys/fs/cgroup/memory.events"):
        with suppress(OSError):
            for line in Path(file).read_text().splitlines():
                if line.startswith("oom_kill "):
                    total += int(line.split()[1])
    return total
