"""What runs in a process of its own: it does one job, and tells its parts and its end, a line of JSON each.

The lines are {"started": true}, {"part", "value"} and {"status", "reason", "exited"}. A user's code may run in it.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from vbench import jobs
from vbench.devices import is_lacking, is_out_of_memory
from vbench.errors import UnsupportedError, UsageError, first_line

LOST = 113  # the exit code of a process that has no way to answer any more

Job = Callable[[dict[str, Any]], Iterator[tuple[str, Any]]]


def run(talk: int, job: str, argument: dict[str, Any]) -> None:
    """Do the job; `talk` is the descriptor of the socket for its answers."""
    with suppress(OSError):  # if memory runs out, this process goes first
        Path("/proc/self/oom_score_adj").write_text("1000")
    send = _Answers(talk).send
    gc.freeze()  # what the server imported stays; the meters collect garbage often, and need not walk through it
    send(started=True)
    module, _, name = jobs.target(job).partition(":")
    try:
        work: Job = getattr(import_module(module), name)
        for part, value in work(argument):
            send(part=part, value=value)
    except UsageError as error:
        send(status="usage", reason=str(error), exited=_exited(error))
    except UnsupportedError as error:
        send(status="unsupported", reason=first_line(error), exited=False)
    except (Exception, SystemExit) as error:
        with suppress(Exception):  # its code may have closed or replaced this
            traceback.print_exc(file=sys.stderr)
        oom = is_out_of_memory(error)
        status = "oom" if oom else "unsupported" if is_lacking(error) else "error"
        send(status=status, reason=first_line(error, named=not oom), exited=_exited(error))
    else:
        send(status="ok", reason=None, exited=False)


class _Answers:
    def __init__(self, talk: int) -> None:
        self._talk, self._is = talk, os.fstat(talk)

    def send(self, **message: Any) -> None:
        """Send a line; end the process if the socket is closed, or if something else has its number by now."""
        line = f"{json.dumps(message)}\n".encode()
        if message.get("exited"):
            with suppress(Exception):
                sys.stderr.flush()
        try:
            if not os.path.samestat(self._is, os.fstat(self._talk)):
                os._exit(LOST)
            while line:
                line = line[os.write(self._talk, line) :]
        except OSError:
            os._exit(LOST)


def _exited(error: BaseException) -> bool:
    """Whether a user's code called `sys.exit` with a number; a parser of a command line has said why, before it did."""
    exit_ = error if isinstance(error, SystemExit) else error.__cause__
    return isinstance(exit_, SystemExit) and isinstance(exit_.code, int)
