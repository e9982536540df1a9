"""The matrix LSTM: the published operator, gates at their limits, chunks of any size, and what is counted."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from weights import Golden

from vbench.errors import ShapeError
from vbench.kernels import default_form, forms, operator
from vbench.kernels.mlstm import cost
from vbench.kernels.mlstm.trials import TRIALS
from vbench.kernels.trials import relative

PUBLISHED = Golden("mlstm_op")
FORMS = forms("mlstm")


def inputs(shape: tuple[int, int, int, int], seed: int = 0) -> dict[str, Tensor]:
    """As at ViL's initialisation, with D = E."""
    generator = torch.Generator().manual_seed(seed)
    x = {name: torch.randn(shape, generator=generator, dtype=torch.float64) for name in "qkv"}
    x["i"] = torch.randn(shape[:3], generator=generator, dtype=torch.float64)
    x["f"] = 4 + torch.randn(shape[:3], generator=generator, dtype=torch.float64)
    return x


@pytest.mark.parametrize(("form", "case"), list(product(FORMS, PUBLISHED.manifest["cases"])))
def test_the_published_operator(form: str, case: str) -> None:
    about = PUBLISHED.manifest["cases"][case]
    x = [PUBLISHED.arrays[f"{case}_{name}"] for name in "qkvif"]
    wanted = PUBLISHED.arrays[f"{case}_h"]
    bounds = {torch.float64: 1e-7, torch.float32: 8 * about["fp32_noise"] / about["h_absmax"]}
    for (dtype, bound), reverse in product(bounds.items(), (False, True)):
        values = [value.to(dtype).flip(2) if reverse else value.to(dtype) for value in x]
        h, _ = operator("mlstm", form)(*values, direction="reverse" if reverse else "forward")
        error = ((h.flip(2) if reverse else h).double() - wanted).abs().max() / about["h_absmax"]
        assert error < bound, (dtype, reverse)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("gate", "value"), list(product("if", (-1e30, -1e4, -100.0, 100.0, 1e4))))
def test_no_gate_overflows(form: str, gate: str, value: float) -> None:
    x = {name: tensor.float() for name, tensor in inputs((1, 2, 150, 8)).items()}
    x[gate] = torch.full_like(x[gate], value)
    x = {name: tensor.requires_grad_() for name, tensor in x.items()}
    for direction in ("forward", "reverse"):
        h, state = operator("mlstm", form)(*x.values(), direction=direction)
        grads = torch.autograd.grad(h.sum() + state[0].sum() + state[1].sum(), list(x.values()))
        assert all(torch.isfinite(tensor).all() for tensor in (h, *state, *grads))


@pytest.mark.parametrize("form", FORMS)
def test_a_sequence_of_one_token_reads_itself(form: str) -> None:
    x = inputs((1, 1, 1, 96))
    weight = (x["q"] * x["k"]).sum(-1, keepdim=True) * 96**-0.5
    m = x["i"].unsqueeze(-1)
    h, (C, n, found) = operator("mlstm", form)(*x.values())
    assert relative(h, weight * x["v"] / (weight.abs().maximum((-m).exp()) + 1e-6)) < 1e-14
    assert relative(C, 96**-0.5 * x["k"].mT @ x["v"]) < 1e-14
    assert relative(n, 96**-0.5 * x["k"].squeeze(2)) < 1e-14
    assert torch.equal(found, x["i"].squeeze(2))


def test_one_closed_gate_among_open_ones_costs_no_digits() -> None:
    x = TRIALS[0].draw(128, torch.Generator().manual_seed(0))
    x["f"][:, :, 40] = -5e3  # float32 sums of log gates would lose their digits from here on
    x = {name: tensor.float().double() for name, tensor in x.items()}
    wanted, _ = operator("mlstm", "reference")(*x.values())
    for form in FORMS:
        h, _ = operator("mlstm", form)(*(tensor.float() for tensor in x.values()))
        assert relative(h, wanted) < 1e-6


def test_a_long_sequence_costs_no_digits() -> None:
    x = {name: tensor.float() for name, tensor in TRIALS[0].draw(4096, torch.Generator().manual_seed(0)).items()}
    x = {name: tensor[:1, :1] for name, tensor in x.items()}
    wanted, _ = operator("mlstm", "reference")(*(tensor.double() for tensor in x.values()))
    for form in FORMS:
        assert relative(operator("mlstm", form)(*x.values())[0], wanted) < 1e-6


@settings(max_examples=20, deadline=None)
@given(chunk=st.integers(1, 130), group=st.integers(1, 5), tokens=st.integers(1, 200), reverse=st.booleans())
def test_chunk_and_group_never_matter(chunk: int, group: int, tokens: int, reverse: bool) -> None:
    x = TRIALS[0].draw(tokens, torch.Generator().manual_seed(tokens))
    direction = "reverse" if reverse else "forward"
    wanted, final = operator("mlstm", "reference")(*x.values(), direction=direction)
    h, state = operator("mlstm", "chunkwise")(*x.values(), direction=direction, chunk=chunk, group=group)
    for found, known in zip((h, *state), (wanted, *final), strict=True):
        assert relative(found, known) < 1e-12


@pytest.mark.parametrize("form", FORMS)
def test_scale_and_eps_are_those_of_the_definition(form: str) -> None:
    x = inputs((1, 2, 70, 8))
    h, _ = operator("mlstm", form)(*x.values(), scale=1.0)
    assert relative(h, operator("mlstm", form)(x["q"], x["k"] * 8**0.5, *list(x.values())[2:])[0]) < 1e-12
    large = {**x, "i": x["i"] + 30}
    fine, coarse = (operator("mlstm", form)(*large.values(), eps=eps)[0] for eps in (1e-6, 1.0))
    assert relative(coarse, fine) > 0.01


@pytest.mark.parametrize("form", FORMS)
def test_what_does_not_fit_is_named(form: str) -> None:
    x = inputs((1, 2, 5, 4))
    mlstm = operator("mlstm", form)
    with pytest.raises(ShapeError, match=r"q \(1, 2, 5, 4\), k \(1, 2, 5, 3\)"):
        mlstm(x["q"], x["k"][..., :3], x["v"], x["i"], x["f"])
    with pytest.raises(ShapeError, match="one direction a call"):
        mlstm(*x.values(), direction="both")
    with pytest.raises(ShapeError, match="'forward', 'reverse' or 'both'"):
        mlstm(*x.values(), direction="backward")
    with pytest.raises(ShapeError, match=r"state \(1, 2, 4, 4\) \(1, 2, 4\)"):
        mlstm(*x.values(), state=(torch.zeros(1, 2, 4, 4), torch.zeros(1, 2, 4)))
    with pytest.raises(ShapeError, match="at least 1"):
        operator("mlstm", "chunkwise")(*x.values(), chunk=0)


def test_default_forms() -> None:
    assert default_form("mlstm", "parallel") == "chunkwise"
    assert default_form("mlstm", "recurrent") == "reference"


@pytest.mark.parametrize("tokens", [1, 64, 196])
@pytest.mark.parametrize("form", ["chunkwise", "quadratic"])
def test_executed_macs_are_those_of_the_matrix_products(form: str, tokens: int) -> None:
    x = inputs((2, 3, tokens, 8))
    with FlopCounterMode(display=False) as counter:
        operator("mlstm", form)(*x.values())
    wanted = cost.macs(form, batch=2, heads=3, tokens=tokens, key_dim=8, value_dim=8)
    assert counter.get_total_flops() == 2 * wanted


def test_the_recurrence_itself_is_counted_alike_for_all_forms() -> None:
    sizes = {"batch": 1, "heads": 4, "tokens": 196, "key_dim": 96, "value_dim": 96}
    assert cost.macs("algorithm", **sizes) == cost.macs("reference", **sizes) == 196 * 4 * 2 * (96 * 96 + 96)
