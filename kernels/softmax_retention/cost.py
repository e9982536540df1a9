"""Work of softmax retention in multiply-accumulates (MACs), and the meta device's stand-in.

A form run on meta tensors computes nothing: it answers with one operator, `vbench::softmax_retention`, that
knows the result's shape and what the form would have cost. A counter sees that operator and asks `macs`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from vbench.kernels.retention.cost import causal_pairs
from vbench.kernels.work import Work

ROWS = 128  # queries whose scores are held at a time


def macs(form: str, *, batch: int, heads: int, tokens: int, key_dim: int, value_dim: int) -> int:
    """MACs of one call.

    Args:
        form: "algorithm" is what no form can avoid: a score and a weighted value for each pair of a query
            and a key that is not after it. The others count the products that these forms execute. Sums of
            values and the decay's elementwise products are not MACs.
    """
    pairs = {
        "algorithm": tokens * (tokens + 1) // 2,
        "suffix": causal_pairs(tokens, ROWS),
        "quadratic": tokens * tokens,
    }[form]
    return batch * heads * pairs * (key_dim + value_dim)


def elementwise_flops(form: str, *, batch: int, heads: int, tokens: int, key_dim: int, value_dim: int) -> int:
    """Pointwise FLOPs of one call, in none of `macs`: queries scaled, scores damped, their softmax, sums of values.

    Args:
        form: "algorithm" and "suffix" take a pair's product, maximum, difference, exponential and sum, up to the token
            or its block's end, and four of value_dim a token for all that is beyond. "quadratic" takes the product
            and a softmax (five) of all pairs. Tables of decays cost three an entry, once for all images.
    """
    scaled, beyond = tokens * key_dim, 4 * tokens * value_dim
    if form == "quadratic":
        return heads * (batch * (6 * tokens**2 + scaled) + 3 * tokens**2)
    pairs = tokens * (tokens + 1) // 2 if form == "algorithm" else causal_pairs(tokens, ROWS)
    return heads * (batch * (5 * pairs + scaled + beyond) + 3 * min(ROWS, tokens) * tokens)


@torch.library.custom_op("vbench::softmax_retention", mutates_args=())
def _softmax_retention(q: Tensor, k: Tensor, v: Tensor, form: str) -> Tensor:
    raise RuntimeError("vbench::softmax_retention stands in on the meta device only; call a form")


@_softmax_retention.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, form: str) -> Tensor:
    return q.new_empty(*q.shape[:3], v.shape[-1])


@register_flop_formula(torch.ops.vbench.softmax_retention)
def _flops(q: Any, k: Any, v: Any, form: str, **_: Any) -> int:
    return 2 * macs(form, batch=q[0], heads=q[1], tokens=q[2], key_dim=q[3], value_dim=v[3])


def work(q: Tensor, k: Tensor, v: Tensor, form: str) -> Work:
    """All that is counted of one call, from the arguments of the stand-in; there is no state."""
    B, H, N, D = q.shape
    call = {"batch": B, "heads": H, "tokens": N, "key_dim": D, "value_dim": v.shape[-1]}
    return Work(
        macs=macs(form, **call),
        macs_algorithm=macs("algorithm", **call),
        flops_elementwise=elementwise_flops(form, **call),
        state_bytes=None,
        gate_bytes=8 * H,  # a decay a head, in float64
    )


def on_meta(q: Tensor, k: Tensor, v: Tensor, form: str) -> Tensor:
    """The output of `form` on meta tensors: its shape alone, counted by `macs`."""
    o: Tensor = _softmax_retention(q, k, v, form)
    return o
