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
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vbench import jobs
from vbench.errors import UsageError
from vbench.jobs.launch import Ending
from vbench.models.external import ONLY_INSTALLED

PATIENCE_S = 3.0  # for the process to end by itself
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
        """As `Launcher.run`. Raises: UsageError if the job raised one, or if the process has died."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        message = json.dumps({"job": jobs.FORMER.get(job, job), "argument": argument, "timeout_s": timeout_s})
        try:
            self._process.stdin.write(message.encode() + b"\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except OSError:
            line = b""
        if not line:
            raise UsageError(f"{self.name} cannot be run: {self._last_words()}")
        answer = json.loads(line)
        if "usage" in answer:
            raise UsageError(answer["usage"])
        return Ending(**answer["ending"])

    def _last_words(self) -> str:
        code = self._process.wait()
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        return lines[-1][:300] if lines else f"its process ended with exit code {code}"


def serve() -> None:
    """Run the jobs that arrive until stdin ends; all other output goes to stderr."""
    from vbench.jobs.launch import Launcher

    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    with Launcher() as launcher:
        for line in sys.stdin:
            try:
                answer: dict[str, Any] = {"ending": asdict(launcher.run(**json.loads(line)))}
            except UsageError as error:
                answer = {"usage": str(error)}
            print(json.dumps(answer), file=channel, flush=True)
