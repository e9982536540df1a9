"""The state of a device while it is measured: clocks, power, heat, and what others do on it.

A GPU is watched by a sibling process, this file run as a program (`python -P -m vbench.meters.state DEVICE FILE`),
which asks NVML ten times a second and writes one JSON line a sample. A CPU is watched from within, by counters
read before and after. Other processes are counted, never named.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import fmean, median
from types import TracebackType
from typing import Any

PERIOD_S = 0.1  # between two samples of a GPU
SLOW_CLOCK = 0.75  # of the run's own reference; below it a device was not itself
THROTTLE = {  # what NVML's bits of "clocks event reasons" mean; idle and clocks set by an owner are no throttling
    "power": 0x4,
    "hw_slowdown": 0x8,
    "sync_boost": 0x10,
    "thermal": 0x20 | 0x40,
    "power_brake": 0x80,
    "display_clock": 0x100,
    "board_limit": 0x200,
    "reliability": 0x400,
}
SLOWED = {"thermal", "power_brake", "hw_slowdown"}  # those after which a window is not to be trusted


def identify(argument: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """A job. {"device"} -> "uuid" of a CUDA device as NVML knows it: the two may number devices differently."""
    import torch

    yield "uuid", f"GPU-{torch.cuda.get_device_properties(argument['device']).uuid}"


class Sampler:
    """Watches one GPU from a process of its own, from entering to leaving. Use as a context manager.

    The process ends with this one, however this one ends.

    Args:
        device: NVML's UUID ("GPU-...") or index.
        folder: where the samples go, into `file`.
    """

    def __init__(self, device: str | int, folder: Path) -> None:
        self.file = folder / "gpu-state.jsonl"
        self._command = [sys.executable, "-P", __file__, str(device), str(self.file)]

    def __enter__(self) -> Sampler:
        # Its input is a pipe that says nothing: it closes when this process ends. A Ctrl-C is not for it.
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def window(self, begin: float, end: float) -> dict[str, Any] | None:
        """`window` of its own file."""
        return window(self.file, begin, end)

    @property
    def reason(self) -> str | None:
        """Why there are no samples; None while there is nothing to explain."""
        if self.file.is_file():
            for line in self.file.read_text().splitlines()[:1]:
                problem: str | None = json.loads(line).get("error")
                return problem
        code = self._process.poll()
        return None if code is None else f"the process that watches the GPU ended with exit code {code}"


def main(device: str, file: Path) -> None:
    """The watching process: until its standard input closes."""
    import pynvml

    def ended(seconds: float) -> bool:
        return bool(select.select([sys.stdin], [], [], seconds)[0])

    watch(pynvml, device, file, ended, parent=os.getppid())


def watch(nvml: Any, device: str, file: Path, ended: Callable[[float], bool], *, parent: int) -> None:
    """Write samples until `ended(seconds)`, which waits that long, says so.

    Where NVML does not work or has no such device, the only line is {"t", "error"}.

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
            write({"max_sm_mhz": fastest, **look(nvml, gpu, ours, parent)})
            if ended(PERIOD_S):
                return


def handle(nvml: Any, device: str | int) -> Any:
    """NVML's handle of a UUID or an index. Raises: NVMLError."""
    text = str(device)
    return nvml.nvmlDeviceGetHandleByIndex(int(text)) if text.isdecimal() else nvml.nvmlDeviceGetHandleByUUID(text)


def ask(nvml: Any, question: str, *arguments: Any) -> Any:
    """NVML's answer; None where this device or driver has none."""
    try:
        return getattr(nvml, question)(*arguments)
    except nvml.NVMLError:
        return None


def look(nvml: Any, gpu: Any, ours: set[int], parent: int) -> dict[str, Any]:
    """One sample; None for what the device does not tell. Processes found to be ours are added to `ours`."""
    milliwatts = ask(nvml, "nvmlDeviceGetPowerUsage", gpu)
    bits = ask(nvml, "nvmlDeviceGetCurrentClocksEventReasons", gpu)
    if bits is None:  # the name before driver 535
        bits = ask(nvml, "nvmlDeviceGetCurrentClocksThrottleReasons", gpu)
    use = ask(nvml, "nvmlDeviceGetUtilizationRates", gpu)
    running = ask(nvml, "nvmlDeviceGetComputeRunningProcesses", gpu)
    sample = {
        "sm_mhz": ask(nvml, "nvmlDeviceGetClockInfo", gpu, nvml.NVML_CLOCK_SM),
        "mem_mhz": ask(nvml, "nvmlDeviceGetClockInfo", gpu, nvml.NVML_CLOCK_MEM),
        "power_w": None if milliwatts is None else milliwatts / 1e3,
        "temp_c": ask(nvml, "nvmlDeviceGetTemperature", gpu, nvml.NVML_TEMPERATURE_GPU),
        "throttle_bits": bits,
        "gpu_percent": None if use is None else use.gpu,
    }
    if running is None:
        return {**sample, "own_pids": None, "foreign_pids": None, "foreign_bytes": None}
    ours |= {process.pid for process in running if _descends(process.pid, parent)}
    foreign = [process for process in running if process.pid not in ours]
    return {
        **sample,
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


def window(file: Path, begin: float, end: float) -> dict[str, Any] | None:
    """What the samples between two moments of `time.monotonic()` say, of a time when this program was on the GPU.

    Returns: `samples`, their number; `sm_mhz_median`, `sm_mhz_min`, `max_sm_mhz` (the fastest this device has),
        `mem_mhz`, `temp_c_max`, `power_w_mean`, `gpu_percent_mean`; `throttle`, names of `THROTTLE`;
        `foreign_pids` and `foreign_bytes`, the most at once of other programs, and `foreign_reason`, why they
        are unknown or a lower bound. None for what the device did not tell, or in all where there is no sample.
    """
    samples = list(_between(file, begin, end))
    if not samples:
        return None

    def known(key: str) -> list[Any]:
        return [sample[key] for sample in samples if sample[key] is not None]

    def over(key: str, statistic: Callable[[list[Any]], Any]) -> Any:
        return statistic(known(key)) if known(key) else None

    seen = known("throttle_bits")
    return {
        "samples": len(samples),
        "sm_mhz_median": over("sm_mhz", median),
        "sm_mhz_min": over("sm_mhz", min),
        "max_sm_mhz": over("max_sm_mhz", max),
        "mem_mhz": over("mem_mhz", median),
        "temp_c_max": over("temp_c", max),
        "power_w_mean": over("power_w", fmean),
        "gpu_percent_mean": over("gpu_percent", fmean),
        "throttle": [name for name, bit in THROTTLE.items() if any(bits & bit for bits in seen)] if seen else None,
        **_foreign(max(known("own_pids"), default=None), over("foreign_pids", max), over("foreign_bytes", max)),
    }


def _foreign(own: int | None, others: int | None, others_bytes: int | None) -> dict[str, Any]:
    """In a container the driver may hide all processes, or give them numbers that are not ours."""
    if own:
        return {"foreign_pids": others, "foreign_bytes": others_bytes, "foreign_reason": None}
    if not others:
        return {"foreign_pids": None, "foreign_bytes": None, "foreign_reason": "the driver shows no process, not ours"}
    reason = "the driver does not show which process is ours; one is taken for it, so this is a lower bound"
    return {"foreign_pids": others - 1, "foreign_bytes": None, "foreign_reason": reason}


def _between(file: Path, begin: float, end: float) -> Iterator[dict[str, Any]]:
    """The samples of a stretch of time; its start is found by bisection, for a long sweep's file is long."""
    if not file.is_file():
        return
    with file.open("rb") as lines:

        def next_after(offset: int) -> bytes:
            lines.seek(offset)
            if offset:
                lines.readline()  # the rest of a line
            return lines.readline()

        low, high = 0, lines.seek(0, os.SEEK_END)
        while low < high:
            middle = (low + high) // 2
            line = next_after(middle)
            if line.endswith(b"\n") and json.loads(line)["t"] < begin:
                low = middle + 1
            else:
                high = middle
        line = next_after(low)
        while line.endswith(b"\n"):  # one without is still being written
            sample = json.loads(line)
            if sample["t"] > end:
                return
            if "error" not in sample and sample["t"] >= begin:
                yield sample
            line = lines.readline()


def throttled(seen: dict[str, Any] | None, reference_mhz: float | None) -> bool | None:
    """Whether a window was measured on a device held back by heat or a power brake, or with its clock far down.

    Args:
        seen: what `window` returned.
        reference_mhz: the SM clock that this run has under load, by its other windows.

    Returns: None where neither the reasons nor the clock are known.
    """
    reasons = seen["throttle"] if seen else None
    if reasons is not None and SLOWED & set(reasons):
        return True
    clock = seen["sm_mhz_median"] if seen else None
    if clock is not None and reference_mhz is not None:
        return bool(clock < SLOW_CLOCK * reference_mhz)
    return None if reasons is None else False


def gpu_settings(nvml: Any, device: str | int) -> dict[str, Any]:
    """How a GPU is set up: `persistence`, `ecc` and `mig` (True or False), `sm_mhz` now and `max_sm_mhz`,
    `power_limit_w`, `pids` on it now. None for what it does not tell.

    Raises: NVMLError where NVML does not work or has no such device.
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


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
