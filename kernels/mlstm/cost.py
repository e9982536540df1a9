"""Work of the matrix LSTM in multiply-accumulates (MACs), and the meta device's stand-in.

A form run on meta tensors computes nothing: it answers with one operator, `vbench::mlstm`, that knows the
result's shape and what the form would have cost. A counter sees that operator and asks `macs`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula
from vbench.kernels.mlstm.shapes import Memory


def macs(form: str, *, batch: int, heads: int, tokens: int, key_dim: int, value_dim: int, chunk: int = 64) -> int:
    """MACs of one call, in one direction.

    Args:
        form: "algorithm" is the recurrence itself: a token updates and reads C, key_dim · value_dim each,
            and n, key_dim each. The others count the products that these forms execute from an empty
            state. Gates, weights, and sums of scores or keys are not MACs.
    """
    state = key_dim * (value_dim + 1)
    if form in ("algorithm", "reference"):
        return batch * heads * tokens * 2 * state
    fed = key_dim * value_dim  # n is fed by a sum of keys
    if form == "quadratic":  # every pair, and the final state
        return batch * heads * tokens * (tokens * (key_dim + value_dim) + fed)
    whole, tail = divmod(tokens, chunk)
    pairs = whole * chunk**2 + tail**2
    return batch * heads * (pairs * (key_dim + value_dim) + tokens * (state + fed))


@torch.library.custom_op("vbench::mlstm", mutates_args=())
def _mlstm(q: Tensor, k: Tensor, v: Tensor, form: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    raise RuntimeError("vbench::mlstm stands in on the meta device only; call a form")


@_mlstm.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, form: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    B, H, N, D = q.shape
    E = v.shape[-1]
    C, n, m = (q.new_empty(size, dtype=torch.float32) for size in ((B, H, D, E), (B, H, D), (B, H)))
    return q.new_empty(B, H, N, E), C, n, m


@register_flop_formula(torch.ops.vbench.mlstm)
def _flops(q: Any, k: Any, v: Any, form: str, **_: Any) -> int:
    return 2 * macs(form, batch=q[0], heads=q[1], tokens=q[2], key_dim=q[3], value_dim=v[3])


def on_meta(q: Tensor, k: Tensor, v: Tensor, form: str) -> tuple[Tensor, Memory]:
    """The result of `form` on meta tensors: shapes alone, counted by `macs`."""
    h, *state = _mlstm(q, k, v, form)
    C, n, m = state
    return h, (C, n, m)
