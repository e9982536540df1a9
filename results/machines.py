"""What differs between two records beside the code. Times of different machines must not be compared."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

FACTS = ("device", "device_name", "cpu", "cpu_count")
OF_GPU = (
    "name",
    "memory_bytes",
    "capability",
    "multiprocessors",
)  # CUDA and cuDNN come with torch, so they are versions
RAM = 0.05  # share by which memory may differ, as each system kernel reserves a different amount

Machine = dict[str, Any]


def machine(host: Mapping[str, Any]) -> Machine:
    """The facts of a record's `host` that identify the machine; None for missing ones. `driver` is the GPU's."""
    gpu = host.get("gpu") or {}
    return {
        **{name: host.get(name) for name in FACTS},
        "ram_bytes": host.get("ram_bytes"),
        **{f"gpu {name}": gpu.get(name) for name in OF_GPU},
        "driver": gpu.get("driver"),
    }


def differences(one: Machine, other: Machine) -> list[str]:
    """One phrase for each fact in which two machines differ, as in "cpu_count is 2 and 4"; empty if they agree."""
    return [f"{name} is {one[name]} and {other[name]}" for name in one if not _same(name, one[name], other[name])]


def _same(name: str, one: Any, other: Any) -> bool:
    if name == "ram_bytes" and one and other:
        return bool(abs(one - other) <= RAM * max(one, other))
    return bool(one == other)


def changed(one: Mapping[str, Any], other: Mapping[str, Any]) -> tuple[str, ...]:
    """One phrase for each key in which two runs or sides differ, as in "torch 2.11.0 → 2.12.0"."""
    return tuple(
        f"{key} {_told(one.get(key))} → {_told(other.get(key))}"
        for key in dict.fromkeys([*one, *other])
        if one.get(key) != other.get(key)
    )


def _told(value: Any) -> str:
    return "none" if value is None else str(value)
