"""Runs jobs with the code of another revision: in an interpreter of its own, with its own kernel caches.

That process is `python -m vbench.side`. It reads jobs from stdin and writes endings to stdout, one line of JSON each.
It may run the last release, so the module and the jobs have the names that both releases know (`jobs.FORMER`).
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vbench import jobs
from vbench.errors import UsageError
from vbench.jobs.forks import GRACE_S, SHOWN_BYTES
from vbench.jobs.launch import START_LIMIT_S, Ending
from vbench.jobs.lines import MOST_BYTES, LineError, Peer
from vbench.jobs.server import signal_when_closed
from vbench.models.external import ONLY_INSTALLED

PATIENCE_S = 3.0  # for the process to end by itself
TRIES = 2  # of a launcher
CACHES = ("TRITON_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR")


class RevisionRunner:
    """Runs jobs like a `launch.Launcher`, each in a child of the other process. Use as a context manager.

    Args:
        name: how error messages call it.
        python: the interpreter.
        path: folders that come first on its path.
        cache: a folder for compiled kernels; two revisions must not share one.
    """

    def __init__(self, name: str, python: str, path: Sequence[Path], cache: Path) -> None:
        self.name = name
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed in __exit__
        before = [os.environ["PYTHONPATH"]] if os.environ.get("PYTHONPATH") else []
        caches = {variable: str(cache / variable.lower()) for variable in CACHES}
        caches["NUMBA_CACHE_DIR"] = str(cache / "numba")
        self._process = subprocess.Popen(
            [python, "-P", "-m", "vbench.side"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env={
                **os.environ,
                **caches,
                "PYTHONPATH": os.pathsep.join([*map(str, path), *before]),
                ONLY_INSTALLED: "1",  # both revisions run in this folder; neither may take a model from it
            },
            start_new_session=True,  # Ctrl-C is the session's to handle
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._peer = Peer(self._process.stdout.fileno(), self._process.stdin.fileno(), MOST_BYTES)

    def __enter__(self) -> RevisionRunner:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with suppress(OSError):
            self._process.stdin.close()
        with suppress(subprocess.TimeoutExpired):  # it tidies up when its input ends
            self._process.wait(PATIENCE_S)
        with suppress(OSError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._process.stdout.close()  # not before: a thread may be reading it
        self._log.close()

    def run(self, job: str, argument: dict[str, Any], timeout_s: float) -> Ending:
        """As `Launcher.run`. Raises: UsageError if the job raised one, or if the process died or does not answer."""
        message = json.dumps({"job": jobs.FORMER.get(job, job), "argument": argument, "timeout_s": timeout_s})
        limit_s = TRIES * (START_LIMIT_S + timeout_s) + GRACE_S
        until = time.monotonic() + limit_s
        try:
            self._peer.send(message, until)
            line = self._peer.receive(until)
        except TimeoutError:
            raise UsageError(f"{self.name} cannot be run: it has not answered within {limit_s:.0f} s") from None
        except (OSError, LineError):
            line = None
        if line is None:
            raise UsageError(f"{self.name} cannot be run: {self._last_words()}")
        try:
            answer = json.loads(line)
            if "usage" in answer:
                raise UsageError(answer["usage"])
            return Ending(**answer["ending"])
        except (ValueError, TypeError, KeyError, RecursionError):
            shown = ascii(line[:40].decode(errors="replace"))
            raise UsageError(f"{self.name} cannot be run: its process answered {shown}") from None

    def _last_words(self) -> str:
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(PATIENCE_S)
        if (code := self._process.poll()) is None:
            return "its process has closed its output"
        size = self._log.seek(0, os.SEEK_END)
        self._log.seek(max(0, size - SHOWN_BYTES))
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        return lines[-1][:300] if lines else f"its process ended with exit code {code}"


def serve() -> None:
    """Run the jobs that arrive until stdin ends; all other output goes to stderr."""
    from vbench.jobs.launch import Launcher

    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    signal_when_closed(0)
    with ThreadPoolExecutor(1) as pool, Launcher() as launcher:

        def answer(line: str) -> None:
            try:
                found: dict[str, Any] = {"ending": asdict(launcher.run(**json.loads(line)))}
            except UsageError as error:
                found = {"usage": str(error)}
            with suppress(OSError):  # nobody waits for it any more
                print(json.dumps(found), file=channel, flush=True)

        for line in sys.stdin:  # it ends in the middle of a job if the other process does; the job ends with it
            pool.submit(answer, line)
