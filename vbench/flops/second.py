"""The second counter: fvcore reads a trace of a real pass, with attention unfused.

fvcore leaves out what it has no formula for, and what a trace leaves out. Where that can explain a difference from the
first counter, it has no opinion, and says what it did not see.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from math import prod
from typing import TYPE_CHECKING, Any

from vbench.errors import first_line
from vbench.kernels.registry import OPS, operator
from vbench.meters.build import build, cast, replace_function, unfuse
from vbench.plan import Case

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


AGREE = 0.01  # of the MACs
SECOND_COUNT_LIMIT = 2_000_000_000  # MACs; fvcore executes the model to trace it: up to a second or so of one core
CALLS_OF_SCRIPTS = ("prim::If", "prim::Loop", "prim::CallMethod")  # fvcore does not look into them


def second_count(case: Case, macs: int) -> dict[str, Any]:
    """fvcore's count beside `macs`, the first counter's `macs_matmul`. Raises nothing: the count may be missing.

    The time of a trace grows with its length. So our operator, which is the same in many blocks, is traced apart from
    the model, once for each size of its inputs. A form whose MACs are elementwise is not traced: none of them are in
    `macs`, though torch may compute some by `bmm`, as what a token reads of a state.

    Returns: `macs_fvcore`, or None and `reason`; `agree`, whether they differ by at most 1 %.
    """
    if case.mode == "recurrent":
        return not_counted("fvcore counts matrix products; the step form's outer products are elementwise")
    if macs > SECOND_COUNT_LIMIT:
        return not_counted(
            f"fvcore executes what it counts; above {SECOND_COUNT_LIMIT / 1e9:g} GMACs that takes too long"
        )
    try:
        found = _second_count(case)
    except Exception as error:  # the first counter's result stays, whatever fails here
        lacking = isinstance(error, ModuleNotFoundError) and (error.name or "").partition(".")[0] == "fvcore"
        why = f"could not count: {first_line(error, named=True)}"
        return not_counted("fvcore is not installed; pip install fvcore" if lacking else f"fvcore {why}")
    agree = abs(found.macs - macs) <= AGREE * macs
    if not agree and (reason := found.explains(lower=found.macs < macs)):
        return not_counted(reason)
    return {"macs_fvcore": found.macs, "agree": agree, "reason": None}


def not_counted(reason: str | None) -> dict[str, Any]:
    """What `second_count` returns where fvcore has not counted."""
    return {"macs_fvcore": None, "agree": None, "reason": reason}


@dataclass(slots=True)
class Found:
    """What fvcore finds in traces, and what it does not.

    Attributes:
        macs: of matrix products and convolutions.
        unseen: operations that can multiply and that fvcore has no formula for.
        otherwise: products that it counts in another way than they are computed, in words.
        dropped: modules with weights that ran, and that the trace lacks because nothing uses their results.
    """

    macs: int = 0
    unseen: dict[str, None] = field(default_factory=dict)  # in the order of the trace
    otherwise: dict[str, None] = field(default_factory=dict)
    dropped: dict[str, None] = field(default_factory=dict)

    def add(self, other: Found, times: int) -> None:
        self.macs += times * other.macs
        for name in ("unseen", "otherwise", "dropped"):
            getattr(self, name).update(getattr(other, name))

    def explains(self, *, lower: bool) -> str | None:
        """Why fvcore's count can be `lower` than the first, or higher; None for no reason."""
        reasons = [f"fvcore {what}" for what in self.otherwise]
        if lower and self.unseen:
            reasons.insert(0, f"fvcore does not know {', '.join(self.unseen)}")
        if lower and self.dropped:
            reasons.append(f"its trace leaves out what nothing uses: {', '.join(self.dropped)}")
        return "; ".join(reasons) or None


def _second_count(case: Case) -> Found:
    """What fvcore finds. Raises: whatever a trace raises, ModuleNotFoundError without fvcore."""
    import fvcore.nn  # noqa: F401 - before anything is built
    import torch

    row, calls = case.spec, list[_Call]()
    torch.manual_seed(0)
    # In float32 whatever the cell's type: a count does not depend on it, and no operation meets two types.
    model, image = cast(build(case), torch.float32), torch.randn(1, 3, case.height, case.width)
    unfuse(model)
    if row.operator and case.form:
        form = operator(row.operator, case.form)
        with torch.device("meta"):
            twin = cast(build(case), torch.float32)
        replace_function(twin, form, partial(_record, form, calls))
        with torch.no_grad():
            twin(image.to("meta"))
        replace_function(model, form, partial(_stand_in, iter(calls)))
    found = _traced(model, image)
    if row.operator and case.form and OPS[row.operator][case.form].elementwise:
        return found
    for call, times in Counter(calls).items():
        inputs = [torch.zeros(shape, dtype=dtype) for shape, dtype in call.inputs]
        named = {name: torch.zeros(shape, dtype=dtype) for name, (shape, dtype) in call.named}
        found.add(_traced(partial(form, **named, **dict(call.options)), *inputs), times)
    return found


@dataclass(frozen=True, slots=True)
class _Call:
    """A call of an operator: shapes and types of its inputs, of those by name, its options, and those of its output."""

    inputs: tuple[tuple[torch.Size, torch.dtype], ...]
    named: tuple[tuple[str, tuple[torch.Size, torch.dtype]], ...]
    options: tuple[tuple[str, Any], ...]
    output: tuple[torch.Size, torch.dtype]


def _record(form: Callable[..., Any], calls: list[_Call], *inputs: Tensor, **options: Any) -> Any:
    """Run the form on meta tensors, and append the call to `calls`."""
    o, state = form(*inputs, **options)
    given = tuple((x.shape, x.dtype) for x in inputs)
    tensors = _tensors(options)
    named = tuple((name, (x.shape, x.dtype)) for name, x in tensors.items())
    rest = tuple((name, value) for name, value in options.items() if name not in tensors)
    calls.append(_Call(given, named, rest, (o.shape, o.dtype)))
    return o, state


def _tensors(options: dict[str, Any]) -> dict[str, Tensor]:
    """The tensors among the keywords of a call."""
    import torch

    return {name: value for name, value in options.items() if torch.is_tensor(value)}


def _stand_in(calls: Iterator[_Call], *inputs: Tensor, **options: Any) -> Any:
    """A tensor of the right shape, and no state. It depends on all inputs, so that a trace keeps what made them."""
    shape, dtype = next(calls).output
    firsts = sum(x[(0,) * x.ndim] for x in (*inputs, *_tensors(options).values()))
    return inputs[0].new_zeros(shape, dtype=dtype) + firsts, None


def _traced(function: Callable[..., Any], *inputs: Tensor) -> Found:
    """What fvcore finds in a trace of a model, or of a function."""
    import logging

    import torch
    from fvcore.nn import FlopCountAnalysis, jit_handles

    logging.getLogger("fvcore").setLevel(logging.ERROR)
    model, found = _returning_tensors(function), Found()
    analysis = FlopCountAnalysis(model, inputs)
    handles = {  # a product by torch's name, and by fvcore's
        "aten::_convolution": jit_handles.conv_flop_jit,
        "aten::linear": jit_handles.linear_flop_jit,
        "aten::addmm": jit_handles.addmm_flop_jit,
        "aten::mm": jit_handles.matmul_flop_jit,
        "aten::matmul": jit_handles.matmul_flop_jit,
        "aten::bmm": jit_handles.bmm_flop_jit,
        "aten::baddbmm": lambda inputs, outputs: jit_handles.bmm_flop_jit(inputs[1:3], outputs),
        "aten::einsum": jit_handles.einsum_flop_jit,
    }
    analysis.set_op_handle(**{kind: partial(_looked_at, found, kind, handle) for kind, handle in handles.items()})
    analysis.set_op_handle(**{kind: partial(_noted, found, kind) for kind in CALLS_OF_SCRIPTS})
    with torch.no_grad(), _names_of_called(model) as called:
        counts = analysis.by_operator()
    found.macs = int(sum(counts[name] for name in ("conv", *(kind.removeprefix("aten::") for kind in handles))))
    found.unseen |= {_plain(kind): None for kind in analysis.unsupported_ops() if _can_multiply(kind)}
    dropped = analysis.uncalled_modules() & called
    found.dropped |= dict.fromkeys(name.removeprefix("function.") for name in sorted(dropped))
    return found


def _returning_tensors(function: Callable[..., Any]) -> nn.Module:
    """A model or a function as a model that returns all tensors of the result: a trace drops what is not returned."""
    from torch import nn

    class Traced(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.function = function

        def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
            found = tuple(_tensors_in(self.function(*inputs)))
            if not found:
                raise TypeError("no tensor is found in what the model returns")
            return found

    return Traced()


def _tensors_in(value: Any) -> Iterator[Tensor]:
    """The tensors in an output: in its lists, dicts and objects."""
    from torch import Tensor
    from torch.utils._pytree import tree_leaves

    for leaf in tree_leaves(value):
        if isinstance(leaf, Tensor):
            yield leaf
        elif hasattr(leaf, "__dict__"):
            yield from _tensors_in(list(vars(leaf).values()))


@contextmanager
def _names_of_called(model: nn.Module) -> Iterator[set[str]]:
    """The names of modules with matrices of their own that are called meanwhile."""
    called: set[str] = set()
    hooks = [
        module.register_forward_hook(lambda *_, name=name: called.add(name))
        for name, module in model.named_modules()
        if any(weight.ndim > 1 for weight in module.parameters(recurse=False))
    ]
    try:
        yield called
    finally:
        for hook in hooks:
            hook.remove()


def _looked_at(found: Found, kind: str, handle: Callable[..., Any], inputs: list[Any], outputs: list[Any]) -> Any:
    """fvcore's count of a product; 0, and noted, where it has none."""
    try:
        count = handle(inputs, outputs)
        if why := _counted_otherwise(kind, inputs, outputs):
            found.otherwise[why] = None
    except Exception:  # shapes that fvcore did not think of
        return _noted(found, kind, inputs, outputs)
    return count


def _noted(found: Found, kind: str, inputs: list[Any], outputs: list[Any]) -> int:
    found.unseen[_plain(kind)] = None
    return 0


def _plain(kind: str) -> str:
    return kind.removeprefix("aten::").removeprefix("prim::")


def _counted_otherwise(kind: str, inputs: list[Any], outputs: list[Any]) -> str | None:
    """How fvcore's formula for a product differs from what is computed, in words; None if it does not.

    It takes complex numbers for real ones. Of `matmul` it takes the batch of the first operand, of `einsum` all letters
    of the equation: torch multiplies elements where it has nothing to sum, and sums first what one operand alone has.
    """
    if outputs[0].isCompleteTensor() and "Complex" in (outputs[0].type().scalarType() or ""):
        return "counts a complex product as a real one"
    if kind == "aten::matmul":
        a, b, out = (value.type().sizes() for value in (*inputs, outputs[0]))
        whole = prod(out[:-2]) == prod(a[:-2]) and len(b) > 1
        return None if whole else "leaves out the broadcasting of matmul"
    if kind == "aten::einsum":
        given, _, kept = inputs[0].toIValue().replace(" ", "").replace(".", "").partition("->")
        terms = given.split(",")
        plain = len(terms) == 2 and all(len(set(term)) == len(term) for term in terms)
        summed = set(given) - set(kept) - {","}
        if not plain or not summed or not summed <= set(terms[0]) & set(terms[1]):
            return "counts einsum by its letters"
    return None


def _can_multiply(kind: str) -> bool:
    """Whether an operation of a trace can have MACs.

    Those that have none are in our tables, or torch makes them of others without products. Of other authors' operations
    and of functions of autograd nothing is known.
    """
    from vbench.flops import tables
    from vbench.flops.formulas import is_named

    namespace, _, name = kind.partition("::")
    base = name.removesuffix("_")
    if namespace not in ("aten", "torchvision"):
        return namespace not in tables.SILENT or name.startswith(("PythonOp", "CallFunction"))
    if base in tables.MADE_OF_PRODUCTS:
        return True
    return not is_named(base) and not _is_made_of_others(kind)


def _is_made_of_others(kind: str) -> bool:
    """Whether torch computes an operation by others, whatever the device."""
    import torch

    for schema in torch._C._jit_get_schemas_for_operator(kind):
        name = f"{schema.name}.{schema.overload_name}" if schema.overload_name else schema.name
        try:
            if torch._C._dispatch_has_kernel_for_dispatch_key(name, "CompositeImplicitAutograd"):
                return True
        except RuntimeError:  # of a script alone
            continue
    return False
