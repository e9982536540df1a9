"""Back ends: what compiles is counted and timed, and leaves nothing behind."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch._dynamo
from torch import nn
from torch._inductor import config as inductor

from vbench.devices import process
from vbench.devices.cpu import Cpu
from vbench.errors import CompileError, UnsupportedError
from vbench.meters import aside, backend, workload
from vbench.meters.build import attention_of, build, images
from vbench.plan import Case

CPU = torch.device("cpu")


def case(model: str = "deit_t", **changes: object) -> Case:
    return Case(model, 32, 32, "parallel", None, 1, "float32", "cpu", **changes)  # type: ignore[arg-type]


def test_compilations_are_counted_timed_and_cleared_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "")
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 8), nn.GELU())
    with backend.Compilations("compile", 1) as compilations, torch.inference_mode():
        module = backend.prepared("compile", model)
        folder = Path(os.environ["TORCHINDUCTOR_CACHE_DIR"])
        assert compilations.count == 0
        batch = torch.randn(2, 8)
        torch.testing.assert_close(backend.call("compile", Cpu("cpu"), module, batch)(), model(batch))
        assert compilations.count == 1
        spent = compilations.seconds
        assert spent > 0
        module(batch)
        assert (compilations.count, compilations.seconds) == (1, spent)
        assert folder.exists()
    assert not folder.exists()


def test_eager_is_the_model_itself() -> None:
    model = nn.Linear(2, 2)
    with backend.Compilations("eager", 1) as compilations:
        assert backend.prepared("eager", model) is model
        assert backend.call("eager", Cpu("cpu"), model, torch.ones(1, 2))().shape == (1, 2)
    assert compilations.count == 0


def test_attention_and_layout_are_what_the_case_says() -> None:
    assert attention_of(build(case(attention="fused"))) == "fused"
    assert attention_of(build(case(attention="unfused"))) == "unfused"
    with pytest.raises(UnsupportedError, match=r"timm/resnet18 has no attention that timm can compute unfused"):
        build(case("timm/resnet18", attention="unfused"))
    model = build(case(layout="nhwc"))
    convolution = next(module for module in model.modules() if isinstance(module, nn.Conv2d))
    assert convolution.weight.is_contiguous(memory_format=torch.channels_last)
    assert images(case(layout="nhwc"), 2, CPU).is_contiguous(memory_format=torch.channels_last)
    assert images(case(), 2, CPU).is_contiguous()
    torch.manual_seed(0)
    reference = build(case(attention="unfused"))
    torch.manual_seed(0)
    other = build(case(attention="fused", layout="nhwc"))
    image = images(case(), 1, CPU)
    with torch.inference_mode():
        torch.testing.assert_close(other(image), reference(image), rtol=1e-4, atol=1e-5)


@pytest.fixture
def fresh() -> None:
    """What earlier tests compiled is forgotten; before `Compilations` is entered, as this drops its callbacks."""
    torch._dynamo.reset()


SIZES = [2**n for n in range(9)]


class Doubled(nn.Module):
    """Twice its input; `forward` counts how often Python runs it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * x


def compiled_workload(monkeypatch: pytest.MonkeyPatch, module: nn.Module, compilations: backend.Compilations) -> Any:
    """The workload of a module of one's own, compiled by torch's front end alone: the rest takes seconds a size."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    monkeypatch.setattr(aside, "build", lambda case: module)
    monkeypatch.setattr(workload, "images", lambda case, batch, device: torch.ones(batch, 3))
    monkeypatch.setattr(process, "hand_back", lambda: True)  # this process goes on
    return workload.workload(case(backend="compile"), Cpu("cpu"), compilations, repeat_below_s=0.0)


@pytest.mark.usefixtures("fresh")
def test_every_one_of_nine_batch_sizes_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """By default torch gives up after eight, and runs the ninth without compiled code."""
    with backend.Compilations("compile", 1) as compilations:
        measured = compiled_workload(monkeypatch, Doubled(), compilations)
        measured.memory()
        counts = []
        for size in SIZES:
            assert measured.caller(size)().shape == (size, 3)
            counts.append(compilations.count)
        measured.caller(SIZES[-1])
    assert counts == list(range(1, 10))  # batch 1 was compiled by the memory pass
    assert compilations.count == 9


@pytest.mark.usefixtures("fresh")
def test_a_call_that_does_not_run_compiled_code_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    module = Doubled()
    monkeypatch.setattr(module, "forward", torch._dynamo.disable(module.forward))
    with backend.Compilations("compile", 1) as compilations:
        measured = compiled_workload(monkeypatch, module, compilations)
        with pytest.raises(CompileError, match="compiled nothing for batch 1"):
            measured.memory()
        with pytest.raises(CompileError, match="compiled nothing for batch 4: its calls would run without"):
            measured.caller(4)


@pytest.mark.usefixtures("fresh")
def test_what_is_not_compiled_again_in_a_part_of_a_model_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond torch's limit, which is far away, a part would run eager while the rest is compiled."""
    monkeypatch.setattr(backend, "SIZES", 2)
    with backend.Compilations("compile", 1) as compilations:
        measured = compiled_workload(monkeypatch, Doubled(), compilations)
        measured.caller(1)
        measured.caller(2)
        with pytest.raises(Exception, match="recompile_limit"):
            measured.caller(3)


@pytest.mark.parametrize("threads", [1, 3])
def test_the_compiler_has_the_measuring_threads(threads: int) -> None:
    """Its configuration was read as torch was imported, so that an environment variable would come too late."""
    before = inductor.compile_threads
    with backend.Compilations("compile", threads):
        assert inductor.compile_threads == threads
    assert inductor.compile_threads == before
