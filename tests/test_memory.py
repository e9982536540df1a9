"""The memory meter on modules whose need is known."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from vbench.devices import open_device
from vbench.flops.estimate import LAUNCH_OVERHEAD_S, Parts, estimate, foresee
from vbench.flops.peak import predicted_peak
from vbench.jobs.launch import Launcher
from vbench.meters import memory
from vbench.plan import RIGORS, Sweep, plan

MIB = 2**20


@pytest.fixture(scope="module")
def launcher() -> Iterator[Launcher]:
    with Launcher() as launcher:
        yield launcher


def meter(launcher: Launcher, **argument: Any) -> dict[str, Any]:
    ending = launcher.run("jobs:peak", argument, 60)
    assert (ending.status, ending.reason) == ("ok", None)
    found: dict[str, Any] = ending.parts["memory"]
    return found


def test_known_allocations_are_seen(launcher: Launcher) -> None:
    found = {mib: meter(launcher, mib=mib) for mib in (64, 256)}
    for mib, seen in found.items():
        assert (seen["weights_bytes"], seen["input_bytes"]) == (8 * MIB, 4 * MIB)
        assert seen["peak_bytes"] == seen["weights_bytes"] + seen["input_bytes"] + seen["activation_bytes"]
        assert seen["activation_bytes"] == pytest.approx(mib * MIB, abs=MIB)
        assert seen["slack_bytes"] < 4 * MIB
        assert (
            seen["process_bytes"] == seen["host_peak_bytes"] > seen["peak_bytes"] + 20 * MIB
        )  # the interpreter, torch
        assert seen["reserved_bytes"] is None
        assert (seen["calls"], seen["process_reason"], seen["growth_reason"]) == (3, None, None)
        assert "peak of call" in seen["method"]
    difference = found[256]["peak_bytes"] - found[64]["peak_bytes"]
    assert difference == pytest.approx(192 * MIB, abs=MIB)


def test_sizes_are_whole_bytes(launcher: Launcher) -> None:
    sizes = {name: size for name, size in meter(launcher, mib=16).items() if name.endswith("_bytes")}
    assert {name for name, size in sizes.items() if not isinstance(size, int)} == {"reserved_bytes", "workspace_bytes"}


def test_a_leak_grows_and_what_keeps_nothing_does_not(launcher: Launcher) -> None:
    leaking, clean = meter(launcher, mib=64, leak=16), meter(launcher, mib=64)
    assert leaking["growth_bytes"] == pytest.approx(16 * MIB, abs=MIB)
    (call,) = re.findall(r"peak of call (\d)", leaking["method"])  # not the first one if that mapped libraries in
    assert leaking["slack_bytes"] == pytest.approx(clean["slack_bytes"] + int(call) * 16 * MIB, abs=MIB)
    assert clean["growth_bytes"] == pytest.approx(0, abs=MIB)


def test_a_slow_call_is_made_once(launcher: Launcher) -> None:
    seen = meter(launcher, mib=16, s=0.2, repeat_below_s=0.1)
    assert (seen["calls"], seen["growth_bytes"]) == (1, None)
    assert "more than 0.1 s" in seen["growth_reason"]
    assert 0.2 < seen["pass_s"] < 60


def test_holes_of_the_c_allocator_are_not_the_models(launcher: Launcher) -> None:
    seen = launcher.run("jobs:holes", {}, 60).parts["memory"]
    assert seen["activation_bytes"] == pytest.approx(64 * MIB, abs=4 * MIB)


@pytest.mark.parametrize(("once", "calls"), [(True, 3), (False, 1)])
def test_a_library_that_is_loaded_after_the_peak_does_not_lower_it(
    launcher: Launcher, tmp_path: Path, once: bool, calls: int
) -> None:
    """If it is loaded once, the next call has an exact peak; the peak of a call that is alone is sampled."""
    (tmp_path / "library").write_bytes(bytes(16 * MIB))
    argument = {"file": str(tmp_path / "library"), "once": once, "repeat_below_s": 60 if calls == 3 else 0}
    seen = launcher.run("jobs:late_library", argument, 60).parts["memory"]
    assert seen["calls"] == calls
    assert ("peak of call 2" in seen["method"]) is once
    assert seen["activation_bytes"] == pytest.approx(64 * MIB, abs=MIB)


@pytest.mark.parametrize("where", ["own", "mapped", "shared", "built"])
def test_weights_that_lie_elsewhere_are_in_the_peak_and_what_building_needed_is_not(
    launcher: Launcher, tmp_path: Path, where: str
) -> None:
    ending = launcher.run("jobs:weights_elsewhere", {"where": where, "file": str(tmp_path / "weights.pt")}, 60)
    assert (ending.status, ending.reason) == ("ok", None)
    seen = ending.parts["memory"]
    assert seen["peak_bytes"] == seen["weights_bytes"] + seen["input_bytes"] + seen["activation_bytes"]
    assert seen["activation_bytes"] == pytest.approx(16 * MIB, abs=MIB)
    assert seen["slack_bytes"] < MIB
    added = "32.0 MiB of weights in a mapped file or in shared memory added"
    assert (added in seen["method"]) is (where in ("mapped", "shared"))


def test_the_rest_of_the_peak_is_never_negative() -> None:
    seen = memory.watch(lambda: None, open_device("cpu"), memory.Baseline(0), peak_call=2, repeat_below_s=60)
    assert "call 2" in seen.method
    parts = memory.anatomy(seen, {"weights_bytes": 2**60})
    assert (parts["activation_bytes"], parts["slack_bytes"]) == (0, 0)


@pytest.mark.parametrize("model", ["deit_t", "vig_t", "vrwkv_t", "vil2_t"])
@pytest.mark.parametrize("phase", ["infer", "train"])
def test_a_predicted_peak_is_near_the_measured(launcher: Launcher, model: str, phase: str) -> None:
    case = replace(plan(Sweep((model,), ((160, 160),), ("parallel",), (1,)))[0], phase=cast(Any, phase))
    argument = {"case": asdict(case), "phase": phase, "budget_bytes": 2**31, "threads": 1}
    measured = launcher.run("attempt", argument, 60).parts["memory"]["peak_bytes"]
    assert 0.8 < predicted_peak(case) / measured < 1.05


def test_a_prediction_sees_inside_of_operators_and_leaves_no_trace() -> None:
    """The quadratic form holds scores of all pairs, H · N · N numbers, that no tensor outside of it hints at."""
    case = plan(Sweep(("vig_t",), ((512, 512),), ("parallel",)))[0]
    scores = 3 * 1024 * 1024 * 4
    assert predicted_peak(replace(case, form="quadratic")) > predicted_peak(case) + scores
    assert torch.empty(1, device="meta").is_meta


def test_a_training_step_is_foreseen_at_its_batch_and_throughput_at_one_that_was_given() -> None:
    def seen(**changes: Any) -> dict[str, Any]:
        case = replace(plan(Sweep(("deit_t",), ((160, 160),), ("parallel",)))[0], **changes)
        return dict(foresee({"case": asdict(case)}))

    forward, step, steps = seen(), seen(phase="train", batch=1), seen(phase="train", batch=8)
    assert (step["macs"], steps["macs"]) == (3 * forward["macs"], 24 * forward["macs"])
    assert steps["peak_bytes"] > step["peak_bytes"]
    at_eight = seen(batch=8)
    assert at_eight["macs"] == forward["macs"]
    rates = {"gemm_flops_per_s": 1e9, "operator_s": 1e-5, "copy_bytes_per_s": 1e12}
    searched, given = (estimate(parts, rates, RIGORS["quick"]).first_s for parts in (forward, at_eight))
    assert [part["queued"] for part in (forward, at_eight, steps)] == [None, 21, 0]
    assert given > searched
    assert estimate(steps, rates, RIGORS["quick"]).again_s > estimate(step, rates, RIGORS["quick"]).again_s


def test_a_first_launch_is_foreseen_with_all_and_a_later_one_with_single_calls_alone() -> None:
    rates = {"gemm_flops_per_s": 1e9, "operator_s": 1e-5, "copy_bytes_per_s": 1e12}
    parts = {"macs": 2.5e7, "bytes": 0, "operations": 0, "steps": 0, "queued": None, "peak_bytes": 1}
    protocol = RIGORS["default"]
    quick, slow = (estimate({**parts, "macs": macs}, rates, protocol) for macs in (2.5e7, 2.5e9))
    assert (quick.call_s, slow.call_s) == pytest.approx((0.1, 10.0))
    memory_s, search_s = 2 * quick.call_s, protocol.throughput_s + protocol.sample_s
    assert quick.first_s - quick.again_s == pytest.approx(memory_s + search_s)
    assert slow.first_s == slow.again_s == pytest.approx(LAUNCH_OVERHEAD_S + 3 * slow.call_s)  # no search, no warm-up


def test_a_small_pass_is_foreseen_by_its_operations_and_bytes() -> None:
    case = plan(Sweep(("deit_t",), ((64, 64),), ("parallel",)))[0]
    parts = dict(foresee({"case": asdict(case)}))
    assert 200 < parts["operations"] < 2000
    assert parts["bytes"] > 4 * 5_000_000  # its weights
    fast = {"gemm_flops_per_s": 1e15, "operator_s": 0.0, "copy_bytes_per_s": 1e15}
    least = estimate(parts, fast, RIGORS["quick"]).first_s
    for rates in ({"operator_s": 1e-3}, {"copy_bytes_per_s": 1e8}):
        assert estimate(parts, fast | rates, RIGORS["quick"]).first_s > least + 0.3


def test_the_parts_of_a_plan_add_up_and_are_named() -> None:
    parts = Parts(measuring=13.5, pairs=20.0, verifying=8.0, counting=0.2, starting=7.5)
    assert parts.total == pytest.approx(13.5 + 20 + 8.2 + 7.5 + 4)
    assert str(parts) == "measuring 14 s, pairs 20 s, verifying 8 s, starting 8 s, reporting 4 s"


def test_shared_storages_count_once() -> None:
    weight = torch.zeros(1024)
    assert memory.nbytes([weight, weight[:10], torch.zeros(1)]) == 4096 + 4


@pytest.mark.gpu
def test_cuda_parts_add_up() -> None:
    device = torch.device("cuda:0")
    baseline = memory.baseline(open_device("cuda:0"))
    model = torch.nn.Linear(1024, 1024, device=device)
    with torch.inference_mode():
        seen = memory.measure(model, torch.ones(64, 1024, device=device), baseline)
    assert seen["peak_bytes"] == seen["weights_bytes"] + seen["input_bytes"] + seen["activation_bytes"]
    assert seen["activation_bytes"] >= 64 * 1024 * 4
    assert seen["slack_bytes"] == seen["reserved_bytes"] - seen["peak_bytes"] - baseline.used_bytes
    assert seen["growth_bytes"] == 0
    assert (seen["process_bytes"] is None) == (seen["process_reason"] is not None)
    assert "call 3" in seen["method"]
