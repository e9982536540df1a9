"""A real Slurm on this machine, in a temporary folder: a controller and two node daemons on the loopback.

It needs Debian's slurmctld, slurmd, slurm-client and munge, and no root. `missing()` says what is not there.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from getpass import getuser
from pathlib import Path
from unittest.mock import patch

PROGRAMS = ("slurmctld", "slurmd", "sbatch", "squeue", "scontrol", "scancel", "munged", "mungekey")
BLIND = "blind"  # a node, and its partition, that can be started without a folder
SBIN = "/usr/sbin"  # where Debian has the daemons
START_S = 60.0
CONF = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=10
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
ReturnToService=2
JobRequeue=1
SlurmdTimeout=10
KillWait=5
SchedulerParameters=batch_sched_delay=1,sched_interval=2
StateSaveLocation={folder}/state
SlurmctldPidFile={folder}/slurmctld.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdSpoolDir={folder}/spool-%n
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmdLogFile={folder}/slurmd-%n.log
{nodes}
PartitionName=main Nodes={names} Default=YES MaxTime=INFINITE State=UP
PartitionName={blind} Nodes={blind} MaxTime=INFINITE State=UP
"""


def missing() -> list[str]:
    """The programs of Slurm and munge that are not installed."""
    return [name for name in PROGRAMS if _which(name) is None]


def _which(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:{SBIN}")


@dataclass(slots=True)
class Cluster:
    """A running Slurm."""

    folder: Path
    nodes: tuple[str, ...]

    def ask(self, *command: str) -> str:
        """What a program of Slurm prints."""
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout

    def node_of(self, job: str) -> str:
        """The node on which a job runs; empty if it does not run."""
        return self.ask("squeue", "--noheader", "--array", "-j", job, "-o", "%N").strip()

    def pid(self, daemon: str) -> int:
        return int((self.folder / f"{daemon}.pid").read_text())

    def crash(self, node: str) -> None:
        """End a node as by a cut of its power: its daemon, and the steps that it has started with all they started."""
        parents = _parents()
        inside = [pid for pid in _all() if _step_of(pid, node)]
        keepers = {parents.get(pid, 0) for pid in inside if "slurmstepd" in _words(parents.get(pid, 0))}
        for pid in [self.pid(f"slurmd-{node}"), *keepers, *inside]:  # nobody is left who could report the end
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    @contextmanager
    def blind(self, hidden: Path) -> Iterator[str]:
        """A further node, alone in its partition, on which this folder is empty. Yields: the partition."""
        conf = self.folder / "slurm.conf"
        (self.folder / f"spool-{BLIND}").mkdir()
        script = f"mount -t tmpfs none '{hidden}' && exec slurmd -f '{conf}' -N {BLIND}"
        subprocess.run(["unshare", "-m", "sh", "-c", script], check=True)
        try:
            until(lambda: BLIND in _idle(self), "the blind node is idle")
            yield BLIND
        finally:
            os.kill(self.pid(f"slurmd-{BLIND}"), signal.SIGTERM)


def _all() -> list[int]:
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal()]


def _words(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    return ""


def _step_of(pid: int, node: str) -> bool:
    """Whether a process runs within a job of this node."""
    with suppress(OSError):
        return f"SLURMD_NODENAME={node}".encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    return False


def _parents() -> dict[int, int]:
    found = {}
    for pid in _all():
        with suppress(OSError, ValueError, IndexError):
            found[pid] = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return found


def until(true: Callable[[], bool], what: str, limit_s: float = START_S) -> None:
    """Wait. Raises: TimeoutError."""
    deadline = time.monotonic() + limit_s
    while not true():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not after {limit_s:g} s")
        time.sleep(0.2)


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@contextmanager
def running(folder: Path, nodes: tuple[str, ...] = ("n1", "n2")) -> Iterator[Cluster]:
    """A Slurm in this folder, with `SLURM_CONF` set; its daemons are ended at the end."""
    host, daemons = socket.gethostname().partition(".")[0], []
    (folder / "state").mkdir(parents=True)
    about = f"NodeHostname={host} NodeAddr=127.0.0.1 CPUs={os.cpu_count() or 1}"
    lines = [f"NodeName={node} {about} Port={_free_port()}" for node in (*nodes, BLIND)]
    conf = folder / "slurm.conf"
    where = {"host": host, "port": _free_port(), "user": getuser(), "folder": folder}
    names = {"nodes": "\n".join(lines), "names": ",".join(nodes), "blind": BLIND}
    conf.write_text(CONF.format(**where, **names).lstrip())
    variables = {"SLURM_CONF": str(conf), "PATH": f"{os.environ['PATH']}:{SBIN}"}
    version = subprocess.run([str(_which("slurmd")), "-V"], capture_output=True, text=True, check=True).stdout.split()
    if int(version[-1].partition(".")[0]) >= 23:  # earlier ones do not know the word
        (folder / "cgroup.conf").write_text("CgroupPlugin=disabled\n")
    cluster = Cluster(folder, nodes)
    with patch.dict(os.environ, variables):
        try:
            key, log = folder / "munge.key", folder / "munged.log"
            subprocess.run(["mungekey", "-c", "-k", str(key)], check=True)
            paths = {"key-file": key, "socket": folder / "munge.socket", "pid-file": folder / "munged.pid"}
            paths |= {"seed-file": folder / "munge.seed", "log-file": log}
            subprocess.run(["munged", "--force", *(f"--{name}={path}" for name, path in paths.items())], check=True)
            daemons.append("munged")
            subprocess.run(["slurmctld", "-f", str(conf)], check=True)
            daemons.append("slurmctld")
            for node in nodes:
                (folder / f"spool-{node}").mkdir()
                subprocess.run(["slurmd", "-f", str(conf), "-N", node], check=True)
                daemons.append(f"slurmd-{node}")
            until(lambda: _idle(cluster) >= set(nodes), "the nodes are idle")
            yield cluster
        finally:
            for daemon in reversed(daemons):
                with suppress(OSError, ValueError):
                    os.kill(cluster.pid(daemon), signal.SIGTERM)


def _idle(cluster: Cluster) -> set[str]:
    try:
        said = cluster.ask("sinfo", "--noheader", "-N", "-o", "%N %T")
    except subprocess.SubprocessError:
        return set()
    return {line.split()[0] for line in said.splitlines() if line.split()[1:] == ["idle"]}
