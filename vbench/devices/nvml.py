"""What the driver of NVIDIA tells of a GPU, by NVML, which needs no CUDA.

This file is a program too: `python -P nvml.py DEVICE FILE` watches a GPU. It asks ten times a second and writes one
line of JSON a sample, until its standard input closes. Other processes are counted, never named.
"""

from __future__ import annotations

import json
import os
import select
import sys
import time
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

PERIOD_S = 0.1  # between two samples of a GPU
THROTTLE = {  # the bits of "clocks event reasons"; idle and clocks set by an owner are no throttling
    "power": 0x4,
    "hw_slowdown": 0x8,
    "sync_boost": 0x10,
    "thermal": 0x20 | 0x40,
    "power_brake": 0x80,
    "display_clock": 0x100,
    "board_limit": 0x200,
    "reliability": 0x400,
}


def gpus() -> list[dict[str, Any]]:
    """The GPUs that CUDA shows to this program, in CUDA's order; empty if there is no driver.

    Each has "name", "driver", "uuid", "memory_bytes" and "free_bytes"; a size is None if the driver does not tell it.
    """
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return []
    try:
        version = ask(pynvml, "nvmlSystemGetDriverVersion")
        return [_about(pynvml, gpu, version) for gpu in _visible(pynvml, os.environ.get("CUDA_VISIBLE_DEVICES"))]
    finally:
        pynvml.nvmlShutdown()


def driver() -> str | None:
    """The version of the driver; None if there is none."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    try:
        version: str | None = ask(pynvml, "nvmlSystemGetDriverVersion")
        return version
    finally:
        pynvml.nvmlShutdown()


def _about(nvml: Any, gpu: Any, driver: str | None) -> dict[str, Any]:
    memory = ask(nvml, "nvmlDeviceGetMemoryInfo", gpu)  # none where the GPU shares the memory of the host
    return {
        "name": ask(nvml, "nvmlDeviceGetName", gpu),
        "driver": driver,
        "uuid": ask(nvml, "nvmlDeviceGetUUID", gpu),
        "memory_bytes": None if memory is None else memory.total,
        "free_bytes": None if memory is None else memory.free,
    }


def _visible(nvml: Any, wanted: str | None) -> list[Any]:
    """Handles of the GPUs, and slices of GPUs (MIG), that CUDA numbers from 0.

    CUDA takes the names in CUDA_VISIBLE_DEVICES up to the first that it does not know. An index counts as NVML counts,
    by the place on the bus; CUDA does so too where all GPUs are of one kind. Of sliced GPUs CUDA shows one slice.

    Args:
        wanted: CUDA_VISIBLE_DEVICES; None if it is not set.
    """
    whole = [ask(nvml, "nvmlDeviceGetHandleByIndex", index) for index in range(nvml.nvmlDeviceGetCount())]
    names = [gpu and ask(nvml, "nvmlDeviceGetUUID", gpu) for gpu in whole]
    if wanted is None:
        found = [gpu for gpu in whole if gpu is not None]
        slices = [each for each in map(partial(_slice, nvml), found) if each is not None]
        return slices[:1] or found
    found = []
    for name in map(str.strip, wanted.split(",")):
        if name.isdecimal():
            gpu = whole[int(name)] if int(name) < len(whole) else None
            gpu = gpu and (_slice(nvml, gpu) or gpu)
        elif name.startswith("GPU-"):  # the beginning of a name is enough
            alike = [gpu for gpu, uuid in zip(whole, names, strict=True) if uuid and uuid.startswith(name)]
            gpu = alike[0] if len(alike) == 1 else None
        else:
            gpu = ask(nvml, "nvmlDeviceGetHandleByUUID", name) if name.startswith("MIG-") else None
        if gpu is None:
            break
        found.append(gpu)
    names = [ask(nvml, "nvmlDeviceGetUUID", gpu) for gpu in found]
    return found if len(set(names)) == len(names) else []  # one named twice: CUDA shows none at all


def _slice(nvml: Any, gpu: Any) -> Any:
    """The first slice of a GPU that is sliced (MIG); None if it is not, or has none."""
    mode = ask(nvml, "nvmlDeviceGetMigMode", gpu)
    if mode is None or mode[0] != nvml.NVML_DEVICE_MIG_ENABLE:
        return None
    most = ask(nvml, "nvmlDeviceGetMaxMigDeviceCount", gpu) or 0
    slices = (ask(nvml, "nvmlDeviceGetMigDeviceHandleByIndex", gpu, index) for index in range(most))
    return next((each for each in slices if each is not None), None)


def handle(nvml: Any, device: str | int) -> Any:
    """NVML's handle of a UUID ("GPU-...", "MIG-...") or an index; `nvml` is the module `pynvml`. Raises: NVMLError."""
    text = str(device)
    return nvml.nvmlDeviceGetHandleByIndex(int(text)) if text.isdecimal() else nvml.nvmlDeviceGetHandleByUUID(text)


def ask(nvml: Any, question: str, *arguments: Any) -> Any:
    """NVML's answer; None if this device or driver has none."""
    try:
        return getattr(nvml, question)(*arguments)
    except nvml.NVMLError:
        return None


def process_bytes(uuid: str) -> tuple[int | None, str | None]:
    """What the driver charges to this process on a GPU, or None and the reason."""
    import pynvml

    try:
        pynvml.nvmlInit()
        for process in pynvml.nvmlDeviceGetComputeRunningProcesses(handle(pynvml, uuid)):
            if process.pid == os.getpid() and process.usedGpuMemory is not None:
                return int(process.usedGpuMemory), None
    except pynvml.NVMLError as error:
        return None, f"the driver does not tell: {error}"
    return None, "the driver lists no process of this number, as in a container of its own"


class EnergyCounter:
    """The energy of a GPU since the driver was loaded.

    Args:
        device: UUID or index.
        nvml: the module `pynvml`, which is imported if it is not given.

    Raises: OSError for a GPU that does not count.
    """

    name = "NVML, the whole GPU"

    def __init__(self, device: str | int, nvml: Any = None) -> None:
        self._nvml = nvml = nvml or import_module("pynvml")
        try:
            nvml.nvmlInit()
            self._gpu = handle(nvml, device)
        except nvml.NVMLError as error:
            raise OSError(f"NVML: {error}") from None
        self.read_j()

    def read_j(self) -> float:
        try:
            return float(self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._gpu)) / 1e3  # from mJ
        except self._nvml.NVMLError as error:
            raise OSError(f"NVML counts no energy on this GPU: {error}") from None


def settings(nvml: Any, device: str | int) -> dict[str, Any]:
    """How a GPU is set up: `persistence`, `ecc` and `mig` (True or False), `sm_mhz` now and `max_sm_mhz`,
    `power_limit_w`, `pids` on it now. None for what it does not tell.

    Raises: NVMLError if NVML does not work or has no such device.
    """
    nvml.nvmlInit()
    try:
        gpu = handle(nvml, device)
        ecc, mig = ask(nvml, "nvmlDeviceGetEccMode", gpu), ask(nvml, "nvmlDeviceGetMigMode", gpu)
        persistence = ask(nvml, "nvmlDeviceGetPersistenceMode", gpu)
        limit = ask(nvml, "nvmlDeviceGetEnforcedPowerLimit", gpu)
        running = ask(nvml, "nvmlDeviceGetComputeRunningProcesses", gpu)
        return {
            "persistence": None if persistence is None else persistence == nvml.NVML_FEATURE_ENABLED,
            "ecc": None if ecc is None else ecc[0] == nvml.NVML_FEATURE_ENABLED,
            "mig": None if mig is None else mig[0] == nvml.NVML_DEVICE_MIG_ENABLE,
            "sm_mhz": ask(nvml, "nvmlDeviceGetClockInfo", gpu, nvml.NVML_CLOCK_SM),
            "max_sm_mhz": ask(nvml, "nvmlDeviceGetMaxClockInfo", gpu, nvml.NVML_CLOCK_SM),
            "power_limit_w": None if limit is None else limit / 1e3,
            "pids": None if running is None else len(running),
        }
    finally:
        nvml.nvmlShutdown()


def watch(nvml: Any, device: str, file: Path, ended: Callable[[float], bool], *, parent: int) -> None:
    """Write samples until `ended(seconds)`, which waits that long, is true.

    If NVML does not work or has no such device, the only line is {"t", "error"}.

    Args:
        nvml: the module `pynvml`.
        parent: the process whose descendants on the GPU are ours.
    """
    with file.open("w") as lines:

        def write(sample: dict[str, Any]) -> None:
            print(json.dumps({"t": time.monotonic(), **sample}), file=lines, flush=True)

        try:
            nvml.nvmlInit()
            gpu = handle(nvml, device)
        except nvml.NVMLError as error:
            write({"error": str(error)})
            return
        fastest = ask(nvml, "nvmlDeviceGetMaxClockInfo", gpu, nvml.NVML_CLOCK_SM)
        ours: set[int] = set()
        while True:
            write({"max_sm_mhz": fastest, **sample(nvml, gpu, ours, parent)})
            if ended(PERIOD_S):
                return


def sample(nvml: Any, gpu: Any, ours: set[int], parent: int) -> dict[str, Any]:
    """One sample; None for what the device does not tell. The numbers of our processes are added to `ours`."""
    milliwatts = ask(nvml, "nvmlDeviceGetPowerUsage", gpu)
    bits = ask(nvml, "nvmlDeviceGetCurrentClocksEventReasons", gpu)
    if bits is None:  # the name before driver 535
        bits = ask(nvml, "nvmlDeviceGetCurrentClocksThrottleReasons", gpu)
    use = ask(nvml, "nvmlDeviceGetUtilizationRates", gpu)
    running = ask(nvml, "nvmlDeviceGetComputeRunningProcesses", gpu)
    found = {
        "sm_mhz": ask(nvml, "nvmlDeviceGetClockInfo", gpu, nvml.NVML_CLOCK_SM),
        "mem_mhz": ask(nvml, "nvmlDeviceGetClockInfo", gpu, nvml.NVML_CLOCK_MEM),
        "power_w": None if milliwatts is None else milliwatts / 1e3,
        "temp_c": ask(nvml, "nvmlDeviceGetTemperature", gpu, nvml.NVML_TEMPERATURE_GPU),
        "throttle_bits": bits,
        "gpu_percent": None if use is None else use.gpu,
    }
    if running is None:
        return {**found, "own_pids": None, "foreign_pids": None, "foreign_bytes": None}
    ours |= {process.pid for process in running if _descends(process.pid, parent)}
    foreign = [process for process in running if process.pid not in ours]
    return {
        **found,
        "own_pids": len(running) - len(foreign),
        "foreign_pids": len(foreign),
        "foreign_bytes": sum(process.usedGpuMemory or 0 for process in foreign),
    }


def _descends(pid: int, ancestor: int) -> bool:
    """Whether a process is `ancestor` or below it, as far as /proc tells."""
    while pid > 1 and pid != ancestor:
        try:
            pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            return False
    return pid == ancestor


def main(device: str, file: Path) -> None:
    """Watch a GPU until standard input closes."""
    import pynvml

    def ended(seconds: float) -> bool:
        return bool(select.select([sys.stdin], [], [], seconds)[0])

    watch(pynvml, device, file, ended, parent=os.getppid())


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
