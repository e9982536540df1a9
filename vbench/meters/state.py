"""The state of a GPU while it is measured: clocks, power, heat and other programs, seen by a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import fmean, median
from types import TracebackType
from typing import Any

from vbench.devices import nvml, open_device

SLOW_CLOCK = 0.75  # of the run's own reference; below it a device was held back
SLOWED = {"thermal", "power_brake", "hw_slowdown"}  # reasons after which a window is not to be trusted


def identify(argument: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """A job. {"device"} -> "uuid", the name by which its driver knows the device."""
    yield "uuid", open_device(argument["device"]).uuid()


class Sampler:
    """Watches one GPU from a process of its own. Use as a context manager.

    That process ends when this one ends, in whatever way.

    Args:
        device: its UUID ("GPU-...") or index.
        folder: where the samples go, into `file`.
    """

    def __init__(self, device: str | int, folder: Path) -> None:
        self.file = folder / "gpu-state.jsonl"
        self._command = [sys.executable, "-P", nvml.__file__, str(device), str(self.file)]

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
        """The function `window`, of this sampler's file."""
        return window(self.file, begin, end)

    @property
    def reason(self) -> str | None:
        """Why there are no samples; None if there are some, or if they may still come."""
        if self.file.is_file():
            for line in self.file.read_text().splitlines()[:1]:
                problem: str | None = json.loads(line).get("error")
                return problem
        code = self._process.poll()
        return None if code is None else f"the process that watches the GPU ended with exit code {code}"


def window(file: Path, begin: float, end: float) -> dict[str, Any] | None:
    """What the samples between two moments of `time.monotonic()` say; this program used the GPU meanwhile.

    Returns: `samples`, their number; `sm_mhz_median`, `sm_mhz_min`, `max_sm_mhz` (the fastest this device has),
        `mem_mhz`, `temp_c_max`, `power_w_mean`, `gpu_percent_mean`; `throttle`, names of `nvml.THROTTLE`;
        `foreign_pids` and `foreign_bytes`, the most at once of other programs, and `foreign_reason`, why they
        are unknown or a lower bound. A value is None if the device did not tell it; all is None without a sample.
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
        "throttle": [name for name, bit in nvml.THROTTLE.items() if any(bits & bit for bits in seen)] if seen else None,
        **_foreign(max(known("own_pids"), default=None), over("foreign_pids", max), over("foreign_bytes", max)),
    }


def _foreign(own: int | None, others: int | None, others_bytes: int | None) -> dict[str, Any]:
    """What is known of other programs. In a container the driver may hide processes, or give them other numbers."""
    if own:
        return {"foreign_pids": others, "foreign_bytes": others_bytes, "foreign_reason": None}
    if not others:
        return {"foreign_pids": None, "foreign_bytes": None, "foreign_reason": "the driver shows no process, not ours"}
    reason = "the driver does not show which process is ours; one is taken for it, so this is a lower bound"
    return {"foreign_pids": others - 1, "foreign_bytes": None, "foreign_reason": reason}


def _between(file: Path, begin: float, end: float) -> Iterator[dict[str, Any]]:
    """The samples of a stretch of time. Its start is found by bisection, because the file of a long sweep is long."""
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
    """Whether heat or a power brake held the device back in a window, or its clock was far below the reference.

    Args:
        seen: what `window` returned.
        reference_mhz: the SM clock of this run under load, from its other windows.

    Returns: None if neither the reasons nor the clock are known.
    """
    reasons = seen["throttle"] if seen else None
    if reasons is not None and SLOWED & set(reasons):
        return True
    clock = seen["sm_mhz_median"] if seen else None
    if clock is not None and reference_mhz is not None:
        return bool(clock < SLOW_CLOCK * reference_mhz)
    return None if reasons is None else False


def why_slow(watch: dict[str, Any] | None, begin: float, end: float) -> str | None:
    """Why a device ran below its clock between two moments; None if it did not, or if nothing watches it.

    Args:
        watch: the "file" of a `Sampler`, and the clock "reference_mhz" of this run under load.
    """
    seen = window(Path(watch["file"]), begin, end) if watch else None
    if not watch or not seen or not throttled(seen, watch["reference_mhz"]):
        return None
    return f"{', '.join(seen['throttle'] or []) or 'slow clock'}: {seen['sm_mhz_median']} MHz"
