"""The least time that a call can take on this device: what is faster did not do the work.

It is the larger of two times: the FLOPs of the MACs executed at the device's best rate, and the bytes that must move at
its best rate, both over `ROOM`. The rates are measured once a run, and again before a launch is called impossible,
because other work on the machine can make them look lower than they are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from vbench import jobs
from vbench.jobs.launch import Ending
from vbench.plan import Case, product_dtype

ROOM = 1.1  # a rate may be this many times the measured one
LIMIT_S = 60.0  # for measuring the rates
AGAIN = 5  # times that rates are measured again for a launch that seems impossible
RATES = ("flops_per_s", "bytes_per_s", "copy_bytes_per_s")


@dataclass(slots=True)
class Roofs:
    """The rates of one device by dtype, measured as they are needed.

    Args:
        run: runs a job, with a limit in seconds.
        threads, tf32: as the cells are measured.
    """

    run: Callable[[str, dict[str, Any], float], Ending]
    device: str
    threads: int
    tf32: bool
    measured: dict[str, dict[str, Any]] = field(default_factory=dict)  # by dtype; `reason` where there are no rates

    def of(self, dtype: str) -> dict[str, Any]:
        """`RATES`, or "reason"."""
        if dtype not in self.measured:
            self.measured[dtype] = self._measure(dtype)
        return self.measured[dtype]

    def again(self, dtype: str) -> dict[str, Any]:
        """The rates after another measurement: of each the best so far."""
        before, now = self.of(dtype), self._measure(dtype)
        if "reason" not in now:
            self.measured[dtype] = {rate: max(now[rate], before.get(rate, 0.0)) for rate in RATES}
        return self.measured[dtype]

    def floor(self, case: Case, work: dict[str, Any] | None, latency: dict[str, Any] | None) -> dict[str, Any] | None:
        """The floor of a launch, as a part of its record; None for a launch without latency.

        Returns: `RATES`; `floor_ms`, None if it is not known, and then `reason`.
        """
        if not latency or not latency["samples_ms"]:
            return None
        if not work:
            return {"floor_ms": None, "reason": "its work was not counted"}
        dtype = product_dtype(case.dtype)
        rates = self.of(dtype)
        for _ in range(AGAIN):
            least = floor_ms(work, latency["batch"], rates)
            if least is None or median(latency["samples_ms"]) >= least:
                break
            rates = self.again(dtype)
        return {**rates, "floor_ms": floor_ms(work, latency["batch"], rates)}

    def _measure(self, dtype: str) -> dict[str, Any]:
        ask = jobs.roof(self.device, dict.fromkeys(("float32", dtype)), self.threads, tf32=self.tf32)
        ending = self.run(*ask, LIMIT_S)
        if ending.status != "ok" or not all(ending.parts.get(rate) for rate in RATES):
            return {"reason": f"the rates of the device could not be measured: {ending.reason or ending.status}"}
        return {rate: ending.parts[rate] for rate in RATES}


def floor_ms(work: dict[str, Any], batch: int, rates: dict[str, Any]) -> float | None:
    """The least time of a forward pass of `batch` images, and so of a training step; None without work or rates.

    Args:
        work: of one image; `macs_executed`, and `bytes_min`, which has the weights once.
    """
    if "flops_per_s" not in rates:
        return None
    times = [2 * (work.get("macs_executed") or 0) * batch / rates["flops_per_s"]]
    times.append((work.get("bytes_min") or 0) / rates["bytes_per_s"])
    return max(times) * 1e3 / ROOM or None
