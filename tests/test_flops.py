"""MACs by two counters, held to figures known from elsewhere."""

from __future__ import annotations

from math import log

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from vbench.kernels import default_form
from vbench.models import create, spec

from vbench.flops import count, second_count
from vbench.plan import Case, Mode


def case(model: str, height: int, width: int | None = None, mode: Mode = "parallel") -> Case:
    op = spec(model).operator
    form = default_form(op, mode) if op else None
    return Case(model, height, width or height, mode, form, 1, "float32", "cpu")


@pytest.mark.parametrize(("side", "gmacs"), [(224, 1.254), (512, 10.43), (1024, 99.70)])
def test_deit_counts_all_of_attention(side: int, gmacs: float) -> None:
    assert count(case("deit_t", side))["macs"] / 1e9 == pytest.approx(gmacs, rel=1e-3)


def test_fused_and_unfused_attention_count_the_same_on_every_device() -> None:
    found = set()
    for device in ("meta", "cpu"):
        for fused in (True, False):
            with torch.device(device):
                model, x = create("deit_t"), torch.zeros(1, 3, 224, 224)
            for module in model.modules():
                if hasattr(module, "fused_attn"):
                    module.fused_attn = fused
            with torch.no_grad(), FlopCounterMode(display=False) as counter:
                model(x)
            found.add(counter.get_total_flops() // 2)
    assert found == {count(case("deit_t", 224))["macs"]}


def vig_closed_form(height: int, width: int, *, C: int, H: int, M: int) -> int:
    """MACs of plain ViG by hand, layer by layer."""
    eighth = ((height - 7) // 8 + 1) * ((width - 7) // 8 + 1)
    grid = spec("vig_t").grid(height, width)
    assert grid is not None
    N = grid[0] * grid[1]
    stem = eighth * 3 * 81 * (C // 2) + N * 9 * (C // 2) * C
    projections = 9 * C + 2 * C * C + 2 * 16 * C + 2 * C * C
    return stem + 12 * N * (projections + 3 * C * M + 4 * H * 32 * 64) + 1000 * C


@pytest.mark.parametrize(("height", "width"), [(224, 224), (512, 512), (1024, 1024), (225, 231)])
def test_vig_equals_its_closed_form(height: int, width: int) -> None:
    for model, sizes in {
        "vig_t": {"C": 192, "H": 3, "M": 512},
        "vig_s": {"C": 384, "H": 6, "M": 1024},
        "vig_b": {"C": 768, "H": 12, "M": 2048},
    }.items():
        wanted = vig_closed_form(height, width, **sizes)
        for mode in ("parallel", "recurrent"):
            work = count(case(model, height, width, mode))
            assert work["macs"] == wanted
            assert work["macs_executed"] >= wanted


@pytest.mark.parametrize(("height", "gmacs"), [(224, 1.168), (512, 6.10), (1024, 24.4), (2048, 97.6)])
def test_vig_t_equals_the_hand_count_of_the_literature(height: int, gmacs: float) -> None:
    assert count(case("vig_t", height))["macs"] / 1e9 == pytest.approx(gmacs, rel=2e-3)


def test_exponents_tell_linear_from_quadratic() -> None:
    def exponent(model: str) -> float:
        low, high = (count(case(model, side)) for side in (512, 1024))
        return log(high["macs_executed"] / low["macs_executed"]) / log(high["tokens"] / low["tokens"])

    assert exponent("deit_t") == pytest.approx(1.63, abs=0.01)
    assert exponent("vig_t") == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize("model", ["vig_t", "vrwkv_t", "vision_gru_t", "deit_t", "swin_t", "timm/resnet18"])
def test_the_second_counter_agrees(model: str) -> None:
    work = count(case(model, 224))
    macs = work["macs_executed"] - work["macs_elementwise"]
    opinion = second_count(case(model, 224), macs)
    assert opinion["agree"] is True
    assert opinion["macs_fvcore"] == pytest.approx(macs, rel=0.01)
    assert second_count(case(model, 224), 2 * macs)["agree"] is False


def test_the_second_counter_says_when_it_cannot() -> None:
    for asked, macs in ((case("deit_t", 2048), 10**12), (case("vig_t", 224, mode="recurrent"), 10**9)):
        opinion = second_count(asked, macs)
        assert opinion["macs_fvcore"] is None
        assert opinion["reason"]


def test_what_a_model_pads_is_counted_and_said() -> None:
    work = count(case("swin_t", 512))
    assert "133x133" in work["padding"]
    assert work["macs"] / count(case("swin_t", 224))["macs"] > 1.05 * (512 / 224) ** 2
    assert count(case("timm/resnet18", 224))["tokens"] is None
