"""Recurrent forms in machine code: what the other tests of all forms do not ask."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from vbench.kernels import OPS, default_form, operator
from vbench.kernels.registry import trials
from vbench.kernels.trials import cast, relative, tensors

pytest.importorskip("numba")

COMPILED = [op for op in OPS if "compiled" in OPS[op]]


@pytest.mark.parametrize("op", COMPILED)
def test_is_the_default_of_no_mode(op: str) -> None:
    assert default_form(op, "recurrent") == "reference"


@pytest.mark.parametrize("op", COMPILED)
def test_leaves_the_state_it_is_given_as_it_was_and_has_gradients_of_it(op: str) -> None:
    trial = next(each for each in trials(op) if each.initial)
    inputs = trial.draw(40, torch.Generator().manual_seed(0))
    _, start = trial.run(operator(op, "reference"), inputs)
    found: dict[str, Any] = {}
    for form in ("reference", "compiled"):
        parts = [part.clone().requires_grad_() for part in tensors(start)]
        state = tuple(parts) if isinstance(start, tuple) else parts[0]
        o, last = trial.run(operator(op, form), inputs, state)
        total = (o * o.detach().cos()).sum() + sum(part.sin().sum() for part in tensors(last))
        found[form] = torch.autograd.grad(total, parts)
        assert all(torch.equal(*pair) for pair in zip(parts, tensors(start), strict=True)), form
    for mine, wanted in zip(found["compiled"], found["reference"], strict=True):
        assert relative(mine, wanted) < 1e-9


@pytest.mark.parametrize("op", COMPILED)
def test_gradients_of_gradients_are_refused(op: str) -> None:
    trial = trials(op)[0]
    inputs = {key: x.requires_grad_() for key, x in trial.draw(9, torch.Generator().manual_seed(0)).items()}
    o, _ = trial.run(operator(op, "compiled"), inputs)
    first, *_ = torch.autograd.grad((o * o).sum(), list(inputs.values()), create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


@pytest.mark.parametrize("op", [op for op in OPS if OPS[op] and "reference" in OPS[op]])
def test_where_no_gradient_is_wanted_parallel_forms_work_in_place_and_find_the_same(op: str) -> None:
    for trial in trials(op):
        inputs = cast(trial.draw(300, torch.Generator().manual_seed(1)), torch.float64)
        form = default_form(op, "parallel")
        wanted, known = trial.run(operator(op, form), inputs)
        before = {key: value.clone() for key, value in inputs.items()}
        with torch.inference_mode():
            o, state = trial.run(operator(op, form), inputs)
        assert relative(o, wanted) < 1e-13
        for pair in zip(tensors(state), tensors(known), strict=True):
            assert relative(*pair) < 1e-13
        assert all(torch.equal(before[key], inputs[key]) for key in inputs), "an input was written to"
