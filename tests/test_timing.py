"""The timer, the batch search and the interval, on a device whose truth is known: a clock that calls move."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from vbench.results.frame import median_interval

from vbench import memory, timing
from vbench.plan import Protocol

CPU = torch.device("cpu")
PROTOCOL = Protocol()


class Clock:
    """A clock that stands still but for the calls made under it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)
        monkeypatch.setattr(time, "perf_counter_ns", lambda: round(self.now * 1e9))
        monkeypatch.setattr(time, "process_time", lambda: self.now)

    def call(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


@pytest.mark.parametrize(
    ("seconds", "warmup", "samples", "stop"),
    [
        (2**-10, 512, 200, "200 samples"),
        (0.0625, 8, 32, "2 s and 6 samples"),
        (1.0, 1, 6, "2 s and 6 samples"),
        (4.0, 1, 4, "slow: 15 s passed with 3 samples"),
        (14.0, 1, 3, "slow: 15 s passed with 3 samples"),
        (45.0, 1, 2, "slow: 30 s passed with 2 samples"),
    ],
)
def test_latency_samples_what_the_protocol_says(
    clock: Clock, seconds: float, warmup: int, samples: int, stop: str
) -> None:
    found = timing.latency(lambda: clock.call(seconds), CPU, PROTOCOL)
    assert found["samples_ms"] == pytest.approx([seconds * 1e3] * samples)
    assert found["warmup_calls"] == pytest.approx(warmup, abs=1)
    assert found["stop"] == stop
    assert found["cpu_share"] == pytest.approx(1.0)


def test_a_very_slow_earlier_pass_is_the_warm_up(clock: Clock) -> None:
    found = timing.latency(lambda: clock.call(20.0), CPU, PROTOCOL, pass_s=20.0)
    assert (found["warmup_calls"], len(found["samples_ms"])) == (0, 2)


def test_every_sample_is_kept_outliers_too(clock: Clock) -> None:
    durations = [0.5, 0.3] * 3 + [9.0] + [0.3] * 100
    remaining = iter(durations)
    found = timing.latency(lambda: clock.call(next(remaining)), CPU, replace(PROTOCOL, warmup_s=0.1, samples_min=20))
    assert found["samples_ms"] == pytest.approx([s * 1e3 for s in durations[1 : 1 + len(found["samples_ms"])]])
    assert 9000.0 in [round(sample) for sample in found["samples_ms"]]


def test_real_time_is_never_less_than_the_sleep() -> None:
    found = timing.latency(lambda: time.sleep(0.02), CPU, replace(PROTOCOL, warmup_s=0, sample_s=0.1))
    assert min(found["samples_ms"]) >= 20.0


class TestThroughput:
    def search(
        self, clock: Clock, fixed: float, each: float, batch: int | str = "auto", fail_at: int = 10**9
    ) -> dict[str, object]:
        def caller(size: int) -> Callable[[], None]:
            if size >= fail_at:
                raise torch.OutOfMemoryError("no more")
            return lambda: clock.call(fixed + each * size)

        first = [(fixed + each) * 1e3] * 6
        return timing.throughput(caller, CPU, PROTOCOL, batch, first_ms=first, image_bytes=1)  # type: ignore[arg-type]

    def test_the_knee_is_found(self, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(memory, "fits", lambda *_: True)
        found = self.search(clock, fixed=0.010, each=0.010)  # doubling gains 33, 20, 11, 6 and 3.0 %, then 1.5 %
        assert found["batch"] == 32
        assert found["images_per_s"] == pytest.approx(32 / 0.33)
        assert [point["batch"] for point in found["curve"]] == [1, 2, 4, 8, 16, 32, 64]
        assert "batch 64 gains +1.5%" in str(found["stop"])

    def test_a_call_longer_than_the_budget_is_not_tried(self, clock: Clock) -> None:
        found = self.search(clock, fixed=0, each=4.0)
        assert (found["batch"], found["images_per_s"]) == (1, pytest.approx(0.25))
        assert "longer than 6 s" in str(found["stop"])

    def test_out_of_memory_ends_the_search_but_not_the_cell(
        self, clock: Clock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(memory, "fits", lambda *_: True)
        found = self.search(clock, fixed=0.1, each=0.001, fail_at=8)
        assert (found["batch"], found["stop"]) == (4, "out of memory at batch 8")

    def test_a_batch_that_would_not_fit_is_not_tried(self, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(memory, "fits", lambda *_: False)
        assert self.search(clock, fixed=0.1, each=0.001)["stop"] == "batch 2 would not fit in memory"

    def test_a_fixed_batch_is_that_batch_or_an_error(self, clock: Clock) -> None:
        found = self.search(clock, fixed=0.1, each=0.1, batch=4)
        assert (found["batch"], found["images_per_s"]) == (4, pytest.approx(8.0))
        with pytest.raises(torch.OutOfMemoryError):
            self.search(clock, fixed=0.1, each=0.1, batch=4, fail_at=4)

    def test_other_errors_are_not_out_of_memory(self, clock: Clock) -> None:
        def caller(size: int) -> Callable[[], None]:
            raise RuntimeError("a bug")

        with pytest.raises(RuntimeError, match="a bug"):
            timing.throughput(caller, CPU, PROTOCOL, "auto", first_ms=[1.0], image_bytes=1)


class TestInterval:
    def test_small_samples_give_their_range_and_say_so(self) -> None:
        assert median_interval([3.0]) == (3.0, 3.0, 3.0, 0.0)
        assert median_interval([2.0, 1.0]) == (1.5, 1.0, 2.0, 0.5)
        assert median_interval([5, 1, 2, 4, 3]) == (3, 1, 5, 0.9375)
        assert median_interval([5, 1, 2, 4, 3, 6])[1:] == (1, 6, 0.96875)

    @pytest.mark.parametrize("samples", [6, 11, 40, 200])
    def test_it_covers_the_median_as_often_as_it_says(self, samples: int) -> None:
        generator = np.random.default_rng(0)
        hits, trials = 0, 2000
        for draw in generator.lognormal(size=(trials, samples)):
            _, low, high, coverage = median_interval(list(draw))
            assert coverage >= 0.95
            hits += low <= 1.0 <= high
        assert hits / trials == pytest.approx(coverage, abs=0.012)

    def test_the_centre_is_the_median(self) -> None:
        generator = np.random.default_rng(1)
        for size in range(1, 30):
            draw = list(generator.normal(size=size))
            middle, low, high, _ = median_interval(draw)
            assert middle == pytest.approx(np.median(draw))
            assert min(draw) <= low <= middle <= high <= max(draw)
