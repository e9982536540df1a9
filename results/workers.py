"""Processes that take a part of much work off this one. They end with who started them, and say nothing by themselves.

A task is a function of ours, "module:function", that is called with `hear` and `say`: both sides exchange values in
turn.
"""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from typing import IO, Any

MOST = 4  # processes: each has its own imports
LOST = (OSError, EOFError, pickle.UnpicklingError)  # what `say` and `hear` raise of a process that has ended
_CODE = """
import pickle, sys
sys.path[:] = pickle.load(sys.stdin.buffer)
from vbench.results import workers
workers.work()
"""


def cores() -> int:
    """The processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def count() -> int:
    """How many such processes can compute at the same time; `MOST` at most."""
    return min(MOST, cores())


class Worker:
    """One such process, as it is spoken to. Its methods raise `LOST` if it has ended."""

    def __init__(self, into: IO[bytes], out_of: IO[bytes]) -> None:
        self._into, self._out_of = into, out_of

    def say(self, value: object) -> None:
        pickle.dump(value, self._into, pickle.HIGHEST_PROTOCOL)
        self._into.flush()

    def hear(self) -> Any:
        """What it says next. Raises: also what its task raised."""
        found = pickle.load(self._out_of)
        if isinstance(found, Exception):
            raise found
        return found


@contextmanager
def worker(task: str) -> Iterator[Worker]:
    """A process that does a task, to the end of the context. Raises: OSError if none can be started."""
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", _CODE],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert process.stdin
    assert process.stdout
    try:
        own = Worker(process.stdin, process.stdout)
        own.say([os.path.abspath(path) for path in sys.path])  # noqa: PTH100 - "" is the working folder
        own.say(task)
        yield own
    finally:
        process.kill()
        with suppress(BrokenPipeError), process:
            pass


def work() -> None:
    """What such a process does: it hears on stdin, and says on stdout."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who started it ends it
    warnings.simplefilter("ignore")
    here = Worker(os.fdopen(os.dup(1), "wb"), sys.stdin.buffer)
    os.dup2(2, 1)  # what a library prints is no answer
    module, _, name = here.hear().partition(":")
    try:
        task: Callable[..., None] = getattr(import_module(module), name)
        task(here.hear, here.say)
    except LOST:
        os._exit(1)
    except Exception as error:
        here.say(error)
