"""What only a GPU can show; `make gpu` runs these first."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from weights import Golden

from vbench import jobs
from vbench.devices.cuda import Cuda
from vbench.jobs.launch import Ending, Launcher
from vbench.kernels import OPS, operator
from vbench.kernels.registry import missing, trials, truth
from vbench.kernels.trials import Inputs, cast, relative
from vbench.meters import timing
from vbench.meters.state import Sampler
from vbench.models import create, load_published, spec
from vbench.plan import RIGORS, Case, Sweep, plan
from vbench.verify import verify

pytestmark = pytest.mark.gpu
QUICK = replace(RIGORS["quick"], sample_s=0.2, throughput_s=2.0)


@pytest.fixture(autouse=True)
def exact() -> None:
    """Nothing is rounded to TF32 in this process: by torch's default convolutions are."""
    Cuda("cuda:0").select(tf32=False)


@pytest.fixture(scope="module")
def launcher() -> Iterator[Launcher]:
    with Launcher() as launcher:
        yield launcher


def cell(model: str, side: int, **changes: object) -> Case:
    sweep = Sweep((model,), ((side, side),), ("parallel",), device="cuda:0")
    return replace(plan(sweep)[0], **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "subject",
    ["vig_t", "vig_h_t", "vrwkv_t", "vrwkv6_t", "vil2_t", "vir_s", "vision_gru_t", "vim_t", "vmamba_t", "mlla_t"],
)
def test_every_family_is_one_function_on_the_device(launcher: Launcher, subject: str) -> None:
    """Their operators are `vbench kernels check`'s."""
    assert verify(subject, launcher, device="cuda:0").failed == []


@pytest.mark.parametrize(
    ("op", "form"), [(op, form) for op in OPS for form in OPS[op] if "cuda" in OPS[op][form].devices]
)
def test_every_form_on_the_device_is_the_cpus(op: str, form: str) -> None:
    for trial in trials(op):
        inputs = trial.draw(300, torch.Generator().manual_seed(0))
        wanted, _ = trial.run(operator(op, truth(op)), inputs)
        for dtype, bound in ((torch.float64, 1e-10), (torch.float32, 1e-5)):
            if missing(op, form, "cuda", str(dtype).removeprefix("torch.")):
                continue
            o, _ = trial.run(operator(op, form), {key: value.to("cuda", dtype) for key, value in inputs.items()})
            exact = wanted if dtype == torch.float64 else trial.run(operator(op, truth(op)), rounded(inputs))[0]
            assert relative(o.cpu(), exact) < bound, (trial.name, dtype)


@pytest.mark.parametrize("form", ["fused", "fused_recurrent"])
@pytest.mark.parametrize(
    "name",
    [
        "vig_t",
        "vig_h_t",
        "vrwkv_t_few_tokens_paper",
        "vrwkv6_t",
        "vil2_tiny",
        "vision_gru_t",
        "vim_t",
        "vmamba_t",
        "mlla_t",
    ],
)
def test_published_logits_by_kernels(name: str, form: str) -> None:
    golden = Golden(name)
    model_name = name.removesuffix("_few_tokens_paper").replace("tiny", "t")
    for x, logits in golden.cases():
        mode = OPS[str(spec(model_name).operator)][form].mode
        model = create(model_name, (x.shape[2], x.shape[3]), mode, form=form)
        load_published(model, golden.state())
        with torch.inference_mode():
            found = model.cuda()(x.cuda()).cpu()
        assert float((found - logits).abs().max()) < 2e-4


def rounded(inputs: Inputs) -> Inputs:
    return cast(cast(inputs, torch.float32), torch.float64)


def measured(launcher: Launcher, case: Case, watch: dict[str, Any] | None = None) -> Ending:
    argument = {"case": asdict(case), "protocol": asdict(QUICK), "launch": 0, "batch": None, "watch": watch}
    return launcher.run("measure", argument, 300)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("model", ["vig_t", "deit_t"])
def test_a_cell_is_measured(launcher: Launcher, model: str, dtype: str) -> None:
    ending = measured(launcher, cell(model, 224, dtype=dtype))
    assert (ending.status, ending.reason) == ("ok", None)
    memory, latency, throughput = (ending.parts[name] for name in ("memory", "latency", "throughput"))
    parts = memory["weights_bytes"] + memory["input_bytes"] + memory["activation_bytes"]
    assert memory["peak_bytes"] == parts
    assert memory["weights_bytes"] == pytest.approx(5.8e6 * (4 if dtype == "float32" else 2), rel=0.03)
    assert memory["reserved_bytes"] >= memory["peak_bytes"]
    assert memory["growth_bytes"] == 0
    assert memory["workspace_bytes"] >= 0
    assert len(latency["samples_ms"]) >= QUICK.samples_min
    assert min(latency["samples_ms"]) > 0
    assert latency["host_ms"] > 0
    assert throughput["images_per_s"] > 0
    assert ending.parts["energy"]["reason"] == "not measured at this --rigor"


def test_energy_is_measured(launcher: Launcher) -> None:
    energy = launcher.run(*jobs.measure(cell("deit_t", 224), replace(QUICK, energy_s=2.0)), 300).parts["energy"]
    assert energy["reason"] or energy["net_j_per_image"] < energy["gross_j_per_image"]


def test_every_back_end_computes_and_says_what_compiling_cost(launcher: Launcher) -> None:
    found = {name: measured(launcher, cell("deit_t", 224, backend=name)) for name in ("eager", "compile", "cudagraph")}
    assert {name: (ending.status, ending.reason) for name, ending in found.items()} == dict.fromkeys(
        found, ("ok", None)
    )
    assert found["compile"].parts["memory"]["compile_s"] > 0
    assert found["compile"].parts["memory"]["compilations"] >= 1
    assert "compile_s" not in found["eager"].parts["memory"]
    memory = found["cudagraph"].parts["memory"]
    assert memory["pool_bytes"] == memory["activation_bytes"] + memory["slack_bytes"]
    assert memory["growth_bytes"] == 0


def test_every_batch_of_a_search_runs_compiled_code(launcher: Launcher) -> None:
    protocol = replace(QUICK, batch_gain=-1.0)  # no batch gains too little
    ending = launcher.run(*jobs.measure(cell("deit_t", 224, backend="compile"), protocol), 600)
    assert (ending.status, ending.reason) == ("ok", None)
    assert ending.parts["throughput"]["batch"] > 1


@pytest.mark.parametrize(
    "model", ["vig_t", "vrwkv_t", "vil2_t", "vir_s", "vision_gru_t", "vim_t", "vmamba_t", "deit_t"]
)
def test_a_training_step_is_measured(launcher: Launcher, model: str) -> None:
    ending = measured(launcher, cell(model, 224, phase="train", batch=4))
    assert (ending.status, ending.reason) == ("ok", None)
    assert set(ending.parts["latency"]["parts_ms"]) == {"forward", "backward", "update"}
    assert ending.parts["memory"]["optimizer_bytes"] > ending.parts["memory"]["gradients_bytes"] > 0


def test_the_watcher_sees_clocks_and_power(launcher: Launcher, tmp_path: Path) -> None:
    uuid = launcher.run("identify", {"device": "cuda:0"}, 60).parts["uuid"]
    with Sampler(uuid, tmp_path) as sampler:
        watch = {"uuid": uuid, "file": str(sampler.file), "reference_mhz": None}
        ending = measured(launcher, cell("deit_t", 224), watch)
    seen = ending.parts["state"]["gpu"]
    assert seen["samples"] > 0
    assert seen["sm_mhz_median"] > 0


def test_the_peak_is_the_allocators(launcher: Launcher) -> None:
    """ViG's activations grow with its tokens, fourfold from 512 to 1024 px, less what is fixed; no workspace does."""
    small, large = (measured(launcher, cell("vig_t", side)).parts["memory"]["activation_bytes"] for side in (512, 1024))
    assert 2.5 < large / small < 4.5


def test_out_of_memory_is_a_row_that_keeps_its_latency(launcher: Launcher) -> None:
    ending = measured(launcher, cell("deit_t", 224, batch=4_000_000))
    assert ending.status == "oom"
    assert "latency" in ending.parts
    assert measured(launcher, cell("deit_t", 224, batch=2)).status == "ok"


def test_events_agree_with_the_host_for_long_work() -> None:
    x = torch.randn(8192, 8192, device="cuda:0")

    def call() -> None:
        for _ in range(20):
            torch.mm(x, x)

    device = Cuda("cuda:0")
    found = timing.latency(call, device, QUICK)
    device.wait()
    begin = time.perf_counter()
    for _ in range(5):
        call()
    device.wait()
    host_ms = (time.perf_counter() - begin) / 5 * 1e3
    assert np.median(found["samples_ms"]) == pytest.approx(host_ms, rel=0.2)
