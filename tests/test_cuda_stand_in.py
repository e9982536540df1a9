"""What surrounds a GPU, on a stand-in that records it: first calls, workspaces, graphs, want of memory."""

from __future__ import annotations

import gc
import subprocess
import sys
import weakref
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from itertools import chain, repeat
from typing import Any

import pytest
import torch
from fake_cuda import SEGMENT, WORKSPACE, FakeCuda
from simulated import Simulated
from torch import Tensor, nn

from vbench.devices import KINDS, is_out_of_memory, nvml, process
from vbench.devices.cpu import Cpu
from vbench.devices.cuda import Cuda
from vbench.meters import memory, throughput, timing
from vbench.meters.backend import Compilations
from vbench.meters.workload import workload
from vbench.plan import RIGORS, Case, Protocol
from vbench.sweeps.measure import measure

QUICK = replace(
    RIGORS["quick"], warmup_s=0.0, warmup_max_s=60.0, sample_s=0.01, sample_max_s=0.05, samples_min=2, batch_max=4
)


class Net(nn.Module):
    """One product whose input and output have `side` squared numbers."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(side, side))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight


class Cell:
    """A net, its input and its device, on the stand-in."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, side: int) -> None:
        self.device = Cuda("cpu")
        monkeypatch.setattr(memory, "open_device", lambda name: self.device)
        monkeypatch.setattr(self.device, "process_bytes", lambda host_peak: (None, "a stand-in"))
        self.baseline = memory.baseline(self.device)
        self.net = Net(side).requires_grad_(False)
        self.image = torch.ones(side, side)

    def eager(self) -> dict[str, Any]:
        return memory.measure(self.net, self.image, self.baseline)

    def recorded(self) -> dict[str, Any]:
        return memory.measure_recording(self.net, self.image, self.baseline)


def test_workspaces_of_libraries_are_no_activations(monkeypatch: pytest.MonkeyPatch) -> None:
    """So activations grow as the image does, fourfold from one side to twice the side."""
    grown = {}
    for side in (512, 1024):
        with FakeCuda(monkeypatch), torch.inference_mode():
            found = Cell(monkeypatch, side).eager()
        nbytes = 4 * side * side
        assert found["workspace_bytes"] == 2 * WORKSPACE  # of a forward and of a backward pass
        assert (found["weights_bytes"], found["input_bytes"], found["activation_bytes"]) == (nbytes, nbytes, nbytes)
        assert (found["peak_bytes"], found["growth_bytes"]) == (3 * nbytes, 0)
        grown[side] = found["activation_bytes"]
    assert grown[1024] == 4 * grown[512]


def test_a_step_finds_the_workspaces_taken_too(monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeCuda(monkeypatch) as cuda:
        device = Cuda("cpu")
        assert device.begin_memory() == 2 * WORKSPACE
        before = cuda.used
        x = torch.ones(8, 8, requires_grad=True)
        (x @ x).sum().backward()
        del x
        assert cuda.used == before


def test_of_a_graph_its_own_pool_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """The eager calls before it need as much elsewhere, which the graph does not hold; no workspace is in the pool."""
    with FakeCuda(monkeypatch) as cuda, torch.inference_mode():
        cell = Cell(monkeypatch, 600)
        found = cell.recorded()
        nbytes = 4 * 600 * 600
        assert cuda.pools[1] == nbytes
    pool = -(-nbytes // SEGMENT) * SEGMENT
    assert (found["pool_bytes"], found["activation_bytes"], found["slack_bytes"]) == (pool, nbytes, pool - nbytes)
    assert (found["peak_bytes"], found["growth_bytes"]) == (3 * nbytes, 0)
    assert "recorded" in found["method"]
    assert found["peak_bytes"] == sum(found[f"{part}_bytes"] for part in ("weights", "input", "activation"))


def test_want_of_memory_while_recording_is_known_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeCuda(monkeypatch, out_of_memory_in_graph=True):
        device, x = Cuda("cpu"), torch.ones(4, 4)
        with pytest.raises(RuntimeError, match="previous error during capture") as raised:
            device.captured(lambda: x @ x)
    assert is_out_of_memory(raised.value)


def lazy_device(durations: Any, monkeypatch: pytest.MonkeyPatch, *, lazy: bool = True) -> Simulated:
    device = Simulated(durations)
    device.lazy = device.pooled = lazy
    monkeypatch.setattr(memory, "perf_counter", lambda: device.time)
    return device


def watched(device: Simulated) -> memory.Seen:
    peak_call = memory.CALLS if device.pooled else 1
    return memory.watch(device.call, device, memory.Baseline(0), peak_call=peak_call, repeat_below_s=3.0)


def test_a_slow_first_call_is_not_taken_for_a_slow_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cold cache of kernels: 4 s, and then 20 ms."""
    device = lazy_device(chain([4.0], repeat(0.02)), monkeypatch)
    seen = watched(device)
    assert (seen.calls, seen.growth_bytes, seen.first_call_s, seen.pass_s) == (3, 0, 4.0, pytest.approx(0.02))
    assert "call 3" in seen.method
    warm = timing.warm_up(device.call, device, Protocol(), earlier_s=seen.pass_s)
    assert warm["converged"] is True
    assert warm["calls"] >= 2 * Protocol().window


def test_a_model_that_is_slow_is_found_so_by_its_second_call(monkeypatch: pytest.MonkeyPatch) -> None:
    device = lazy_device(chain([50.0], repeat(45.0)), monkeypatch)
    seen = watched(device)
    assert (seen.calls, seen.pass_s, device.time) == (2, 45.0, 95.0)
    assert "call 2" in seen.method
    assert "45 s" in (seen.growth_reason or "")
    assert timing.warm_up(device.call, device, Protocol(), earlier_s=seen.pass_s)["calls"] == 0


def test_where_nothing_is_compiled_a_slow_call_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    device = lazy_device(repeat(45.0), monkeypatch, lazy=False)
    seen = watched(device)
    assert (seen.calls, seen.first_call_s, seen.pass_s, device.time) == (1, 45.0, 45.0, 45.0)


@pytest.mark.parametrize(("form", "calls"), [("compiled", 2), ("reference", 1)])
def test_on_the_cpu_one_call_more_is_made_where_numba_compiles(
    monkeypatch: pytest.MonkeyPatch, form: str, calls: int
) -> None:
    """What the compiler takes, in time and in memory, is not the model's; a plain model is not called for nothing."""
    pytest.importorskip("numba")
    monkeypatch.setattr(process, "hand_back", lambda: True)
    case = Case("vig_t", 32, 32, "recurrent", form, 1, "float32", "cpu")
    with Compilations("eager", 1) as compilations:
        measured = workload(case, Cpu("cpu"), compilations, repeat_below_s=0.0)
        seen: list[None] = []
        measured._model.register_forward_hook(lambda *_: seen.append(None))
        found = measured.memory()
    assert (len(seen), found["calls"]) == (calls, 1)
    assert (found["first_call_s"] == found["pass_s"]) is (calls == 1)


def test_a_first_call_of_the_warm_up_that_is_slow_is_followed_by_a_second() -> None:
    device = Simulated(chain([4.0], repeat(0.02)))
    found = timing.warm_up(device.call, device, Protocol())
    assert (found["converged"], found["reason"]) == (True, None)


@pytest.fixture
def launch(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., dict[str, Any]]]:
    """A launch of a small cell in this process, on the stand-in in the CPU's place; the parts, and the "error"."""
    row = replace(KINDS["cpu"], device="vbench.devices.cuda:Cuda", graphs=True)
    monkeypatch.setitem(KINDS, "cpu", row)
    monkeypatch.setattr(process, "keep_freed", lambda: True)  # this process goes on
    monkeypatch.setattr(nvml, "process_bytes", lambda uuid: (None, "a stand-in"))
    flags = torch.backends.cuda.matmul, torch.backends.cudnn
    before = [each.allow_tf32 for each in flags]

    def launch(**changes: Any) -> dict[str, Any]:
        case = Case("deit_t", 32, 32, "parallel", None, "knee", "float32", "cpu", **changes)
        argument = {"case": asdict(case), "protocol": asdict(QUICK), "launch": 0, "batch": None, "watch": None}
        argument |= {"in_turns": False}
        parts: dict[str, Any] = {}
        try:
            parts.update(measure(argument))
        except RuntimeError as error:
            parts["error"] = error
        return parts

    yield launch
    for each, allowed in zip(flags, before, strict=True):
        each.allow_tf32 = allowed


def test_two_graphs_live_at_most(monkeypatch: pytest.MonkeyPatch, launch: Callable[..., dict[str, Any]]) -> None:
    """The calls of the memory pass, of latency and of each batch have a graph each; a search has two side by side."""
    with FakeCuda(monkeypatch) as cuda:
        found = launch(backend="cudagraph")
    assert list(found)[-1] == "energy"
    assert cuda.graphs_made >= 4
    assert cuda.most_graphs_alive == 2
    assert found["memory"]["pool_bytes"] > 0
    assert found["settings"]["caches"] == "warm"


def test_one_optimiser_lives_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    alive, most = weakref.WeakSet[Any](), 0
    build_it = torch.optim.AdamW.__init__

    def built(self: Any, *args: Any, **kwargs: Any) -> None:
        nonlocal most
        build_it(self, *args, **kwargs)
        gc.collect()
        alive.add(self)
        most = max(most, len(alive))

    monkeypatch.setattr(torch.optim.AdamW, "__init__", built)
    monkeypatch.setattr(process, "hand_back", lambda: True)
    case = Case("deit_t", 32, 32, "parallel", None, 1, "float32", "cpu", phase="train")
    with Compilations("eager", 1) as compilations:
        measured = workload(case, Cpu("cpu"), compilations, repeat_below_s=0.0)
        measured.memory()
        for batch in (1, 2):
            measured.caller(batch)()
            assert set(measured.parts()) == {"forward", "backward", "update"}
    assert most == 1


def test_an_error_that_stays_is_neither_want_of_memory_nor_the_end_of_what_was_measured(
    monkeypatch: pytest.MonkeyPatch, launch: Callable[..., dict[str, Any]]
) -> None:
    """After an illegal access every call of CUDA fails with it. The search for a batch must not go on from there."""
    at = throughput._Calls.at

    def broken(calls: throughput._Calls, batch: int) -> Any:
        if batch < 2:
            return at(calls, batch)
        try:
            raise torch.OutOfMemoryError("CUDA out of memory")
        except torch.OutOfMemoryError:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")  # noqa: B904

    monkeypatch.setattr(throughput._Calls, "at", broken)
    with FakeCuda(monkeypatch):
        found = launch()
    assert "illegal memory access" in str(found["error"])
    assert not is_out_of_memory(found["error"])
    assert list(found) == ["settings", "memory", "warmup", "latency", "error"]


def test_an_event_exists_before_the_call_that_it_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch makes an event as it is first recorded, which takes the host's time."""
    with FakeCuda(monkeypatch) as cuda:
        made: list[int] = []
        Cuda("cpu").samples(lambda: made.append(cuda.events_made), 3)
    assert made == [6, 6, 6]


PRELOADED = """
import sys
import torch

asked = []
torch._C._cuda_getDeviceCount = lambda: asked.append("devices counted") or 1  # this torch now looks built for CUDA
torch.cuda._lazy_init = lambda: asked.append("context made")
from importlib import import_module
from vbench.jobs.launch import PRELOAD

for name in PRELOAD:
    import_module(name)
    if asked:
        sys.exit(f"{name}: {asked}")
assert torch.cuda.is_available() and asked  # it would be seen
"""


def test_what_is_loaded_before_a_child_is_forked_does_not_touch_cuda() -> None:
    """CUDA does not survive a fork: every child would fail."""
    done = subprocess.run([sys.executable, "-P", "-c", PRELOADED], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
