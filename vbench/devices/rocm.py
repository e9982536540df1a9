"""A GPU of AMD. Torch built for ROCm calls it "cuda"; amdsmi is asked for its energy, and NVML for nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from vbench.devices import amd
from vbench.devices.base import Call, Device, EnergyCounter
from vbench.devices.cuda import Cuda
from vbench.devices.queued import Queued
from vbench.errors import DeviceError


class Rocm(Cuda):
    """What torch's `cuda` functions do on ROCm. How fast `torch.cuda._sleep` counts differs between AMD's GPUs, so
    that nothing here waits by it."""

    memory_meter = "torch's allocator on ROCm"

    def select(self, *, tf32: bool = False) -> None:
        super().select(tf32=False)

    def tf32(self) -> None:  # type: ignore[override]
        return None

    def about(self) -> dict[str, Any]:
        if not torch.cuda.is_available() or torch.device(self.name).index >= torch.cuda.device_count():
            raise DeviceError(
                f"--device: torch {torch.__version__}, built for ROCm, cannot use {self.name}; see 'vbench doctor'"
            )
        about = torch.cuda.get_device_properties(self.name)
        return {
            "name": about.name,
            "vendor": "AMD",
            "memory_bytes": about.total_memory,
            "capability": about.gcnArchName,
            "multiprocessors": about.multi_processor_count,
            "driver": amd.driver(),
            "hip": torch.version.hip,
            "miopen": torch.backends.cudnn.version(),
        }

    def uuid(self) -> str:
        return Device.uuid(self)

    def sample_after(self, earlier: Call, call: Call, host_ms: float = 0.0) -> float:
        return Device.sample_after(self, earlier, call, host_ms)

    def worker(self) -> Callable[[int], None]:
        return Queued.worker(self)

    def process_bytes(self, host_peak: int) -> tuple[int | None, str | None]:
        return None, "AMD's driver is not asked what it charges to a process"

    def energy_counter(self) -> EnergyCounter:
        return amd.EnergyCounter(self.name)
