"""Keeps the results of jobs, so that a sweep under the same code, versions and device does not run them again.

Only for results that do not depend on time: whether modes are one function, how many MACs a model has. Timings and
failures are not kept. `vbench verify` and `vbench flops` do not use it.
"""

from __future__ import annotations

import hashlib
import json
import os
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
        key = json.dumps([job, argument, self._conditions], sort_keys=True)
        file = self._folder / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"
        with suppress(OSError, ValueError, TypeError):
            return Ending(**json.loads(file.read_text()))
        ending = self._launcher.run(job, argument, timeout_s)
        if ending.status == "ok":
            with suppress(OutputError):  # a machine without a home folder proves it every time
                write_text(file, json.dumps(asdict(ending)))
        return ending
