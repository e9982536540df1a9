"""A call of an operation of torch, and what pointwise work costs where a factor an element does not say it."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, partial
from math import log2, prod
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import flop_registry

from vbench.flops.linear_algebra import LINEAR_ALGEBRA
from vbench.flops.tables import COMPLEX, LOSSES, MOVES, PER_INPUT, PER_OUTPUT, RANDOM, VIEWS, WINDOWS

FFT, REAL_FFT = 5.0, 2.5  # times n · log2 n; see `_fft`
COMPLEX_ALGEBRA = 4  # a complex product is 6 FLOPs and a sum 2; there are as many of these
TAP = 2  # FLOPs of a tap, a MAC
TAPS = {  # by the mode of interpolation
    "grid_sampler_2d": {0: 4, 1: 0, 2: 16},
    "_grid_sampler_2d_cpu_fallback": {0: 4, 1: 0, 2: 16},
    "grid_sampler_3d": {0: 8, 1: 0},
}
RESIZED = {  # pixels that a tap reaches, unless shrunk
    "_upsample_bilinear2d_aa": 1.0,
    "_upsample_bicubic2d_aa": 2.0,
    "_upsample_lanczos2d_aa": 3.0,
}
LSTM_CELL, GRU_CELL = 13, 10  # a hidden value: 4 sums, 4 functions, 5; 2 gates of 2, 3, 3. Biases are the products'
OVERLAP = 12  # of two boxes: four extremes, two sides above 0 (4), an area, a sum, a difference, a quotient
GIVEN_STATISTICS = PER_OUTPUT["_native_batch_norm_legit_no_training"]
OWN_STATISTICS = PER_OUTPUT["native_layer_norm"]

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
    def is_integer(self) -> bool:
        """Whether it has to do with integers and booleans alone."""
        return not any(x.is_floating_point() or x.is_complex() for x in (*self.given, *self.results))

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


def _algebra(call: Call) -> int:
    times = COMPLEX_ALGEBRA if call.is_complex else 1
    return round(times * LINEAR_ALGEBRA[call.base](call.arguments, call.results[0]))


def _added(call: Call) -> int:
    """One sum (or maximum, or product) for each element that is entered; a mean divides too."""
    entered = call.arguments["index" if "src" in call.arguments else "source"]
    means = call.results[0].numel() if call.arguments.get("reduce") == "mean" else 0
    return _sums(call.results[0]) * int(entered.numel()) + means


def _scattered(call: Call) -> int:
    """Values that are added, or multiplied, where `scatter` was told to; without that they are only moved."""
    return _sums(call.results[0]) * int(call.arguments["index"].numel()) if "reduce" in call.arguments else 0


def _put(call: Call) -> int:
    return _sums(call.results[0]) * int(call.arguments["source"].numel()) if call.arguments["accumulate"] else 0


def _accumulated(call: Call) -> int:
    """Values that are added where `index_put` accumulates; without that they are only moved."""
    if not call.arguments.get("accumulate", True):  # the masked one always does
        return 0
    indices, sides = call.arguments["indices"], call.arguments["self"].shape
    found = [x for x in indices if x is not None]
    if any(x.dtype == torch.bool for x in found):  # how many places a mask selects is not known
        return _sums(call.results[0]) * int(call.arguments["values"].numel())
    rest = [side for dim, side in enumerate(sides) if dim >= len(indices) or indices[dim] is None]
    return _sums(call.results[0]) * int(prod(torch.broadcast_shapes(*(x.shape for x in found))) * prod(rest))


def _sums(x: Tensor) -> int:
    return 2 if x.is_complex() else 1


def _bags(call: Call) -> int:
    """The sum (or maximum) of the vectors in each bag, with a factor each if there are some; a mean divides too."""
    indices, weight, factors = (call.arguments[name] for name in ("indices", "weight", "per_sample_weights"))
    means = call.results[0].numel() if call.arguments["mode"] == 1 else 0
    return int(indices.numel() * weight.shape[-1] * (1 if factors is None else 2) + means)


def _batch_norm(call: Call) -> int:
    """A difference, a quotient, gain and bias; the mean and the variance before it, if they are not given."""
    given = not call.arguments["training"]
    return (GIVEN_STATISTICS if given else OWN_STATISTICS) * call.results[0].numel()


def _adaptive(call: Call) -> int:
    """One FLOP for each element of each window; windows overlap where a side is no multiple of the result's."""
    dims = 3 if call.base.endswith("3d") else 2
    before, after = call.given[0].shape[-dims:], call.results[0].shape[-dims:]
    windows = [sum(-(-(i + 1) * n // m) - i * n // m for i in range(m)) for n, m in zip(before, after, strict=True)]
    return int(prod(call.given[0].shape[:-dims]) * prod(windows))


def _loss(call: Call) -> int:
    each = LOSSES[call.base] + (call.arguments["reduction"] != 0)
    return int(each * call.arguments["self"].numel())


def _sampled(call: Call) -> int:
    """A MAC a tap."""
    return TAP * TAPS[call.base][call.arguments["interpolation_mode"]] * call.results[0].numel()


def _pooled_regions(call: Call) -> int | None:
    """The mean of some samples between pixels, for each bin; None if their number follows from the region's size."""
    samples = int(call.arguments["sampling_ratio"])
    return call.results[0].numel() * samples**2 * (4 * TAP + 1) if samples > 0 else None


def _suppressed(call: Call) -> int:
    """The overlap of each pair of boxes; fewer are compared if some are suppressed."""
    boxes = call.arguments["dets"].shape[0]
    return int(OVERLAP * boxes * (boxes - 1) // 2)


def _antialiased(call: Call) -> int:
    """A MAC a tap, rows first and then columns. Shrinking widens the taps; at an edge there are fewer."""
    *planes, height, width = call.given[0].shape
    high, wide = call.results[0].shape[-2:]
    reach, corners = RESIZED[call.base], call.arguments["align_corners"]
    given = [call.arguments.get(name) for name in ("scales_h", "scales_w")]  # or in a list, or not given
    of_height, of_width = call.arguments.get("scale_factors") or given
    rows = height * _taps(width, wide, reach, of_width, corners=corners)
    columns = wide * _taps(height, high, reach, of_height, corners=corners)
    return int(TAP * prod(planes) * (rows + columns))


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


def _cells(each: int, name: str, call: Call) -> int:
    return each * int(call.arguments[name].numel())


FORMULAS: dict[str, Callable[[Call], int | None]] = {
    **dict.fromkeys(("_fft_c2c", "_fft_c2r", "_fft_r2c"), _fft),
    **dict.fromkeys(LINEAR_ALGEBRA, _algebra),
    **dict.fromkeys(("index_add", "index_reduce", "scatter_add", "scatter_reduce"), _added),
    "scatter": _scattered,
    "put": _put,
    **dict.fromkeys(("_index_put_impl", "_unsafe_index_put", "index_put"), _accumulated),
    "_unsafe_masked_index_put_accumulate": _accumulated,
    **dict.fromkeys(("_embedding_bag", "_embedding_bag_forward_only"), _bags),
    "embedding_renorm": lambda call: (
        PER_INPUT["renorm"] * call.arguments["indices"].numel() * call.arguments["self"].shape[-1]
    ),
    **dict.fromkeys(
        (
            *("_native_batch_norm_legit", "_native_batch_norm_legit_functional", "native_batch_norm"),
            *("cudnn_batch_norm", "miopen_batch_norm"),
        ),
        _batch_norm,
    ),
    **dict.fromkeys(
        ("_adaptive_avg_pool2d", "_adaptive_avg_pool3d", "adaptive_max_pool2d", "adaptive_max_pool3d"), _adaptive
    ),
    **dict.fromkeys(LOSSES, _loss),
    **dict.fromkeys(("nll_loss2d_forward", "nll_loss_forward"), lambda call: int(call.arguments["target"].numel())),
    **dict.fromkeys(TAPS, _sampled),
    **dict.fromkeys(RESIZED, _antialiased),
    **dict.fromkeys(("ps_roi_align", "roi_align"), _pooled_regions),
    "nms": _suppressed,
    **dict.fromkeys(("_cdist_forward", "_pdist_forward"), _distances),
    "bincount": lambda call: 0 if call.arguments["weights"] is None else call.given[0].numel(),
    "trace": lambda call: min(call.given[0].shape),
    "_transform_bias_rescale_qkv": lambda call: call.given[0].numel() // 3,  # the scale of q; biases are the products'
    "_thnn_fused_lstm_cell": partial(_cells, LSTM_CELL, "cx"),
    "_thnn_fused_gru_cell": partial(_cells, GRU_CELL, "hx"),
}


def is_named(base: str) -> bool:
    """Whether a table or a formula of pointwise work names an operation, or one of moves."""
    tables = (FORMULAS, PER_OUTPUT, PER_INPUT, WINDOWS, VIEWS, MOVES, RANDOM)
    return any(base in table for table in tables)
