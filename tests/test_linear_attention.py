"""Linear attention: order does not matter, summaries add up, the normaliser has its own features, refusals."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from vbench.errors import ShapeError
from vbench.kernels import forms, operator
from vbench.kernels.linear_attention import compiled
from vbench.kernels.trials import relative

OP = "linear_attention"
FORMS = forms(OP)


def inputs(N: int, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(N)
    q, k, v, turned_q, turned_k = (
        torch.randn(2, 3, N, D, generator=generator, dtype=torch.float64).to(dtype) for D in (8, 8, 12, 8, 8)
    )
    return {"q": q * turned_q, "k": k * turned_k, "v": v, "q_norm": q.abs(), "k_norm": k.abs()}


@pytest.mark.parametrize("form", FORMS)
def test_is_a_weighted_mean_of_values(form: str) -> None:
    """Written out pair by pair; with the numerator's own normaliser and no ε, the weights of a token sum to one."""
    x = inputs(21)
    o, (S, z, n) = operator(OP, form)(**x, eps=0.5)
    for t in (0, 20):
        weights = torch.einsum("bhd,bhjd->bhj", x["q"][:, :, t], x["k"]) / 21
        total = torch.einsum("bhd,bhjd->bhj", x["q_norm"][:, :, t], x["k_norm"]).mean(-1) + 0.5
        wanted = torch.einsum("bhj,bhje->bhe", weights, x["v"]) / total.unsqueeze(-1)
        assert relative(o[:, :, t], wanted) < 1e-13
    assert relative(S, torch.einsum("bhjd,bhje->bhde", x["k"], x["v"])) < 1e-13
    assert relative(z, x["k_norm"].sum(2)) < 1e-13
    assert n == 21
    ones, _ = operator(OP, form)(x["q_norm"], x["k_norm"], torch.ones_like(x["v"]), eps=0.0)
    assert torch.allclose(ones, torch.ones_like(ones))


@pytest.mark.parametrize("form", FORMS)
def test_the_order_of_tokens_does_not_matter(form: str) -> None:
    x, order = inputs(50), torch.randperm(50, generator=torch.Generator().manual_seed(0))
    o, state = operator(OP, form)(**x)
    mixed, same = operator(OP, form)(**{name: value[:, :, order] for name, value in x.items()})
    assert relative(mixed, o[:, :, order]) < 1e-13
    assert all(relative(*pair) < 1e-13 for pair in zip(same, state, strict=True))


@pytest.mark.parametrize("form", FORMS)
def test_any_number_of_parts_adds_up_in_any_order(form: str) -> None:
    call, x = operator(OP, form), inputs(60)
    whole, final = call(**x)
    parts = [{name: value[:, :, at : at + 20] for name, value in x.items()} for at in (0, 20, 40)]
    own = [call(**part)[1] for part in parts]
    for part in range(3):
        before, after = (own[each] for each in range(3) if each != part)
        o, state = call(**parts[part], state=tuple(a + b for a, b in zip(after, before, strict=True)))
        assert relative(o, whole[:, :, 20 * part : 20 * part + 20]) < 1e-13
        assert all(relative(*pair) < 1e-13 for pair in zip(state, final, strict=True))


@pytest.mark.parametrize("form", FORMS)
def test_the_normalisers_features_are_the_numerators_unless_given(form: str) -> None:
    x, call = inputs(30), operator(OP, form)
    q, k, v = (x[name].abs() for name in ("q", "k", "v"))
    plain, _ = call(q, k, v)
    for given in ({"q_norm": q}, {"q_norm": q, "k_norm": k}):
        assert relative(call(q, k, v, **given)[0], plain) < 1e-13
    with pytest.raises(ShapeError, match="k_norm is given without q_norm"):
        call(q, k, v, k_norm=k)
    with pytest.raises(ShapeError, match=r"k_norm \(2, 3, 29, 8\)"):
        call(q, k, v, q_norm=q, k_norm=k[:, :, 1:])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_many_segments_and_widths_of_no_whole_registers(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    N = 2 * compiled.SEGMENT + 37
    q, k = (torch.rand(1, 2, N, 5, generator=generator, dtype=torch.float64).to(dtype) for _ in "qk")
    v = torch.randn(1, 2, N, 19, generator=generator, dtype=torch.float64).to(dtype)
    wanted, known = operator(OP, "reference")(q.double(), k.double(), v.double())
    bound = 1e-12 if dtype == torch.float64 else 3e-5  # the mean of values is near 0, their sum's error is not
    for form in FORMS:
        o, state = operator(OP, form)(q, k, v)
        assert relative(o, wanted) < bound, form
        assert all(relative(*pair) < bound for pair in zip(state, known, strict=True)), form
