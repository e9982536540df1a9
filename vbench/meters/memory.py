"""Where the memory of a call goes: weights, input, activations, and what is held beyond them, all in bytes.

On CUDA the allocator says what is in use and what it reserves, and the driver says what it charges to the process.
What libraries keep as workspaces is no part of a model's need, and is told apart. On the CPU it is the child's resident
set above what the child held before the model was built. Pages of shared libraries do not count. Where a call maps more
of them in, its peak is not exact, and that of the next call is taken if there is one. Weights that lie in a mapped file
or in shared memory are no memory of the process's own; they are added to what is. The C allocator hands every large
block back as it is freed. Otherwise holes between blocks would count as the model's: a third of a peak, and not the
same third for all models.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from time import perf_counter
from typing import Any

from torch import Tensor, nn

from vbench.devices import open_device, process
from vbench.devices.base import Device
from vbench.meters.build import weights_of

REPEAT_BELOW_S = 5.0
DOUBT_BYTES = 2**18  # a peak that may be off by more is taken of the next call
CALLS = 3  # if they are quick: one cold, one that fills late caches, one that must leave nothing behind


@dataclass(frozen=True, slots=True)
class Baseline:
    """What is in use without the model. `workspace_bytes` of it are workspaces of libraries; None if not known."""

    used_bytes: int
    workspace_bytes: int | None = None


def baseline(device: Device) -> Baseline:
    """What is in use before the model exists. From here on a CPU's memory is handed back when freed."""
    workspaces = device.begin_memory()
    return Baseline(device.used_bytes(), workspaces)


def measure(
    model: nn.Module, image: Tensor, baseline: Baseline, *, repeat_below_s: float = REPEAT_BELOW_S
) -> dict[str, Any]:
    """Make the first calls of a model, `model(image)`, and report the memory that they needed.

    Args:
        baseline: what the function `baseline` returned before the model was built.
        repeat_below_s: a call that takes longer is not repeated; see `watch`.

    Returns:
        batch: images in the call.
        peak_bytes: the most that was in use at once above the baseline = `weights_bytes` (parameters and buffers) +
            `input_bytes` + `activation_bytes` (the rest: activations, results, passing workspaces). On the CPU it is
            the peak of the first call that maps no libraries in, on CUDA that of the third. `method` says it in words.
        slack_bytes: held beyond what is in use. CUDA: the peak of what the allocator reserved minus the peak of what it
            gave out. CPU: what stays resident after the call beyond weights and input; caches are part of it.
        reserved_bytes: the peak of what the allocator reserved; None on the CPU, which has no such pool.
        process_bytes: charged to the whole process with its libraries. CUDA: by the driver; None if it does not tell,
            and `process_reason` says why. CPU: the peak resident set.
        host_peak_bytes: the host's peak resident set of the process, libraries included.
        growth_bytes: in use after the third call minus after the second: a leak, or a cache that grows. None if there
            was one call, and `growth_reason` says why.
        workspace_bytes: what libraries keep as workspaces beside the peak; None if it is not known.
        first_call_s: seconds that the very first call took, with whatever it loaded and compiled.
        pass_s: seconds that a call takes; on the CPU more than it needs, see `process.hand_back`.
        calls: calls made.
    """
    device = open_device(str(image.device))
    peak_call = CALLS if device.pooled else 1
    seen = watch(lambda: model(image), device, baseline, peak_call=peak_call, repeat_below_s=repeat_below_s)
    return {"batch": image.shape[0], **anatomy(with_outside(seen, outside(model, device)), _held(model, image))}


def measure_recording(
    model: nn.Module, image: Tensor, baseline: Baseline, *, repeat_below_s: float = REPEAT_BELOW_S
) -> dict[str, Any]:
    """Record a call of a model, and report the memory that its replay needs.

    Returns: the keys of `measure`, and `pool_bytes`: the pool of its own that a recording holds as long as it lives.
        `activation_bytes` is the most that was in use in the pool at once, `slack_bytes` is its rest, and `pass_s` is
        the time of a replay. A replay allocates nothing; `growth_bytes` says so.
    """
    device = open_device(str(image.device))
    held = _held(model, image)
    before = 0

    def begin() -> None:
        nonlocal before
        device.reset_peak()
        before = device.used_bytes()

    start = perf_counter()
    replay = device.captured(lambda: model(image), begin)
    device.wait()
    first_s = perf_counter() - start
    peak, pool = device.peak_bytes() - before, replay.pool_bytes()
    clean = replace(baseline, used_bytes=before - sum(held.values()))  # without what the warm-up left behind
    seen = watch(replay, device, clean, peak_call=1, repeat_below_s=repeat_below_s)
    found = {**anatomy(seen, held), "first_call_s": first_s}
    found |= {"activation_bytes": max(0, peak), "slack_bytes": max(0, pool - peak), "pool_bytes": pool}
    found |= {"peak_bytes": sum(held.values()) + found["activation_bytes"]}
    found |= {"method": f"{device.memory_meter}; peak while the graph was recorded, in a pool of its own"}
    return {"batch": image.shape[0], **found}


def _held(model: nn.Module, image: Tensor) -> dict[str, int]:
    return {"weights_bytes": nbytes(weights_of(model)), "input_bytes": image.nbytes}


@dataclass(frozen=True, slots=True)
class Seen:
    """What `watch` saw; see `measure`.

    `peak_bytes`, and `alive_bytes` after the call, are above the baseline. `unused_bytes` is the peak of what CUDA's
    allocator reserved minus the peak of what it gave out.
    """

    peak_bytes: int
    alive_bytes: int
    unused_bytes: int | None
    reserved_bytes: int | None
    process_bytes: int | None
    process_reason: str | None
    host_peak_bytes: int
    growth_bytes: int | None
    growth_reason: str | None
    workspace_bytes: int | None
    first_call_s: float
    pass_s: float
    calls: int
    method: str


def watch(
    call: Callable[[], object], device: Device, baseline: Baseline, *, peak_call: int, repeat_below_s: float
) -> Seen:
    """Make up to `CALLS` calls, drop their results, and read the memory before and after each.

    Args:
        peak_call: the number of the call whose peak is wanted, from 1. If there are fewer calls, it is the last one's.
            If this peak may be off by `DOUBT_BYTES` (`Device.peak_doubt_bytes`), it is that of the next call made.
        repeat_below_s: if the first call takes longer, it is the only one. On a lazy device, whose first call loads and
            compiles kernels, the second call is judged, and the third left out.
    """
    alive: list[int] = []
    times_s: list[float] = []
    judged, doubt = 2 if device.lazy else 1, 0
    for number in range(1, CALLS + 1):
        wanted = number <= peak_call or doubt > DOUBT_BYTES
        fresh = wanted and device.reset_peak()
        begin = perf_counter()
        call()
        device.wait()
        times_s.append(perf_counter() - begin)
        if wanted:
            peak, host_peak = device.peak_bytes(), process.peak_bytes()
            doubt = device.peak_doubt_bytes()
            reserved = device.reserved_peak_bytes()
            charged, reason = device.process_bytes(host_peak)
            peak_number, since = number, "" if fresh else ", or of what went before"
        gc.collect()
        alive.append(device.used_bytes() - baseline.used_bytes)
        if number == judged and times_s[-1] > repeat_below_s:
            break
    pass_s = times_s[judged - 1]
    grown = alive[2] - alive[1] if len(alive) == CALLS else None
    return Seen(
        workspace_bytes=baseline.workspace_bytes,
        first_call_s=times_s[0],
        pass_s=pass_s,
        calls=len(alive),
        method=f"{device.memory_meter}; peak of call {peak_number}{since}",
        peak_bytes=peak - baseline.used_bytes,
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
    """The parts of what was seen.

    Args:
        held: what is known to be in use, by name. The rest of the peak is `activation_bytes`, at least 0.

    Returns: the keys of `measure` without `batch`, and those of `held`.
    """
    known, rest = sum(held.values()), asdict(seen)
    peak, alive, unused = (rest.pop(name) for name in ("peak_bytes", "alive_bytes", "unused_bytes"))
    slack = alive - known if unused is None else unused
    parts = {"activation_bytes": max(0, peak - known), "slack_bytes": max(0, slack)}
    return {"peak_bytes": peak, **held, **parts, **rest}


def outside(model: nn.Module, device: Device) -> int:
    """The bytes of the weights that `Device.used_bytes` does not count: in a mapped file, or in shared memory."""
    storages = [x.untyped_storage() for x in weights_of(model)]
    return device.outside_bytes({(storage.data_ptr(), storage.nbytes()) for storage in storages})


def with_outside(seen: Seen, nbytes: int) -> Seen:
    """What was seen, with weights that the device's meter did not count; `method` says so."""
    if not nbytes:
        return seen
    words = f"; {nbytes / 2**20:.1f} MiB of weights in a mapped file or in shared memory added"
    peak, alive = seen.peak_bytes + nbytes, seen.alive_bytes + nbytes
    return replace(seen, peak_bytes=peak, alive_bytes=alive, method=seen.method + words)


def nbytes(tensors: Iterable[Tensor]) -> int:
    """Bytes of the distinct storages behind some tensors."""
    storages = [t.untyped_storage() for t in tensors]
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())
