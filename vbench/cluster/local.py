"""Shards side by side on this machine: so many at once as there are slots, each with cores and a GPU of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from secrets import token_hex

from vbench.cluster.folder import LOG, SHARDS
from vbench.cluster.shard import Errand, encoded
from vbench.devices import kind_of, on_host
from vbench.errors import UsageError
from vbench.files import writing

ENDING_S = 20.0  # for a shard that is told to end, before it is killed


@dataclass(frozen=True, slots=True)
class Slot:
    """What a shard has for itself."""

    cores: tuple[int, ...]
    gpu: str | None  # what the variable `visible` is set to
    visible: str | None = None  # as `Kind.visible`


def slots(count: int, device: str, threads: int) -> list[Slot]:
    """That many slots of this machine, with disjoint cores and GPUs. Raises: UsageError if it has too few."""
    usable = sorted(os.sched_getaffinity(0))
    if count * threads > len(usable):
        needs = f"{count} slots with {threads} threads each need {count * threads} cores"
        raise UsageError(f"--on local:{count}: {needs}, and this process may use {len(usable)}")
    share = len(usable) // count
    cores = [tuple(usable[share * slot : share * (slot + 1)]) for slot in range(count)]
    if on_host(device):
        return [Slot(own, None) for own in cores]
    kind = kind_of(device)
    gpus = [str(gpu["uuid"]) for gpu in kind.present()]
    if count > len(gpus):
        has = f"{len(gpus)} {kind.title}{'s'[: len(gpus) != 1]}"
        raise UsageError(f"--on local:{count}: this machine shows {has}, and each slot takes one")
    return [Slot(own, gpu, kind.visible) for own, gpu in zip(cores, gpus, strict=False)]


@dataclass(slots=True)
class _Running:
    process: subprocess.Popen[bytes]
    slot: Slot


@dataclass(slots=True)
class Local:
    """Starts shards in processes of this machine. They end with this command."""

    places: list[Slot]
    name: str = "local"
    poll_s: float = 0.2
    settle_s: float = 0.0
    lasts: bool = False
    _queue: deque[Errand] = field(default_factory=deque)
    _running: dict[str, _Running] = field(default_factory=dict)
    _codes: dict[str, int] = field(default_factory=dict)
    _count: int = 0
    _own: str = field(default_factory=lambda: token_hex(4))  # of no other command's jobs; a container repeats its ids

    @property
    def beside(self) -> str | None:
        """What runs beside a shard."""
        others = len(self.places) - 1
        return f"{others} other sweep{'s'[: others != 1]} of --on local:{others + 1}" if others else None

    def submit(self, errands: Sequence[Errand]) -> list[str]:
        """Queue shards; the first ones start at once."""
        names = []
        for errand in errands:
            self._count += 1
            names.append(f"{self._own}-{self._count}")
            self._queue.append(replace(errand, job=names[-1]))
        self._start()
        return names

    def alive(self, names: Collection[str]) -> dict[str, str]:
        """Those that run or wait for a slot."""
        for name, one in list(self._running.items()):
            if one.process.poll() is not None:
                self._over(name)
        self._start()
        waiting = dict.fromkeys((str(errand.job) for errand in self._queue), "waiting")
        found = waiting | dict.fromkeys(self._running, "running")
        return {name: found[name] for name in names if name in found}

    def ended(self, name: str) -> str:
        """By its exit code or signal."""
        code = self._codes.get(name)
        if code is None:
            return "is of an earlier command"
        return f"ended by signal {-code}" if code < 0 else f"ended with exit code {code}"

    def cancel(self, names: Collection[str]) -> None:
        """End shards in order; kill those that do not end."""
        self._queue = deque(errand for errand in self._queue if errand.job not in names)
        own = {name: self._running[name].process for name in names if name in self._running}
        for process in own.values():
            process.terminate()
        deadline = time.monotonic() + ENDING_S
        for name, process in own.items():
            try:
                process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            self._over(name)

    def rest(self) -> None:
        """Wait for processes that are done with their shards."""
        for name, one in list(self._running.items()):
            try:
                one.process.wait(ENDING_S)
            except subprocess.TimeoutExpired:
                one.process.kill()
                one.process.wait()
            self._over(name)

    def _over(self, name: str) -> None:
        process = self._running.pop(name).process
        if process.stdin:
            process.stdin.close()
        self._codes[name] = process.returncode

    def _start(self) -> None:
        free = [slot for slot in self.places if slot not in [one.slot for one in self._running.values()]]
        for slot in free[: len(self._queue)]:
            errand = replace(self._queue.popleft(), cores=slot.cores)
            log = Path(errand.folder) / SHARDS / LOG
            own = {slot.visible: slot.gpu} if slot.visible and slot.gpu is not None else {}
            with writing(log), (log / f"{errand.number:03d}-{errand.job}.log").open("wb") as said:
                process = subprocess.Popen(
                    [sys.executable, "-P", "-m", "vbench.cluster.shard", encoded(errand)],
                    stdin=subprocess.PIPE,  # ends with this process, and then the shard does
                    stdout=said,
                    stderr=subprocess.STDOUT,
                    env={**os.environ, **own},
                    start_new_session=True,  # Ctrl-C is ours to handle
                )
            self._running[str(errand.job)] = _Running(process, slot)
