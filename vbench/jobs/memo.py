"""Keeps the results of jobs, so that a sweep under the same code, versions and device does not run them again.

Only for results that do not depend on time: whether modes are one function, how many MACs a model has. Timings and
failures are not kept. `vbench verify` and `vbench flops` do not use it. The seconds that a job took are kept too, for
other code as well: they tell how long it will take again.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vbench.errors import OutputError
from vbench.files import write_text
from vbench.jobs.launch import Ending, Runner


class Memo:
    """Runs jobs like a launcher, but each only once under the same conditions.

    Args:
        launcher: runs the jobs that have no result yet.
        conditions: a digest of what may change the results (`host.conditions`).
        folder: for the results, one file each; the user's cache folder by default.
    """

    def __init__(self, launcher: Runner, conditions: str, folder: Path | None = None) -> None:
        self._launcher, self._conditions = launcher, conditions
        home = os.environ.get("XDG_CACHE_HOME")
        self._folder = folder or (Path(home) if home else Path.home() / ".cache") / "vbench"

    def run(self, job: str, argument: dict[str, Any], timeout_s: float) -> Ending:
        """As `Launcher.run`; returns a kept ending if there is one, and keeps an ending that is "ok"."""
        if (kept := self.recall(job, argument)) is not None:
            return kept
        begin = time.monotonic()
        ending = self._launcher.run(job, argument, timeout_s)
        if ending.status == "ok":
            self.keep(job, argument, ending, time.monotonic() - begin)
        return ending

    def recall(self, job: str, argument: dict[str, Any]) -> Ending | None:
        """The ending that is kept, or None."""
        with suppress(OSError, ValueError, TypeError):
            return Ending(**json.loads(self._result(job, argument).read_text()))
        return None

    def keep(self, job: str, argument: dict[str, Any], ending: Ending, seconds: float) -> None:
        """Keep an ending, and how long the job took."""
        with suppress(OutputError):  # a machine without a home folder proves it every time
            write_text(self._result(job, argument), json.dumps(asdict(ending)))
            write_text(self._time(job, argument), json.dumps({"seconds": max(round(seconds, 3), 0.001)}))

    def expected_s(self, job: str, argument: dict[str, Any]) -> float | None:
        """How long `run` will take: nothing if the ending is kept, else as long as the last time; None if unknown."""
        if self.recall(job, argument) is not None:
            return 0.0
        with suppress(OSError, ValueError, TypeError, KeyError):
            return float(json.loads(self._time(job, argument).read_text())["seconds"])
        return None

    def _result(self, job: str, argument: dict[str, Any]) -> Path:
        return self._folder / f"{_digest(job, argument, self._conditions)}.json"

    def _time(self, job: str, argument: dict[str, Any]) -> Path:
        """Without the conditions: what other code took is the best guess."""
        return self._folder / f"{_digest(job, argument)}-seconds.json"


def _digest(*key: Any) -> str:
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:32]
