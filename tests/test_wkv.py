"""Bi-WKV: both readings against the released code's results, extreme weights, and what is refused."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor
from weights import Golden

from vbench.kernels import forms, operator
from vbench.kernels.trials import relative
from vbench.kernels.wkv import cost, quadratic, scan, sums
from vbench.kernels.wkv.reference import wkv

FORMS = forms("wkv")
PUBLISHED = Golden("biwkv_op").arrays
CASES = sorted({key.partition("_")[0] for key in PUBLISHED})


def draw(N: int, decay: float = 0.02, keys: float = 1.0, dtype: torch.dtype = torch.float64) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(N)

    def normal(*size: int) -> Tensor:
        return torch.randn(*size, generator=generator, dtype=torch.float64)

    k, v, w, u = keys * normal(2, N, 8), normal(2, N, 8), decay * normal(8).abs(), normal(8)
    return tuple(x.to(dtype) for x in (k, v, w, u))


@pytest.mark.parametrize(("form", "case"), list(product(FORMS, CASES)))
def test_both_readings_match_the_released_operator(form: str, case: str) -> None:
    x = [PUBLISHED[f"{case}_{name}"] for name in "kvwu"]
    for reading, exact in {"paper": 1e-14, "kernel": 5e-8}.items():  # the released maximum is not ours in all digits
        wanted = PUBLISHED[f"{case}_y_{reading}"]
        assert relative(operator("wkv", form)(*(t.double() for t in x), reading=reading)[0], wanted) < exact
        assert relative(operator("wkv", form)(*x, reading=reading)[0], wanted) < 1e-6
    assert relative(PUBLISHED[f"{case}_y_paper"], PUBLISHED[f"{case}_y_kernel"]) > 1e-5


@pytest.mark.parametrize("decay", [-100.0, -1.0, 0.0, 1.0, 100.0])
def test_the_released_reading_never_overflows(decay: float) -> None:
    x = [t.requires_grad_() for t in draw(150, decay, 30.0)]
    for form in FORMS:
        y, state = operator("wkv", form)(*(t.float() for t in x), reading="kernel")
        assert torch.isfinite(y).all()
        assert torch.isfinite(state).all()
        assert all(torch.isfinite(g).all() for g in torch.autograd.grad(y.square().sum() + state.sum(), x))
        y, state = operator("wkv", form)(*x, reading="kernel")
        assert relative(y.detach(), wkv(*x, reading="kernel")[0].detach()) < 1e-10


@pytest.mark.parametrize("N", [1, 7, 8, 9, 64, 65, 72, 100, 521, 600])
def test_the_scan_divides_any_number_of_tokens(N: int) -> None:
    x = draw(N)
    state = torch.randn(2, 3, 2, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).abs()
    wanted, last = wkv(*x, state=state)
    y, found = scan.wkv(*x, state=state)
    assert relative(y, wanted) < 1e-13
    assert relative(found, last) < 1e-13


def test_a_state_is_the_running_maximum_and_two_sums() -> None:
    k, v, w, u = draw(50, 0.3)
    for form in FORMS:
        _, (ahead, back) = operator("wkv", form)(k, v, w, u)
        for (a, b, p), gap in ((ahead, torch.arange(49, -1, -1)), (back, torch.arange(50))):
            exponents = k - w * gap[:, None]
            assert relative(p, exponents.amax(1)) < 1e-14
            assert relative(a, ((exponents - p[:, None]).exp() * v).sum(1)) < 1e-13
            assert relative(b, (exponents - p[:, None]).exp().sum(1)) < 1e-13


@pytest.mark.parametrize("reading", ["paper", "kernel"])
@pytest.mark.parametrize("N", [5, 64, 196, 1030])
def test_macs_are_the_sums_that_the_scan_adds_up(monkeypatch: pytest.MonkeyPatch, N: int, reading: Any) -> None:
    counted = []

    def gather(x: Tensor, way: Tensor) -> Tensor:
        counted.append(x[:2].numel() * way.shape[0])
        return sums.gather(x, way)

    monkeypatch.setattr(scan, "gather", gather)
    scan.wkv(*draw(N), reading=reading)
    assert cost.macs("scan", batch=2, tokens=N, channels=8, reading=reading) == sum(counted)


def test_macs_of_the_other_forms() -> None:
    sizes = {"batch": 1, "tokens": 196, "channels": 192}
    assert cost.macs("algorithm", **sizes) == cost.macs("reference", **sizes) == 4 * 196 * 192
    assert cost.macs("quadratic", **sizes) == 2 * 196 * 196 * 192
    assert cost.macs("scan", **sizes) < 48 * 196 * 192
    assert quadratic.ROWS < 196
