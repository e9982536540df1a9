"""Stand-ins for what `torch.xpu`, `torch.mps` and torch built for ROCm tell of a GPU; none of these was run by us."""

from __future__ import annotations

import sys
import time
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from fake_cuda import FakeCuda

GIB = 2**30


class FakeXpu(FakeCuda):
    """The functions of `torch.xpu` that `vbench.devices.xpu` asks, on the counting allocator of `FakeCuda`."""

    module = torch.xpu

    def _functions(self) -> dict[str, Any]:
        cuda = super()._functions()
        shared = ("Event", "set_device", "synchronize", "memory_allocated", "memory_reserved", "max_memory_allocated")
        self.fraction: float | None = None
        about = {"name": "Intel(R) Arc(TM) B580 Graphics", "total_memory": 12 * GIB, "version": "20.1.0"}
        properties = SimpleNamespace(**about, max_compute_units=160, driver_version="1.6.33578")
        return {
            **{name: cuda[name] for name in (*shared, "max_memory_reserved", "reset_peak_memory_stats")},
            "is_available": lambda: True,
            "device_count": lambda: 1,
            "mem_get_info": lambda device: (10 * GIB, 12 * GIB),
            "get_device_properties": lambda device: properties,
            "set_per_process_memory_fraction": self._limit,
        }

    def _limit(self, fraction: float, device: str) -> None:
        self.fraction = fraction


class FakeMps:
    """The functions of `torch.mps` and `torch.backends.mps`; `used` and `held` are in bytes, and a test sets them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, available: bool = True) -> None:
        self.used = self.held = 0
        self.looks, self.emptied = 0, 0
        self.fraction: float | None = None
        fake = self

        class Event:
            def __init__(self, enable_timing: bool = False) -> None:
                assert enable_timing

            def record(self) -> None:
                self.at = time.perf_counter()

            def elapsed_time(self, other: Event) -> float:
                return (other.at - self.at) * 1e3

        functions = {
            "Event": Event,
            "synchronize": lambda: None,
            "current_allocated_memory": fake._look,
            "driver_allocated_memory": lambda: fake.held,
            "recommended_max_memory": lambda: 16 * GIB,
            "empty_cache": fake._empty,
            "set_per_process_memory_fraction": fake._limit,
        }
        for name, replacement in functions.items():
            monkeypatch.setattr(torch.mps, name, replacement)
        known = {"is_available": available, "is_built": False, "get_name": "Apple M4", "get_core_count": 10}
        for name, value in known.items():
            monkeypatch.setattr(torch.backends.mps, name, lambda value=value: value)

    def _look(self) -> int:
        self.looks += 1
        return self.used

    def _empty(self) -> None:
        self.emptied += 1
        self.held = self.used

    def _limit(self, fraction: float) -> None:
        self.fraction = fraction

    def take(self, nbytes: int) -> None:
        """Use as many bytes for a moment: until something has looked twice."""
        self.used += nbytes
        self.held = max(self.held, self.used)
        until, deadline = self.looks + 2, time.monotonic() + 5
        while self.looks < until and time.monotonic() < deadline:
            time.sleep(0.001)
        self.used -= nbytes


def be_rocm(monkeypatch: pytest.MonkeyPatch, *, amdsmi: Any = None) -> FakeCuda:
    """Torch as if built for ROCm; `amdsmi` is the module of that name, None if it is not installed."""
    monkeypatch.setattr(torch.version, "hip", "6.4.43482")
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setitem(sys.modules, "amdsmi", amdsmi)
    fake = FakeCuda(monkeypatch)
    about = {"name": "AMD Instinct MI300X", "total_memory": 192 * GIB, "gcnArchName": "gfx942:sramecc+:xnack-"}
    properties = SimpleNamespace(**about, multi_processor_count=304, uuid="1")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "_get_amdsmi_handler", lambda device: f"handle of {device}")
    return fake
