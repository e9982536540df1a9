"""The processor. A call has returned when it is done; its memory is the resident set of the process."""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterable
from pathlib import Path

import psutil
import torch

from vbench.devices import process
from vbench.devices.base import Device, EnergyCounter
from vbench.errors import UnsupportedError, UsageError

POWERCAP = Path("/sys/class/powercap")


class Cpu(Device):
    """All processors of the machine, on as many threads as torch has. They report no throttle reasons."""

    memory_meter = "resident set, shared libraries left out"
    _watch: process.AnonymousPeak | None = None  # of the peak that is being measured
    _before = (0, 0)  # the peak resident set, and what was resident of files, at `reset_peak`

    def about(self) -> None:
        return None

    def check_compiler(self) -> None:
        from torch._inductor.cpp_builder import get_cpp_compiler

        try:
            get_cpp_compiler()
        except Exception as error:
            raise UnsupportedError(f"torch.compile needs a C++ compiler for the CPU: {error}; install g++") from None

    def wait(self) -> None:
        pass

    def worker(self) -> Callable[[int], None]:
        matrix = torch.full((64, 64), 1 / 64)  # so small that most rounds fit between two turns of the scheduler
        product = torch.empty_like(matrix)  # given, because an allocation may cost anything

        def multiply(calls: int) -> None:
            for _ in range(calls):
                torch.mm(matrix, matrix, out=product)

        return multiply

    def begin_memory(self) -> None:
        """No workspace is known: what oneDNN keeps counts as the model's."""
        process.hand_back()

    def used_bytes(self) -> int:
        """What lies free between the C allocator's blocks goes back first."""
        process.trim()
        anonymous = process.status_bytes("RssAnon")
        return int(psutil.Process().memory_info().rss) if anonymous is None else anonymous

    def reset_peak(self) -> bool:
        process.trim()  # what building left free between its blocks is not the call's
        fresh = process.reset_peak()
        self._end_watch()
        self._before = process.peak_bytes(), process.backed_bytes()
        self._watch = process.AnonymousPeak()
        return fresh

    def peak_bytes(self) -> int:
        """The kernel knows the peak with files, and what is resident of files now: less may have been at the peak.

        So the peak without files is at least the difference. It is also at least what a thread saw.
        """
        seen = self._end_watch() or 0
        most, (before, _) = process.peak_bytes(), self._before
        if most == before and seen:  # the kernel's peak is older than the call
            return seen
        return max(seen, most - process.backed_bytes())

    def peak_doubt_bytes(self) -> int:
        return abs(process.backed_bytes() - self._before[1])

    def outside_bytes(self, places: Iterable[tuple[int, int]]) -> int:
        return process.mapped_bytes(places)

    def _end_watch(self) -> int | None:
        watch, self._watch = self._watch, None
        return watch.stop() if watch else None

    def process_bytes(self, host_peak: int) -> tuple[int, None]:
        return host_peak, None

    def free_bytes(self) -> int:
        return int(psutil.virtual_memory().available)

    def limit_memory(self, budget_bytes: int) -> None:
        """The kernel counts what is mapped for writing, not what is resident: an allocation fails as it is mapped."""
        mapped = process.status_bytes("VmData")
        if mapped is None:
            raise UsageError("a process's memory can be limited on Linux alone")
        _, most = resource.getrlimit(resource.RLIMIT_DATA)
        wanted = mapped + budget_bytes if most == resource.RLIM_INFINITY else min(mapped + budget_bytes, most)
        resource.setrlimit(resource.RLIMIT_DATA, (wanted, most))

    def energy_counter(self) -> EnergyCounter:
        return RaplCounter()


class RaplCounter:
    """The energy of all CPU packages; a register that starts over at its end is followed, once between readings.

    Raises: OSError if there is no package domain, or none that may be read.
    """

    name = "RAPL, all CPU packages, every process"

    def __init__(self, powercap: Path = POWERCAP) -> None:
        self._ranges = {
            domain / "energy_uj": int((domain / "max_energy_range_uj").read_text())
            for domain in sorted(powercap.glob("*:[0-9]*"))
            if (domain / "name").is_file() and (domain / "name").read_text().startswith("package")
        }
        if not self._ranges:
            raise OSError("this machine shows no RAPL energy counter of its CPU packages")
        self._last = {file: self._register(file) for file in self._ranges}
        self._total_uj = 0

    def read_j(self) -> float:
        for file, last in self._last.items():
            now = self._register(file)
            self._total_uj += now - last if now >= last else now - last + self._ranges[file]
            self._last[file] = now
        return self._total_uj / 1e6

    @staticmethod
    def _register(file: Path) -> int:
        try:
            return int(file.read_text())
        except PermissionError:
            raise OSError("the RAPL energy counters may be read by root only") from None
