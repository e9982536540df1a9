"""One side of a comparison: a launcher in an interpreter of its own, with its own code and its own kernel caches.

`python -m vbench.side` serves it: a line of JSON on stdin is a job, a line on stdout its ending. A side may run the
last release: it is started, and asked, by the names that both know (`jobs.FORMER`).
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

from vbench import jobs
from vbench.errors import UsageError
from vbench.jobs.launch import Ending
from vbench.models.external import ONLY_INSTALLED

PATIENCE_S = 3.0  # for a side to end by itself
CACHES = ("TRITON_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR")


class RevisionRunner:
    """Runs jobs as a `launch.Launcher` does, each in a child of a server in another process. A context manager.

    Args:
        name: what it is called where it fails.
        python: the interpreter.
        path: folders that come first where it looks for modules.
        cache: a folder for what is compiled; kernels of two revisions never meet.
    """

    def __init__(self, name: str, python: str, path: Sequence[Path], cache: Path) -> None:
        self.name = name
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the side
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
                ONLY_INSTALLED: "1",  # both sides stand in one folder; a model there must not stand for both
            },
            start_new_session=True,  # Ctrl-C is the session's to handle
        )

    def __enter__(self) -> RevisionRunner:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with suppress(OSError):
            self._process.stdin.close()
        with suppress(subprocess.TimeoutExpired):  # what has heard the end of its input tidies up
            self._process.wait(PATIENCE_S)
        with suppress(OSError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._process.stdout.close()  # not before: a thread may be reading it
        self._log.close()

    def run(self, job: str, argument: dict[str, Any], timeout_s: float) -> Ending:
        """As `Launcher.run`. Raises: UsageError if the job raised one, or if this side's process has died."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        ask = json.dumps({"job": jobs.FORMER.get(job, job), "argument": argument, "timeout_s": timeout_s})
        try:
            self._process.stdin.write(ask.encode() + b"\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except OSError:
            line = b""
        if not line:
            raise UsageError(f"{self.name} cannot be run: {self._last_words()}")
        said = json.loads(line)
        if "usage" in said:
            raise UsageError(said["usage"])
        return Ending(**said["ending"])

    def _last_words(self) -> str:
        code = self._process.wait()
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        return lines[-1][:300] if lines else f"its process ended with exit code {code}"


def serve() -> None:
    """Run the jobs that come in until stdin ends; whatever else is printed goes to stderr."""
    from vbench.jobs.launch import Launcher

    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    with Launcher() as launcher:
        for line in sys.stdin:
            try:
                said: dict[str, Any] = {"ending": asdict(launcher.run(**json.loads(line)))}
            except UsageError as error:
                said = {"usage": str(error)}
            print(json.dumps(said), file=channel, flush=True)
