"""Do two records come from one machine? Times of two machines must not be compared. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

FACTS = ("device", "device_name", "cpu", "cpu_count")
OF_GPU = ("name", "memory_bytes", "capability", "multiprocessors")  # CUDA and cuDNN come with torch: versions
RAM = 0.05  # the share by which memory may differ: a kernel keeps some for itself, and not always as much

Machine = dict[str, Any]


def machine(host: Mapping[str, Any]) -> Machine:
    """What of a record's `host` makes the machine; None for what it does not say. `driver` is the GPU's."""
    gpu = host.get("gpu") or {}
    return {
        **{name: host.get(name) for name in FACTS},
        "ram_bytes": host.get("ram_bytes"),
        **{f"gpu {name}": gpu.get(name) for name in OF_GPU},
        "driver": gpu.get("driver"),
    }


def differences(one: Machine, other: Machine) -> list[str]:
    """One phrase for each fact in which two machines differ, as in "cpu_count is 2 and 4"; empty if it is one."""
    return [f"{name} is {one[name]} and {other[name]}" for name in one if not _same(name, one[name], other[name])]


def _same(name: str, one: Any, other: Any) -> bool:
    if name == "ram_bytes" and one and other:
        return bool(abs(one - other) <= RAM * max(one, other))
    return bool(one == other)
