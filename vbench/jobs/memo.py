"""What a job found before under the same code, versions and device, so that a sweep need not prove it again.

Only for what time does not move: whether modes are one function, how many MACs a model has. Nothing that is timed,
and nothing that failed, is ever remembered. `vbench verify` and `vbench flops` do not look here.
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
    """Runs jobs as a launcher does, but each only once under the same conditions.

    Args:
        launcher: who runs what is not remembered.
        conditions: a digest of what may change the results (`host.conditions`).
        folder: where results lie, one file each; the user's cache folder by default.
    """

    def __init__(self, launcher: Runner, conditions: str, folder: Path | None = None) -> None:
        self._launcher, self._conditions = launcher, conditions
        home = os.environ.get("XDG_CACHE_HOME")
        self._folder = folder or (Path(home) if home else Path.home() / ".cache") / "vbench"

    def run(self, job: str, argument: dict[str, Any], timeout_s: float) -> Ending:
        """As `Launcher.run`; an ending that was "ok" before is given again."""
        key = json.dumps([job, argument, self._conditions], sort_keys=True)
        file = self._folder / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"
        with suppress(OSError, ValueError, TypeError):
            return Ending(**json.loads(file.read_text()))
        ending = self._launcher.run(job, argument, timeout_s)
        if ending.status == "ok":
            with suppress(OutputError):  # a machine without a home folder proves it every time
                write_text(file, json.dumps(asdict(ending)))
        return ending
