"""A stand-in for `torch.cuda`: an allocator, streams and graphs that a test can watch, on the CPU's tensors.

`FakeCuda` replaces the functions that `vbench.devices.cuda` asks. The tensors of a test are the CPU's; while the
stand-in is entered, each one that an operation makes is counted as the caching allocator would count it.
"""

from __future__ import annotations

import time
import weakref
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

MIB = 2**20
WORKSPACE = 32 * MIB  # what cuBLAS keeps on sm_90, for each stream and each thread that calls it
SEGMENT = 2 * MIB
_ATEN = torch.ops.aten
PRODUCTS = {_ATEN.mm.default, _ATEN.addmm.default, _ATEN.matmul.default, _ATEN.linear.default}


class FakeCuda(TorchDispatchMode):
    """Use as a context manager. `used`, `peak` and `pools` are in bytes; pool 0 is everyone's, each graph has its own.

    Args:
        monkeypatch: takes the replacement back at the end of the test.
        out_of_memory_in_graph: an operation fails for want of memory while it is recorded, and so the recording.
    """

    module: Any = torch.cuda  # whose functions are replaced

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, out_of_memory_in_graph: bool = False) -> None:
        super().__init__()
        self.kept = self.peak = 0
        self.pools: Counter[int] = Counter()  # the most that was in use of each, at once
        self.graphs_alive = self.most_graphs_alive = self.graphs_made = self.events_made = 0
        self.name, self.uuid = "NVIDIA H200", "0"
        self._live: list[tuple[StorageWeakRef, int, int]] = []  # a storage, its bytes, its pool
        self._workspaces: set[tuple[int, bool]] = set()
        self._stream = self._pool = self._streams = 0
        self._fails = out_of_memory_in_graph
        for name, replacement in self._functions().items():
            monkeypatch.setattr(self.module, name, replacement)

    def _functions(self) -> dict[str, Any]:
        fake = self

        class Stream:
            def __init__(self) -> None:
                fake._streams += 1
                self.number = fake._streams

            def wait_stream(self, other: Any) -> None:
                pass

        class Graph:
            def __init__(self) -> None:
                fake.graphs_made += 1
                self.number = fake.graphs_made
                fake.graphs_alive += 1
                fake.most_graphs_alive = max(fake.most_graphs_alive, fake.graphs_alive)
                weakref.finalize(self, fake._graph_ends)

            def pool(self) -> tuple[int, int]:
                return (0, self.number)

            def replay(self) -> None:
                pass

        class Event:
            def __init__(self, enable_timing: bool) -> None:
                self.at: float | None = None

            def record(self) -> None:
                fake.events_made += self.at is None
                self.at = time.perf_counter()

            def elapsed_time(self, other: Event) -> float:
                assert self.at is not None
                assert other.at is not None
                return (other.at - self.at) * 1e3

        return {
            "Stream": Stream,
            "CUDAGraph": Graph,
            "Event": Event,
            "stream": self._on_stream,
            "graph": self._recording,
            "current_stream": Stream,
            "set_device": lambda device: None,
            "synchronize": lambda device=None: None,
            "memory_allocated": lambda device: self.used,
            "memory_reserved": lambda device: _up(self.used),
            "max_memory_allocated": lambda device: self.peak,
            "max_memory_reserved": lambda device: _up(self.peak),
            "reset_peak_memory_stats": self._reset,
            "mem_get_info": lambda device: (2**37, 2**37),
            "memory_snapshot": self._snapshot,
            "get_device_properties": lambda device: SimpleNamespace(name=self.name, uuid=self.uuid),
        }

    def _graph_ends(self) -> None:
        self.graphs_alive -= 1

    def _reset(self, device: str) -> None:
        self.peak = self.used

    def _snapshot(self) -> list[dict[str, Any]]:
        return [{"segment_pool_id": (0, pool), "total_size": _up(nbytes)} for pool, nbytes in self.pools.items()]

    @contextmanager
    def _on_stream(self, stream: Any) -> Iterator[None]:
        before, self._stream = self._stream, stream.number
        yield
        self._stream = before

    @contextmanager
    def _recording(self, graph: Any, stream: Any = None) -> Iterator[None]:
        with self._on_stream(stream or torch.cuda.Stream()):
            self._pool = graph.number
            try:
                yield
            except torch.OutOfMemoryError:  # as `capture_end` does: its own error masks what ended the recording
                raise RuntimeError("CUDA error: operation failed due to a previous error during capture")  # noqa: B904
            finally:
                self._pool = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if self._pool and self._fails:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        if func in PRODUCTS:
            thread = torch._C._current_graph_task_id() != -1  # the backward pass has a thread of its own on CUDA
            if (self._stream, thread) not in self._workspaces:
                self._workspaces.add((self._stream, thread))
                self.kept += WORKSPACE
                self.pools[self._pool] += WORKSPACE
        found = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(found):
            if isinstance(tensor, torch.Tensor):
                self._follow(StorageWeakRef(tensor.untyped_storage()), tensor.untyped_storage().nbytes())
        return found

    def _follow(self, storage: StorageWeakRef, nbytes: int) -> None:
        used = self.used  # the list has living storages alone now
        if storage not in [each for each, _, _ in self._live]:
            self._live.append((storage, nbytes, self._pool))
            self.peak = max(self.peak, used + nbytes)
            in_pool = sum(nbytes for _, nbytes, pool in self._live if pool == self._pool)
            self.pools[self._pool] = max(self.pools[self._pool], in_pool)

    @property
    def used(self) -> int:
        """What is in use now, kept workspaces included."""
        self._live = [each for each in self._live if not each[0].expired()]
        return self.kept + sum(nbytes for _, nbytes, _ in self._live)


def _up(nbytes: int) -> int:
    return -(-nbytes // SEGMENT) * SEGMENT
