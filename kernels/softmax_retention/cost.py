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


@torch.library.custom_op("vbench::softmax_retention", mutates_args=())
def _softmax_retention(q: Tensor, k: Tensor, v: Tensor, form: str) -> Tensor:
    raise RuntimeError("vbench::softmax_retention stands in on the meta device only; call a form")


@_softmax_retention.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, form: str) -> Tensor:
    return q.new_empty(*q.shape[:3], v.shape[-1])


@register_flop_formula(torch.ops.vbench.softmax_retention)
def _flops(q: Any, k: Any, v: Any, form: str, **_: Any) -> int:
    return 2 * macs(form, batch=q[0], heads=q[1], tokens=q[2], key_dim=q[3], value_dim=v[3])


def on_meta(q: Tensor, k: Tensor, v: Tensor, form: str) -> Tensor:
    """The output of `form` on meta tensors: its shape alone, counted by `macs`."""
    o: Tensor = _softmax_retention(q, k, v, form)
    return o
