"""The GPUs of Apple and of Intel that this machine shows without torch, each as `nvml.gpus` describes one."""

from __future__ import annotations

import platform
import sys
from pathlib import Path
from typing import Any

from vbench.devices.torch_build import built_for

PCI = "sys/bus/pci/devices"
INTEL = "0x8086"
DISPLAYS = ("0x0300", "0x0302", "0x0380")  # classes of the bus: what shows pictures, or could


def apple() -> list[dict[str, Any]]:
    """The one GPU of a Mac with a chip of Apple's own. It shares the memory of the host."""
    if sys.platform != "darwin" or platform.machine() != "arm64":
        return []
    import psutil

    memory, driver = psutil.virtual_memory(), f"of macOS {platform.mac_ver()[0]}"
    about = {"name": "Apple GPU", "driver": driver, "uuid": "0"}
    return [{**about, "memory_bytes": int(memory.total), "free_bytes": int(memory.available)}]


def intel(root: Path = Path("/")) -> list[dict[str, Any]]:
    """Those on the bus, if torch is built for them: many a computer has one that nobody computes on.

    Which of them torch shows, and in what order, torch alone knows; "uuid" is the number in ZE_AFFINITY_MASK.
    """
    if built_for("xpu") is None:
        return []
    found: list[dict[str, Any]] = []
    for place in sorted((root / PCI).glob("*")):
        if _line(place / "vendor") == INTEL and _line(place / "class")[:6] in DISPLAYS:
            about = {"name": f"Intel GPU {_line(place / 'device')}", "driver": f"of Linux {platform.release()}"}
            found.append({**about, "uuid": str(len(found)), "memory_bytes": None, "free_bytes": None})
    return found


def _line(file: Path) -> str:
    try:
        return file.read_text().strip()
    except OSError:
        return ""
