"""MACs of products, convolutions and attention: by torch's own formulas, and by ours for those that torch lacks.

MACs are multiply-accumulates of real numbers.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch._C import DispatchKey
from torch.utils import flop_counter
from torch.utils.flop_counter import flop_registry

from vbench.flops.formulas import GRU_CELL, LSTM_CELL, TAP, Arguments, Call, base_of, is_named
from vbench.flops.tables import PER_OUTPUT

ATTENTION = torch.ops.aten.scaled_dot_product_attention
COMPLEX_PRODUCT = 4  # real MACs of a complex one: (a + bi)(c + di) has ac, bd, ad and bc
LSTM = 2  # a mode of oneDNN's recurrent layer; 3 is GRU

# The products that torch's own counter knows. A formula that a user registers is not among them.
OF_TORCH = {
    packet
    for packet, formula in flop_registry.items()
    if getattr(inspect.unwrap(formula), "__module__", None) == flop_counter.__name__
}


def is_whole(func: Any) -> bool:
    """Whether an operation is not taken apart: attention, a product, another's operation with a registered formula.

    Neither is what a table names and torch takes apart in Python: it does so for a compiler, while a kernel runs here.
    """
    packet = func._overloadpacket
    if packet is ATTENTION or packet in OF_TORCH or (func.namespace != "aten" and packet in flop_registry):
        return True
    return DispatchKey.CompositeImplicitAutograd in func.py_kernels and is_named(base_of(func))


def is_product(call: Call) -> bool:
    """Whether a call is a product, a convolution or attention, by torch's own formulas or ours."""
    return call.packet is ATTENTION or call.packet in OF_TORCH or call.base in PRODUCTS


def product_macs(call: Call) -> tuple[int, int]:
    """The MACs of a product, a convolution or attention.

    A complex product is `COMPLEX_PRODUCT` real ones. (A complex convolution never comes here: torch makes it of three
    real ones and sums, and each of these does.)

    Returns: what is executed, and what is needed. They differ in causal attention alone, which needs the scores of a
        query and the keys up to it, and is taken to execute all of them, as torch's counter and fvcore do.
    """
    if call.packet is ATTENTION:
        macs = _attention(call)
    else:
        macs = PRODUCTS[call.base](call) if call.base in PRODUCTS else call.registered_flops() // 2
    if call.is_complex:
        macs *= COMPLEX_PRODUCT
    if not call.is_causal:
        return macs, macs
    queries, keys = call.arguments["query"].shape[-2], call.arguments["key"].shape[-2]
    return macs, macs * _causal_pairs(queries, keys) // max(1, queries * keys)


def beside_macs(call: Call) -> int:
    """The pointwise FLOPs of a product, beside its MACs.

    Attention scales its queries, adds a mask if there is one, and has the softmax of the scores. Other products have
    what is in `BESIDE`.
    """
    arguments = call.arguments
    if call.base in BESIDE:
        return BESIDE[call.base](call)
    if "attention" not in call.base or "query" not in arguments:
        return 0
    q, k = arguments["query"], arguments["key"]
    masked = any(isinstance(arguments.get(name), Tensor) for name in ("attn_mask", "attn_bias"))
    return int(q.numel() + prod(q.shape[:-1]) * k.shape[-2] * (PER_OUTPUT["_softmax"] + masked))


def _attention(call: Call) -> int:
    q, k, v = (call.arguments[name] for name in ("query", "key", "value"))
    return int(prod(q.shape[:-1]) * k.shape[-2] * (q.shape[-1] + v.shape[-1]))


def _causal_pairs(queries: int, keys: int) -> int:
    """Pairs of the i-th query and the keys up to the i-th, as torch aligns them."""
    both = min(queries, keys)
    return both * (both + 1) // 2 + (queries - both) * keys


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


def _rows_times_columns(call: Call) -> int:
    """A matrix, or rows of any dimensions, with one whose columns are the result's."""
    return call.given[0].numel() * call.results[0].shape[-1]


def _grouped(call: Call) -> int:
    """Products of groups of rows, of columns, or of what is summed, each with a matrix of its own."""
    a, b = call.arguments["self"], call.arguments["mat2"]
    if a.ndim == b.ndim == 2:  # the groups share what is summed
        return int(a.numel() * b.shape[-1])
    return int(call.results[0].numel() * a.shape[-1])


def _convolved(call: Call) -> int:
    """A value of the result is a sum over a filter."""
    weight = call.arguments["weight"]
    return int(call.results[0].numel() * prod(weight.shape[1:]))


def _convolved_back(call: Call) -> int:
    """A value of the input goes into each place of its filters."""
    return int(call.arguments["self"].numel() * prod(call.arguments["weight"].shape[1:]))


def _grid(call: Call) -> int:
    """A row of θ with (x, y, 1), or (x, y, z, 1), for each coordinate of each place."""
    return int(call.results[0].numel() * call.arguments["theta"].shape[-1])


def _encoder(call: Call) -> int:
    """Keys, queries and values, attention over all pairs, the projection behind it, and the two layers of an MLP."""
    x, width = call.arguments["src"], call.arguments["embed_dim"]
    weights = ("qkv_weight", "proj_weight", "ffn_weight_1", "ffn_weight_2")
    projections = sum(call.arguments[name].numel() for name in weights)
    return int(prod(x.shape[:-1]) * (projections + 2 * x.shape[-2] * width))


def _beside_encoder(call: Call) -> int:
    """Two norms and two sums, softmax of the scaled scores, and the function between the layers of the MLP."""
    arguments, x = call.arguments, call.arguments["src"]
    tokens = prod(x.shape[:-1])
    hidden = arguments["ffn_weight_1"].shape[0] * PER_OUTPUT["gelu" if arguments["use_gelu"] else "relu"]
    return int(2 * (PER_OUTPUT["native_layer_norm"] + 1) * x.numel() + tokens * hidden) + _scores(call, x, x)


def _heads(call: Call) -> int:
    arguments = call.arguments
    q, k, width = arguments["query"], arguments["key"], arguments["embed_dim"]
    tokens, keys = prod(q.shape[:-1]), prod(k.shape[:-1])
    return int((2 * tokens + 2 * keys) * width**2 + 2 * tokens * k.shape[-2] * width)


def _beside_heads(call: Call) -> int:
    """The softmax of the scaled scores, and their mean over heads if it is asked for."""
    q, k = call.arguments["query"], call.arguments["key"]
    scores = int(prod(q.shape[:-1]) * k.shape[-2]) * call.arguments["num_head"]
    means = scores if call.arguments["need_weights"] and call.arguments["average_attn_weights"] else 0
    return _scores(call, q, k) + means


def _scores(call: Call, q: Tensor, k: Tensor) -> int:
    heads = call.arguments.get("num_heads") or call.arguments["num_head"]
    masked = isinstance(call.arguments.get("mask"), Tensor)
    return int(q.numel() + heads * prod(q.shape[:-1]) * k.shape[-2] * (PER_OUTPUT["_softmax"] + masked))


def _recurrent_layer(call: Call) -> int:
    """A layer of oneDNN's, in one direction: the input's gates and the hidden value's, of each step."""
    arguments = call.arguments
    steps = prod(arguments["input"].shape[:-1])
    return int(steps * (arguments["weight0"].numel() + arguments["weight1"].numel()))


def _beside_recurrent_layer(call: Call) -> int:
    arguments = call.arguments
    steps = prod(arguments["input"].shape[:-1])
    return int(steps * arguments["hidden_size"] * (LSTM_CELL if arguments["mode"] == LSTM else GRU_CELL))


def _beside_distances(call: Call) -> int:
    """The squared norms, a factor, and a maximum and a root a pair."""
    first, second = call.arguments["x1"].numel(), call.arguments["x2"].numel()
    return int(2 * (first + second) + first + 2 * _pairs_of(call.arguments))


def _beside_deformed(call: Call) -> int:
    """Each place of each filter reads an image between its pixels, four taps, and may have a factor."""
    arguments = call.arguments
    x, weight = arguments["input"], arguments["weight"]
    places = x.shape[0] * x.shape[1] * prod(weight.shape[2:]) * prod(call.results[0].shape[2:])
    return int(places * (4 * TAP + bool(arguments["use_mask"])))


# MACs of products that torch's own formulas lack.
PRODUCTS: dict[str, Callable[[Call], int]] = {
    "dot": lambda call: int(call.arguments["self"].numel()),
    "vdot": lambda call: int(call.arguments["self"].numel()),
    "mv": lambda call: int(call.arguments["self"].numel()),
    "addmv": lambda call: int(call.arguments["mat"].numel()),
    "addbmm": lambda call: int(call.arguments["batch1"].numel() * call.arguments["batch2"].shape[-1]),
    **dict.fromkeys(
        ("_addmm_activation", "_scaled_addmm"),
        lambda call: int(call.arguments["mat1"].numel() * call.results[0].shape[-1]),
    ),
    **dict.fromkeys(
        (
            *("_int_mm", "_scaled_mm_v2", "_mixed_dtypes_linear", "mkldnn_linear", "_weight_int8pack_mm"),
            *("_weight_int4pack_mm", "_weight_int4pack_mm_for_cpu", "_weight_int4pack_mm_with_scales_and_zeros"),
        ),
        _rows_times_columns,
    ),
    **dict.fromkeys(("_grouped_mm", "_scaled_grouped_mm", "_scaled_grouped_mm_v2"), _grouped),
    "_trilinear": lambda call: _trilinear(call.arguments),
    "_euclidean_dist": lambda call: _pairs_of(call.arguments) * (call.arguments["x1"].shape[-1] + 2),  # with the norms
    "affine_grid_generator": _grid,
    **dict.fromkeys(
        (
            *("_conv_depthwise2d", "_nnpack_spatial_convolution", "conv_depthwise3d", "mkldnn_convolution"),
            *("slow_conv3d_forward", "slow_conv_dilated2d", "slow_conv_dilated3d", "deform_conv2d"),
        ),
        _convolved,
    ),
    **dict.fromkeys(("slow_conv_transpose2d", "slow_conv_transpose3d"), _convolved_back),
    "conv_tbc": lambda call: int(call.results[0].numel() * prod(call.arguments["weight"].shape[:2])),
    **dict.fromkeys(
        ("_scaled_dot_product_flash_attention_for_cpu", "_scaled_dot_product_fused_attention_overrideable"), _attention
    ),
    "_transformer_encoder_layer_fwd": _encoder,
    "_native_multi_head_attention": _heads,
    "mkldnn_rnn_layer": _recurrent_layer,
}

# Their pointwise FLOPs.
BESIDE: dict[str, Callable[[Call], int]] = {
    "_euclidean_dist": _beside_distances,
    "_addmm_activation": lambda call: (
        call.results[0].numel() * PER_OUTPUT["gelu" if call.arguments["use_gelu"] else "relu"]
    ),
    "deform_conv2d": _beside_deformed,
    "_transformer_encoder_layer_fwd": _beside_encoder,
    "_native_multi_head_attention": _beside_heads,
    "mkldnn_rnn_layer": _beside_recurrent_layer,
}
