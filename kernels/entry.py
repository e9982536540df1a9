"""The call of a form: it checks the shapes that the operator declares, and answers for meta tensors.

A form itself only computes, and autocast does not reach into it. On meta tensors nothing is computed: one operator,
`vbench::operator`, answers for all forms. It knows the shapes of the results, and the cost of the form.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial, wraps
from importlib import import_module
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from vbench.kernels.registry import OPS
from vbench.kernels.shapes import Layout, Shapes, State, accumulator, match


@cache
def shapes_of(op: str) -> Shapes:
    """The shapes that an operator declares in its `shapes.py`."""
    return import_module(f"vbench.kernels.{op}.shapes").SHAPES


@cache
def enter(op: str, form: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, which computes a form, with the checks before it. Cached: one form has one such function.

    It has the signature of `function`. It raises ShapeError if the inputs do not agree.
    """
    shapes, signature = shapes_of(op), inspect.signature(function)
    compute = partial(function, form=form) if OPS[op][form].module else function
    layouts = {choice: shapes.layout(choice) for choice in shapes.choices}

    @wraps(function)
    def call(*inputs: Tensor, **options: Any) -> Any:
        if len(inputs) != len(shapes.inputs):  # some are given by name, or are missing
            options = dict(signature.bind(*inputs, **options).arguments)
            inputs = tuple(options.pop(name) for name in shapes.inputs)
        choice, state = options.get(shapes.option, shapes.choices[0]), options.get("state")
        if choice not in layouts or not _agree(shapes, layouts[choice], choice, inputs, state):
            raise shapes.refusal(op, choice, inputs, state)
        if not inputs[0].is_meta:
            kind = inputs[0].device.type
            if torch.is_autocast_enabled(kind):  # a form accumulates in float32, whatever type its inputs have
                with torch.autocast(kind, enabled=False):
                    return compute(*inputs, **options)
            return compute(*inputs, **options)
        o, *parts = answer(inputs, op, form, choice)
        return o, tuple(parts) if isinstance(shapes.state, tuple) else parts[0]

    return call


def _agree(shapes: Shapes, layout: Layout, choice: str, inputs: Sequence[Tensor], state: State | None) -> bool:
    given, wanted = [x.shape for x in inputs], layout.inputs
    if state is not None:
        if isinstance(state, tuple) != isinstance(shapes.state, tuple) or choice in shapes.stateless:
            return False
        given += [part.shape for part in (state if isinstance(state, tuple) else (state,))]
        wanted += layout.state
    return match(given, wanted) is not None


@torch.library.custom_op("vbench::operator", mutates_args=())
def answer(inputs: Sequence[Tensor], op: str, form: str, choice: str) -> list[Tensor]:
    """Output and state of a form on meta tensors, which have only shapes. `choice`: value of the operator's option."""
    raise RuntimeError("vbench::operator answers on the meta device only; call a form")


@answer.register_fake
def _(inputs: Sequence[Tensor], op: str, form: str, choice: str) -> list[Tensor]:
    x, layout = inputs[0], shapes_of(op).layout(choice)
    found = match([each.shape for each in inputs], layout.inputs)
    assert found is not None
    state = [x.new_empty([found[dim] for dim in dims], dtype=accumulator(x)) for dims in layout.state]
    return [x.new_empty([found[dim] for dim in layout.output]), *state]


@dataclass(frozen=True, slots=True)
class Work:
    """The work of one call, by the formulas in the operator's `cost.py`.

    The form executes `macs`. The algorithm needs `macs_algorithm`; no form executes fewer. `flops_elementwise` is
    the form's pointwise work beside its MACs: gates, decays, exponentials, sums and quotients, one FLOP for an
    operation or a value of a function.
    """

    macs: int
    macs_algorithm: int
    flops_elementwise: int


def work(shapes: Sequence[Sequence[int]], op: str, form: str, choice: str) -> Work:
    """The work of a form in one call, from the shapes of its inputs."""
    declared, cost = shapes_of(op), import_module(f"vbench.kernels.{op}.cost")
    found = match(shapes, declared.layout(choice).inputs)
    assert found is not None
    sizes = declared.sizes(found, choice)
    return Work(cost.macs(form, **sizes), cost.macs("algorithm", **sizes), cost.elementwise_flops(form, **sizes))


@register_flop_formula(torch.ops.vbench.operator)
def _flops(inputs: Any, op: str, form: str, choice: str, **_: Any) -> int:
    return 2 * work(inputs, op, form, choice).macs
