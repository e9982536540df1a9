"""Energy of an image in joules, by a counter in the hardware; the reason, if no counter can be read.

On a GPU this is NVML's total energy consumption; on a CPU it is Linux's powercap (RAPL), all packages together. Both
count the whole device, whoever uses it. Sampled power is not used: it is an average over an unknown time.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import pairwise
from statistics import median
from typing import Any

from vbench.devices.base import Device, EnergyCounter

IDLE_S = 2.0
BUSY_S = 2.0
STEPS = 100  # of the counter in a window, at least: one step more or less is 1 %
NEXT_STEP_S = 2.0  # how long the counter's next step is waited for
POLL_S = 0.001
STEPS_TIMED = 20  # from which the length of a step is taken
LONGEST_S = 60.0  # of work; a counter that needs more is too coarse for this
NOT_ASKED = "not measured at this --rigor"
FIELDS = (
    *("gross_j_per_image", "net_j_per_image", "window_s", "images"),
    *("counter_step_s", "idle_w", "counter", "reason"),
)


def counter_for(device: Device) -> EnergyCounter | str:
    """The energy counter of a device, or the reason why there is none."""
    try:
        return device.energy_counter()
    except OSError as error:
        return error.strerror or str(error)


def measure(
    run_for: Callable[[float], int],
    counter: EnergyCounter | str,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
    *,
    busy_s: float = BUSY_S,
) -> dict[str, Any]:
    """Measure the idle power, then the joules of work that lasts `busy_s` or 100 steps of the counter.

    Windows begin and end at a step of the counter. The time from the end of the work to the next step counts as idle
    and is subtracted.

    Args:
        run_for: works for at least that many seconds, waits for the device, and returns the number of images.
        counter: a counter, or the reason why there is none (`counter_for`).
        busy_s: the least time of work.

    Returns: `gross_j_per_image`; `net_j_per_image`, without the idle power of the device with the model loaded;
        `window_s`, `images`, `counter_step_s`, `idle_w`, `counter`. A value that is not known is None, and `reason`
        says why.
    """
    found: dict[str, Any] = dict.fromkeys(FIELDS)
    if isinstance(counter, str):
        return found | {"reason": counter}
    found["counter"] = counter.name
    try:
        step_s = _step_s(counter, clock, sleep)
        found["counter_step_s"] = step_s
        least_s = max(busy_s, STEPS * step_s)
        if least_s > LONGEST_S:
            return found | {"reason": f"this counter moves every {step_s:.2g} s: {STEPS} steps take {least_s:.0f} s"}
        begin, joules = _edge(counter, clock, sleep)
        sleep(IDLE_S)
        end, after = _edge(counter, clock, sleep)
        idle_w = (after - joules) / (end - begin)
        found["idle_w"] = idle_w

        begin, joules = end, after
        images = run_for(1.05 * least_s)
        done = clock()
        end, after = _edge(counter, clock, sleep)
        if after <= joules:
            raise OSError("the energy counter ran backwards")
    except OSError as error:
        return found | {"reason": error.strerror or str(error)}
    window_s = done - begin
    gross_j = after - joules - idle_w * (end - done)
    found |= {"window_s": window_s, "images": images}
    if window_s < least_s:
        return found | {"reason": f"the work took {window_s:.2f} s; this counter needs {least_s:.2f} s"}
    if images < 1:
        return found | {"reason": "no image was finished in the window"}
    return found | {"gross_j_per_image": gross_j / images, "net_j_per_image": (gross_j - idle_w * window_s) / images}


def _edge(counter: EnergyCounter, clock: Callable[[], float], sleep: Callable[[float], None]) -> tuple[float, float]:
    """Wait for the counter's next step: (time, joules). Raises: OSError if it stands still or runs backwards."""
    before, begin = counter.read_j(), clock()
    while clock() - begin < NEXT_STEP_S:
        sleep(POLL_S)
        joules = counter.read_j()
        if joules < before:
            raise OSError("the energy counter ran backwards")
        if joules > before:
            return clock(), joules
    raise OSError(f"the energy counter did not move in {NEXT_STEP_S:g} s")


def _step_s(counter: EnergyCounter, clock: Callable[[], float], sleep: Callable[[float], None]) -> float:
    """Seconds between two steps of the counter, at least the time of one reading."""
    edges = [_edge(counter, clock, sleep)[0] for _ in range(STEPS_TIMED + 1)]
    return median(late - early for early, late in pairwise(edges))
