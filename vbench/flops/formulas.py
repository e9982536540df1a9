"""What an operation of torch costs, from its arguments, where a factor an element does not say it.

MACs are multiply-accumulates of real numbers.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cached_property
from math import log2, prod
from typing import Any

import torch
from torch import Tensor
from torch.utils import flop_counter
from torch.utils.flop_counter import flop_registry

from vbench.flops.tables import COMPLEX, PER_INPUT, PER_OUTPUT, WINDOWS

ATTENTION = torch.ops.aten.scaled_dot_product_attention
COMPLEX_PRODUCT = 4  # real MACs of a complex one: (a + bi)(c + di) has ac, bd, ad and bc
FFT, REAL_FFT = 5.0, 2.5  # times n · log2 n; see `_fft`
TAPS = {"grid_sampler_2d": {0: 4, 1: 0, 2: 16}, "grid_sampler_3d": {0: 8, 1: 0}}  # by the mode of interpolation
RESIZED = {"_upsample_bilinear2d_aa": 1.0, "_upsample_bicubic2d_aa": 2.0}  # pixels that a tap reaches, unless shrunk
LSTM_CELL, GRU_CELL = 13, 10  # a hidden value: 4 sums, 4 functions, 5; 2 gates of 2, 3, 3. Biases are the products'

# The products that torch's own counter knows. A formula that a user registers is not among them.
OF_TORCH = {
    packet
    for packet, formula in flop_registry.items()
    if getattr(inspect.unwrap(formula), "__module__", None) == flop_counter.__name__
}

Arguments = dict[str, Any]  # by the names of torch's schema


class Call:
    """A call of an operation: what was given, and what came out.

    Attributes:
        packet: the operation, whatever overload; `base` is its name, without the underscore of in-place ones.
        given, results: the tensors among its arguments, and among its results.
    """

    def __init__(self, func: Any, args: Any, kwargs: Any, out: Any) -> None:
        self.packet, self.base = func._overloadpacket, base_of(func)
        self.given, self.results = tensors(*args, *kwargs.values()), tensors(out)
        self._func, self._args, self._kwargs, self._out = func, args, kwargs, out

    @cached_property
    def arguments(self) -> Arguments:
        """All arguments, those that were left out too."""
        schema = self._func._schema.arguments
        given = {each.name: each.default_value for each in schema if each.has_default_value()}
        return {**given, **dict(zip((each.name for each in schema), self._args, strict=False)), **self._kwargs}

    @property
    def is_complex(self) -> bool:
        return any(x.is_complex() for x in (*self.given, *self.results))

    @property
    def is_causal(self) -> bool:
        """Whether it is attention that was told to be causal. A mask may say the same, but its values are not read."""
        return "query" in self.arguments and bool(self.arguments.get("is_causal"))

    def registered_flops(self) -> int:
        """FLOPs by the formula that torch's registry has for the operation.

        Raises: ValueError, naming the operation, if the formula fails or gives no count.
        """
        try:
            flops = flop_registry[self.packet](*self._args, **self._kwargs, out_val=self._out)
            count = int(flops)
        except Exception as error:
            text = f"the FLOP formula registered for {self.packet} failed: {type(error).__name__}: {error}"
            raise ValueError(text) from error
        if count < 0:
            raise ValueError(f"the FLOP formula registered for {self.packet} gave {flops}; it must give 0 or more")
        return count


def base_of(func: Any) -> str:
    """An operation's name, without the underscore of in-place ones."""
    return str(func._schema.name.partition("::")[2].removesuffix("_"))


def tensors(*values: Any) -> list[Tensor]:
    """The tensors among arguments or results, and in lists of them."""
    lists = [value if isinstance(value, (list, tuple)) else [value] for value in values]
    return [item for each in lists for item in each if isinstance(item, Tensor)]


def is_whole(func: Any) -> bool:
    """Whether an operation is not taken apart: attention, a product, another's operation with a registered formula."""
    packet = func._overloadpacket
    return packet is ATTENTION or packet in OF_TORCH or (func.namespace != "aten" and packet in flop_registry)


def is_product(call: Call) -> bool:
    """Whether a call is a product, a convolution or attention, by torch's own formulas or ours."""
    return call.packet is ATTENTION or call.packet in OF_TORCH or call.base in PRODUCTS


# Products


def _trilinear(arguments: Arguments) -> int:
    """Two products, one after the other: of the first two arguments, and of their product with the third.

    The second does not sum over what the first did. Torch computes in slices of one dimension (`unroll_dim`).
    """
    given = [list(arguments[name].shape) for name in ("i1", "i2", "i3")]
    absent = [arguments[name] for name in ("expand1", "expand2", "expand3")]
    for sides, dims in zip(given, absent, strict=True):
        for dim in sorted(dims):
            sides.insert(dim, 1)
    first = [max(a, b) for a, b in zip(given[0], given[1], strict=True)]
    summed = [d for d in arguments["sumdim"] if d in absent[2] and d != arguments["unroll_dim"]]
    left = [1 if d in summed else side for d, side in enumerate(first)]
    return int(prod(first) + prod(max(a, b) for a, b in zip(left, given[2], strict=True)))


def _pairs_of(arguments: Arguments) -> int:
    return int(prod(arguments["x1"].shape[:-1]) * arguments["x2"].shape[-2])


# MACs of products that torch's own formulas lack.
PRODUCTS: dict[str, Callable[[Arguments], int]] = {
    "dot": lambda given: int(given["self"].numel()),
    "vdot": lambda given: int(given["self"].numel()),
    "mv": lambda given: int(given["self"].numel()),
    "addmv": lambda given: int(given["mat"].numel()),
    "addbmm": lambda given: int(given["batch1"].numel() * given["batch2"].shape[-1]),
    "_int_mm": lambda given: int(given["self"].numel() * given["mat2"].shape[-1]),
    "_trilinear": _trilinear,
    "_euclidean_dist": lambda given: _pairs_of(given) * (given["x1"].shape[-1] + 2),  # the squared norms join the sum
}


def product_macs(call: Call) -> tuple[int, int]:
    """The MACs of a product, a convolution or attention.

    A complex product is `COMPLEX_PRODUCT` real ones. (A complex convolution never comes here: torch makes it of three
    real ones and sums, and each of these does.)

    Returns: what is executed, and what is needed. They differ in causal attention alone, which needs the scores of a
        query and the keys up to it, and is taken to execute all of them, as torch's counter and fvcore do.
    """
    arguments = call.arguments
    if call.packet is ATTENTION:
        q, k, v = (arguments[name] for name in ("query", "key", "value"))
        macs = int(prod(q.shape[:-1]) * k.shape[-2] * (q.shape[-1] + v.shape[-1]))
    elif call.base in PRODUCTS:
        macs = PRODUCTS[call.base](arguments)
    else:
        macs = call.registered_flops() // 2
    if call.is_complex:
        macs *= COMPLEX_PRODUCT
    if not call.is_causal:
        return macs, macs
    queries, keys = arguments["query"].shape[-2], arguments["key"].shape[-2]
    return macs, macs * _causal_pairs(queries, keys) // max(1, queries * keys)


def _causal_pairs(queries: int, keys: int) -> int:
    """Pairs of the i-th query and the keys up to the i-th, as torch aligns them."""
    both = min(queries, keys)
    return both * (both + 1) // 2 + (queries - both) * keys


def beside_macs(call: Call) -> int:
    """The pointwise FLOPs of a product, beside its MACs.

    Attention scales its queries, adds a mask if there is one, and has the softmax of the scores. Distances have the
    squared norms, a factor, and a maximum and a root a pair.
    """
    arguments = call.arguments
    if call.base == "_euclidean_dist":
        first, second = arguments["x1"].numel(), arguments["x2"].numel()
        return int(2 * (first + second) + first + 2 * _pairs_of(arguments))
    if "attention" not in call.base or "query" not in arguments:
        return 0
    q, k = arguments["query"], arguments["key"]
    masked = any(isinstance(arguments.get(name), Tensor) for name in ("attn_mask", "attn_bias"))
    return int(q.numel() + prod(q.shape[:-1]) * k.shape[-2] * (PER_OUTPUT["_softmax"] + masked))


# Pointwise work


def pointwise_flops(call: Call) -> int | None:
    """FLOPs of what is no product; None for an operation that neither a table nor a formula knows."""
    base = call.base
    if base in FORMULAS:
        return FORMULAS[base](call)
    if base in WINDOWS:
        sides = call.arguments["kernel_size"]
        sides = sides if len(sides) > 1 else list(sides) * (call.results[0].ndim - 2)
        return int(prod(sides)) * call.results[0].numel()
    each = PER_OUTPUT.get(base, PER_INPUT.get(base))
    if each is not None and call.is_complex:
        each = _complex_flops(base, call.arguments)
    return None if each is None else each * (call.results if base in PER_OUTPUT else call.given)[0].numel()


# FLOPs an element where the second operand is real, and where it is complex; the first one is complex.
COMPLEX_ARITHMETIC = {"add": (1, 2), "sub": (1, 2), "rsub": (1, 2), "mul": (2, 6), "div": (2, 11)}


def _complex_flops(base: str, arguments: Arguments) -> int | None:
    """FLOPs an element of an operation on complex numbers; None if they are not known."""
    if base in COMPLEX_ARITHMETIC:
        parts = [_is_complex(arguments[name]) for name in ("self", "other")]
        of_real, of_complex = COMPLEX_ARITHMETIC[base]
        return of_complex if all(parts) or (base == "div" and parts[1]) else of_real
    if base in ("addcmul", "addcdiv"):
        inner = COMPLEX_ARITHMETIC["mul" if base == "addcmul" else "div"][1]
        return inner + COMPLEX_ARITHMETIC["add"][1]
    if base == "pow" and arguments.get("exponent") == 2:
        return COMPLEX_ARITHMETIC["mul"][1]
    return COMPLEX.get(base)


def _is_complex(value: Any) -> bool:
    return value.is_complex() if isinstance(value, Tensor) else isinstance(value, complex)


def _fft(call: Call) -> int:
    """A transform of n complex numbers is 5 n log2 n FLOPs, of n real ones half of that, whatever n is.

    This is how FFTs are compared (Frigo and Johnson 2005, Proc. IEEE 93(2), doi:10.1109/JPROC.2004.840301); no library
    executes just that. In several dimensions n is their product. A factor of normalisation is left out.
    """
    x = call.results[0] if call.base == "_fft_c2r" else call.arguments["self"]
    n = prod(x.shape[dim] for dim in call.arguments["dim"])
    return round((FFT if call.base == "_fft_c2c" else REAL_FFT) * x.numel() * log2(max(1, n)))


def _added(call: Call) -> int:
    """One sum (or maximum, or product) for each element that is entered; a mean divides too."""
    entered = call.arguments["index" if "src" in call.arguments else "source"]
    means = call.results[0].numel() if call.arguments.get("reduce") == "mean" else 0
    return _sums(call.results[0]) * int(entered.numel()) + means


def _accumulated(call: Call) -> int:
    """Values that are added where `index_put` accumulates; without that they are only moved."""
    if not call.arguments["accumulate"]:
        return 0
    indices, sides = call.arguments["indices"], call.arguments["self"].shape
    found = [x for x in indices if x is not None]
    if any(x.dtype == torch.bool for x in found):  # how many places a mask selects is not known
        return _sums(call.results[0]) * int(call.arguments["values"].numel())
    rest = [side for dim, side in enumerate(sides) if dim >= len(indices) or indices[dim] is None]
    return _sums(call.results[0]) * int(prod(torch.broadcast_shapes(*(x.shape for x in found))) * prod(rest))


def _sums(x: Tensor) -> int:
    return 2 if x.is_complex() else 1


def _sampled(call: Call) -> int:
    """A MAC a tap."""
    return 2 * TAPS[call.base][call.arguments["interpolation_mode"]] * call.results[0].numel()


def _antialiased(call: Call) -> int:
    """A MAC a tap, rows first and then columns. Shrinking widens the taps; at an edge there are fewer."""
    *planes, height, width = call.given[0].shape
    high, wide = call.results[0].shape[-2:]
    reach, corners = RESIZED[call.base], call.arguments["align_corners"]
    rows = height * _taps(width, wide, reach, call.arguments.get("scales_w"), corners=corners)
    columns = wide * _taps(height, high, reach, call.arguments.get("scales_h"), corners=corners)
    return int(2 * prod(planes) * (rows + columns))


def _taps(before: int, after: int, reach: float, factor: float | None, *, corners: bool) -> int:
    """The taps of all pixels of a line that is resized from `before` to `after` pixels."""
    whole = before / after if factor is None else 1 / factor
    step = (before - 1) / max(1, after - 1) if corners else whole
    reach *= max(1.0, step)
    middles = [step * (i + 0.5) for i in range(after)]
    return sum(min(int(x + reach + 0.5), before) - max(int(x - reach + 0.5), 0) for x in middles)


def _distances(call: Call) -> int:
    """A coordinate of a pair: a difference, its magnitude or power, a sum. A norm with a power has a root."""
    width, p = call.arguments["self" if call.base == "_pdist_forward" else "x1"].shape[-1], float(call.arguments["p"])
    each = {0.0: 2 * width, 1.0: 3 * width, 2.0: 3 * width + 1, float("inf"): 3 * width}.get(p, 4 * width + 1)
    return int(each * call.results[0].numel())


FORMULAS: dict[str, Callable[[Call], int]] = {
    **dict.fromkeys(("_fft_c2c", "_fft_c2r", "_fft_r2c"), _fft),
    **dict.fromkeys(("index_add", "scatter_add", "scatter_reduce"), _added),
    "index_put": _accumulated,
    **dict.fromkeys(TAPS, _sampled),
    **dict.fromkeys(RESIZED, _antialiased),
    **dict.fromkeys(("_cdist_forward", "_pdist_forward"), _distances),
    "_thnn_fused_lstm_cell": lambda call: LSTM_CELL * int(call.arguments["cx"].numel()),
    "_thnn_fused_gru_cell": lambda call: GRU_CELL * int(call.arguments["hx"].numel()),
}
