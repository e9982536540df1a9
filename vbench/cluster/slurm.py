"""Slurm: job arrays through submitit, and what the queue says of them."""

from __future__ import annotations

import math
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Collection, Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

from vbench.cluster import shard
from vbench.cluster.folder import LOG, SHARDS
from vbench.cluster.shard import Errand
from vbench.errors import UsageError, first_line
from vbench.files import writing

PROGRAMS = ("sbatch", "squeue", "scontrol", "scancel")
ASK_S = 60.0  # for an answer of Slurm
WAITING = (
    "PENDING",
    "REQUEUED",
    "REQUEUE_HOLD",
    "REQUEUE_FED",
    "SPECIAL_EXIT",
    "RESV_DEL_HOLD",
    "SUSPENDED",
    "STOPPED",
)
OVER = (
    "COMPLETED",
    "CANCELLED",
    "FAILED",
    "TIMEOUT",
    "NODE_FAIL",
    "PREEMPTED",
    "BOOT_FAIL",
    "DEADLINE",
    "OUT_OF_MEMORY",
)


@dataclass(frozen=True, slots=True)
class Asked:
    """What is asked of Slurm for each shard; None leaves it to the cluster."""

    partition: str | None = None
    gres: str | None = None
    time_s: float | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    exclusive: bool = True

    def parameters(self, threads: int) -> dict[str, Any]:
        """As submitit takes them, `slurm_...`; what it does not know by itself is additional."""
        names = ("partition", "gres", "account", "qos", "constraint")
        minutes = None if self.time_s is None else math.ceil(self.time_s / 60)  # submitit's own default is 5
        own = {"exclusive": True, "mem": "0"} if self.exclusive else {"cpus_per_task": threads + 1}  # the sweep itself
        named = {name: value for name in names if (value := getattr(self, name)) is not None}
        return {**named, **own, "time": minutes, "additional_parameters": {"requeue": True}}


@dataclass(slots=True)
class Slurm:
    """Sends shards as one job array. Raises: UsageError if submitit or Slurm is not there."""

    folder: Path
    asked: Asked
    threads: int
    name: str = "slurm"
    poll_s: float = 5.0
    settle_s: float = 15.0
    lasts: bool = True

    def __post_init__(self) -> None:
        try:
            import submitit  # noqa: F401
        except ImportError:
            raise UsageError("--on slurm needs submitit: pip install 'vbench-backbones[cluster]'") from None
        for program in PROGRAMS:
            if shutil.which(program) is None:
                raise UsageError(
                    f"--on slurm: there is no {program} here; give the command on a machine of the cluster from which "
                    "jobs are sent, or take --on local:K"
                )

    @property
    def beside(self) -> str | None:
        """What may run beside a shard."""
        return None if self.asked.exclusive else "jobs of others: the node is shared (--no-exclusive)"

    def submit(self, errands: Sequence[Errand]) -> list[str]:
        """Send a job array. Raises: UsageError with what Slurm said, if it refuses."""
        from submitit import SlurmExecutor

        log = self.folder.absolute() / SHARDS / LOG
        executor = SlurmExecutor(log, python=f"{shlex.quote(sys.executable)} -P")
        how: dict[str, Any] = {"job_name": "vbench", "use_srun": False, "stderr_to_stdout": True}
        executor.update_parameters(**how, **self.asked.parameters(self.threads))
        try:
            with writing(log), redirect_stderr(StringIO()):  # submitit prints what it raises
                jobs = executor.map_array(shard.run, errands)
        except UsageError:
            raise
        except Exception as error:  # submitit's, or the shell's
            raise UsageError(f"Slurm refused the jobs: {_refusal(error)}") from None
        return [str(job.job_id) for job in jobs]

    def alive(self, names: Collection[str]) -> dict[str, str]:
        """As `squeue` says. If it does not answer, all may be alive."""
        return self.alive_there(names)

    @staticmethod
    def alive_there(names: Collection[str]) -> dict[str, str]:
        """As `alive`. Where no Slurm is, none is."""
        if shutil.which("squeue") is None:
            return {}
        done = _asked("squeue", "--noheader", "--array", "-u", str(os.getuid()), "-o", "%i|%T|%r")
        if done is None:
            return dict.fromkeys(names, "waiting for Slurm to answer")
        queue = dict(line.strip().partition("|")[::2] for line in done.splitlines() if "|" in line)
        found = {}
        for name in names:
            state, _, reason = queue.get(name, "").partition("|")
            if state and state not in OVER:
                waits = state in WAITING
                found[name] = f"waiting {'' if reason in ('None', '') else reason}".strip() if waits else "running"
        return found

    def ended(self, name: str) -> str:
        """By `scontrol`, which knows a job for some minutes, or else by the accounting, where there is one."""
        told = _asked("scontrol", "--oneliner", "show", "job", name) or ""
        state = next((word.partition("=")[2] for word in told.split() if word.startswith("JobState=")), "")
        if not state and shutil.which("sacct"):
            state = (_asked("sacct", "-n", "-X", "-P", "-o", "State", "-j", name) or "").strip().partition("\n")[0]
        return f"ended as {state}" if state else "ended"

    def cancel(self, names: Collection[str]) -> None:
        """By `scancel`."""
        if names:
            _asked("scancel", *names)

    def rest(self) -> None:
        """There is nothing to let go of."""


def _asked(*command: str) -> str | None:
    """What a program of Slurm prints; None if it fails or does not answer."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=ASK_S, check=True, errors="replace")
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout


def _refusal(error: Exception) -> str:
    """What `sbatch` wrote, without submitit's words about it."""
    lines = [line.strip() for line in str(error).splitlines()]
    said = [line for line in lines if line.startswith("sbatch:")]
    return said[-1].removeprefix("sbatch:").strip().removeprefix("error: ") if said else first_line(error, named=True)
