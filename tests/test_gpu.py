"""What only a GPU can show; `make gpu` runs these first."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from test_gla import DIRECTIONS, inputs, relative, run
from vbench.kernels import OPS

from vbench import timing
from vbench.launch import Launcher
from vbench.plan import Case, Protocol, Sweep, plan

pytestmark = pytest.mark.gpu
QUICK = Protocol(sample_s=0.2, throughput_s=2.0)


@pytest.fixture(scope="module")
def launcher() -> Iterator[Launcher]:
    with Launcher() as launcher:
        yield launcher


def cell(model: str, side: int, **changes: object) -> Case:
    sweep = Sweep((model,), ((side, side),), ("parallel",), device="cuda:0")
    return replace(plan(sweep)[0], **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("form", list(OPS["gla"]))
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_every_form_of_gla_on_the_device(form: str, direction: str) -> None:
    x = inputs((2, 3, 300, 32), value_dim=64)
    wanted, final = run("reference", x, direction)
    for dtype, bound in ((torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 2e-2)):
        o, s = run(form, {key: value.to("cuda", dtype) for key, value in x.items()}, direction)
        assert relative(o.cpu(), wanted) < bound
        assert relative(s.cpu(), final) < bound


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
