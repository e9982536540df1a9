"""The second counter: fvcore reads a trace of a real pass, with attention unfused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from vbench.errors import first_line
from vbench.kernels.registry import operator
from vbench.meters.build import build, replace_function, unfuse
from vbench.plan import Case

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


AGREE = 0.01  # of the MACs
SECOND_COUNT_LIMIT = 2_000_000_000  # MACs; fvcore executes the model to trace it: up to a second or so of one core


def second_count(case: Case, macs: int) -> dict[str, Any]:
    """fvcore's count beside `macs`, the first counter's `macs_matmul`. Raises nothing: the count may be missing.

    The time of a trace grows with its length. So our operator, which is the same in many blocks, is traced apart from
    the model, once for each size of its inputs.

    Returns: `macs_fvcore`, or None and `reason`; `agree`, whether they differ by at most 1 %.
    """
    if case.mode == "recurrent":
        return not_counted("fvcore counts matrix products; the step form's outer products are elementwise")
    if macs > SECOND_COUNT_LIMIT:
        return not_counted(
            f"fvcore executes what it counts; above {SECOND_COUNT_LIMIT / 1e9:g} GMACs that takes too long"
        )
    try:
        total = _second_count(case)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "fvcore":
            return not_counted(f"fvcore could not count: {first_line(error, named=True)}")
        return not_counted("fvcore is not installed; pip install fvcore")
    except Exception as error:  # the first counter's result stays, whatever fails here
        return not_counted(f"fvcore could not count: {first_line(error, named=True)}")
    return {"macs_fvcore": total, "agree": abs(total - macs) <= AGREE * macs, "reason": None}


def not_counted(reason: str | None) -> dict[str, Any]:
    """What `second_count` returns where fvcore has not counted."""
    return {"macs_fvcore": None, "agree": None, "reason": reason}


def _second_count(case: Case) -> int:
    """The MACs that fvcore finds. Raises: whatever a trace raises, ModuleNotFoundError without fvcore."""
    import fvcore.nn  # noqa: F401 - before anything is built
    import torch

    row, calls = case.spec, list[_Call]()
    torch.manual_seed(0)
    model, image = build(case), torch.randn(1, 3, case.height, case.width)
    unfuse(model)
    if row.operator and case.form:
        form = operator(row.operator, case.form)
        with torch.device("meta"):
            twin = build(case)
        replace_function(twin, form, partial(_record, form, calls))
        with torch.no_grad():
            twin(image.to("meta"))
        replace_function(model, form, partial(_stand_in, iter(calls)))
    total = _traced_macs(model, image)
    for call, times in Counter(calls).items():
        inputs = [torch.zeros(shape, dtype=dtype) for shape, dtype in call.inputs]
        total += times * _traced_macs(_as_model(form, dict(call.options)), *inputs)
    return total


@dataclass(frozen=True, slots=True)
class _Call:
    """A call of an operator: shapes and types of its inputs, its options, the shape and type of its output."""

    inputs: tuple[tuple[torch.Size, torch.dtype], ...]
    options: tuple[tuple[str, Any], ...]
    output: tuple[torch.Size, torch.dtype]


def _record(form: Callable[..., Any], calls: list[_Call], *inputs: Tensor, **options: Any) -> Any:
    """Run the form on meta tensors, and append the call to `calls`."""
    o, state = form(*inputs, **options)
    given = tuple((x.shape, x.dtype) for x in inputs)
    calls.append(_Call(given, tuple(options.items()), (o.shape, o.dtype)))
    return o, state


def _stand_in(calls: Iterator[_Call], *inputs: Tensor, **options: Any) -> Any:
    """A tensor of the right shape, and no state. It depends on all inputs, so that a trace keeps what made them."""
    shape, dtype = next(calls).output
    firsts = sum(x[(0,) * x.ndim] for x in inputs)
    return inputs[0].new_zeros(shape, dtype=dtype) + firsts, None


def _as_model(form: Callable[..., Any], options: dict[str, Any]) -> nn.Module:
    """An operator as a model. It returns the state too, as a trace drops what nothing needs."""
    from torch import Tensor, nn
    from torch.utils._pytree import tree_leaves

    class Operator(nn.Module):
        def forward(self, *inputs: Tensor) -> Any:
            return tuple(leaf for leaf in tree_leaves(form(*inputs, **options)) if isinstance(leaf, Tensor))

    return Operator()


def _traced_macs(model: nn.Module, *inputs: Tensor) -> int:
    """The matrix products and convolutions that fvcore finds in a trace."""
    import logging

    import torch
    from fvcore.nn import FlopCountAnalysis

    logging.getLogger("fvcore").setLevel(logging.ERROR)
    with torch.no_grad():
        counts = FlopCountAnalysis(model, inputs).by_operator()
    return int(sum(counts[kind] for kind in ("conv", "linear", "addmm", "matmul", "bmm", "einsum")))
