"""Back ends: what compiles is counted and timed, and leaves nothing behind."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from torch import nn

from vbench.devices.cpu import Cpu
from vbench.errors import UnsupportedError
from vbench.meters import backend
from vbench.meters.build import attention_of, build, images
from vbench.plan import Case

CPU = torch.device("cpu")


def case(model: str = "deit_t", **changes: object) -> Case:
    return Case(model, 32, 32, "parallel", None, 1, "float32", "cpu", **changes)  # type: ignore[arg-type]


def test_compilations_are_counted_timed_and_cleared_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "")
    monkeypatch.setenv("TORCHINDUCTOR_COMPILE_THREADS", "1")
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
        module(torch.randn(3, 8))
        assert compilations.count == 2
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
