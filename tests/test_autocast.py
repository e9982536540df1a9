"""Cells under autocast: float32 weights, products in a half type."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from vbench.devices import open_device
from vbench.errors import UnsupportedError
from vbench.flops.count import count
from vbench.flops.peak import Predictor
from vbench.kernels import operator
from vbench.meters import autocast
from vbench.meters.backend import Compilations
from vbench.meters.build import images
from vbench.meters.training import Trainer
from vbench.meters.workload import workload
from vbench.plan import PLAIN, Case, Sweep, parse_dtypes, plan, product_dtype, weights_dtype


def case(model: str, dtype: str, **axes: Any) -> Case:
    return replace(plan(Sweep((model,), ((64, 64),), ("parallel",), (1,), parse_dtypes(dtype)))[0], **axes)


def test_a_name_says_the_type_of_weights_and_of_products() -> None:
    of = case("vig_t", "amp-bf16")
    assert (of.weights_dtype, of.autocast, str(of)) == ("float32", "bfloat16", "vig_t 64 parallel amp-bf16")
    assert (product_dtype("amp-fp16"), product_dtype("float16"), weights_dtype("float16")) == ("float16",) * 3
    assert case("vig_t", "float32").autocast is None
    assert PLAIN == ("float32", "bfloat16", "float16")


class Seen(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.types: list[torch.dtype] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.layer(x)
        self.types.append(y.dtype)
        return y


def test_each_call_enters_autocast_and_casts_the_weights_again() -> None:
    """A cast that outlived its call would hide the casts of all later calls."""
    module = Seen()
    called = autocast.under(case("vig_t", "amp-bf16"), module)
    x = torch.ones(1, 4)
    with torch.inference_mode():
        first = called(x)
        module.layer.weight.mul_(2)
        second = called(x)
    assert module.types == [torch.bfloat16, torch.bfloat16]
    assert not torch.equal(first, second)
    assert not torch.is_autocast_enabled("cpu")
    assert autocast.under(case("vig_t", "bfloat16"), module) is module


def test_what_torch_refuses_is_unsupported_with_its_reason() -> None:
    with pytest.raises(UnsupportedError, match="no autocast to float64 on cpu: "):
        autocast.UnderAutocast(nn.Identity(), "cpu", torch.float64)


@pytest.mark.parametrize("phase", ["infer", "train"])
def test_the_call_of_a_cell_runs_under_autocast_on_float32_weights(phase: Any) -> None:
    of = case("vig_t", "amp-bf16", phase=phase)
    measured = workload(of, open_device("cpu"), Compilations("eager", 1), 0.0)
    assert measured.settings["weights_dtype"] == "float32"
    types: set[torch.dtype] = set()
    stem = next(module for module in measured._model.modules() if isinstance(module, nn.Conv2d))
    stem.register_forward_hook(lambda _, inputs, out: types.update((inputs[0].dtype, out.dtype)))
    measured.caller(1)()
    assert types == {torch.float32, torch.bfloat16}
    assert images(of, 1, torch.device("cpu")).dtype == torch.float32


def test_the_loss_is_scaled_for_float16_and_the_step_is_taken() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 4))
    before = net[1].weight.detach().clone()
    trainer = Trainer(autocast.UnderAutocast(net, "cpu", torch.float16), torch.ones(2, 3, 2, 2), scaled=True)
    trainer.forward()
    trainer.backward()
    scaled = net[1].weight.grad
    assert scaled is not None
    assert scaled.abs().max() > 10  # a gradient of a mean is below 1
    trainer.update()
    assert 0 < (net[1].weight - before).abs().max() < 1e-3
    assert trainer.loss < 10


def test_an_operator_leaves_autocast() -> None:
    """A form made of torch's products would round its sums to bfloat16, which a fused one does not."""
    q, k, v = (torch.randn(1, 2, 70, 8) for _ in range(3))
    g = torch.randn(1, 2, 70, 8).sigmoid().log()
    form = operator("gla", "chunkwise")
    wanted, _ = form(q, k, v, g)
    with torch.autocast("cpu", torch.bfloat16):
        found, _ = form(q, k, v, g)
        assert (q @ k.mT).dtype == torch.bfloat16
    assert torch.equal(found, wanted)


def test_work_is_the_same_and_the_bytes_of_products_are_fewer() -> None:
    single, half, amp = (count(case("vig_t", dtype)) for dtype in ("float32", "bfloat16", "amp-bf16"))
    assert single["macs"] == amp["macs"]
    assert single["macs_executed"] == amp["macs_executed"]
    assert amp["unknown"] == {}
    assert half["bytes_min"] <= amp["bytes_min"] < single["bytes_min"]


def test_a_prediction_holds_float32_weights_and_their_casts() -> None:
    single, half, amp = (Predictor(case("vig_t", dtype)).predict(None) for dtype in ("float32", "bfloat16", "amp-bf16"))
    assert single.weights_bytes == amp.weights_bytes > half.weights_bytes
    assert any(each.dtype == "bfloat16" and each.operation == "aten::_to_copy" for each in amp.held)
    assert amp.peak_bytes > half.peak_bytes
