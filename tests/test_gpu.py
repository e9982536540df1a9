"""What only a GPU can show; `make gpu` runs these first."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from vbench.kernels import OPS, operator
from vbench.kernels.registry import trials, truth
from vbench.kernels.trials import Inputs, cast, relative

from vbench import timing
from vbench.launch import Launcher
from vbench.plan import Case, Protocol, Sweep, plan
from vbench.verify import verify

pytestmark = pytest.mark.gpu
QUICK = Protocol(sample_s=0.2, throughput_s=2.0)


@pytest.fixture(scope="module")
def launcher() -> Iterator[Launcher]:
    with Launcher() as launcher:
        yield launcher


def cell(model: str, side: int, **changes: object) -> Case:
    sweep = Sweep((model,), ((side, side),), ("parallel",), device="cuda:0")
    return replace(plan(sweep)[0], **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "subject", [*OPS, "vig_t", "vig_h_t", "vrwkv_t", "vrwkv6_t", "vil2_t", "vir_s", "vision_gru_t"]
)
def test_every_operator_and_family_is_one_function_on_the_device(launcher: Launcher, subject: str) -> None:
    assert verify(subject, launcher, device="cuda:0").failed == []


@pytest.mark.parametrize(("op", "form"), [(op, form) for op in OPS for form in OPS[op]])
def test_every_form_on_the_device_is_the_cpus(op: str, form: str) -> None:
    for trial in trials(op):
        inputs = trial.draw(300, torch.Generator().manual_seed(0))
        wanted, _ = trial.run(operator(op, truth(op)), inputs)
        for dtype, bound in ((torch.float64, 1e-10), (torch.float32, 1e-5)):
            o, _ = trial.run(operator(op, form), {key: value.to("cuda", dtype) for key, value in inputs.items()})
            exact = wanted if dtype == torch.float64 else trial.run(operator(op, truth(op)), rounded(inputs))[0]
            assert relative(o.cpu(), exact) < bound, (trial.name, dtype)


def rounded(inputs: Inputs) -> Inputs:
    return cast(cast(inputs, torch.float32), torch.float64)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("model", ["vig_t", "deit_t"])
def test_a_cell_is_measured(launcher: Launcher, model: str, dtype: str) -> None:
    argument = {"case": asdict(cell(model, 224, dtype=dtype)), "protocol": asdict(QUICK)}
    ending = launcher.run("vbench.worker:measure", argument, 120)
    assert (ending.status, ending.reason) == ("ok", None)
    memory, latency, throughput = (ending.parts[name] for name in ("memory", "latency", "throughput"))
    parts = memory["weights_bytes"] + memory["input_bytes"] + memory["activation_bytes"]
    assert memory["peak_bytes"] == parts
    assert memory["weights_bytes"] == pytest.approx(5.8e6 * (4 if dtype == "float32" else 2), rel=0.03)
    assert memory["reserved_bytes"] >= memory["peak_bytes"]
    assert len(latency["samples_ms"]) >= QUICK.samples_min
    assert min(latency["samples_ms"]) > 0
    assert throughput["images_per_s"] > 0


def test_the_peak_is_the_allocators(launcher: Launcher) -> None:
    """ViG's activations grow with its tokens, fourfold from 512 to 1024 px, less what is fixed."""
    peak = {}
    for side in (512, 1024):
        argument = {"case": asdict(cell("vig_t", side)), "protocol": asdict(QUICK)}
        peak[side] = launcher.run("vbench.worker:measure", argument, 120).parts["memory"]["activation_bytes"]
    assert 2.5 < peak[1024] / peak[512] < 4.5


def test_out_of_memory_is_a_row_that_keeps_its_latency(launcher: Launcher) -> None:
    argument = {"case": asdict(cell("deit_t", 224, batch=4_000_000)), "protocol": asdict(QUICK)}
    ending = launcher.run("vbench.worker:measure", argument, 120)
    assert ending.status == "oom"
    assert "latency" in ending.parts
    again = launcher.run("vbench.worker:measure", {**argument, "case": asdict(cell("deit_t", 224, batch=2))}, 120)
    assert again.status == "ok"


def test_events_agree_with_the_host_for_long_work() -> None:
    device = torch.device("cuda:0")
    x = torch.randn(8192, 8192, device=device)

    def call() -> None:
        for _ in range(20):
            torch.mm(x, x)

    found = timing.latency(call, device, replace(Protocol(), samples_max=10))
    torch.cuda.synchronize()
    begin = time.perf_counter()
    for _ in range(5):
        call()
    torch.cuda.synchronize()
    host_ms = (time.perf_counter() - begin) / 5 * 1e3
    assert np.median(found["samples_ms"]) == pytest.approx(host_ms, rel=0.2)
