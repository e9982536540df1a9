"""A ledger of one forward pass: it enters every operation that torch dispatches.

An operation is of exactly one kind. MATRIX: a matrix product, a convolution or attention, counted in
multiply-accumulates (MACs; one is two FLOPs) by torch's own formulas and those that torch lacks (`products.py`).
OPERATOR: one of ours, by the formulas beside its kernels; or another's, by the formula that its author gave to torch's
`register_flop_formula`. ELEMENTWISE: arithmetic, functions, reductions, norms, softmax, pooling, transforms, in FLOPs
by `tables.py` and `formulas.py`. FREE: computes no floating-point number. Anything else is UNKNOWN, with its calls and
its bytes. What we know comes first: a registered formula is asked for an operation that is in none of our tables.

A bias that a matrix product adds costs nothing: the accumulation starts at it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from enum import Enum
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from vbench.flops import formulas, products
from vbench.flops.formulas import Call
from vbench.flops.linear_algebra import LINEAR_ALGEBRA
from vbench.flops.tables import MOVES, RANDOM, SILENT, VIEWS
from vbench.kernels import entry
from vbench.kernels.registry import OPS
from vbench.meters.build import takes_hooks

UNKNOWN_LIMIT = 0.01  # of all bytes; above it a total would be a guess
CAUSAL = "causal attention: macs counts the pairs of a query and a key up to it, macs_executed all pairs"
INTEGERS = "arithmetic on integers alone: no FLOPs"
TRANSFORMS = "FFT: counted as 5 n log2 n FLOPs for n complex numbers, half of that for n real ones"
ALGEBRA = (
    "linear algebra: the leading terms of the classical dense algorithms (LU, Cholesky, QR), as FLOPs outside MACs"
)
DRAWN = "random numbers: to draw them is no arithmetic of the model"
BOXES = "non-maximum suppression: as if every two boxes were compared"
CONVENTIONS: dict[str, frozenset[str]] = {  # and the operations that are counted by them
    TRANSFORMS: frozenset({"_fft_c2c", "_fft_c2r", "_fft_r2c"}),
    ALGEBRA: frozenset(LINEAR_ALGEBRA),
    DRAWN: RANDOM,
    BOXES: frozenset({"nms"}),
}
OURS = ("aten", "torchvision")  # namespaces whose operations our tables name


class Kind(Enum):
    MATRIX = "matrix"
    OPERATOR = "operator"
    ELEMENTWISE = "elementwise"
    FREE = "free"
    UNKNOWN = "unknown"


@dataclass(slots=True)
class Tally:
    """Sums over operations.

    `macs_matmul` are executed in matrix products, convolutions, attention and operators made of these,
    `macs_elementwise` in the other operators; `macs_algorithm` is what all of these need at least. `bytes_min` are
    their operands and results, weights once, as if all pointwise work were fused into them. `bytes_touched` are the
    arguments and results of every operation except views.
    """

    calls: int = 0
    macs_matmul: int = 0
    macs_elementwise: int = 0
    macs_algorithm: int = 0
    flops_elementwise: int = 0
    bytes_min: int = 0
    bytes_touched: int = 0

    def add(self, other: Tally) -> None:
        for each in fields(self):
            setattr(self, each.name, getattr(self, each.name) + getattr(other, each.name))

    @property
    def macs_executed(self) -> int:
        return self.macs_matmul + self.macs_elementwise

    @property
    def flops_total(self) -> int:
        return 2 * self.macs_executed + self.flops_elementwise


def total_of(tallies: Iterable[Tally]) -> Tally:
    """The sum of tallies."""
    total = Tally()
    for tally in tallies:
        total.add(tally)
    return total


class Ledger(TorchDispatchMode):
    """Enters what a model does. `enter` one pass; then read `total`, `unknown`, `states` and `entries`.

    Args:
        model: on any device; on the meta device nothing is computed, and a call of our operators is one operation.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.entries: dict[tuple[str, str, Kind], Tally] = {}  # by module, operation and kind
        self.states: list[int] = []  # bytes, of each call of an operator that has a state
        self.registered: dict[str, int] = {}  # FLOPs of other authors' operations, by the formulas that torch has
        self._causal = self._integers = False  # whether attention was told to be; whether integers were computed
        self._model = model
        self._weights = {weight.untyped_storage() for weight in model.parameters()}
        self._read: set[tuple[Any, int]] = set()  # weights that were read: storage and offset
        self._elementary: set[Any] = set()  # operations that torch does not decompose into others
        self._path = [""]  # of the modules that run, the innermost last

    def enter(self, image: Tensor) -> Ledger:
        """Run the model once, under inference mode. Returns the ledger itself."""
        with torch.inference_mode(), self._following_modules(), self:
            # Inference mode shows attention before it is decomposed.
            self._model(image)
        return self

    def total(self, *kinds: Kind) -> Tally:
        """Sums over the entries of these kinds, or over all."""
        return total_of(tally for (_, _, kind), tally in self.entries.items() if not kinds or kind in kinds)

    @property
    def unknown(self) -> dict[str, dict[str, int]]:
        """The operations that are in no table: {name: {"calls", "bytes"}}."""
        operations: dict[str, dict[str, int]] = {}
        for (_, op, kind), tally in self.entries.items():
            if kind is Kind.UNKNOWN:
                sums = operations.setdefault(op, {"calls": 0, "bytes": 0})
                sums["calls"] += tally.calls
                sums["bytes"] += tally.bytes_touched
        return operations

    @property
    def coverage(self) -> float:
        """1 - bytes touched by unknown operations / bytes touched by all."""
        return 1 - self.total(Kind.UNKNOWN).bytes_touched / max(1, self.total().bytes_touched)

    @property
    def notes(self) -> list[str]:
        """What a reader must know of the counts: by which convention or whose formula, a sentence each."""
        done = {op.partition(".")[2].removesuffix("_") for _, op, _ in self.entries}
        by_name = {text: bool(done & names) for text, names in CONVENTIONS.items()}
        said = {CAUSAL: self._causal, **by_name, INTEGERS: self._integers}
        asked = [f"{op}: {flops} FLOPs by the formula registered for it" for op, flops in self.registered.items()]
        return [text for text, holds in said.items() if holds] + asked

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func not in self._elementary:
            with self:
                parts = NotImplemented if products.is_whole(func) else func.decompose(*args, **kwargs)
            if parts is not NotImplemented:
                return parts
            self._elementary.add(func)
        out = func(*args, **kwargs)
        kind, tally = self._assess(func, args, kwargs, out)
        self.entries.setdefault((self._path[-1], str(func._overloadpacket), kind), Tally()).add(tally)
        return out

    def _assess(self, func: Any, args: Any, kwargs: Any, out: Any) -> tuple[Kind, Tally]:
        if func.namespace in SILENT or (func.namespace == "aten" and formulas.base_of(func) in VIEWS):
            return Kind.FREE, Tally(calls=1)
        call = Call(func, args, kwargs, out)
        tally = Tally(calls=1, bytes_touched=sum(map(_bytes, (*call.given, *call.results))))
        if call.packet is torch.ops.vbench.operator:
            self._operator(tally, call)
            return Kind.OPERATOR, tally
        kind = self._of_torch(tally, call) if func.namespace in OURS else None
        if kind is None and call.packet in flop_registry:
            self._registered(tally, call)
            kind = Kind.OPERATOR
        return kind or Kind.UNKNOWN, tally

    def _of_torch(self, tally: Tally, call: Call) -> Kind | None:
        """Enter an operation of torch or torchvision; None if no table and no formula of ours knows it."""
        if call.base in MOVES or call.base in RANDOM:
            return Kind.FREE
        if products.is_product(call):
            tally.macs_matmul, tally.macs_algorithm = products.product_macs(call)
            tally.bytes_min = self._operands(call.given) + _bytes(call.results[0])
            tally.flops_elementwise = products.beside_macs(call)
            self._causal |= call.is_causal
            return Kind.MATRIX
        flops = formulas.pointwise_flops(call)
        if flops is None:
            return None
        if flops and call.is_integer:
            self._integers, flops = True, 0
        tally.flops_elementwise = flops
        return Kind.ELEMENTWISE if flops else Kind.FREE

    def _registered(self, tally: Tally, call: Call) -> None:
        """Enter an operation by the formula that its author registered. Torch counts products so: two FLOPs a MAC."""
        flops, name = call.registered_flops(), str(call.packet)
        tally.macs_matmul, tally.flops_elementwise = divmod(flops, 2)
        tally.macs_algorithm = tally.macs_matmul
        tally.bytes_min = self._operands(call.given) + sum(map(_bytes, call.results))
        self.registered[name] = self.registered.get(name, 0) + flops

    def _operator(self, tally: Tally, call: Call) -> None:
        """Enter one of our operators. Its state may stay on chip, so the bytes of the state do not count."""
        inputs, op, form, choice = (call.arguments[name] for name in ("inputs", "op", "form", "choice"))
        work = entry.work([x.shape for x in inputs], op, form, choice)
        pointwise = OPS[op][form].elementwise
        tally.macs_elementwise, tally.macs_matmul = (work.macs, 0) if pointwise else (0, work.macs)
        tally.macs_algorithm = work.macs_algorithm
        tally.flops_elementwise = work.flops_elementwise
        output, *state = call.results
        tally.bytes_min = self._operands(call.given) + _bytes(output)
        if state:
            self.states.append(sum(map(_bytes, state)))

    def _operands(self, given: list[Tensor]) -> int:
        """Bytes to read; a weight counts the first time only."""
        total = 0
        for x in given:
            key = (x.untyped_storage(), int(x.storage_offset()))
            if key not in self._read:
                total += _bytes(x)
            if key[0] in self._weights:
                self._read.add(key)
        return total

    @contextmanager
    def _following_modules(self) -> Iterator[None]:
        """Keep the path of the module that runs at the end of `_path`."""
        hooks = []
        for name, module in self._model.named_modules():
            if not takes_hooks(module):
                continue
            hooks.append(module.register_forward_pre_hook(lambda *_, name=name: self._path.append(name)))
            hooks.append(module.register_forward_hook(self._leave, always_call=True))
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _leave(self, *_: Any) -> None:
        self._path.pop()


def _bytes(x: Tensor) -> int:
    """Bytes that a tensor spans; a dimension of stride 0 counts once."""
    sides = (side for side, stride in zip(x.shape, x.stride(), strict=True) if stride)
    return 0 if x.numel() == 0 else prod(sides) * x.element_size()
