"""Retention and softmax retention: the published operator, many chunks, extreme decays and logits, MACs, refusals."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from weights import Golden, weight

from vbench.errors import ShapeError, UnsupportedError
from vbench.kernels import default_form, forms, operator
from vbench.kernels.retention import cost
from vbench.kernels.retention.damping import damping
from vbench.kernels.softmax_retention import cost as softmax_cost
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


@settings(max_examples=20, deadline=None)
@given(chunk=st.integers(1, 70), group=st.integers(1, 5), tokens=st.integers(1, 200))
def test_chunk_and_group_never_matter(chunk: int, group: int, tokens: int) -> None:
    x = inputs(tokens)
    wanted, final = operator(LINEAR, "reference")(*x.values())
    o, s = operator(LINEAR, "chunkwise")(*x.values(), chunk=chunk, group=group)
    assert relative(o, wanted) < 1e-12
    assert relative(s, final) < 1e-12


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_many_groups_of_chunks_and_of_rows(dtype: torch.dtype) -> None:
    x = inputs(1100, dtype=dtype)
    bound = 1e-12 if dtype == torch.float64 else 3e-6
    for op, truth in {LINEAR: "reference", SOFTMAX: "quadratic"}.items():
        wanted, _ = operator(op, truth)(*(value.double() for value in x.values()))
        for form in forms(op):
            assert relative(operator(op, form)(*x.values())[0], wanted) < bound, (op, form)


@pytest.mark.parametrize("g", [0.0, -1e-6, -1.0, -1e4, -1e30])
def test_extreme_decays_stay_exact_in_float32(g: float) -> None:
    x = {**inputs(300), "g": torch.full((2,), g, dtype=torch.float64)}
    for op, truth in {LINEAR: "reference", SOFTMAX: "quadratic"}.items():
        wanted, _ = operator(op, truth)(*x.values())
        for form in forms(op):
            o, _ = operator(op, form)(*(value.float() for value in x.values()))
            assert relative(o, wanted) < 2e-6, (op, form)


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


@pytest.mark.parametrize("tokens", [1, 64, 197, 1100, 2100])
def test_executed_macs_are_those_of_the_matrix_products(tokens: int) -> None:
    sizes = {"batch": 1, "heads": 2, "tokens": tokens, "key_dim": 8, "value_dim": 16}
    for op, macs in {LINEAR: cost.macs, SOFTMAX: softmax_cost.macs}.items():
        x = inputs(tokens, E=16, dtype=torch.float32)
        for form in forms(op, mode="parallel"):  # the outer products of the others are elementwise
            with FlopCounterMode(display=False) as counter:
                operator(op, form)(*x.values())
            assert counter.get_total_flops() == 2 * macs(form, **sizes), (op, form)
        assert macs(default_form(op, "parallel"), **sizes) >= macs("algorithm", **sizes)
    assert cost.macs("algorithm", **sizes) == 2 * 2 * tokens * 8 * 16
    assert softmax_cost.macs("algorithm", **sizes) == tokens * (tokens + 1) * 24


def test_shapes_that_do_not_agree_are_named() -> None:
    x = inputs(5)
    for op in (LINEAR, SOFTMAX):
        for form in forms(op):
            with pytest.raises(ShapeError, match=r"q \(1, 2, 5, 8\), k \(1, 2, 5, 3\)"):
                operator(op, form)(x["q"], x["k"][..., :3], x["v"], x["g"])
            with pytest.raises(ShapeError, match=r"g \(1, 2\)"):
                operator(op, form)(x["q"], x["k"], x["v"], x["g"][None])
    for form in forms(LINEAR):
        with pytest.raises(ShapeError, match=r"state \(1, 2, 3, 4\)"):
            operator(LINEAR, form)(*x.values(), state=torch.zeros(1, 2, 3, 4))
    with pytest.raises(ShapeError, match="at least 1; got 0"):
        operator(LINEAR, "chunkwise")(*x.values(), chunk=0)


def test_default_forms() -> None:
    assert (default_form(LINEAR, "parallel"), default_form(LINEAR, "recurrent")) == ("chunkwise", "reference")
    assert default_form(SOFTMAX, "parallel") == "suffix"
    with pytest.raises(UnsupportedError, match="no recurrent form"):
        default_form(SOFTMAX, "recurrent")
