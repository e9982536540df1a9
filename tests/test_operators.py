"""Every form of every operator: one function, divisible anywhere, causal where it says so, differentiable."""

from __future__ import annotations

import inspect
from itertools import product
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from vbench.kernels import OPS, forms, operator
from vbench.kernels.registry import trials, truth
from vbench.kernels.trials import Inputs, Trial, cast, hand_off, relative, tensors

BOUND = {torch.float64: 1e-11, torch.float32: 5e-6, torch.bfloat16: 2e-2}
LENGTHS = (1, 63, 64, 65, 150)
CALLS = [(op, trial) for op in OPS for trial in trials(op)]
FORMS = [(op, form, trial) for op, trial in CALLS for form in forms(op) if form != truth(op)]


def name(value: Any) -> str:
    return value.name.replace(", ", "-").replace(" ", "-") if isinstance(value, Trial) else str(value)


def draw(trial: Trial, tokens: int, seed: int = 0) -> Inputs:
    return trial.draw(tokens, torch.Generator().manual_seed(1000 * seed + tokens))


@pytest.mark.parametrize(("op", "form", "trial"), FORMS, ids=name)
def test_every_form_is_the_reference(op: str, form: str, trial: Trial) -> None:
    for tokens, dtype in product(LENGTHS, BOUND):
        inputs = cast(draw(trial, tokens), dtype)
        wanted, wanted_state = trial.run(operator(op, truth(op)), cast(inputs, torch.float64))
        o, state = trial.run(operator(op, form), inputs)
        assert o.dtype == dtype
        assert o.shape == wanted.shape
        assert relative(o, wanted) < BOUND[dtype], (tokens, dtype)
        for found, known in zip(tensors(state), tensors(wanted_state), strict=True):
            assert found.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
            assert found.shape == known.shape
            assert relative(found, known) < min(BOUND[dtype], 1e-5), (tokens, dtype)


@pytest.mark.parametrize(("op", "trial"), [call for call in CALLS if call[1].initial], ids=name)
@settings(max_examples=8, deadline=None)
@given(tokens=st.integers(2, 140), at=st.floats(0, 1), seed=st.integers(0, 9))
def test_a_sequence_can_be_split_anywhere(op: str, trial: Trial, tokens: int, at: float, seed: int) -> None:
    inputs = draw(trial, tokens, seed)
    for form in forms(op):
        whole, final = trial.run(operator(op, form), inputs)
        o, state = hand_off(trial, operator(op, form), inputs, 1 + int(at * (tokens - 2)))
        assert relative(o, whole) < 1e-11
        for found, known in zip(tensors(state), tensors(final), strict=True):
            assert relative(found, known) < 1e-11


@pytest.mark.parametrize(("op", "trial"), [call for call in CALLS if call[1].direction != "both"], ids=name)
def test_a_direction_sees_no_token_beyond_its_own(op: str, trial: Trial) -> None:
    inputs, N, at = draw(trial, 90), 90, 50
    kept = slice(None, at) if trial.direction == "forward" else slice(at, None)
    changed = {key: value.clone() for key, value in inputs.items()}
    for key, dim in trial.token_dims.items():
        beyond = (at, N - at) if trial.direction == "forward" else (0, at)
        changed[key].narrow(dim, *beyond).mul_(0.5)
    for form in forms(op):
        before, _ = trial.run(operator(op, form), inputs)
        after, _ = trial.run(operator(op, form), changed)
        assert relative(after[..., kept, :], before[..., kept, :]) < 1e-12
        assert relative(after, before) > 1e-6


@pytest.mark.parametrize(("op", "trial"), CALLS, ids=name)
def test_strided_views_give_the_same(op: str, trial: Trial) -> None:
    inputs = draw(trial, 70)
    views = {key: value.mT.contiguous().mT if value.ndim > 1 else value for key, value in inputs.items()}
    assert any(not view.is_contiguous() for view in views.values())
    for form in forms(op):
        before = {key: value.clone() for key, value in views.items()}
        o, _ = trial.run(operator(op, form), views)
        assert relative(o, trial.run(operator(op, form), inputs)[0]) < 1e-12
        assert all(torch.equal(before[key], views[key]) for key in views), "an input was written to"


@pytest.mark.parametrize(("op", "trial"), CALLS, ids=name)
def test_gradients_are_the_references(op: str, trial: Trial) -> None:
    inputs = draw(trial, 70)
    grads: dict[str, tuple[Tensor, ...]] = {}
    for form in forms(op):
        x = {key: value.clone().requires_grad_() for key, value in inputs.items()}
        state = trial.initial(x) if trial.initial else None
        o, s = trial.run(operator(op, form), x, state)
        loss = (o * o.detach().cos()).sum() + sum(part.sin().sum() for part in tensors(s) if part.requires_grad)
        grads[form] = torch.autograd.grad(loss, list(x.values()))
    for form in forms(op):
        for found, wanted in zip(grads[form], grads[truth(op)], strict=True):
            assert relative(found, wanted) < 1e-9, form


@pytest.mark.parametrize("op", list(OPS))
def test_the_references_gradient_is_the_derivative(op: str) -> None:
    for trial in trials(op)[:1] + trials(op)[-1:]:
        inputs = {key: value.requires_grad_() for key, value in draw(trial, 3).items()}

        def call(*values: Tensor, trial: Trial = trial, names: tuple[str, ...] = tuple(inputs)) -> Tensor:
            return trial.run(operator(op, truth(op)), dict(zip(names, values, strict=True)))[0]

        assert torch.autograd.gradcheck(call, tuple(inputs.values()), fast_mode=True)


@pytest.mark.parametrize(("op", "trial"), CALLS, ids=name)
def test_meta_tensors_answer_with_shapes_and_cost(op: str, trial: Trial) -> None:
    inputs = cast(draw(trial, 70), torch.float32)
    for form in forms(op):
        real, real_state = trial.run(operator(op, form), inputs)
        with FlopCounterMode(display=False) as counter:
            o, state = trial.run(operator(op, form), {key: value.to("meta") for key, value in inputs.items()})
        assert o.is_meta
        assert (o.shape, o.dtype) == (real.shape, real.dtype)
        for found, known in zip(tensors(state), tensors(real_state), strict=True):
            assert (found.shape, found.dtype) == (known.shape, known.dtype)
        assert counter.get_total_flops() > 0


@pytest.mark.parametrize("op", list(OPS))
def test_the_forms_of_an_operator_have_one_signature(op: str) -> None:
    def shared(form: str) -> list[inspect.Parameter]:
        return list(inspect.signature(operator(op, form)).parameters.values())

    wanted = shared(truth(op))
    for form in forms(op):
        assert shared(form)[: len(wanted)] == wanted, form
