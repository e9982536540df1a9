"""What a pass of one image is made of: operations by name and dtype, inside our own operators too.

A ledger takes the work of our operators from the formulas beside the kernels. A formula does not change when the code
changes. So each form also runs here, on tensors without data, and its real operations are counted separately.
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
from vbench.flops.autocast import Autocast
from vbench.flops.formulas import base_of, tensors
from vbench.flops.ledger import Kind, Ledger, Tally, total_of
from vbench.flops.passes import entered
from vbench.flops.peak import SEEN_INSIDE, prediction
from vbench.flops.tables import ALLOCATIONS, VIEWS
from vbench.kernels.fused.launch import recording
from vbench.kernels.registry import OPS, computation, operator
from vbench.meters.build import replace_function
from vbench.plan import Case

FLOATS = (torch.float64, torch.float32, torch.bfloat16, torch.float16)  # the widest of an operation names it
NOT_LAUNCHED = VIEWS | ALLOCATIONS  # no kernel is launched for these


def count_inside(case: Case) -> dict[str, Any]:
    """All counters of a cell, JSON-able. Needs no device.

    Returns:
        counts: the numbers of `flops.count`; predicted_peak_bytes; macs_inside and flops_inside, of the operators'
            forms as they run: products by torch's formulas, and 2 · macs_inside + pointwise work; None without an
            operator, or if its form is not looked into; launches: how many kernels a GPU would get in eager mode.
        operations: calls in the model by name and dtype, without views and allocations; a call of our operator is one.
        inside: the same for the operators' forms. A form made of Triton's kernels has their launches here, a form in
            machine code its calls.
        unseen: why a form was not looked into, or None.
        notes: that it was a real pass, and why the peak is not predicted, a sentence each.

    Raises: as `passes.entered`.
    """
    op = case.operator
    found = entered(case, lambda model, cast: Operations(model, op, case.form, cast))
    ledger, work = found.ledger, flops.work_of(case, found)
    inside, (peak_bytes, why) = ledger.inside, prediction(case)
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
            "predicted_peak_bytes": peak_bytes,
            "launches": launches(ledger.calls) + launches(inside.calls),
        },
        "operations": dict(sorted(ledger.calls.items())),
        "inside": dict(sorted(inside.calls.items())),
        "unseen": unseen,
        "notes": [*found.notes, *why],
    }


def launches(calls: Mapping[str, int]) -> int:
    """How many of these calls launch a kernel on a GPU. A call of our operator does not; the calls inside it do."""
    return sum(times for name, times in calls.items() if not name.startswith("vbench."))


@dataclass(slots=True)
class Inside:
    """What calls of an operator are made of; see `count_inside`."""

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
    """A ledger that also counts calls by operation and dtype, and runs the forms of operators to count inside them.

    A form runs once for each kind of arguments; its other calls are taken to be the same.

    Args:
        model: with an operator of ours it is on the meta device. op, form: of its operator; None for a model without.
            cast: the cell's autocast, which the form leaves.
    """

    def __init__(self, model: nn.Module, op: str | None, form: str | None, cast: Autocast) -> None:
        super().__init__(model)
        self.calls: Counter[str] = Counter()
        self.inside, self._cast = Inside(), cast
        self._known: dict[Any, tuple[Inside, Any]] = {}  # by a call's kind of arguments
        if op and form:
            function = operator(op, form)
            replace_function(model, function, self._seen_inside(op, form, function))

    def enter(self, image: Tensor) -> Operations:
        super().enter(image)
        return self

    def _assess(self, func: Any, args: Any, kwargs: Any, out: Any) -> tuple[Kind, Tally]:
        if base_of(func) not in NOT_LAUNCHED:
            self.calls[f"{func._overloadpacket}{_dtype(*args, *kwargs.values(), out)}"] += 1
        return super()._assess(func, args, kwargs, out)

    def _seen_inside(self, op: str, form: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The form, entered by its formula as in any ledger, and looked into."""

        def call(*args: Any, **options: Any) -> Any:
            with self._separately(entered=True):
                out = function(*args, **options)
            self.calls[f"vbench.{op} {form}"] += 1
            key = tuple(_kind(x) for x in (*args, *options.items()))
            if key not in self._known:
                self._known[key] = self._inside_of(op, form, args, options)
            inside, results = self._known[key]
            self.inside.add(inside)
            return out if results is None else tree_map_only(Tensor, _same_layout, results)

        return call

    def _inside_of(self, op: str, form: str, args: Any, options: Any) -> tuple[Inside, Any]:
        """What one call is made of, and its results; None for the results if the form did not run."""
        function, package = computation(op, form), OPS[op][form].package
        if package == "triton":
            reason = "of Triton's kernels, launches alone are seen"
            return Inside(_kernels(function, args, options), unseen=reason), None
        if package is not None:
            return Inside(Counter({f"{package}.{op}": 1}), unseen=f"{package}'s machine code is not looked into"), None
        if (tokens := args[0].shape[-2]) > SEEN_INSIDE:
            reason = f"a call on {tokens} tokens is not looked into, only up to {SEEN_INSIDE}"
            return Inside(Counter({f"vbench.{op}.unseen": 1}), unseen=reason), None
        with self._cast.paused(), self._separately(entered=False) as (calls, entries):
            out = function(*args, **options)
        sums = total_of(entries.values())
        return Inside(calls, sums.macs_executed, sums.flops_elementwise), out

    @contextmanager
    def _separately(self, *, entered: bool) -> Iterator[tuple[Counter[str], dict[Any, Tally]]]:
        """Count operations within separately. If `entered`, their work still belongs to the model."""
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

    with _disable_current_modes(), recording() as launched:
        function(*tree_map_only(Tensor, real, args), **tree_map_only(Tensor, real, options))
    return Counter(f"triton.{launch.kernel.fn.__name__}" for launch in launched)


def _kind(value: Any) -> Any:
    if isinstance(value, Tensor):
        return tuple(value.shape), value.stride(), value.dtype
    return tuple(map(_kind, value)) if isinstance(value, tuple) else value


def _same_layout(x: Tensor) -> Tensor:
    """A tensor of the same shape, strides and dtype, made without an operation that the ledger sees."""
    with _disable_current_modes():
        return torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device=x.device)


def _dtype(*values: Any) -> str:
    """ " float32": the widest floating type among the tensors, or else the type of the last one."""
    types = {x.dtype: None for x in tensors(*values)}
    widest = next((dtype for dtype in FLOATS if dtype in types), [None, *types][-1])
    return "" if widest is None else f" {widest}".replace("torch.", "")
