"""A ledger of one forward pass: it enters every operation that torch dispatches.

An operation is of exactly one kind. MATRIX: a matrix product, a convolution or attention, counted in
multiply-accumulates (MACs; one is two FLOPs) by torch's own formulas and a few that torch lacks. OPERATOR: one of
ours, by the formulas beside its kernels. ELEMENTWISE: arithmetic, functions, reductions, norms, softmax, pooling,
in FLOPs by the tables below. FREE: computes no number. Anything else is UNKNOWN, with its calls and its bytes.

The tables count one FLOP for an operation (+ - · / max) and one for a value of a function (exp, √, sigmoid, Φ) of each
element. A norm counts its gain and bias whether or not it has them. Work that is done once a row, such as the root in a
norm, is left out where it is a part of a larger operation. A bias that a matrix product adds costs nothing: the
accumulation starts at it.
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

from vbench.kernels import entry
from vbench.kernels.entry import Work


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


# FLOPs an element of the (first) result. Names are torch's, without the underscore of in-place operations.
PER_OUTPUT: dict[str, int] = {
    **dict.fromkeys(
        _names(
            """_prelu_kernel abs add ceil clamp clamp_max clamp_min cos cummax cumprod cumsum div elu erf exp exp2 expm1
            floor floor_divide fmod hardsigmoid hardtanh leaky_relu log log10 log1p log2 log_sigmoid_forward maximum
            minimum mul neg pow prelu reciprocal relu remainder round rsqrt rsub sigmoid sign sin softplus sqrt sub
            tan tanh trunc"""
        ),
        1,
    ),
    **dict.fromkeys(_names("addcdiv addcmul"), 2),
    **dict.fromkeys(_names("gelu hardswish silu"), 2),  # x · f(x)
    "mish": 3,  # x · tanh(softplus(x))
    "lerp": 3,  # a + t · (b - a)
    # greatest, difference, exponential, sum, quotient
    **dict.fromkeys(_names("_log_softmax _safe_softmax _softmax"), 5),
    "logcumsumexp": 4,
    # mean, difference, square, sum, quotient, gain, bias
    **dict.fromkeys(_names("_native_batch_norm_legit native_batch_norm native_group_norm native_layer_norm"), 7),
    "_native_batch_norm_legit_no_training": 4,  # its statistics are given
    "_fused_rms_norm": 4,  # square, sum, quotient, gain
    "upsample_bilinear2d": 8,  # a MAC a tap
    "upsample_bicubic2d": 32,
}

# FLOPs an element of the (first) argument: reductions.
PER_INPUT: dict[str, int] = {
    **dict.fromkeys(_names("_adaptive_avg_pool2d amax amin col2im max mean min prod sum"), 1),
    "linalg_vector_norm": 2,  # square, sum
    "logsumexp": 4,  # greatest, difference, exponential, sum
    **dict.fromkeys(_names("std std_mean var var_mean"), 4),  # mean, difference, square, sum
}

# One FLOP for each element of each window; the window's sides are the second argument.
WINDOWS = _names("avg_pool1d avg_pool2d avg_pool3d max_pool2d_with_indices max_pool3d_with_indices")

# Views of the same bytes: nothing is computed and nothing moves.
VIEWS = _names(
    """_reshape_alias _unsafe_view alias as_strided detach diagonal expand lift_fresh movedim permute select slice split
    split_with_sizes squeeze t transpose unbind unfold unsqueeze view view_as_real"""
)

# Bytes are moved, allocated, compared or selected; no new number is computed.
MOVES = _names(
    """_local_scalar_dense _to_copy _unsafe_index all any arange argmax argmin argsort bitwise_and bitwise_not
    bitwise_or cat channel_shuffle clone constant_pad_nd copy embedding empty empty_like empty_strided eq eye fill flip
    full full_like gather ge gt im2col index index_put index_select isinf isnan le linspace logical_and logical_not
    logical_or lt masked_fill ne new_empty new_empty_strided new_full new_ones new_zeros ones ones_like pixel_shuffle
    pixel_unshuffle reflection_pad2d repeat replication_pad2d resize roll scalar_tensor scatter slice_scatter sort stack
    topk tril triu upsample_nearest2d where zero zeros zeros_like"""
)

# These only allocate memory; they launch no kernel.
ALLOCATIONS = _names("empty empty_like empty_strided new_empty new_empty_strided")

# Products that torch's own formulas lack -> the argument whose elements each take one MAC.
PRODUCTS = {"dot": 0, "vdot": 0, "mv": 0, "addmv": 1}

ATTENTION = torch.ops.aten.scaled_dot_product_attention
UNKNOWN_LIMIT = 0.01  # of all bytes; above it a total would be a guess


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
        elementwise: whether our operators' MACs are outside matrix products, as their `Form` says.
    """

    def __init__(self, model: nn.Module, *, elementwise: bool = False) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.entries: dict[tuple[str, str, Kind], Tally] = {}  # by module, operation and kind
        self.states: list[int] = []  # bytes, of each call of an operator that has a state
        self._model, self._elementwise = model, elementwise
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

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        packet = func._overloadpacket
        if func not in self._elementary:
            with self:
                parts = NotImplemented if _is_product(packet) else func.decompose(*args, **kwargs)
            if parts is not NotImplemented:
                return parts
            self._elementary.add(func)
        out = func(*args, **kwargs)
        kind, tally = self._assess(func, args, kwargs, out)
        self.entries.setdefault((self._path[-1], str(packet), kind), Tally()).add(tally)
        return out

    def _assess(self, func: Any, args: Any, kwargs: Any, out: Any) -> tuple[Kind, Tally]:
        packet, name = func._overloadpacket, func._schema.name.partition("::")[2]
        base = name.removesuffix("_")
        if func.namespace == "aten" and base in VIEWS:
            return Kind.FREE, Tally(calls=1)
        given, results = tensors(*args, *kwargs.values()), tensors(out)
        tally = Tally(calls=1, bytes_touched=sum(map(_bytes, given)) + sum(map(_bytes, results)))
        kind = Kind.UNKNOWN
        if packet is torch.ops.vbench.operator:
            kind = Kind.OPERATOR
            self._operator(tally, entry.work([x.shape for x in args[0]], *args[1:]), given, results)
        elif func.namespace == "aten" and (_is_product(packet) or base in PRODUCTS):
            kind = Kind.MATRIX
            tally.macs_matmul = tally.macs_algorithm = _matrix_macs(packet, base, args, kwargs, out)
            tally.bytes_min = self._operands(given) + _bytes(results[0])
            tally.flops_elementwise = _softmax_flops(args, kwargs) if "attention" in base else 0
        elif func.namespace == "aten" and base in MOVES:
            kind = Kind.FREE
        elif func.namespace == "aten" and (flops := _pointwise_flops(base, args, given, results)) is not None:
            kind = Kind.ELEMENTWISE
            tally.flops_elementwise = flops
        return kind, tally

    def _operator(self, tally: Tally, work: Work, given: list[Tensor], results: list[Tensor]) -> None:
        """Enter one of our operators. Its state may stay on chip, so the bytes of the state do not count."""
        tally.macs_elementwise, tally.macs_matmul = (work.macs, 0) if self._elementwise else (0, work.macs)
        tally.macs_algorithm = work.macs_algorithm
        tally.flops_elementwise = work.flops_elementwise
        output, *state = results
        tally.bytes_min = self._operands(given) + _bytes(output)
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
            hooks.append(module.register_forward_pre_hook(lambda *_, name=name: self._path.append(name)))
            hooks.append(module.register_forward_hook(self._leave, always_call=True))
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _leave(self, *_: Any) -> None:
        self._path.pop()


def _is_product(packet: Any) -> bool:
    return packet is ATTENTION or packet in flop_registry


def tensors(*values: Any) -> list[Tensor]:
    """The tensors among arguments or results, and in lists of them."""
    lists = [value if isinstance(value, (list, tuple)) else [value] for value in values]
    return [item for each in lists for item in each if isinstance(item, Tensor)]


def _bytes(x: Tensor) -> int:
    """Bytes that a tensor spans; a dimension of stride 0 counts once."""
    sides = (side for side, stride in zip(x.shape, x.stride(), strict=True) if stride)
    return 0 if x.numel() == 0 else prod(sides) * x.element_size()


def _matrix_macs(packet: Any, base: str, args: Any, kwargs: Any, out: Any) -> int:
    if packet is ATTENTION:
        q, k, v = _qkv(args, kwargs)
        return int(prod(q.shape[:-1]) * k.shape[-2] * (q.shape[-1] + v.shape[-1]))
    if base in PRODUCTS:
        return int(args[PRODUCTS[base]].numel())
    return int(flop_registry[packet](*args, **kwargs, out_val=out)) // 2


def _pointwise_flops(base: str, args: Any, given: list[Tensor], results: list[Tensor]) -> int | None:
    """FLOPs by the tables; None for an operation that is in none of them."""
    if base in PER_OUTPUT:
        return PER_OUTPUT[base] * results[0].numel()
    if base in PER_INPUT:
        return PER_INPUT[base] * given[0].numel()
    if base in WINDOWS:
        sides = args[1] if len(args[1]) > 1 else list(args[1]) * (results[0].ndim - 2)
        return int(prod(sides)) * results[0].numel()
    return None


def _softmax_flops(args: Any, kwargs: Any) -> int:
    """The pointwise work of attention: the scaled queries, a mask if there is one, the softmax of the scores."""
    q, k, _ = _qkv(args, kwargs)
    masked = any(isinstance(x, Tensor) for x in (*args[3:4], kwargs.get("attn_mask"), kwargs.get("attn_bias")))
    return int(q.numel() + prod(q.shape[:-1]) * k.shape[-2] * (PER_OUTPUT["_softmax"] + masked))


def _qkv(args: Any, kwargs: Any) -> tuple[Tensor, Tensor, Tensor]:
    q, k, v = (args[i] if len(args) > i else kwargs[name] for i, name in enumerate(("query", "key", "value")))
    return q, k, v
