"""How calls of operators are timed and tuned: samples of the device alone, lost devices, and candidates."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from simulated import Simulated

from vbench.devices import cuda
from vbench.jobs.launch import Ending
from vbench.kernels.fused import tuning
from vbench.kernels.fused.tuning import STEPS_MAX, Choice
from vbench.kernels.registry import OPS, operator
from vbench.operators import bench, calls, contestants, sampling, tune


class Queued(Simulated):
    """A device to which the host queues calls: each takes the host 0.3 ms, or a replay 0.01 ms, and itself 0.02 ms."""

    DEVICE_MS, HOST_MS, REPLAY_MS = 0.02, 0.3, 0.01

    def __init__(self) -> None:
        super().__init__(asynchronous=True)
        self.calls = 0
        self.lengths: list[int] = []  # calls of each sample

    def call(self) -> None:
        self.calls += 1

    def captured(self, call: Callable[[], Any]) -> Callable[[], Any]:
        def replay() -> None:
            call()

        return replay

    def returns_ms(self, call: Callable[[], object]) -> float:
        return self._host_ms(call, self._count(call))

    def samples(self, call: Callable[[], object], count: int) -> list[float]:
        found = self._count(call)
        self.lengths.append(found)
        queued, device = self._host_ms(call, found), self.DEVICE_MS * found
        return [queued + device if call.__name__ == "replay" else max(queued, device)] * count

    def sample_after(self, earlier: Callable[[], object], call: Callable[[], object], host_ms: float = 0.0) -> float:
        found = self._count(call)
        self.lengths.append(found)
        return self.DEVICE_MS * found + max(0.0, self._host_ms(call, found) - host_ms)

    def _host_ms(self, call: Callable[[], object], found: int) -> float:
        return self.REPLAY_MS if call.__name__ == "replay" else self.HOST_MS * found

    def _count(self, call: Callable[[], object]) -> int:
        before = self.calls
        call()
        return self.calls - before


@pytest.mark.parametrize("cache", ["warm", "cold"])
def test_a_graphs_sample_has_many_calls_and_not_its_own_launch(
    cache: sampling.Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampling, "FLUSHED_BYTES", 2**12)
    device = Queued()
    take = sampling.taker(device.call, 0.32, "cudagraph", cache, device)  # 0.32 ms is the time of an eager call
    device.lengths.clear()
    assert take() == pytest.approx(device.DEVICE_MS)
    least = sampling.REPEATED_MS / device.DEVICE_MS
    assert device.lengths == [pytest.approx(least, abs=1) if cache == "warm" else 1]


def test_a_warm_eager_call_takes_what_a_program_would_wait_for() -> None:
    device = Queued()
    assert sampling.taker(device.call, 0.32, "eager", "warm", device)() == pytest.approx(device.HOST_MS)


class Timeline:
    """CUDA as far as an event tells: what is queued runs in order, and not before the host has queued it. In ms."""

    def __init__(self, cycles_per_ms: float) -> None:
        self.host, self.device, self._rate = 0.0, 0.0, cycles_per_ms

    def queue(self, host_ms: float, device_ms: float) -> None:
        self.host += host_ms
        self.device = max(self.device, self.host) + device_ms

    def spin(self, cycles: int) -> None:
        self.queue(0.005, cycles / self._rate)

    def event(self, **_: object) -> Timeline._Event:
        return Timeline._Event(self)

    class _Event:
        def __init__(self, line: Timeline) -> None:
            self._line, self.at = line, 0.0

        def record(self) -> None:
            self._line.queue(0.005, 0.0)
            self.at = self._line.device

        def synchronize(self) -> None:
            self._line.host = max(self._line.host, self._line.device)

        def elapsed_time(self, end: Timeline._Event) -> float:
            return end.at - self.at


@pytest.mark.parametrize("cycles_per_ms", [1.2e6, 2.9e6])
@pytest.mark.parametrize("host_ms", [0.05, 0.3, 8.0])
def test_the_host_is_hidden_behind_a_spin_of_the_device(
    host_ms: float, cycles_per_ms: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = Timeline(cycles_per_ms)
    monkeypatch.setattr(torch.cuda, "Event", line.event)
    monkeypatch.setattr(torch.cuda, "_sleep", line.spin)
    device = cuda.Cuda("cuda:0")
    flush = lambda: line.queue(0.01, 0.1)  # noqa: E731
    taken = device.sample_after(flush, lambda: line.queue(host_ms, 0.02), host_ms)
    assert taken == pytest.approx(0.02)


class Breakable(Simulated):
    """A device that answers nothing more after a sticky error."""

    broken = False

    def wait(self) -> None:
        if self.broken:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")


class Here:
    """Runs jobs in this process, each with a device of its own."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, module: Any) -> None:
        self.devices: list[Breakable] = []
        monkeypatch.setattr(module, "open_device", self._open)

    @property
    def device(self) -> Breakable:
        return self.devices[-1]

    def _open(self, _: str) -> Breakable:
        self.devices.append(Breakable())
        return self.device

    def run(self, job: str, argument: dict[str, Any], timeout_s: float) -> Ending:
        module = {"bench_operator": bench, "tune_operator": tune}[job]
        parts: Iterator[tuple[str, Any]] = module.job(json.loads(json.dumps(argument)))
        return Ending("ok", None, json.loads(json.dumps(dict(parts))))


def bench_plan(forms: tuple[str, ...], caches: str = "warm") -> bench.Plan:
    options: dict[str, Any] = {"device": "cpu", "tokens": "16,32", "batch": "1", "dtype": None, "backend": None}
    options |= {"l2": caches, "seconds": 0.001, "limit_s": 1000.0, "threads": 1, "peers": {}}
    return bench.parse(ops=("mingru",), forms=forms, **options)


PEAKS = {"copy_bytes_per_s": 1e9, "gemm_flops_per_s": 1e10}


@pytest.mark.parametrize("after", [1, 4])  # while it is tried, or while it is sampled
def test_a_form_that_costs_the_device_is_blamed_alone(after: int, monkeypatch: pytest.MonkeyPatch) -> None:
    here, made = Here(monkeypatch, bench), {"scan": 0}
    plan = bench_plan(("reference", "scan", "quadratic"))
    names = {operator("mingru", form): form for form in plan.forms}

    def caller(_: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def build(inputs: Any, options: Any) -> Callable[[], Any]:
            def call() -> Any:
                here.device.wait()
                here.device.call()
                if names[function] == "scan" and inputs["a"].shape[1] == 32:
                    made["scan"] += 1
                    if made["scan"] >= after:
                        here.device.broken = True
                        here.device.wait()
                return function(*inputs.values(), **options)

            return call

        return build

    monkeypatch.setattr(contestants, "_caller", caller)
    monkeypatch.setattr(bench, "SAMPLES", (3, 3))
    rows = bench._operator("mingru", plan, PEAKS, here)
    own = [row for row in rows if not row["peer"]]
    found = [(row["form"], row["tokens"], row["status"]) for row in own]
    assert sorted(found) == sorted(
        [(form, tokens, "ok") for form in plan.forms for tokens in (16, 32) if (form, tokens) != ("scan", 32)]
        + [("scan", 32, "error")]
    )
    (lost,) = (row for row in own if row["status"] == "error")
    assert "illegal memory access" in lost["reason"]
    assert "the rest was timed in a fresh one" in lost["reason"]
    assert len(here.devices) == 2
    assert len([row for row in rows if row["status"] == "unavailable"]) == len(
        {row["form"] for row in rows if row["status"] == "unavailable"}
    )


def test_an_error_that_passes_costs_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    here = Here(monkeypatch, bench)

    def caller(_: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def build(inputs: Any, options: Any) -> Any:
            raise RuntimeError("CUDA error: invalid configuration argument")

        return build

    monkeypatch.setattr(contestants, "_caller", caller)
    rows = bench._operator("mingru", bench_plan(("scan",)), PEAKS, here)
    assert [row["reason"] for row in rows if row["form"] == "scan"] == [
        "RuntimeError: CUDA error: invalid configuration argument"
    ] * 2
    assert len(here.devices) == 1


def test_a_device_that_stays_lost_ends_the_operator(monkeypatch: pytest.MonkeyPatch) -> None:
    here = Here(monkeypatch, bench)

    def inputs(*_: Any, **__: Any) -> Any:
        here.device.broken = True
        here.device.wait()

    monkeypatch.setattr(calls.Width, "inputs", inputs)
    rows = bench._operator("mingru", bench_plan(("scan",)), PEAKS, here)
    assert [row["form"] for row in rows if row["status"] == "error"] == ["inputs"] * 2
    assert len(here.devices) == 2


@pytest.mark.parametrize("op", [op for op in calls.WIDTHS if "fused" in OPS[op]])
def test_candidates_are_different_kernels_that_compile_in_time(op: str) -> None:
    used = tuning.pick(op, 1024, 3)
    found = tune.candidates(op, used)
    assert found[0] == used
    assert len(set(found)) == len(found)
    walks = [choice for choice in found if choice.sequential]
    if op in tune.OF_MATRICES:  # one token a step, whatever the chunk and the warps
        assert len(walks) == 1
        return
    if op in tune.OF_CHANNELS:  # a step takes any number of tokens
        assert sorted(choice.warps for choice in walks) == sorted(tune.OF_CHANNELS[op])
        return
    assert {choice.chunk // choice.warps for choice in walks} == {2, 4, 8, 16}
    assert len({choice.chunk // choice.warps for choice in walks}) == len(walks)
    assert max(choice.chunk // choice.warps for choice in found) == STEPS_MAX


def test_no_row_of_the_table_unrolls_more() -> None:
    scans = [row.choice for row in tuning.table() if row.op in ("wkv", "mingru")]  # whose kernels unroll their steps
    assert scans
    assert all(choice.chunk // choice.warps <= STEPS_MAX for choice in scans)


class OutOfResources(Exception):  # noqa: N818 - Triton's name
    pass


USED, FAST, WRONG, UNFIT, LOST, BROKEN = (
    *(Choice(128, 16), Choice(64, 8), Choice(32, 4), Choice(128, 8)),
    *(Choice(64, 16), Choice(64, 4)),
)


def tuned(monkeypatch: pytest.MonkeyPatch, ms: dict[Choice, float]) -> tune.Outcome:
    """What tuning minGRU comes to where a call takes `ms`, 30 if it is not there, and some choices do not work."""
    here = Here(monkeypatch, tune)
    right = operator("mingru", "scan")

    def fused(a: Any, b: Any, **options: Any) -> Any:
        choice = tuning.pick("mingru", a.shape[1], a.shape[0])
        here.device.wait()
        here.device.time += ms.get(choice, 30.0) / 1e3
        if choice == BROKEN:
            raise RuntimeError("no such kernel")
        if choice == UNFIT:
            raise OutOfResources("out of resource: shared memory, Required: 300000")
        if choice == LOST and a.shape[1] == 32:
            here.device.broken = True
            here.device.wait()
        o, state = right(a, b, **options)
        return (o * 1.5 if choice == WRONG else o), state

    def form(op: str, name: str) -> Any:
        return fused if name == "fused" else operator(op, name)

    monkeypatch.setattr(tune, "operator", form)
    monkeypatch.setattr(tune, "TOKENS", (16, 32))
    monkeypatch.setattr(tune, "BATCHES", (1,))
    return tune.run(["mingru"], "cpu", "float32", here)


def test_tuning_checks_outputs_and_tells_what_did_not_work(monkeypatch: pytest.MonkeyPatch) -> None:
    found = tuned(monkeypatch, {FAST: 10.0, WRONG: 1.0})
    timed = {(timing.tokens, timing.choice): timing.ms for timing in found.timings}
    wanted = [choice for choice in tune.candidates("mingru", USED) if choice not in (WRONG, UNFIT, LOST, BROKEN)]
    assert set(timed) == {(tokens, choice) for tokens in (16, 32) for choice in wanted} | {(16, LOST)}
    assert timed[16, FAST] == pytest.approx(10)
    assert timed[16, USED] == pytest.approx(30)
    assert {(timing.tokens, timing.choice) for timing in found.timings if timing.in_use} == {(16, USED), (32, USED)}
    wrong = [line for line in found.failed if "its output is off by" in line]
    broken = [line for line in found.failed if "RuntimeError: no such kernel" in line]
    lost = [line for line in found.failed if "illegal memory access" in line]
    assert [len(wrong), len(broken), len(lost), len(found.failed)] == [2, 2, 1, 5]
    assert "mingru N=16 rows=1 chunk 32, 4 warps" in wrong[0]
    assert "the rest was timed in a fresh one" in lost[0]
    assert len(found.unfit) == 2
    assert "chunk 128, 8 warps: OutOfResources: out of resource" in found.unfit[0]


def test_the_choice_in_use_stays_unless_another_gains(monkeypatch: pytest.MonkeyPatch) -> None:
    for fast, kept in ((29.5, USED), (25.0, FAST)):
        (row,) = tune.rows(tuned(monkeypatch, {FAST: fast}).timings, "a GPU", "a test")
        assert row.choice == kept
