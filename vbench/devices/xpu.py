"""A GPU of Intel, by torch's `xpu`: events time it, and torch's allocator counts its memory."""

from __future__ import annotations

from typing import Any

import torch

from vbench.devices import process
from vbench.devices.queued import Queued
from vbench.errors import DeviceError, UsageError


class Xpu(Queued):
    """One GPU as Level Zero numbers them."""

    memory_meter = "torch's allocator on XPU"

    def select(self, *, tf32: bool = False) -> None:
        torch.xpu.set_device(self.name)

    def about(self) -> dict[str, Any]:
        if torch.version.xpu is None:
            raise DeviceError(f"--device: this torch ({torch.__version__}) is built without XPU. Take --device cpu")
        if not torch.xpu.is_available() or torch.device(self.name).index >= torch.xpu.device_count():
            raise DeviceError(f"--device: torch {torch.__version__} cannot use {self.name}; see 'vbench doctor'")
        about = torch.xpu.get_device_properties(self.name)
        return {
            "name": about.name,
            "vendor": "Intel",
            "memory_bytes": about.total_memory,
            "capability": about.version,
            "multiprocessors": about.max_compute_units,
            "driver": about.driver_version,
            "xpu": torch.version.xpu,
        }

    def wait(self) -> None:
        torch.xpu.synchronize(self.name)

    def event(self) -> torch.xpu.Event:
        return torch.xpu.Event(enable_timing=True)

    def used_bytes(self) -> int:
        return int(torch.xpu.memory_allocated(self.name))

    def reset_peak(self) -> bool:
        torch.xpu.reset_peak_memory_stats(self.name)
        process.reset_peak()
        return True

    def peak_bytes(self) -> int:
        return int(torch.xpu.max_memory_allocated(self.name))

    def reserved_peak_bytes(self) -> int:
        return int(torch.xpu.max_memory_reserved(self.name))

    def free_bytes(self) -> int:
        unused = torch.xpu.memory_reserved(self.name) - torch.xpu.memory_allocated(self.name)
        return int(torch.xpu.mem_get_info(self.name)[0] + unused)

    def limit_memory(self, budget_bytes: int) -> None:
        total = torch.xpu.get_device_properties(self.name).total_memory
        held = torch.xpu.memory_reserved(self.name)
        if held + budget_bytes > total:
            raise UsageError(f"--memory: {self.name} has {total / 2**30:.3g} GiB in all; give less")
        torch.xpu.set_per_process_memory_fraction((held + budget_bytes) / total, self.name)
