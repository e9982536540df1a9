"""Kills at random what a sweep is made of, over and over, and looks whether all its rows are there at the end.

`python tests/chaos.py --kills 200 --seed 0` sweeps tiny cells, folder after folder, until so many kills were made. A
victim is the sweep itself, its fork server, or one of that server's processes: those that measure, count, verify and
take turns. It is killed (9), stopped and then killed, or ended (TERM; for the sweep HUP and INT too). After the death
of a sweep the same command goes on. Each folder must end with every row that was planned, none twice, each "ok",
"unsupported" or with a reason; and no process and no temporary file may be left of any sweep.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil

from vbench.plan import Sweep, plan
from vbench.results.store import read, read_turns

MODELS, SIDES = ("vig_t", "deit_t"), (32, 64)
OPTIONS = ["--rigor", "quick", "--seconds", "0.05", "--batch", "1"]
COMMAND = ["sweep", "--models", ",".join(MODELS), "--res", ",".join(map(str, SIDES)), *OPTIONS]
MARK = "VBENCH_CHAOS"  # a variable by which the processes of a sweep are known, whoever their parents are
GONE_S = 20.0  # for the processes of a sweep that was killed to end by themselves
IDLE_S = 900.0  # a sweep that takes longer hangs
WEIGHTS = {"process": 12, "server": 3, "sweep": 1}
BETWEEN_S = 1.0  # from when a process has begun to a kill, on average
EARLY = 0.1  # of the kills do not wait until a process has begun
HOW = ("KILL", "STOP", "TERM")


class Chaos:
    """Kills what it finds under a sweep. `tell` gets a line a kill."""

    def __init__(self, place: Path, seed: int) -> None:
        self.place, self.chance = place, random.Random(seed)
        self.made: Counter[str] = Counter()
        self.statuses: Counter[str] = Counter()
        self.starts = self.sweeps = 0

    def run(self, kills: int) -> None:
        """Sweep until so many kills were made. Raises: AssertionError if something is missing, or left."""
        while sum(self.made.values()) < kills:
            self.sweeps += 1
            folder = self.place / f"run-{self.sweeps}"
            while self._one(folder, kills) not in (0, 1):  # 1: it is over, and a row failed
                pass
            self._check(folder)

    def _one(self, folder: Path, kills: int) -> int:
        """Start the command, and kill until it ends. Returns: its exit code."""
        self.starts += 1
        mark = f"{os.getpid()}-{self.starts}"
        temporary = self.place / "tmp"
        temporary.mkdir(exist_ok=True)
        environment = {
            **os.environ,
            **{"PYTHONPATH": os.pathsep.join(p for p in sys.path if p), "TMPDIR": str(temporary), MARK: mark},
            "XDG_CACHE_HOME": str(self.place / "cache"),
            "TORCHINDUCTOR_CACHE_DIR": str(self.place / "cache" / "inductor"),  # torch's, which is to stay
        }
        command = [sys.executable, "-P", "-m", "vbench", *COMMAND, "-o", str(folder)]
        with (self.place / "output").open("wb") as output:
            sweep = subprocess.Popen(command, env=environment, stdout=output, stderr=output, start_new_session=True)
        begin = time.monotonic()
        while sweep.poll() is None:
            early = self.chance.random() < EARLY or sum(self.made.values()) >= kills
            while not early and sweep.poll() is None and not self._processes(sweep.pid):
                assert time.monotonic() < begin + IDLE_S, f"the sweep of {folder} hangs"
                time.sleep(0.02)
            with suppress(subprocess.TimeoutExpired):
                sweep.wait(self.chance.expovariate(1 / BETWEEN_S))
            if sum(self.made.values()) < kills and sweep.poll() is None:
                with suppress(psutil.NoSuchProcess):
                    self._kill(psutil.Process(sweep.pid))
            assert time.monotonic() < begin + IDLE_S, f"the sweep of {folder} hangs"
        code = sweep.wait()
        assert code in (0, 1, 130, -signal.SIGKILL, -signal.SIGTERM, -signal.SIGHUP, -signal.SIGINT), self._said()
        until = time.monotonic() + GONE_S
        while alive := list(marked(mark)):
            assert time.monotonic() < until, f"left by a sweep that ended with {code}: {alive}"
            time.sleep(0.05)
        mine = f"vbench-{sweep.pid}-" if code == 130 else ""  # what another left is removed once it has a launcher
        left = [str(path) for path in temporary.rglob(f"{mine}*")] if code in (0, 1, 130) else []
        assert left == [], f"left after exit code {code}: {left}; {self._said()}"
        assert code != 1 or "Traceback" not in self._said(), self._said()
        return code

    def _kill(self, sweep: psutil.Process) -> None:
        """Kill one process, if there is one of the kind that chance wants."""
        found = {"sweep": [sweep], "server": _servers(sweep), "process": self._processes(sweep.pid)}
        kind = self.chance.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
        how = self.chance.choice(HOW)
        if kind == "sweep" and how == "TERM":
            how = self.chance.choice(("TERM", "HUP", "INT"))
        if not found[kind]:
            return
        victim = self.chance.choice(found[kind])
        victim.send_signal(getattr(signal, f"SIG{how}"))
        if how == "STOP":
            time.sleep(self.chance.uniform(0.0, 1.0))
            victim.kill()
        self.made[f"{kind} {how}"] += 1

    @staticmethod
    def _processes(sweep: int) -> list[psutil.Process]:
        """Those that the fork server of a sweep has forked."""
        with suppress(psutil.NoSuchProcess):
            return [child for server in _servers(psutil.Process(sweep)) for child in server.children()]
        return []

    def _check(self, folder: Path) -> None:
        """Every row that was planned is there, once."""
        records = read(folder)
        planned = {case.id for case in plan(Sweep(MODELS, tuple((s, s) for s in SIDES), batches=(1,)))}
        assert {record.case_id for record in records} == planned
        launches = Counter((record.case_id, record.launch) for record in records)
        assert set(launches.values()) == {1}, launches
        assert all((case, 0) in launches for case in planned)
        blocks = Counter((block.company, block.block) for block in read_turns(folder))
        assert set(blocks.values()) <= {1}, blocks
        for row in (*records, *read_turns(folder)):
            assert row.status in ("ok", "unsupported") or row.reason, row
            self.statuses[row.status] += 1

    def _said(self) -> str:
        return (self.place / "output").read_text(errors="replace")[-2000:]


def _servers(sweep: psutil.Process) -> list[psutil.Process]:
    return [one for one in sweep.children() if "server.py" in " ".join(one.cmdline())]


def marked(mark: str) -> Iterator[int]:
    """The processes that have the mark in their environment."""
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.status() != psutil.STATUS_ZOMBIE and process.environ().get(MARK) == mark:
                yield process.pid


def main() -> None:
    """Make the kills, and print what they came to."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    begin = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="vbench-chaos-") as place:
        chaos = Chaos(Path(place), asked.seed)
        chaos.run(asked.kills)
    lines = [f"{number:4} {what}" for what, number in sorted(chaos.made.items())]
    rows = ", ".join(f"{number} {status}" for status, number in sorted(chaos.statuses.items()))
    lines.append(f"{sum(chaos.made.values())} kills, {chaos.starts} starts, {chaos.sweeps} sweeps; rows: {rows}")
    lines.append(f"{time.monotonic() - begin:.0f} s, seed {asked.seed}: nothing missing, nothing twice, nothing left")
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
