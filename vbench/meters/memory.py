"""Where the memory of a call goes: weights, input, activations, and what is held beyond them. All figures in bytes.

On CUDA the allocator says what lives and what it reserves, and the driver what it charges to the process. On the
CPU it is the child's resident set above what the child held before the model was built; pages of shared
libraries, which the first call maps in, are left out. There the C allocator is told to hand every large block back
as it is freed, as it would otherwise count holes between blocks as the model's: a third of a peak, and not the same
third for all models.
"""

from __future__ import annotations

import ctypes
import gc
import os
import platform
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

_STATUS = Path("/proc/self/status")

REPEAT_BELOW_S = 5.0
CALLS = 3  # where they are quick: one cold, one that fills what is filled late, one that must leave nothing behind


def baseline(device: torch.device) -> int:
    """Bytes in use before the model exists; hand it to `measure`.

    On the CPU it also has the C allocator hand back what is freed, from here on (`hand_back`).
    """
    if device.type != "cuda":
        hand_back()
    return _alive(device)


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
        pass_s: seconds that the first call took; on the CPU more than it needs, see `hand_back`. calls: calls made.
    """
    seen = watch(
        lambda: model(image),
        image.device,
        baseline_bytes,
        peak_call=CALLS if image.is_cuda else 1,
        repeat_below_s=repeat_below_s,
    )
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
    call: Callable[[], object], device: torch.device, baseline_bytes: int, *, peak_call: int, repeat_below_s: float
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
        fresh = wanted and _reset_peak(device)
        begin = time.perf_counter()
        call()
        _wait(device)
        if number == 1:
            pass_s = time.perf_counter() - begin
        if wanted:
            peak, host_peak = _peak(device), _host_peak()
            reserved = torch.cuda.max_memory_reserved(device) if device.type == "cuda" else None
            charged, reason = _process_bytes(device) if device.type == "cuda" else (host_peak, None)
            peak_number, since = number, "" if fresh else ", or of what went before"
        gc.collect()
        alive.append(_alive(device) - baseline_bytes)
        if pass_s > repeat_below_s:
            break
    grown = alive[2] - alive[1] if len(alive) == CALLS else None
    meter = "CUDA allocator" if device.type == "cuda" else "resident set, shared libraries left out"
    return Seen(
        pass_s=pass_s,
        calls=len(alive),
        method=f"{meter}; peak of call {peak_number}{since}",
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


def hand_back() -> bool:
    """Have the C allocator return every block from 64 KiB up as it is freed; True if it can be told (glibc).

    By default glibc raises that size to that of the largest block it has seen freed, up to 32 MiB, and what is freed
    below it stays resident as holes. What is handed back must be fetched again, zeroed page by page: a pass of many
    temporaries takes up to twice as long. Time nothing before `keep_freed`.
    """
    m_mmap_threshold = -3
    return _mallopt({m_mmap_threshold: 2**16})


def keep_freed() -> bool:
    """Let the C allocator keep what is freed, as CUDA's does; True if it can be told (glibc).

    By default glibc returns large blocks to the kernel and fetches them back, zeroed page by page, at the
    next pass: at 2048 px a quarter of a model's time, and none of its work.
    """
    m_trim_threshold, m_mmap_max = -1, -4
    return _mallopt({m_mmap_max: 0, m_trim_threshold: 2**31 - 1})


def _mallopt(options: dict[int, int]) -> bool:
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return all(bool(mallopt(option, value)) for option, value in options.items())


def fits(bytes_needed: int, device: torch.device) -> bool:
    """Whether an allocation of that size leaves a tenth of the device's free memory."""
    return bytes_needed <= 0.9 * free(device)


def free(device: torch.device) -> int:
    """Bytes that could be allocated now."""
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    import psutil

    return int(psutil.virtual_memory().available)


def nbytes(tensors: Iterable[Tensor]) -> int:
    """Bytes of the distinct storages behind some tensors."""
    return sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}.values())


def status_field(name: str) -> int | None:
    """A size that the kernel tells of this process, such as VmData, in bytes; None where it does not (not Linux)."""
    with suppress(OSError):
        for line in _STATUS.read_text().splitlines():
            if line.startswith(name + ":"):
                return int(line.split()[1]) * 1024
    return None


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _alive(device: torch.device) -> int:
    """Bytes in use now: given out by CUDA's allocator, or resident and no library's."""
    if device.type == "cuda":
        return int(torch.cuda.memory_allocated(device))
    anonymous = status_field("RssAnon")
    if anonymous is not None:
        return anonymous
    import psutil

    return int(psutil.Process().memory_info().rss)


def _reset_peak(device: torch.device) -> bool:
    """Forget the peak so far; False if the system cannot."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return device.type == "cuda"
    return True


def _peak(device: torch.device) -> int:
    """The most bytes in use since `_reset_peak`, counted as `_alive` counts."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    files, shared = status_field("RssFile"), status_field("RssShmem")
    return _host_peak() - (files or 0) - (shared or 0)


def _host_peak() -> int:
    """The peak resident set of the whole process, libraries included."""
    peak = status_field("VmHWM")
    if peak is not None:
        return peak
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _process_bytes(device: torch.device) -> tuple[int | None, str | None]:
    """What the driver charges to this process, or None and why it does not tell."""
    import pynvml

    try:
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(device).uuid}")
        for process in pynvml.nvmlDeviceGetComputeRunningProcesses(handle):
            if process.pid == os.getpid() and process.usedGpuMemory is not None:
                return int(process.usedGpuMemory), None
    except pynvml.NVMLError as error:
        return None, f"the driver does not tell: {error}"
    return None, "the driver lists no process of this number, as in a container of its own"
