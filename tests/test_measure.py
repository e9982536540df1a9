"""One launch: every part is there, and the parts agree with each other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from vbench import jobs
from vbench.jobs.launch import Launcher
from vbench.plan import RIGORS, Case, Mode, Protocol, Sweep, plan

PROTOCOL = replace(RIGORS["quick"], warmup_s=0.02, warmup_max_s=0.5, sample_s=0.05, sample_max_s=0.2)


@pytest.fixture(scope="module")
def launcher() -> Iterator[Launcher]:
    with Launcher() as launcher:
        yield launcher


def measured(
    launcher: Launcher,
    model: str,
    batch: Any = 1,
    settled: int | None = None,
    launch: int = 0,
    in_turns: bool = False,
    protocol: Protocol = PROTOCOL,
    mode: Mode = "parallel",
    **axes: Any,
) -> dict[str, Any]:
    case: Case = plan(Sweep((model,), ((32, 32),), (mode,), (batch,), **axes))[0]
    ending = launcher.run(*jobs.measure(case, protocol, launch=launch, batch=settled, in_turns=in_turns), 120)
    assert (ending.status, ending.reason) == ("ok", None)
    return ending.parts


def test_a_forward_pass(launcher: Launcher) -> None:
    found = measured(launcher, "vig_t", settled=3)
    assert list(found) == [
        "settings",
        "memory",
        "warmup",
        "latency",
        "throughput",
        "state",
        "spent",
        "outputs",
        "energy",
    ]
    assert found["settings"]["weights_dtype"] == "float32"
    memory = found["memory"]
    assert memory["peak_bytes"] >= memory["weights_bytes"] + memory["input_bytes"]
    assert memory["first_call_s"] == memory["pass_s"]
    assert memory["growth_bytes"] is not None
    assert (found["latency"]["batch"], found["latency"]["host_ms"]) == (1, None)
    assert "parts_ms" not in found["latency"]
    assert found["throughput"]["batch"] == 3
    assert found["energy"]["reason"] == "not measured at this --rigor"
    assert found["state"]["cpu_s"] > 0
    assert found["spent"]["warmup_s"] == found["warmup"]["wall_s"]
    assert found["spent"]["measured_s"] > found["latency"]["wall_s"] > sum(found["latency"]["samples_ms"]) / 1e3


def test_neither_numba_nor_its_compiler_is_memory_of_machine_code(launcher: Launcher) -> None:
    """They take tens of MiB. The recurrence step by step, in torch, is the same model."""
    peaks = {
        form: measured(launcher, "vig_t", mode="recurrent", forms=(form,))["memory"]["peak_bytes"]
        for form in ("compiled", "reference")
    }
    assert 0.5 * peaks["reference"] < peaks["compiled"] < peaks["reference"] + 4 * 2**20


@pytest.mark.parametrize("phase", ["infer", "train"])
def test_a_later_launch_times_single_calls_alone(launcher: Launcher, phase: Any) -> None:
    found = measured(launcher, "deit_t", launch=1, phases=(phase,))
    assert not {"memory", "throughput", "energy"} & set(found)
    assert found["warmup"]["calls"] > 0
    assert min(found["latency"]["samples_ms"]) > 0
    assert list(found["latency"].get("parts_ms", {})) == (["forward", "backward", "update"] if phase == "train" else [])
    assert found["spent"]["throughput_s"] == 0
    if phase == "infer":
        assert "the first launch has the reference" in found["outputs"]["reason"]


def test_a_slow_cell_that_will_take_turns_is_not_timed(launcher: Launcher) -> None:
    slow = replace(PROTOCOL, throughput_s=1e-6)  # by which any call is too slow for a search
    in_turns, alone = (
        set(measured(launcher, "deit_t", in_turns=in_turns, protocol=slow)) for in_turns in (True, False)
    )
    assert in_turns == {"settings", "memory", "spent", "energy"}
    assert "latency" in alone
    assert "latency" in measured(launcher, "deit_t", in_turns=True)


@pytest.mark.parametrize("model", ["vision_gru_t", "deit_t"])
def test_a_training_step_has_its_three_parts(launcher: Launcher, model: str) -> None:
    found = measured(launcher, model, batch=2, phases=("train",))
    parts, whole = found["latency"]["parts_ms"], found["latency"]["samples_ms"]
    assert list(parts) == ["forward", "backward", "update"]
    assert min(map(min, parts.values())) > 0
    assert max(min(samples) for samples in parts.values()) < max(whole)
    assert (found["latency"]["batch"], found["memory"]["batch"], found["throughput"]["batch"]) == (2, 2, 2)
    memory = found["memory"]
    assert memory["gradients_bytes"] == pytest.approx(memory["weights_bytes"], rel=0.02)
    assert memory["optimizer_bytes"] == pytest.approx(2 * memory["weights_bytes"], rel=0.02)
    held = ("weights_bytes", "input_bytes", "gradients_bytes", "optimizer_bytes", "activation_bytes")
    assert memory["peak_bytes"] <= sum(memory[name] for name in held)


def test_energy_has_time_of_its_own(launcher: Launcher) -> None:
    assert RIGORS["quick"].energy_s == 0 < min(RIGORS[name].energy_s for name in ("default", "paper"))
    case = plan(Sweep(("deit_t",), ((32, 32),), ("parallel",), (1,)))[0]
    asked = jobs.measure(case, replace(PROTOCOL, energy_s=0.1))
    found = launcher.run(*asked, 120).parts
    assert found["energy"]["reason"] or found["energy"]["net_j_per_image"] is not None
    assert found["energy"]["reason"] != "not measured at this --rigor"
    assert found["energy"]["wall_s"] >= 0
