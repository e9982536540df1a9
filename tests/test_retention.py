"""Retention and softmax retention: the published operator, many chunks, extreme decays and logits, MACs, refusals."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from weights import Golden, weight

from vbench.kernels import forms, operator
from vbench.kernels.retention.damping import damping
from vbench.kernels.trials import relative
from vbench.models.vir import Retention, decays

LINEAR, SOFTMAX = "retention", "softmax_retention"


def inputs(N: int, *, D: int = 8, E: int = 8, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(N)
    q, k, v = (torch.randn(1, 2, N, X, generator=generator, dtype=torch.float64).to(dtype) for X in (D, D, E))
    return {"q": q, "k": k, "v": v, "g": torch.tensor([-0.03, -0.002], dtype=torch.float64)}


def published() -> tuple[dict[str, Tensor], Tensor]:
    """The operator file, and its log decays."""
    arrays = Golden("vir_retention_op").arrays
    return arrays, arrays["gamma"].double().log()


def test_decays_are_the_published_ones() -> None:
    arrays, g = published()
    assert torch.equal(torch.tensor(decays(4)), arrays["gamma"])
    at = torch.arange(arrays["mask"].shape[-1])
    assert relative(damping(g, at[:, None] - at, torch.float64), arrays["mask"]) < 1e-6
    for heads, known in {
        6: (0.96875000, 0.98205161, 0.98969132, 0.99407923, 0.99659944, 0.99804688),
        12: (0.96875000, 0.97571242, 0.98112363, 0.98532921, 0.98859781, 0.99113816),
        16: (0.96875000, 0.97402382, 0.97840762, 0.98205161, 0.98508060, 0.98759842),
    }.items():
        assert decays(heads)[: len(known)] == pytest.approx(known, abs=6e-9)
        assert decays(heads)[-1] == pytest.approx(0.99804688, abs=6e-9)


@pytest.mark.parametrize(("op", "form"), [(op, form) for op in (LINEAR, SOFTMAX) for form in forms(op)])
def test_matches_the_published_operator(op: str, form: str) -> None:
    arrays, g = published()
    mixer = Retention(128, 4, op, form)
    mixer.load_state_dict({key: weight(key, tuple(value.shape)) for key, value in mixer.state_dict().items()})
    with torch.inference_mode():
        o, state = mixer(arrays["x"], g)
    assert relative(o, arrays["linear" if op == LINEAR else "parallel"]) < 1e-5
    if op == LINEAR:
        assert isinstance(state, Tensor)
        assert relative(state, arrays["state"]) < 1e-5
    else:
        assert state == ()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_many_groups_of_chunks_and_of_rows(dtype: torch.dtype) -> None:
    x = inputs(1100, dtype=dtype)
    bound = 1e-12 if dtype == torch.float64 else 3e-6
    for op, truth in {LINEAR: "reference", SOFTMAX: "quadratic"}.items():
        wanted, _ = operator(op, truth)(*(value.double() for value in x.values()))
        for form in forms(op):
            assert relative(operator(op, form)(*x.values())[0], wanted) < bound, (op, form)


@pytest.mark.parametrize("size", [-30.0, 30.0])
@pytest.mark.parametrize("tokens", [1, 128, 200])
def test_logits_of_hundreds_neither_overflow_nor_lose_the_last_token(tokens: int, size: float) -> None:
    x = inputs(tokens)
    x["q"], x["k"] = x["q"].abs() * size, x["k"].abs() * 10
    wanted, _ = operator(SOFTMAX, "quadratic")(*x.values())
    for form in forms(SOFTMAX):
        o, _ = operator(SOFTMAX, form)(*(value.float() for value in x.values()))
        assert relative(o, wanted) < 1e-4, form  # a logit of 500 has an error of 3e-5 in float32


def test_softmax_retention_sees_the_future() -> None:
    x = inputs(20)
    for form in forms(SOFTMAX):
        before, _ = operator(SOFTMAX, form)(*x.values())
        after, _ = operator(SOFTMAX, form)(
            *{**x, "v": torch.cat((x["v"][:, :, :-1], 2 * x["v"][:, :, -1:]), 2)}.values()
        )
        assert relative(after[:, :, 0], before[:, :, 0]) > 1e-3
