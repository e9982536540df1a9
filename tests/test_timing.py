"""The timer, on a device whose truth is known, and on the processor."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from itertools import chain, count, cycle, islice, repeat
from typing import Any

import numpy as np
import pandas as pd
import pytest
from fakes import failed, make_record
from simulated import SECONDS, Simulated, noise

from vbench.devices.cpu import Cpu
from vbench.meters import throughput, timing
from vbench.plan import RIGORS, Protocol
from vbench.results.frame import frame

PROTOCOL = Protocol()


class TestWarmUp:
    def test_it_ends_when_two_windows_agree(self) -> None:
        device = Simulated(chain(np.linspace(0.2, SECONDS, 12).tolist(), noise(0)))
        found = timing.warm_up(device.call, device, PROTOCOL)
        assert found["converged"] is True
        assert found["calls"] == pytest.approx(22, abs=3)

    def test_it_lasts_as_long_as_asked(self) -> None:
        device = Simulated(repeat(0.001))
        found = timing.warm_up(device.call, device, PROTOCOL)
        assert (found["converged"], found["calls"]) == (True, 500)

    def test_what_keeps_slowing_down_never_converges(self) -> None:
        device = Simulated(SECONDS * 1.02**n for n in count())
        found = timing.warm_up(device.call, device, PROTOCOL)
        assert found["converged"] is False
        assert found["wall_s"] == pytest.approx(PROTOCOL.warmup_max_s, rel=0.1)
        assert "windows differ by +10" in found["reason"]

    def test_a_slow_call_cannot_be_judged(self) -> None:
        device = Simulated(repeat(1.0))
        found = timing.warm_up(device.call, device, PROTOCOL)
        assert (found["converged"], found["calls"]) == (None, 3)
        assert "too slow for two windows" in found["reason"]

    def test_an_earlier_pass_that_was_longer_is_the_warm_up(self) -> None:
        device = Simulated(repeat(20.0))
        found = timing.warm_up(device.call, device, PROTOCOL, earlier_s=20.0)
        assert (found["calls"], device.time) == (0, 0.0)

    def test_compiling_starts_it_over_and_is_not_charged(self) -> None:
        compiled_at = (1, 8, 20)
        calls = [0]

        def call() -> None:
            calls[0] += 1
            device.call()

        device = Simulated(100.0 if n in compiled_at else SECONDS for n in count(1))
        found = timing.warm_up(call, device, PROTOCOL, compilations=lambda: sum(calls[0] >= n for n in compiled_at))
        assert found["converged"] is True
        assert found["calls"] >= 20 + 2 * PROTOCOL.window
        assert found["wall_s"] < 2


class TestLatency:
    @pytest.mark.parametrize(
        ("rigor", "seconds", "samples", "stop"),
        [
            ("default", 2**-6, 64, "interval within ±0.50%"),
            ("default", 0.0625, 16, "interval within ±0.50%"),
            ("default", 0.5, 5, "interval within ±0.50%"),
            ("default", 1.0, 3, "3 s passed with 3 samples, wanted 5"),
            ("default", 3.0, 2, "6 s passed with 2 samples, wanted 5"),
            ("default", 45.0, 2, "6 s passed with 2 samples, wanted 5"),
            ("quick", 2**-6, 32, "interval within ±2.00%"),
            ("quick", 0.25, 8, "2 s passed with 8 samples, wanted 10"),
            ("paper", 2**-6, 96, "interval within ±0.50%"),
            ("paper", 0.0625, 30, "interval within ±0.50%"),
            ("paper", 1.5, 5, "6 s passed with 5 samples, wanted 30"),
            ("paper", 3.0, 4, "12 s passed with 4 samples, wanted 30"),
            ("paper", 45.0, 2, "24 s passed with 2 samples, wanted 30"),
        ],
    )
    def test_it_samples_what_the_protocol_says(self, rigor: str, seconds: float, samples: int, stop: str) -> None:
        device = Simulated(repeat(seconds))
        found = timing.latency(device.call, device, RIGORS[rigor])
        assert found["samples_ms"] == pytest.approx([seconds * 1e3] * samples)
        assert found["stop"] == stop

    def test_noise_ends_when_the_interval_no_longer_shrinks_or_time_is_up(self) -> None:
        stops = set()
        for seed in range(20):
            device = Simulated(noise(seed, spread=0.1))
            found = timing.latency(device.call, device, PROTOCOL)
            assert found["precise"] is False
            assert found["precision"] > PROTOCOL.precision
            assert device.time <= 1.1 * PROTOCOL.sample_max_s
            stops.add(found["stop"].split(" at ")[0].split(";")[0])
        assert stops == {"interval settled", "1.5 s passed"}

    def test_more_rigor_looks_longer_and_finds_a_narrower_interval(self) -> None:
        widths, spent = [], []
        for name in ("quick", "default", "paper"):
            device = Simulated(noise(3, spread=0.1))
            widths.append(timing.latency(device.call, device, RIGORS[name])["precision"])
            spent.append(device.time)
        assert widths == sorted(widths, reverse=True)
        assert spent == sorted(spent)

    def test_every_sample_is_kept_in_order_outliers_too(self) -> None:
        durations = [*islice(noise(0), 20), 9 * SECONDS, *islice(noise(1), 500)]
        device = Simulated(iter(durations))
        found = timing.latency(device.call, device, PROTOCOL)
        assert found["samples_ms"] == pytest.approx([1e3 * s for s in durations[: len(found["samples_ms"])]])

    def test_a_throttled_window_is_measured_again_after_a_pause(self) -> None:
        device = Simulated(slow_until=3.0)
        found = timing.latency(device.call, device, PROTOCOL, device.why_slow)
        assert device.pauses == [2.0]
        assert found["throttled"] is None
        assert set(np.round(found["samples_ms"], 3)) == {SECONDS * 1e3}
        assert max(found["discarded_ms"]) == pytest.approx(2e3 * SECONDS)

    def test_what_stays_throttled_is_kept_and_said(self) -> None:
        device = Simulated(slow_until=1e9)
        found = timing.latency(device.call, device, PROTOCOL, device.why_slow)
        assert device.pauses == [2.0, 4.0, 8.0]
        assert found["throttled"] == "thermal"
        assert set(np.round(found["samples_ms"], 3)) == {2e3 * SECONDS}

    def test_parts_of_a_call_are_timed_in_turn(self) -> None:
        device = Simulated(cycle([0.1, 0.2, 0.05]))
        found = timing.parts(
            {"forward": device.call, "backward": device.call, "update": device.call}, device, PROTOCOL, 350
        )
        means = {name: np.mean(samples) for name, samples in found["parts_ms"].items()}
        assert means == pytest.approx({"forward": 100, "backward": 200, "update": 50})
        assert timing.parts({}, device, PROTOCOL, 350) == {}


def flags_of(
    durations: Callable[[int], Iterator[float]], protocol: Protocol = PROTOCOL, **device: Any
) -> tuple[str, Any]:
    """The flags of a cell whose launches take these durations, all through engine, record and frame."""
    records = []
    for launch in range(protocol.launches):
        simulated = Simulated(durations(launch), **device)
        warm = timing.warm_up(simulated.call, simulated, protocol)
        latency = {"batch": 1, **timing.latency(simulated.call, simulated, protocol, simulated.why_slow)}
        first = (1, latency["samples_ms"])
        queued = throughput.measure(
            lambda _, device=simulated: device.call, simulated, protocol, 1, first=first, image_bytes=1
        )
        parts = {"warmup": warm, "latency": latency, "throughput": queued}
        records.append(make_record(launch=launch, protocol=asdict(protocol), **parts))
    row = frame(records).iloc[0]
    return row["flags"], row


def drifting(launch: int) -> Iterator[float]:
    return (seconds * (1 + 0.001 * n) for n, seconds in enumerate(islice(noise(launch, 0.003), 40, None)))


def bimodal(launch: int) -> Iterator[float]:
    generator = np.random.default_rng(launch)
    return (seconds * (1.1 if generator.random() < 0.4 else 1.0) for seconds in noise(launch, 0.003))


def with_outliers(launch: int) -> Iterator[float]:
    generator = np.random.default_rng(launch)
    return (seconds * (3.0 if generator.random() < 0.04 else 1.0) for seconds in noise(launch, 0.003))


class TestEachFaultYieldsExactlyItsFlag:
    def test_none(self) -> None:
        for spread in (0.0, 0.003, 0.02):
            flags, row = flags_of(lambda launch, spread=spread: noise(launch, spread))
            assert flags == ""
            assert row["latency_ms_lo"] <= 20.1
            assert row["latency_ms_hi"] >= 19.9
            assert (row["latency_launches"], row["latency_level"]) == (PROTOCOL.launches, 0.95)

    def test_drift(self) -> None:
        assert flags_of(drifting)[0] == "drift"

    def test_bimodal(self) -> None:
        assert flags_of(bimodal)[0] == "bimodal"

    def test_outliers(self) -> None:
        flags, row = flags_of(with_outliers)
        assert flags == "outliers"
        assert row["latency_ms"] == pytest.approx(20, rel=0.01)

    def test_throttled_all_the_time_still_yields_a_row(self) -> None:
        flags, row = flags_of(noise, slow_until=1e9)
        assert flags == "throttled"
        assert row["status"] == "ok"
        assert row["latency_ms"] == pytest.approx(40, rel=0.01)

    def test_host_bound(self) -> None:
        assert flags_of(noise, asynchronous=True, returns=0.99)[0] == "host_bound"
        assert flags_of(noise, asynchronous=True, queued=1.2)[0] == "host_bound"
        assert flags_of(noise, asynchronous=True)[0] == ""

    def test_unconverged(self) -> None:
        restless = [SECONDS] * 5 + [1.2 * SECONDS] * 5
        assert flags_of(lambda launch: chain((restless * 14)[:137], noise(launch, 0.003)))[0] == "unconverged"

    def test_few_samples(self) -> None:
        assert flags_of(lambda _: repeat(5.0), replace(PROTOCOL, launches=1))[0] == "few_samples"
        assert flags_of(lambda _: repeat(5.0))[0] == ""  # the launches speak for themselves

    def test_contended(self) -> None:
        state = make_record().state
        assert state is not None
        for busy in ({"cpu_s": 1.0}, {"others_busy_share": 0.4}):
            assert frame([make_record(state={**state, **busy})]).iloc[0]["flags"] == "contended"

    def test_out_of_memory_is_a_row_without_figures(self) -> None:
        row = frame([failed("oom", "no memory")]).iloc[0]
        assert (row["status"], row["reason"], row["flags"]) == ("oom", "no memory", "")
        assert pd.isna(row["latency_ms"])


def test_on_the_processor_time_is_never_less_than_the_sleep() -> None:
    protocol = replace(PROTOCOL, warmup_s=0.0, sample_s=0.1, sample_max_s=0.3, samples_min=4)
    found = timing.latency(lambda: time.sleep(0.02), Cpu("cpu"), protocol)
    assert min(found["samples_ms"]) >= 20.0
    assert found["host_ms"] is None
