"""What a job runs: the ordinary sweep or evaluation of one shard, in a folder of its own.

`python -P -m vbench.cluster.shard ERRAND` runs one, ERRAND as JSON; submitit calls `run`.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from vbench import host
from vbench import plan as planning
from vbench.cluster import folder as files
from vbench.errors import SchemaError, UsageError, first_line
from vbench.jobs.launch import Ending, Launcher
from vbench.results.pairs import Key, PairedRatio
from vbench.results.store import Record, TurnBlock
from vbench.sweeps import loop
from vbench.sweeps.prepare import Task
from vbench.sweeps.rest import Rest

WHOLE_JOB_S = 2.0  # within which a signal to a job has reached all its processes
STOPPED = "the scheduler ended the job: its time was over, or it was preempted or cancelled"


@dataclass(frozen=True, slots=True)
class Errand:
    """What a job is to do: which shard of which folder, and what is not part of the plan.

    `job` is the scheduler's name of the job, None if its variables tell. `cores` are those that it may use.
    """

    folder: str
    number: int
    timeout_s: float
    retry: bool = False
    beside: str | None = None
    job: str | None = None
    cores: tuple[int, ...] = ()
    kind: str = "sweep"  # or "eval"


class Part(Protocol):
    """A shard of a work, in its job."""

    code: str  # as of `drive.Work`
    kept: tuple[str, ...]  # files and folders of an attempt with which the next one begins

    def run(self, attempt: Path, launcher: Launcher, tell: Telling) -> None:
        """Do what is left, in the folder of this attempt. Raises: UsageError if it can never be done."""


class Telling(Protocol):
    """Who is told of what is done."""

    def tell(self, line: str, left: int | None = None) -> None:
        """A line for the job's log, and, where that has changed, how many rows are left."""


def run(errand: Errand) -> None:
    """Measure what is left of a shard; go on where the last attempt ended.

    Raises: SystemExit, 1 if the job is told to end, 2 if the shard cannot be measured.
    """
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR2):  # submitit has handlers of its own
        signal.signal(number, signal.default_int_handler)
    if errand.cores:
        os.sched_setaffinity(0, errand.cores)
    _say(f"cores {','.join(map(str, sorted(os.sched_getaffinity(0))))}")
    part = _part(errand)
    state = files.State(errand.job or job_of_slurm(), part.code, errand.timeout_s)
    attempt = files.begin(Path(errand.folder), errand.number, state, part.kept)
    watch = _Told(attempt, state)
    try:
        with _OfJob() as launcher:
            part.run(attempt, launcher, watch)
    except KeyboardInterrupt:
        watch.end(files.STOPPED, STOPPED)
        sys.exit(1)
    except UsageError as error:
        watch.end(files.REFUSED, str(error))
        sys.exit(2)
    except Exception as error:
        watch.end(files.FAILED, first_line(error, named=True))
        raise
    watch.end(files.COMPLETE)


def _part(errand: Errand) -> Part:
    if errand.kind == "eval":
        from vbench.cluster.evaluation import Part as Evaluation

        return Evaluation(errand)
    return _Sweep(errand)


class _Sweep:
    """The cells of one shard. Raises: SchemaError if the folder has no plan."""

    kept: tuple[str, ...] = files.SWEPT

    def __init__(self, errand: Errand) -> None:
        plan = files.read_plan(Path(errand.folder))
        if plan is None:
            raise SchemaError(f"{Path(errand.folder) / files.SHARDS} has no {files.PLAN}")
        self._errand, self._plan, self.code = errand, plan, host.code_digest()

    def run(self, attempt: Path, launcher: Launcher, tell: Telling) -> None:
        """As `vbench sweep`."""
        errand, plan = self._errand, self._plan
        cases = list(plan.shards[errand.number].cases)
        settings = loop.Settings(
            attempt, cases[0].device, errand.timeout_s, retry=errand.retry, pairs=plan.pairs, beside=errand.beside
        )
        gpu = loop.probe(cases, settings.device, launcher)
        loop.run(cases, settings, plan.protocol, launcher, _Watch(tell), gpu=gpu)


def job_of_slurm() -> str:
    """Slurm's name of the job that this process is of, "12_3" in an array; empty outside of one."""
    array, task = (os.environ.get(f"SLURM_ARRAY_{key}_ID") for key in ("JOB", "TASK"))
    return f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID", "")


class _OfJob(Launcher):
    """A launcher in a job. A scheduler ends all processes of a job: that says nothing of the cell that was measured."""

    def run(self, job: str, argument: dict[str, Any], timeout_s: float) -> Ending:
        """As `Launcher.run`; if the child was told to end, this process is likely to be told so too, and waits."""
        ending = super().run(job, argument, timeout_s)
        if ending.status == "error" and f"signal {signal.SIGTERM.value}" in (ending.reason or ""):
            time.sleep(WHOLE_JOB_S)
        return ending


class _Watch:
    """Watches a sweep: a line a launch."""

    def __init__(self, told: Telling) -> None:
        self._told = told

    def planned(self, rest: Rest, tasks: list[Task], protocol: planning.Protocol) -> None:
        self._told.tell(f"{len(rest)} left", len(rest))

    def prepares(self, number: int) -> None:
        pass

    def doing(self, what: str) -> None:
        self._told.tell(what)

    def done(self, record: Record, rest: Rest) -> None:
        said = f"{record.status}{f', {record.reason}' if record.reason else ''}"
        self._told.tell(f"{said}; {len(rest)} left", len(rest))

    def took_turns(self, block: TurnBlock, known: dict[Key, PairedRatio], rest: Rest) -> None:
        self._told.tell(f"turns {block.status}; {len(rest)} left", len(rest))

    def stopped(self, wishes: list[str]) -> None:
        pass


class _Told:
    """Writes what is left of a shard beside its records, and lines into the job's log."""

    def __init__(self, attempt: Path, state: files.State) -> None:
        self._attempt, self._state = attempt, state

    def tell(self, line: str, left: int | None = None) -> None:
        _say(line)
        if left is not None:
            self._keep(left=left)

    def end(self, how: str, reason: str | None = None) -> None:
        _say(f"{how}{f': {reason}' if reason else ''}")
        self._keep(left=0 if how == files.COMPLETE else self._state.left, ended=how, reason=reason)

    def _keep(self, *, left: int | None, ended: str | None = None, reason: str | None = None) -> None:
        self._state = replace(self._state, left=left, ended=ended, reason=reason)
        files.write_state(self._attempt, self._state)


def _say(line: str) -> None:
    with suppress(OSError):
        sys.stdout.write(line.encode("ascii", "replace").decode() + "\n")
        sys.stdout.flush()


def _end_with_parent() -> None:
    """End as by Ctrl-C when the command that started this process is gone: it holds the other end of our input."""
    with suppress(OSError):
        while os.read(0, 4096):
            pass
    os.kill(os.getpid(), signal.SIGTERM)


def encoded(errand: Errand) -> str:
    """An errand as one word of a command line."""
    return json.dumps(asdict(errand))


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    threading.Thread(target=_end_with_parent, daemon=True).start()
    run(Errand(**{**given, "cores": tuple(given["cores"])}))
