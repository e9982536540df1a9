"""The call of a form: it checks the shapes that the operator declares, and answers for meta tensors.

A form itself only computes, and autocast does not reach into it. On meta tensors nothing is computed: one operator,
`vbench::operator`, answers for all forms. It knows the shapes of the results, and the cost of the form.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
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
    some = [tuple(shapes.optional)[:count] for count in range(len(shapes.optional) + 1)]
    layouts = {(choice, extra): shapes.layout(choice, extra) for choice in shapes.choices for extra in some}

    @wraps(function)
    def call(*inputs: Tensor, **options: Any) -> Any:
        if len(inputs) != len(shapes.inputs):  # some are given by name, or are missing
            options = dict(signature.bind(*inputs, **options).arguments)
            inputs = tuple(options.pop(name) for name in shapes.inputs)
        choice, state = options.get(shapes.option, shapes.choices[0]), options.get("state")
        extra = tuple(name for name in shapes.optional if options.get(name) is not None)
        tensors = (*inputs, *(options[name] for name in extra)) if extra else inputs
        if (choice, extra) not in layouts or not _agree(shapes, layouts[choice, extra], choice, tensors, state):
            raise shapes.refusal(op, choice, tensors, state, extra)
        if not inputs[0].is_meta:
            kind = inputs[0].device.type
            if torch.is_autocast_enabled(kind):  # a form accumulates in float32, whatever type its inputs have
                with torch.autocast(kind, enabled=False):
                    return compute(*inputs, **options)
            return compute(*inputs, **options)
        o, *parts = answer(tensors, op, form, choice)
        return o, tuple(parts) if isinstance(shapes.state, tuple) else parts[0]

    return call


def bound(
    op: str, function: Callable[..., Any], inputs: Mapping[str, Tensor], options: Mapping[str, Any]
) -> Callable[[], Any]:
    """A call of a function that takes what `op` takes: its inputs in their order, optional tensors by name."""
    optional = shapes_of(op).optional
    named = {name: x for name, x in inputs.items() if name in optional}
    return partial(function, *(x for name, x in inputs.items() if name not in optional), **named, **options)


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
    declared = shapes_of(op)
    x, layout = inputs[0], declared.layout(choice, declared.given(len(inputs)))
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
    optional = declared.given(len(shapes))
    found = match(shapes, declared.layout(choice, optional).inputs)
    assert found is not None
    sizes = declared.sizes(found, choice, optional)
    return Work(cost.macs(form, **sizes), cost.macs("algorithm", **sizes), cost.elementwise_flops(form, **sizes))


@register_flop_formula(torch.ops.vbench.operator)
def _flops(inputs: Any, op: str, form: str, choice: str, **_: Any) -> int:
    return 2 * work(inputs, op, form, choice).macs
