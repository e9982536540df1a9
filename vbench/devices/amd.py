"""What tells of AMD's GPUs: the kernel's list of them, which needs no library, and amdsmi for energy if installed."""

from __future__ import annotations

import os
import platform
from importlib import import_module
from pathlib import Path
from typing import Any

NODES = "sys/class/kfd/kfd/topology/nodes"
DRIVER = "sys/module/amdgpu/version"


def gpus(root: Path = Path("/")) -> list[dict[str, Any]]:
    """The GPUs that ROCm shows to this program, in its order, as `nvml.gpus` has them; empty without a driver.

    "uuid" is what names one in HIP_VISIBLE_DEVICES. Nothing here tells how much memory is free.
    """
    found = []
    for node in sorted((root / NODES).glob("[0-9]*"), key=lambda path: int(path.name)):
        about = _properties(node / "properties")
        if about.get("simd_count", 0) > 0:  # the others are processors
            banks = [_properties(bank) for bank in node.glob("mem_banks/[0-9]*/properties")]
            found.append((about, sum(bank.get("size_in_bytes", 0) for bank in banks) or None))
    names = [f"GPU-{about.get('unique_id', 0):016x}" for about, _ in found]
    shown = _visible(names, "ROCR_VISIBLE_DEVICES")
    return [
        {
            "name": f"AMD {_arch(found[index][0].get('gfx_target_version', 0))}",
            "driver": driver(root),
            "uuid": str(place),
            "memory_bytes": found[index][1],
            "free_bytes": None,
        }
        for place, index in _places(shown)
    ]


def _places(shown: list[int]) -> list[tuple[int, int]]:
    """(place in ROCR's list, index of the GPU) of what HIP then shows. HIP takes CUDA's variable for its own."""
    wanted = next((name for name in ("HIP_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES") if name in os.environ), "")
    return [(place, shown[place]) for place in _visible([str(place) for place in range(len(shown))], wanted)]


def _visible(names: list[str], variable: str) -> list[int]:
    """The indices that a variable of the environment names, up to the first that does not exist."""
    wanted = os.environ.get(variable)
    if wanted is None:
        return list(range(len(names)))
    found: list[int] = []
    for word in map(str.strip, wanted.split(",")):
        index = int(word) if word.isdecimal() else names.index(word) if word in names else len(names)
        if index >= len(names) or index in found:
            break
        found.append(index)
    return found


def driver(root: Path = Path("/")) -> str:
    """The version of the driver, or of Linux, which has one built in."""
    file = root / DRIVER
    return file.read_text().strip() if file.is_file() else f"of Linux {platform.release()}"


def _arch(version: int) -> str:
    """The name of an architecture: 90402 is gfx942 (9, 4 and 2, in hexadecimal)."""
    return f"gfx{version // 10000}{version // 100 % 100:x}{version % 100:x}"


def _properties(file: Path) -> dict[str, int]:
    """The lines "name number" of a file; empty if it cannot be read."""
    try:
        pairs = (line.split() for line in file.read_text().splitlines())
        return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdecimal()}
    except OSError:
        return {}


class EnergyCounter:
    """The energy of a GPU as amdsmi counts it.

    Args:
        device: as torch has it, "cuda:0"; torch finds amdsmi's handle of it.

    Raises: OSError without amdsmi, or for a GPU that does not count.
    """

    name = "amdsmi, the whole GPU"

    def __init__(self, device: str) -> None:
        import torch

        try:
            self._smi = import_module("amdsmi")
            self._gpu = torch.cuda._get_amdsmi_handler(device)
        except ImportError:
            raise OSError("energy and clock of an AMD GPU are known by amdsmi alone, which is not installed") from None
        except Exception as error:
            raise OSError(f"amdsmi: {error}") from None
        self.read_j()

    def read_j(self) -> float:
        try:
            said = self._smi.amdsmi_get_energy_count(self._gpu)
            counted = said.get("energy_accumulator", said.get("power"))  # the name before ROCm 6.1
            return float(counted) * float(said["counter_resolution"]) / 1e6  # the resolution is in microjoules
        except Exception as error:
            raise OSError(f"amdsmi counts no energy on this GPU: {error}") from None
