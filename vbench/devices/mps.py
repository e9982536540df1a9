"""The GPU of a Mac, by torch's `mps`. It shares the memory of the host; torch counts what it gives out there."""

from __future__ import annotations

import platform
import threading
from contextlib import suppress
from typing import Any

import psutil
import torch

from vbench.devices import process
from vbench.devices.queued import Queued
from vbench.errors import DeviceError, UsageError

PERIOD_S = 0.001  # between two looks at the memory in use
MOST = 2.0  # times the recommended memory: torch takes no larger limit


class Mps(Queued):
    """Torch keeps no peak for it, so a thread looks every `PERIOD_S`: the peak is the most that it saw."""

    memory_meter = "torch's allocator on MPS, looked at every millisecond, so that a shorter peak is missed"
    _watch: Looking | None = None

    def about(self) -> dict[str, Any]:
        if not torch.backends.mps.is_available():
            built = "cannot use" if torch.backends.mps.is_built() else "is built without"
            raise DeviceError(f"--device: torch {torch.__version__} {built} Apple's MPS. Take --device cpu")
        return {
            "name": torch.backends.mps.get_name(),
            "vendor": "Apple",
            "memory_bytes": int(torch.mps.recommended_max_memory()),
            "multiprocessors": torch.backends.mps.get_core_count(),
            "driver": f"of macOS {platform.mac_ver()[0]}",
        }

    def wait(self) -> None:
        torch.mps.synchronize()

    def event(self) -> torch.mps.Event:
        return torch.mps.Event(enable_timing=True)

    def used_bytes(self) -> int:
        return int(torch.mps.current_allocated_memory())

    def reset_peak(self) -> bool:
        self._end_watch()
        torch.mps.empty_cache()  # what the driver has given is then what this peak takes
        self._watch = Looking()
        process.reset_peak()
        return True

    def peak_bytes(self) -> int:
        return max(self._end_watch(), self.used_bytes())

    def reserved_peak_bytes(self) -> int:
        """Torch gives nothing back to the driver until it is told to, so that this is a peak."""
        return int(torch.mps.driver_allocated_memory())

    def free_bytes(self) -> int:
        """The part of the host's free memory that Metal recommends to take."""
        rest = int(torch.mps.recommended_max_memory()) - self.used_bytes()
        held = int(torch.mps.driver_allocated_memory()) - self.used_bytes()
        return max(0, min(rest, int(psutil.virtual_memory().available) + held))

    def limit_memory(self, budget_bytes: int) -> None:
        total = int(torch.mps.recommended_max_memory())
        wanted = (int(torch.mps.driver_allocated_memory()) + budget_bytes) / total
        if wanted > MOST:
            raise UsageError(f"--memory: {self.name} has {total / 2**30:.3g} GiB in all; give less")
        torch.mps.set_per_process_memory_fraction(wanted)

    def _end_watch(self) -> int:
        watch, self._watch = self._watch, None
        return watch.stop() if watch else 0


class Looking:
    """A thread that looks at the memory in use until `stop`."""

    def __init__(self) -> None:
        self._done, self._most = threading.Event(), 0
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def _look(self) -> None:
        while not self._done.wait(PERIOD_S):
            with suppress(RuntimeError):
                self._most = max(self._most, int(torch.mps.current_allocated_memory()))

    def stop(self) -> int:
        """End the thread. Returns: the most bytes that it saw."""
        self._done.set()
        self._thread.join()
        return self._most
