"""Runs jobs for a loop over many cells, where one cell's usage error is that cell's ending."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from vbench.errors import UsageError
from vbench.jobs.launch import Ending, Runner


@dataclass(frozen=True, slots=True)
class Lenient:
    """Runs jobs like its runner. If a job raises UsageError, as a model does at a size that it refuses, the job ends
    as "error" with the message."""

    runner: Runner

    def run(self, job: str, argument: dict[str, Any], timeout_s: float) -> Ending:
        """Run one job to its end. Raises nothing that the job raises."""
        try:
            return self.runner.run(job, argument, timeout_s)
        except UsageError as error:
            return Ending("error", str(error))
