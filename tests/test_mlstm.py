"""The matrix LSTM: the published operator, gates at their limits, chunks of any size, and what is counted."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from torch import Tensor
from weights import Golden

from vbench.kernels import forms, operator
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


def test_a_long_sequence_costs_no_digits() -> None:
    x = {name: tensor.float() for name, tensor in TRIALS[0].draw(4096, torch.Generator().manual_seed(0)).items()}
    x = {name: tensor[:1, :1] for name, tensor in x.items()}
    wanted, _ = operator("mlstm", "reference")(*(tensor.double() for tensor in x.values()))
    for form in FORMS:
        assert relative(operator("mlstm", form)(*x.values())[0], wanted) < 1e-6


@pytest.mark.parametrize("form", FORMS)
def test_scale_and_eps_are_those_of_the_definition(form: str) -> None:
    x = inputs((1, 2, 70, 8))
    h, _ = operator("mlstm", form)(*x.values(), scale=1.0)
    assert relative(h, operator("mlstm", form)(x["q"], x["k"] * 8**0.5, *list(x.values())[2:])[0]) < 1e-12
    large = {**x, "i": x["i"] + 30}
    fine, coarse = (operator("mlstm", form)(*large.values(), eps=eps)[0] for eps in (1e-6, 1.0))
    assert relative(coarse, fine) > 0.01
