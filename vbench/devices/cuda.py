"""A GPU of NVIDIA. Calls are queued, and torch's allocator counts memory; NVML is asked for the rest."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import torch

from vbench.devices import nvml, process
from vbench.devices.base import Call, EnergyCounter
from vbench.devices.queued import Queued
from vbench.errors import DeviceError, UsageError

WORK_CYCLES = 200_000  # of the device, for one unit of `worker`
CYCLES_PER_MS = 3_000_000  # no GPU has a faster clock; a slower one waits longer
SPUN_MS = 20.0  # the longest that the device waits for the host; after some thousand launches the queue is full


class Cuda(Queued):
    """A GPU: events around each call say how long the device took."""

    _side: torch.cuda.Stream | None = None  # on which calls are recorded; one, as libraries keep workspaces for each

    memory_meter = "CUDA allocator"

    def select(self, *, tf32: bool = False) -> None:
        torch.cuda.set_device(self.name)
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32

    def tf32(self) -> bool:
        """Products of matrices and convolutions have a flag each."""
        return bool(torch.backends.cuda.matmul.allow_tf32 or torch.backends.cudnn.allow_tf32)

    def about(self) -> dict[str, Any]:
        if torch.version.cuda is None:
            raise DeviceError(f"--device: this torch ({torch.__version__}) is built without CUDA. Take --device cpu")
        if not torch.cuda.is_available() or torch.device(self.name).index >= torch.cuda.device_count():
            raise DeviceError(f"--device: torch {torch.__version__} cannot use {self.name}; see 'vbench doctor'")
        about = torch.cuda.get_device_properties(self.name)
        return {
            "name": about.name,
            "memory_bytes": about.total_memory,
            "capability": f"{about.major}.{about.minor}",
            "multiprocessors": about.multi_processor_count,
            "driver": nvml.driver(),
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
        }

    def uuid(self) -> str:
        """NVML's name of the device, or of the slice of one (MIG): CUDA and NVML may number devices differently."""
        about = torch.cuda.get_device_properties(self.name)
        return f"{'MIG' if 'MIG' in about.name.split() else 'GPU'}-{about.uuid}"

    def wait(self) -> None:
        torch.cuda.synchronize(self.name)

    def event(self) -> torch.cuda.Event:
        return torch.cuda.Event(enable_timing=True)

    def moment(self, used: Any = None) -> torch.cuda.Event:
        """An event in the queue: nobody waits. A new event takes more of the host's time than a used one."""
        event: torch.cuda.Event = used or torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def between_ms(self, begin: Any, end: Any) -> float:
        return float(begin.elapsed_time(end))

    def sample_after(self, earlier: Call, call: Call, host_ms: float = 0.0) -> float:
        """The device spins between the two calls until the second one is queued, so that the host's time does not
        count. It does count for a call that takes the host longer than `SPUN_MS`."""
        begin, end = self.events()
        earlier()
        torch.cuda._sleep(int(CYCLES_PER_MS * (0.05 + min(1.5 * host_ms, SPUN_MS))))
        begin.record()
        call()
        end.record()
        end.synchronize()
        return float(begin.elapsed_time(end))

    def worker(self) -> Callable[[int], None]:
        return lambda units: torch.cuda._sleep(WORK_CYCLES * units)

    def captured(self, call: Call, begin: Callable[[], object] = lambda: None) -> Graph:
        """The call is warmed up on the stream on which it is recorded. So no workspace of a library is in its pool."""
        side = self._side = self._side or torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                call()
        torch.cuda.current_stream().wait_stream(side)
        gc.collect()  # the recording collects too, and what that frees is not the call's
        self.wait()
        begin()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=side):
            kept = call()
        return Graph(graph, kept)

    def used_bytes(self) -> int:
        return int(torch.cuda.memory_allocated(self.name))

    def charged(self) -> Charged:
        return Charged(self.name)

    def reset_peak(self) -> bool:
        torch.cuda.reset_peak_memory_stats(self.name)
        process.reset_peak()
        return True

    def peak_bytes(self) -> int:
        return int(torch.cuda.max_memory_allocated(self.name))

    def reserved_peak_bytes(self) -> int | None:
        return int(torch.cuda.max_memory_reserved(self.name))

    def process_bytes(self, host_peak: int) -> tuple[int | None, str | None]:
        return nvml.process_bytes(self.uuid())

    def free_bytes(self) -> int:
        unused = torch.cuda.memory_reserved(self.name) - torch.cuda.memory_allocated(self.name)
        return int(torch.cuda.mem_get_info(self.name)[0] + unused)

    def limit_memory(self, budget_bytes: int) -> None:
        total = torch.cuda.get_device_properties(self.name).total_memory
        held = torch.cuda.memory_reserved(self.name)
        if held + budget_bytes > total:
            raise UsageError(f"--memory: {self.name} has {total / 2**30:.3g} GiB in all; give less")
        torch.cuda.set_per_process_memory_fraction((held + budget_bytes) / total, self.name)

    def energy_counter(self) -> EnergyCounter:
        return nvml.EnergyCounter(self.uuid())


class Charged(Cuda):
    """The GPU, whose memory in use is what the driver charges to this process, or to all of it where it does not tell.

    The driver knows no peak: it is what is in use after a call, as runtimes keep what they have taken.
    """

    pooled = False
    memory_meter = "device memory that the driver charges to the process, read after a call"

    def used_bytes(self) -> int:
        charged, _ = nvml.process_bytes(self.uuid())
        free, total = torch.cuda.mem_get_info(self.name)
        return int(total - free) if charged is None else charged

    def peak_bytes(self) -> int:
        return self.used_bytes()

    def reserved_peak_bytes(self) -> None:
        return None


class Graph:
    """A recorded call. `kept` is its output, whose place the graph writes to."""

    def __init__(self, graph: torch.cuda.CUDAGraph, kept: Any) -> None:
        self._graph, self._kept = graph, kept

    def __call__(self) -> Any:
        self._graph.replay()
        return self._kept

    def pool_bytes(self) -> int:
        pool = tuple(self._graph.pool())
        segments = torch.cuda.memory_snapshot()
        return sum(each["total_size"] for each in segments if tuple(each["segment_pool_id"]) == pool)
