"""What a pass of one image is made of: operations by name and dtype, inside our own operators too.

On the meta device our operators stand in for themselves, and their work is what the formulas beside the kernels say. A
formula does not change with the code that it is about; so here each form is run as well, on tensors without data, and
what it really does is entered apart.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils._pytree import tree_map_only

from vbench.flops import count as flops
from vbench.flops.estimate import SEEN_INSIDE, predicted_peak
from vbench.flops.ledger import ALLOCATIONS, VIEWS, Kind, Ledger, Tally, tensors
from vbench.kernels.fused.launch import recording
from vbench.kernels.registry import OPS, computation, operator
from vbench.meters.build import replace_function
from vbench.plan import Case

FLOATS = (torch.float64, torch.float32, torch.bfloat16, torch.float16)  # the widest of an operation names it
_UNSENT = VIEWS | ALLOCATIONS  # of which a GPU sees nothing


def look(case: Case) -> dict[str, Any]:
    """All counters of a cell, JSON-able. Touches no device.

    Returns:
        counts: what `flops.count` returns, if a number; predicted_peak_bytes; macs_inside, flops_inside: of the
            operators' forms as they run, products by torch's formulas, 2 · macs_inside + pointwise work, None without
            an operator that can be looked into; launches: all operations below, each of our operators as what is
            inside, which is what a GPU would be sent in eager mode.
        operations: calls in the model by name and dtype, an operator of ours as one; views and allocations, of which a
            GPU sees nothing, are left out. inside: likewise in the operators' forms; of a form made of Triton's kernels
            their launches, of one in machine code the calls.
        unseen: why a form was not looked into, or None.
    """
    model, image = flops.on_meta(case)
    op = case.operator
    ledger = Operations(model, op, case.form, elementwise=flops.is_elementwise(case)).enter(image)
    work, inside = flops.summed(case, model, ledger), ledger.inside
    unseen = inside.unseen if ledger.inside.calls else None
    seen = bool(op) and unseen is None
    counts = {key: value for key, value in work.items() if type(value) is int or value is None}
    return {
        "counts": {
            **{key: counts[key] for key in ("params", "tokens", "macs", "macs_executed", "macs_matmul")},
            "macs_inside": inside.macs if seen else None,
            **{key: counts[key] for key in ("flops_elementwise", "flops_total")},
            "flops_inside": 2 * inside.macs + inside.flops if seen else None,
            "bytes_min": counts["bytes_min"],
            "predicted_peak_bytes": predicted_peak(case),
            "launches": launches(ledger.calls) + launches(inside.calls),
        },
        "operations": dict(sorted(ledger.calls.items())),
        "inside": dict(sorted(inside.calls.items())),
        "unseen": unseen,
    }


def launches(calls: Mapping[str, int]) -> int:
    """How many of these calls a GPU would be sent; our operators' own names stand for what is inside."""
    return sum(times for name, times in calls.items() if not name.startswith("vbench."))


@dataclass(slots=True)
class Inside:
    """What calls of an operator are made of; see `look`."""

    calls: Counter[str] = field(default_factory=Counter)
    macs: int = 0
    flops: int = 0
    unseen: str | None = None

    def add(self, other: Inside) -> None:
        self.calls.update(other.calls)
        self.macs += other.macs
        self.flops += other.flops
        self.unseen = self.unseen or other.unseen


class Operations(Ledger):
    """A ledger that also tells operations apart by their dtypes, and runs the forms of operators to see inside.

    A form is run once for each kind of arguments; its other calls are taken to be alike.

    Args:
        model: on the meta device. op, form: of its operator; None for a model without. elementwise: as in `Ledger`.
    """

    def __init__(self, model: nn.Module, op: str | None, form: str | None, *, elementwise: bool = False) -> None:
        super().__init__(model, elementwise=elementwise)
        self.calls: Counter[str] = Counter()
        self.inside = Inside()
        self._met: dict[Any, tuple[Inside, Any]] = {}
        if op and form:
            function = operator(op, form)
            replace_function(model, function, self._looking(op, form, function))

    def enter(self, image: Tensor) -> Operations:
        super().enter(image)
        return self

    def _assess(self, func: Any, args: Any, kwargs: Any, out: Any) -> tuple[Kind, Tally]:
        if func._schema.name.partition("::")[2].removesuffix("_") not in _UNSENT:
            self.calls[f"{func._overloadpacket}{_dtype(*args, *kwargs.values(), out)}"] += 1
        return super()._assess(func, args, kwargs, out)

    def _looking(self, op: str, form: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The form, whose work is entered as ever, by its formula, and which is looked into."""

        def call(*args: Any, **options: Any) -> Any:
            with self._aside(entered=True):
                out = function(*args, **options)
            self.calls[f"vbench.{op} {form}"] += 1
            key = tuple(_kind(x) for x in (*args, *options.items()))
            if key not in self._met:
                self._met[key] = self._inside_of(op, form, args, options)
            found, shape = self._met[key]
            self.inside.add(found)
            return out if shape is None else tree_map_only(Tensor, _alike, shape)

        return call

    def _inside_of(self, op: str, form: str, args: Any, options: Any) -> tuple[Inside, Any]:
        """What one call is made of, and its results; None for these if the form was not run."""
        function, package = computation(op, form), OPS[op][form].package
        if package == "triton":
            return Inside(
                _kernels(function, args, options), unseen="of Triton's kernels, launches alone are seen"
            ), None
        if package is not None:
            return Inside(Counter({f"{package}.{op}": 1}), unseen=f"{package}'s machine code is not looked into"), None
        if (tokens := args[0].shape[-2]) > SEEN_INSIDE:
            reason = f"a call on {tokens} tokens is not looked into, only up to {SEEN_INSIDE}"
            return Inside(Counter({f"vbench.{op}.unseen": 1}), unseen=reason), None
        with self._aside(entered=False) as (calls, entries):
            out = function(*args, **options)
        sums = Tally()
        for tally in entries.values():
            sums.add(tally)
        return Inside(calls, sums.macs_executed, sums.flops_elementwise), out

    @contextmanager
    def _aside(self, *, entered: bool) -> Iterator[tuple[Counter[str], dict[Any, Tally]]]:
        """Within, operations are counted on a page of their own; with `entered`, their work still is the model's."""
        calls, entries = self.calls, self.entries
        self.calls = Counter()
        if not entered:
            self.entries = {}
        try:
            yield self.calls, self.entries
        finally:
            self.calls, self.entries = calls, entries


def _kernels(function: Callable[..., Any], args: Any, options: Any) -> Counter[str]:
    """The Triton kernels that one call launches; none is run."""

    def real(x: Tensor) -> Tensor:
        return torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device="cpu").zero_()

    with _disable_current_modes(), recording() as found:
        function(*tree_map_only(Tensor, real, args), **tree_map_only(Tensor, real, options))
    return Counter(f"triton.{launch.kernel.fn.__name__}" for launch in found)


def _kind(value: Any) -> Any:
    if isinstance(value, Tensor):
        return tuple(value.shape), value.stride(), value.dtype
    return tuple(map(_kind, value)) if isinstance(value, tuple) else value


def _alike(x: Tensor) -> Tensor:
    """A tensor of the same shape, strides and dtype, of which no operation tells."""
    with _disable_current_modes():
        return torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device=x.device)


def _dtype(*values: Any) -> str:
    """ " float32", the widest floating type among the tensors; else the type of the last of them."""
    types = {x.dtype: None for x in tensors(*values)}
    widest = next((dtype for dtype in FLOATS if dtype in types), [None, *types][-1])
    return "" if widest is None else f" {widest}".replace("torch.", "")
