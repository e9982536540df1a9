"""Where the memory of a call goes: weights, input, activations, and what is held beyond them. All figures in bytes.

On CUDA the allocator says what lives and what it reserves, and the driver what it charges to the process. On the
CPU it is the child's resident set above what the child held before the model was built; pages of shared
libraries, which the first call maps in, are left out. There the C allocator is told to hand every large block back
as it is freed, as it would otherwise count holes between blocks as the model's: a third of a peak, and not the same
third for all models.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import chain
from typing import Any

from torch import Tensor, nn

from vbench.devices import open_device, process
from vbench.devices.base import Device

REPEAT_BELOW_S = 5.0
CALLS = 3  # where they are quick: one cold, one that fills what is filled late, one that must leave nothing behind


def baseline(device: Device) -> int:
    """Bytes in use before the model exists; hand it to `measure`.

    On the CPU it also has the C allocator hand back what is freed, from here on (`process.hand_back`).
    """
    device.begin_memory()
    return device.used_bytes()


def measure(
    model: nn.Module, image: Tensor, baseline_bytes: int, *, repeat_below_s: float = REPEAT_BELOW_S
) -> dict[str, Any]:
    """Run `model(image)`, as the first calls that this model sees, and report what they needed.

    Args:
        baseline_bytes: what `baseline` said before the model was built.
        repeat_below_s: if the first call takes longer, it stays the only one.

    Returns:
        batch: images in the call.
        peak_bytes: the most that lived at once above the baseline = `weights_bytes` (parameters and buffers) +
            `input_bytes` + `activation_bytes` (the rest: activations, results, workspaces). On the CPU that of
            the first call, on CUDA that of the third (`method` says it in words).
        slack_bytes: held beyond what lives. CUDA: the peak of what the allocator reserved less that of what it gave
            out. CPU: what stays resident after the call beyond weights and input; caches are part of it.
        reserved_bytes: the peak of what the allocator reserved; None on the CPU, which has no such pool.
        process_bytes: charged to the whole process with its libraries. CUDA: by the driver, and None with
            `process_reason` where it does not tell. CPU: the peak resident set.
        host_peak_bytes: the host's peak resident set of the process, libraries included.
        growth_bytes: alive after the third call less after the second, a leak or a cache that grows; None with
            `growth_reason` where the first call was the only one.
        pass_s: seconds that the first call took; on the CPU more than it needs, see `process.hand_back`.
        calls: calls made.
    """
    device = open_device(str(image.device))
    peak_call = CALLS if device.pooled else 1
    seen = watch(lambda: model(image), device, baseline_bytes, peak_call=peak_call, repeat_below_s=repeat_below_s)
    held = {"weights_bytes": nbytes(chain(model.parameters(), model.buffers())), "input_bytes": image.nbytes}
    return {"batch": image.shape[0], **anatomy(seen, held)}


@dataclass(frozen=True, slots=True)
class Seen:
    """What `watch` saw; see `measure`.

    `peak_bytes` and `alive_bytes`, the latter after the call, are above the baseline; `unused_bytes` is the peak of
    what CUDA's allocator reserved less that of what it gave out.
    """

    pass_s: float
    calls: int
    method: str
    peak_bytes: int
    alive_bytes: int
    reserved_bytes: int | None
    unused_bytes: int | None
    process_bytes: int | None
    process_reason: str | None
    host_peak_bytes: int
    growth_bytes: int | None
    growth_reason: str | None


def watch(
    call: Callable[[], object], device: Device, baseline_bytes: int, *, peak_call: int, repeat_below_s: float
) -> Seen:
    """Make up to `CALLS` calls and look at memory around each; their results are dropped.

    Args:
        peak_call: which call's peak is wanted, from 1; an earlier one's if it is the last.
        repeat_below_s: if the first call takes longer, it stays the only one.
    """
    alive: list[int] = []
    pass_s = 0.0
    for number in range(1, CALLS + 1):
        wanted = number <= peak_call
        fresh = wanted and device.reset_peak()
        begin = time.perf_counter()
        call()
        device.wait()
        if number == 1:
            pass_s = time.perf_counter() - begin
        if wanted:
            peak, host_peak = device.peak_bytes(), process.peak_bytes()
            reserved = device.reserved_peak_bytes()
            charged, reason = device.process_bytes(host_peak)
            peak_number, since = number, "" if fresh else ", or of what went before"
        gc.collect()
        alive.append(device.used_bytes() - baseline_bytes)
        if pass_s > repeat_below_s:
            break
    grown = alive[2] - alive[1] if len(alive) == CALLS else None
    return Seen(
        pass_s=pass_s,
        calls=len(alive),
        method=f"{device.memory_meter}; peak of call {peak_number}{since}",
        peak_bytes=peak - baseline_bytes,
        alive_bytes=alive[peak_number - 1],
        reserved_bytes=reserved,
        unused_bytes=None if reserved is None else reserved - peak,
        process_bytes=charged,
        process_reason=reason,
        host_peak_bytes=host_peak,
        growth_bytes=grown,
        growth_reason=None if grown is not None else f"one call took {pass_s:.3g} s, more than {repeat_below_s:g} s",
    )


def anatomy(seen: Seen, held: dict[str, int]) -> dict[str, Any]:
    """What was seen, parted: `held` is known to live, by name; `activation_bytes` is the rest of the peak, at least 0.

    Returns: the keys of `measure` but `batch`, with those of `held`.
    """
    known = sum(held.values())
    slack = seen.alive_bytes - known if seen.unused_bytes is None else seen.unused_bytes
    return {
        "peak_bytes": seen.peak_bytes,
        **held,
        "activation_bytes": max(0, seen.peak_bytes - known),
        "slack_bytes": max(0, slack),
        **{name: getattr(seen, name) for name in _AS_SEEN},
    }


_AS_SEEN = (
    "reserved_bytes",
    "process_bytes",
    "process_reason",
    "host_peak_bytes",
    "growth_bytes",
    "growth_reason",
    "pass_s",
    "calls",
    "method",
)


def nbytes(tensors: Iterable[Tensor]) -> int:
    """Bytes of the distinct storages behind some tensors."""
    return sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}.values())
