"""Peak memory of a forward pass, split into weights, input and activations. All figures in bytes.

On CUDA the allocator says it, beside what it reserves and what the driver charges to the process. On the
CPU it is the child's peak resident set above what the child held before the model was built; pages of
shared libraries, which the first pass maps in, are left out.
"""

from __future__ import annotations

import ctypes
import os
import platform
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

_STATUS = Path("/proc/self/status")

# How torch and its libraries say that memory ran out where they raise no type of its own.
_OOM = (
    ("DefaultCPUAllocator: ", "memory"),
    ("CUDA error: out of memory",),
    ("CUBLAS_STATUS_ALLOC_FAILED",),
    ("CUDNN_STATUS_ALLOC_FAILED",),
)


def baseline(device: torch.device) -> int:
    """Bytes in use before the model exists; hand it to `measure`."""
    return torch.cuda.memory_allocated(device) if device.type == "cuda" else _resident()


def measure(model: nn.Module, image: Tensor, baseline_bytes: int) -> dict[str, Any]:
    """Run `model(image)` and report what it needed.

    On the CPU this is the model's first pass. On CUDA it follows two others, so that workspaces of the
    libraries are in place; they count as activations.

    Returns: `peak_bytes` = `weights_bytes` + `input_bytes` + `activation_bytes`; `pass_s`; `method`; on CUDA also
        `reserved_bytes` and `process_bytes` (None where the driver does not tell).
    """
    weights = _nbytes(chain(model.parameters(), model.buffers()))
    begin = time.perf_counter()
    if image.is_cuda:
        for _ in range(2):
            model(image)
        torch.cuda.synchronize(image.device)
        torch.cuda.reset_peak_memory_stats(image.device)
        model(image)
        torch.cuda.synchronize(image.device)
        peak = torch.cuda.max_memory_allocated(image.device) - baseline_bytes
        found: dict[str, Any] = {
            "method": "CUDA allocator, peak of one pass after two",
            "reserved_bytes": torch.cuda.max_memory_reserved(image.device),
            "process_bytes": _process_bytes(image.device),
        }
    else:
        _reset_peak()
        model(image)
        peak = _peak_resident() - baseline_bytes
        found = {"method": "peak resident set of the first pass, shared libraries left out"}
    return {
        "batch": image.shape[0],
        "pass_s": time.perf_counter() - begin,
        "peak_bytes": peak,
        "weights_bytes": weights,
        "input_bytes": image.nbytes,
        "activation_bytes": max(0, peak - weights - image.nbytes),
        **found,
    }


def keep_freed() -> bool:
    """Let the C allocator keep what is freed, as CUDA's does; True if it can be told (glibc).

    By default glibc returns large blocks to the kernel and fetches them back, zeroed page by page, at the
    next pass: at 2048 px a quarter of a model's time, and none of its work.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    m_trim_threshold, m_mmap_max = -1, -4
    return bool(mallopt(m_mmap_max, 0)) and bool(mallopt(m_trim_threshold, 2**31 - 1))


def fits(bytes_needed: int, device: torch.device) -> bool:
    """Whether an allocation of that size leaves a tenth of the device's free memory."""
    if device.type == "cuda":
        free = torch.cuda.mem_get_info(device)[0]
        free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    else:
        import psutil

        free = psutil.virtual_memory().available
    return bytes_needed <= 0.9 * free


def is_oom(error: Exception) -> bool:
    """Whether memory ran out. No other failure may pass for it."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    said = str(error)
    return isinstance(error, RuntimeError) and any(all(word in said for word in words) for words in _OOM)


def _nbytes(tensors: Iterable[Tensor]) -> int:
    """Bytes of the distinct storages behind some tensors."""
    return sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}.values())


def _field(name: str) -> int | None:
    with suppress(OSError):
        for line in _STATUS.read_text().splitlines():
            if line.startswith(name + ":"):
                return int(line.split()[1]) * 1024
    return None


def _resident() -> int:
    anonymous = _field("RssAnon")
    if anonymous is not None:
        return anonymous
    import psutil

    return int(psutil.Process().memory_info().rss)


def _reset_peak() -> None:
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _peak_resident() -> int:
    peak, files, shared = _field("VmHWM"), _field("RssFile"), _field("RssShmem")
    if peak is not None and files is not None:
        return peak - files - (shared or 0)
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _process_bytes(device: torch.device) -> int | None:
    """What the driver charges to this process; None if it does not know it (containers, other users)."""
    import pynvml

    with suppress(pynvml.NVMLError):
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(device).uuid}")
        for process in pynvml.nvmlDeviceGetComputeRunningProcesses(handle):
            if process.pid == os.getpid() and process.usedGpuMemory is not None:
                return int(process.usedGpuMemory)
    return None
