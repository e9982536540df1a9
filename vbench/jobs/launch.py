"""Runs each job in a child process of its own, forked from a server that has torch imported.

Children share no allocator, no cache and no CUDA context. However a child ends, the result is an `Ending`: a crash,
running out of memory and a time-out are results, not exceptions.
"""

from __future__ import annotations

import gc
import json
import multiprocessing
import os
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from itertools import count
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, Protocol, TypeVar

from vbench import jobs
from vbench.devices import is_out_of_memory
from vbench.errors import UnsupportedError, UsageError, first_line
from vbench.kernels.registry import OPS
from vbench.models.registry import MODELS

Result = TypeVar("Result")
Status = Literal["ok", "oom", "unsupported", "error", "timeout"]
Job = Callable[[dict[str, Any]], Iterator[tuple[str, Any]]]
PRELOAD = [
    *("torch", "timm", "torch.utils.flop_counter", "vbench.sweeps.measure"),
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


START_LIMIT_S = 300.0  # for the server to import torch, once, and to fork a child
_STARTING = threading.Lock()  # one server for all, and one environment


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
    """

    def __init__(self, preload: list[str] | None = None) -> None:
        self._context = multiprocessing.get_context("forkserver")
        self._preload = PRELOAD if preload is None else preload
        self._context.set_forkserver_preload(self._preload)
        self._folder = tempfile.TemporaryDirectory(prefix="vbench-")
        self._numbers = count()
        self._running: set[BaseProcess] = set()
        self._left = False

    def __enter__(self) -> Launcher:
        return self

    def __exit__(self, *_: object) -> None:
        self._left = True
        for child in list(self._running):
            child.kill()
        self._folder.cleanup()

    def renew(self) -> None:
        """Let later children come from a new server: those of one server share its layout of memory. None may run."""
        with _STARTING:
            _end_server()
            self._context.set_forkserver_preload(self._preload)

    def run(self, job: str, argument: dict[str, Any], timeout_s: float) -> Ending:
        """Run one job to its end, for at most `timeout_s` seconds after its child has started.

        If something kills the child (signal 9) and the kernel's out-of-memory killer did not, the job runs once more.

        Raises: UsageError if the job raised one.
        """
        ending, killed = self._once(job, argument, timeout_s)
        if killed and not self._left:
            ending, _ = self._once(job, argument, timeout_s)
        return ending

    def _once(self, job: str, argument: dict[str, Any], timeout_s: float) -> tuple[Ending, bool]:
        log = Path(self._folder.name) / f"child-{next(self._numbers)}.log"
        log.write_bytes(b"")
        ours, theirs = self._context.Pipe(duplex=False)
        child = self._context.Process(target=_child, args=(theirs, job, argument, str(log)), daemon=True)
        kills = _oom_kills()
        with _STARTING, _without_main():
            _start_server()
            deadline = time.monotonic() + START_LIMIT_S
            child.start()
        self._running.add(child)
        if self._left:  # __exit__ ran while the child started
            child.kill()
        theirs.close()
        parts: dict[str, Any] = {}
        try:
            while ours.poll(max(0.0, deadline - time.monotonic())):
                try:
                    message = json.loads(ours.recv_bytes())
                except (EOFError, OSError):  # closed, or cut in the middle of a message
                    break
                if "started" in message:
                    deadline = time.monotonic() + timeout_s
                elif "part" in message:
                    parts[message["part"]] = message["value"]
                elif message["status"] == "usage":
                    raise UsageError(message["reason"])
                else:
                    return Ending(message["status"], message["reason"], parts), False
            else:
                return Ending("timeout", f"took longer than {timeout_s:g} s", parts), False
        finally:
            self._running.discard(child)
            child.kill()
            child.join()
            ours.close()
        return self._crash(child.exitcode, kills, log, parts)

    def _crash(self, code: int | None, kills: int, log: Path, parts: dict[str, Any]) -> tuple[Ending, bool]:
        """The ending of a child that closed its pipe without an end message, and whether signal 9 killed it."""
        if code == -signal.SIGKILL and _oom_kills() > kills:
            return Ending("oom", "the kernel's out-of-memory killer ended the process", parts), False
        how = f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
        return Ending("error", f"the process died ({how}){_last_words(log)}", parts), code == -signal.SIGKILL


@contextmanager
def _without_main() -> Iterator[None]:
    """Within this block `__main__` is empty: a child that starts does not run the user's script once more."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _start_server() -> None:
    """Start the fork server if it does not run, without the working directory on its path.

    A user's folder may hold a `torch.py`, and this project's checkout holds `kernels` and `models`.
    """
    before = os.environ.get("PYTHONSAFEPATH")
    os.environ["PYTHONSAFEPATH"] = "1"
    try:
        forkserver.ensure_running()
    finally:
        os.environ.pop("PYTHONSAFEPATH")
        if before is not None:
            os.environ["PYTHONSAFEPATH"] = before


def _end_server() -> None:
    """End the fork server, so that the next child starts another.

    Python has no public way. Where its private one is gone, a new server takes the place of the old one, which ends
    with this process.
    """
    stop = getattr(getattr(forkserver, "_forkserver", None), "_stop", None)
    if stop is not None:
        stop()
        return
    server = forkserver.ForkServer()
    for name in ("ensure_running", "get_inherited_fds", "connect_to_new_process", "set_forkserver_preload"):
        setattr(forkserver, name, getattr(server, name))
    setattr(forkserver, "_forkserver", server)  # noqa: B010 - typeshed knows no such name


def _last_words(log: Path) -> str:
    """ ": " and the last line that a child has written; empty if it has written none."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return f": {lines[-1][:200]}" if lines else ""


def _oom_kills() -> int:
    """How many processes the kernel has killed for lack of memory so far, as far as this process can see."""
    total = 0
    for file in ("/proc/vmstat", "/sys/fs/cgroup/memory.events"):
        with suppress(OSError):
            for line in Path(file).read_text().splitlines():
                if line.startswith("oom_kill "):
                    total += int(line.split()[1])
    return total


def _child(pipe: Connection, job: str, argument: dict[str, Any], log: str) -> None:
    """Run in the child: do the job, and send its parts and its end.

    A user's code may run in it: that sees no command line and no input, and writes to the log.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the sweep's to handle
    threading.Thread(target=_die_with_parent, daemon=True).start()
    with suppress(OSError):  # if memory runs out, this process goes first
        Path("/proc/self/oom_score_adj").write_text("1000")
    sys.argv = sys.argv[:1]
    multiprocessing.set_start_method(None, force=True)  # a module may choose one, as in a process of its own
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    file = os.open(log, os.O_WRONLY | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)

    def send(**message: Any) -> None:
        pipe.send_bytes(json.dumps(message).encode())

    gc.freeze()  # what the server imported stays; the meters collect garbage often, and need not walk through it
    send(started=True)
    module, _, name = jobs.target(job).partition(":")
    try:
        run: Job = getattr(import_module(module), name)
        for part, value in run(argument):
            send(part=part, value=value)
    except UsageError as error:
        send(status="usage", reason=f"{error}{_why_exited(error, Path(log))}")
    except UnsupportedError as error:
        send(status="unsupported", reason=first_line(error))
    except (Exception, SystemExit) as error:
        why = _why_exited(error, Path(log))
        traceback.print_exc(file=sys.stderr)
        oom = is_out_of_memory(error)
        send(status="oom" if oom else "error", reason=first_line(error, named=not oom) + why)
    else:
        send(status="ok", reason=None)
    pipe.close()


def _why_exited(error: BaseException, log: Path) -> str:
    """What a user's code wrote last, if it called `sys.exit` with a number; a parser of a command line says why."""
    exit_ = error if isinstance(error, SystemExit) else error.__cause__
    if not isinstance(exit_, SystemExit) or not isinstance(exit_.code, int):
        return ""
    with suppress(Exception):  # it may have replaced this
        sys.stderr.flush()
    return _last_words(log)


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGKILL)
