"""The targets of `vbench kernels bench`: which call has one, what is said of it, and what is called to find it out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from simulated import Simulated

from vbench.operators import bench, calls, contestants, targets
from vbench.operators.peers import Peer, peers
from vbench.reports import operators

PEAKS = {"copy_bytes_per_s": 1e9, "gemm_flops_per_s": 1e10}
SHORTER = [64, 512, 4096]  # tokens


def planned(op: str, tokens: int, limit_s: float = 1e6, **changes: Any) -> bench.Plan:
    usual: dict[str, Any] = {"dtype": None, "backend": None, "l2": None, "seconds": 0.001, "threads": 1, "peers": {}}
    forms = ("compiled", "quadratic")
    usual |= {"device": "cpu", "batch": "1", "tokens": str(tokens), "limit_s": limit_s}
    return replace(bench.parse(ops=(op,), forms=forms, **usual), **changes)


@pytest.mark.parametrize("op", list(targets.TARGETS))
def test_arithmetic_is_counted_and_set_against_measured_rates(op: str) -> None:
    found = targets.arithmetic(op, calls.WIDTHS[op][0], 256, flops_per_s=1e9)
    twice = targets.arithmetic(op, calls.WIDTHS[op][0], 512, flops_per_s=1e9)
    assert twice["exponentials"] == 2 * found["exponentials"]
    assert found["operations_ms"] == pytest.approx(2 * found["operations"] / 1e6)
    assert found["exponentials_per_s"] > 1e7
    assert found["operations"] > 0


def test_exponentials_are_those_of_the_recurrence() -> None:
    one = {
        op: targets.arithmetic(op, calls.WIDTHS[op][0], 1, 1.0)["exponentials"] for op in ("gla", "retention", "mingru")
    }
    assert one == {"gla": 2 * 3 * 32, "retention": 0, "mingru": 3 * 144}  # a decay a key; none; a gate and a candidate


def test_a_call_of_the_targets_has_one_and_no_other() -> None:
    row = {"op": "gla", "form": "compiled", "tokens": 16384, "batch": 1, "dtype": "float32", "device": "cpu"}
    plan = planned("gla", 16384)
    assert targets.of(row, plan) == {"target": 3.0}
    assert targets.of({**row, "op": "selective_scan"}, plan) == {"target_peer": "naive scan", "target_faster": 10.0}
    for other in ({"form": "chunkwise"}, {"tokens": 4096}, {"batch": 8}, {"dtype": "bfloat16"}, {"device": "cuda:0"}):
        assert targets.of({**row, **other}, plan) == {}
    assert targets.of(row, replace(plan, threads=2)) == {}
    assert targets.FASTER["selective_scan"][0] in [peer.name for peer in peers("selective_scan", {})]


QUIET: dict[str, Any] = {"threads": 1, "load": {"load_1min": 1.2}}


def timed(op: str, form: str, ms: float, **more: Any) -> dict[str, Any]:
    setting = {"tokens": 16384, "batch": 1, "dtype": "float32", "backend": "eager", "l2": "warm"}
    known = {"op": op, "form": form, "status": "ok", "ms": ms, "ms_lo": ms, "ms_hi": ms, "floor_ms": 10.0, "samples": 5}
    return {
        **setting,
        **known,
        "floor_ratio": ms / 10,
        "floor_of": "bytes",
        "error": None,
        "peer": False,
        **QUIET,
        **more,
    }


WORK = {
    "exponentials": 2e6,
    "exponentials_per_s": 1e9,
    "exponentials_ms": 2.0,
    "operations": 1e9,
    "operations_ms": 20.0,
}


def test_it_is_said_whether_a_target_is_met_and_what_keeps_a_call_from_it() -> None:
    rows = [timed("gla", "compiled", ms, target=3.0, **WORK) for ms in (29.0, 31.0)]
    met, missed = operators.targets(rows)
    assert met == "gla compiled at N=16384 takes 2.9 times its floor; target: at most 3, met"
    head, _, reason = missed.partition(": the floor")
    assert head == "gla compiled at N=16384 takes 3.1 times its floor; target: at most 3, not met"
    assert reason == (
        " is the time of its bytes alone, 2 M exponentials at 1 G/s take 2 ms, 1 G other operations at the rate of "
        "a product of matrices 20 ms; together 2.2 times the floor, the rest is not explained by counts"
    )
    (busy,) = operators.targets([timed("gla", "compiled", 31.0, target=3.0, **WORK | {"load": {"load_1min": 9.0}})])
    assert busy.endswith("; other processes were running (load 9.0): measure again")
    (more,) = operators.targets([timed("gla", "compiled", 31.0, target=3.0, **WORK | {"operations_ms": 29.0})])
    assert more.endswith("together 3.1 times the floor, more than the target")


def test_a_scan_is_held_to_the_naive_one() -> None:
    own = timed("selective_scan", "compiled", 20.0, target_peer="naive scan", target_faster=10.0)
    alone, *_ = operators.targets([own])
    assert "not known, it was not timed; it takes 2 times its floor" in alone
    said = [operators.targets([own, timed("selective_scan", "naive scan", ms, peer=True)])[0] for ms in (300.0, 100.0)]
    assert "15 times as fast as naive scan; target: at least 10, met" in said[0]
    assert "5 times as fast as naive scan; target: at least 10, not met" in said[1]


class Slow(Simulated):
    """A device on which a call takes as long as its contestant's power of the tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.called: list[tuple[str, int]] = []

    def free_bytes(self) -> int:
        return 2**30

    def fits(self, nbytes: int) -> bool:
        return nbytes < self.free_bytes()


def measured(plan: bench.Plan, monkeypatch: pytest.MonkeyPatch, each_s: float, peer: Peer) -> tuple[Slow, list[Any]]:
    """The rows of retention, whose forms and one peer compute nothing, in `each_s` seconds a token to the growth."""
    device = Slow()

    def caller(name: str, growth: int) -> Callable[..., Any]:
        def build(inputs: Any, options: Any) -> Callable[[], Any]:
            tokens = next(iter(inputs.values())).shape[-2]

            def call() -> Any:
                device.called.append((name, tokens))
                device.time += each_s * tokens**growth
                return inputs["q"]

            return call

        return build

    found = [
        contestants.Contestant("quadratic", False, caller("quadratic", 2), False, 2, None),
        contestants.Contestant("peer", True, caller("peer", 1), False, 1, None, peer.holds),
    ]
    monkeypatch.setattr(bench, "contestants", lambda *_: found)
    monkeypatch.setattr(bench, "wanted", lambda *_: None)
    return device, list(bench.measure(plan, "retention", calls.WIDTHS["retention"][0], PEAKS, device))


LIGHT = Peer("peer", "retention", lambda *_: lambda: None)


def test_what_was_never_timed_is_tried_on_short_sequences(monkeypatch: pytest.MonkeyPatch) -> None:
    device, rows = measured(planned("retention", 16384, limit_s=15.0), monkeypatch, 1e-4, LIGHT)
    (skipped,) = (row for row in rows if row["form"] == "quadratic")
    assert skipped["status"] == "skipped"
    assert skipped["reason"].startswith("one call would take about 2.7e+04 s")
    assert [tokens for name, tokens in device.called if name == "quadratic"] == [64, 64]  # 512 take longer than 15 s


def test_a_slow_peer_is_called_once(monkeypatch: pytest.MonkeyPatch) -> None:
    device, rows = measured(planned("retention", 16384), monkeypatch, 1e-4, LIGHT)
    assert [tokens for name, tokens in device.called if name == "peer"] == [64, 64, 512, 512, 4096, 4096, 16384]
    (row,) = (row for row in rows if row["form"] == "peer")
    assert (row["samples"], row["ms"]) == (1, pytest.approx(1638.4))
    cells = [list(column.cells) for column in operators.to_rich([row]).columns]
    assert ["1 call"] in [list(map(str, each)) for each in cells]


def test_a_peer_that_would_fill_the_memory_is_not_called(monkeypatch: pytest.MonkeyPatch) -> None:
    heavy = replace(LIGHT, holds=lambda inputs: 2**16 * inputs["q"].shape[-2])  # 1 GiB at 16384 tokens
    device, rows = measured(planned("retention", 16384), monkeypatch, 1e-9, heavy)
    (row,) = (row for row in rows if row["form"] == "peer")
    assert (row["status"], row["reason"]) == ("skipped", "one call would hold 1.0 GiB; 1.0 GiB are free")
    assert max(tokens for name, tokens in device.called if name == "peer") == 4096


@pytest.mark.parametrize("name", ["naive scan", "log-space scan"])
def test_a_peer_says_what_it_holds(name: str) -> None:
    width = calls.WIDTHS["selective_scan"][0]
    inputs = width.inputs(batch=2, tokens=8, dtype="float32", device="cpu")
    peer = next(each for each in peers("selective_scan", {}) if each.name == name)
    assert peer.holds is not None
    held = peer.holds(inputs) / (2 * 8 * 384 * 16 * 4)
    assert held == {"naive scan": 6, "log-space scan": 14}[name]
