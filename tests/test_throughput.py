"""The search for the batch, and images a second, on a device whose truth is known."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from simulated import Simulated

from vbench.errors import CompileError
from vbench.meters import throughput
from vbench.plan import Protocol

PROTOCOL = Protocol(sample_s=1.5)


class TestThroughput:
    def search(
        self, fixed: float, each: float, batch: Any = "knee", fail_at: int = 10**9, fits: bool = True, least: int = 1
    ) -> dict[str, Any]:
        device = Simulated()
        device.fits = lambda nbytes: fits  # type: ignore[method-assign]

        def caller(size: int) -> Callable[[], None]:
            if size >= fail_at:
                raise torch.OutOfMemoryError("no more")

            def call() -> None:
                device.time += fixed + each * size

            return call

        first = (least, [(fixed + each * least) * 1e3] * 6)
        return throughput.measure(caller, device, PROTOCOL, batch, first=first, image_bytes=1)

    def test_the_knee_is_found_and_the_curve_kept(self) -> None:
        found = self.search(fixed=0.001, each=0.001)  # doubling gains 33, 20, 11, 6 and 3.0 %, then 1.5 %
        assert found["batch"] == 32
        assert found["images_per_s"] == pytest.approx(32 / 0.033)
        assert [point["batch"] for point in found["curve"]] == [1, 2, 4, 8, 16, 32, 64]
        assert "batch 64 gains +1.5%" in found["stop"]

    def test_a_search_starts_from_the_batch_that_is_trained_at(self) -> None:
        assert [point["batch"] for point in self.search(fixed=0.01, each=0.001, least=8)["curve"]][:2] == [8, 16]

    def test_blocks_last_about_a_fifth_of_a_second(self) -> None:
        found = self.search(fixed=0.0, each=0.01, batch=2)
        assert found["block_calls"] == 10
        assert found["blocks_ms"] == pytest.approx([200.0] * len(found["blocks_ms"]))
        assert found["images_per_s"] == pytest.approx(100)

    def test_on_a_processor_single_calls_are_back_to_back(self) -> None:
        found = self.search(fixed=0.0, each=0.01, batch=1)
        assert (found["block_calls"], found["blocks_ms"]) == (1, pytest.approx([10.0] * 6))

    def test_a_call_longer_than_the_budget_is_not_tried(self) -> None:
        found = self.search(fixed=0, each=4.0)
        assert (found["batch"], found["images_per_s"]) == (1, pytest.approx(0.25))
        assert "longer than 5 s" in found["stop"]

    def test_out_of_memory_ends_the_search_but_not_the_cell(self) -> None:
        found = self.search(fixed=0.01, each=0.0001, fail_at=8)
        assert (found["batch"], found["stop"]) == (4, "out of memory at batch 8")

    def test_a_batch_that_would_not_fit_is_not_tried(self) -> None:
        assert self.search(fixed=0.01, each=0.0001, fits=False)["stop"] == "batch 2 would not fit in memory"

    def test_a_fixed_batch_is_that_batch_or_an_error(self) -> None:
        found = self.search(fixed=0.1, each=0.1, batch=4)
        assert (found["batch"], found["images_per_s"]) == (4, pytest.approx(8.0))
        with pytest.raises(torch.OutOfMemoryError):
            self.search(fixed=0.1, each=0.1, batch=4, fail_at=4)

    def one_image(self, batch: Any, error: Exception | None, least: int = 1) -> dict[str, Any]:
        """A search with a model that is made for `least` images: it fails at more, or returns as many outputs."""
        device = Simulated()

        def caller(size: int) -> Callable[[], torch.Tensor]:
            def call() -> torch.Tensor:
                device.time += 0.01
                if size > least and error is not None:
                    raise error
                return torch.zeros(least, 10)

            return call

        return throughput.measure(caller, device, PROTOCOL, batch, first=(least, [10.0] * 6), image_bytes=1)

    def test_a_model_for_one_image_keeps_what_it_has(self) -> None:
        found = self.one_image("knee", RuntimeError("shape '[1, 8]' is invalid"))
        assert (found["batch"], found["images_per_s"]) == (1, pytest.approx(100))
        assert found["stop"] == "batch 2 fails: RuntimeError: shape '[1, 8]' is invalid"
        found = self.one_image("knee", None, least=3)
        assert found["batch"] == 3
        assert found["stop"].startswith("batch 6 fails: ShapeError: an output of (3, 10) for 6 images")

    def test_a_batch_that_fails_has_its_reason_alone(self) -> None:
        reason = "batch 4 fails: RuntimeError: no"
        assert self.one_image(4, RuntimeError("no")) == {"batch": 4, "reason": reason}
        assert self.one_image(4, None)["reason"].startswith("batch 4 fails: ShapeError: an output of (1, 10) for 4")
        for error in (torch.OutOfMemoryError("no more"), CompileError("nothing")):
            with pytest.raises(type(error)):
                self.one_image(4, error)
        with pytest.raises(CompileError):
            self.one_image("knee", CompileError("nothing"))

    def test_other_errors_are_not_out_of_memory(self) -> None:
        def caller(size: int) -> Callable[[], None]:
            raise RuntimeError("a bug")

        with pytest.raises(RuntimeError, match="a bug"):
            throughput.measure(caller, Simulated(), PROTOCOL, "knee", first=(1, [1.0]), image_bytes=1)


class Wandering(Simulated):
    """A call at batch b takes (`fixed` + `each` · b) seconds, times 8 % of noise, times a speed that wanders by 5 %."""

    CALL, WANDER, REMEMBERED_S = 0.08, 0.05, 2.0

    def __init__(self, fixed: float, each: float, seed: int) -> None:
        super().__init__()
        self.fixed, self.each = fixed, each
        self.random = np.random.default_rng(seed)
        self.speed, self.read_at = float(self.random.normal(0, self.WANDER)), 0.0

    def true_rate(self, batch: int) -> float:
        """Images a second of many calls."""
        return batch / (self.fixed + self.each * batch)

    def caller(self, batch: int) -> Callable[[], None]:
        def call() -> None:
            kept = float(np.exp((self.read_at - self.time) / self.REMEMBERED_S))
            step, own = self.random.normal(0, 1, 2).tolist()
            self.speed = kept * self.speed + (1 - kept**2) ** 0.5 * self.WANDER * step
            self.read_at = self.time
            noise = self.CALL * own + self.speed - (self.CALL**2 + self.WANDER**2) / 2  # of a mean of one
            self.time += (self.fixed + self.each * batch) * float(np.exp(noise))

        return call


class TestKneeInNoise:
    """The knee is 16: doubling gains 26, 15, 8, 4.2 and then 2.1 %."""

    FIXED, EACH = 0.0028, 0.004
    RUNS = 120

    def search(self, seed: int) -> tuple[dict[str, Any], Wandering]:
        device = Wandering(self.FIXED, self.EACH, seed)
        first = (1, device.samples(device.caller(1), 30))
        return throughput.measure(device.caller, device, PROTOCOL, "knee", first=first, image_bytes=1), device

    def test_it_is_found_within_a_factor_of_two_and_the_winner_has_no_bonus(self) -> None:
        picked: Counter[int] = Counter()
        bonus = []
        for seed in range(self.RUNS):
            found, device = self.search(seed)
            picked[found["batch"]] += 1
            bonus.append(found["images_per_s"] / device.true_rate(found["batch"]) - 1)
        assert sum(picked[batch] for batch in (8, 16, 32)) >= 0.9 * self.RUNS
        assert abs(np.mean(bonus)) < 0.015

    def test_the_search_keeps_to_its_time_and_says_what_it_knows(self) -> None:
        for seed in range(10):
            device = Wandering(self.FIXED, self.EACH, seed)
            first = (1, device.samples(device.caller(1), 30))
            search = throughput._Search(device.caller, device, PROTOCOL, 1, 0)
            begin = device.now()
            size, stop = search.run(1, first[1][0] / 1e3)
            assert device.now() - begin < 1.2 * PROTOCOL.throughput_s
            for point in search.curve[1:]:
                assert point["pairs"] >= throughput.FEWEST_PAIRS
                assert point["gain_lo"] <= point["gain"] <= point["gain_hi"]
            won, lost = [p for p in search.curve[1:] if p["batch"] <= size], search.curve[-1]
            assert all(point["gain_lo"] > PROTOCOL.batch_gain for point in won)
            if lost["batch"] > size and "over" in stop:
                assert lost["gain_lo"] <= PROTOCOL.batch_gain <= lost["gain_hi"]
                assert "not surely 3%" in stop


class TestMemoryOfTheSearch:
    """Which calls live at a time, on a device that holds so many images."""

    def search(self, room: int, held: int = 0, fails_together: bool = False) -> tuple[dict[str, Any], list[set[int]]]:
        device = Simulated()
        live: list[int] = []
        seen: list[set[int]] = []

        class Call:
            def __init__(self, size: int) -> None:
                if fails_together and live:
                    raise torch.OutOfMemoryError("no more")
                self.size = size
                live.append(size)
                seen.append(set(live))

            def __call__(self) -> None:
                device.time += 0.01 + 0.001 * self.size

            def __del__(self) -> None:
                if hasattr(self, "size"):
                    live.remove(self.size)

        device.fits = lambda nbytes: nbytes <= room - sum(live)  # type: ignore[method-assign]
        first = (1, [11.0] * 6)
        found = throughput.measure(Call, device, PROTOCOL, "knee", first=first, image_bytes=1, held_bytes=held)
        return found, seen

    def test_both_calls_live_if_both_fit(self) -> None:
        _, seen = self.search(room=1000)
        assert {1, 2} in seen
        assert {16, 32} in seen
        assert max(map(len, seen)) == 2
        assert all(len(sizes) == 2 for sizes in seen[1:-1])  # no call is made twice

    def test_else_they_are_made_in_turns(self) -> None:
        found, seen = self.search(room=8)
        assert {4, 8} not in seen
        assert seen.count({8}) > 1
        assert found["batch"] == 8
        assert found["stop"] == "batch 16 would not fit in memory"
        assert max(map(sum, seen)) <= 8

    def test_what_a_call_holds_itself_counts(self) -> None:
        assert self.search(room=8, held=5)[0]["stop"] == "batch 4 would not fit in memory"

    def test_running_out_of_memory_side_by_side_is_no_end(self) -> None:
        found, seen = self.search(room=1000, fails_together=True)
        assert max(map(len, seen)) == 1
        assert found["batch"] >= 16


def test_throughput_has_blocks_enough_for_an_interval() -> None:
    for seconds, blocks in ((0.001, 8), (0.3, 6), (1.2, 5), (6.0, 1)):
        device = Simulated()

        def call(seconds: float = seconds, device: Simulated = device) -> None:
            device.time += seconds

        found = throughput.measure(
            lambda _, call=call: call,
            device,
            PROTOCOL,
            2,
            first=(1, [1.0]),
            image_bytes=1,  # type: ignore[misc]
        )
        assert len(found["blocks_ms"]) >= blocks, seconds
