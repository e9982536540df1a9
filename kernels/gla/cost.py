"""Work of gated linear attention in multiply-accumulates (MACs), and the meta device's stand-in.

A form run on meta tensors computes nothing: it answers with one operator, `vbench::gla`, that knows the
result's shape and what the form would have cost. A counter sees that operator and asks `macs`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula
from vbench.kernels.shapes import Direction


def macs(
    form: str,
    *,
    batch: int,
    heads: int,
    tokens: int,
    key_dim: int,
    value_dim: int,
    directions: int,
    chunk: int = 64,
) -> int:
    """MACs of one call.

    Args:
        form: "algorithm" is the recurrence itself (an outer product and a read-out a token, key_dim ·
            value_dim each), which every form must at least equal; the others count the products that
            these forms execute. The decay's elementwise products are not MACs.
    """
    state = key_dim * value_dim
    if form in ("algorithm", "reference"):
        return batch * heads * tokens * directions * 2 * state
    if form == "quadratic":  # every pair, and the final state
        return batch * heads * directions * (tokens * tokens * (key_dim + value_dim) + tokens * state)
    whole, tail = divmod(tokens, chunk)
    total = 0
    for chunks, length in ((whole, chunk), (1, 1 << (tail - 1).bit_length() if tail else 0)):
        triangle = length * (length - 1) // 2 * key_dim  # scores off the diagonal, one direction
        within = directions * triangle + length * key_dim + length * length * value_dim
        total += chunks * (within + directions * 2 * length * state)
    return batch * heads * total


@torch.library.custom_op("vbench::gla", mutates_args=())
def _gla(q: Tensor, k: Tensor, v: Tensor, directions: int, form: str) -> tuple[Tensor, Tensor]:
    raise RuntimeError("vbench::gla stands in on the meta device only; call a form")


@_gla.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, directions: int, form: str) -> tuple[Tensor, Tensor]:
    B, H, _, D = q.shape
    state = q.new_empty(directions, B, H, D, v.shape[-1], dtype=torch.float32)
    return q.new_empty(*q.shape[:3], v.shape[-1]), state


@register_flop_formula(torch.ops.vbench.gla)
def _flops(q: Any, k: Any, v: Any, directions: int, form: str, **_: Any) -> int:
    return 2 * macs(
        form,
        batch=q[0],
        heads=q[1],
        tokens=q[2],
        key_dim=q[3],
        value_dim=v[3],
        directions=directions,
    )


def on_meta(q: Tensor, k: Tensor, v: Tensor, direction: Direction, form: str) -> tuple[Tensor, Tensor]:
    """The result of `form` on meta tensors: shapes alone, counted by `macs`."""
    o, state = _gla(q, k, v, 2 if direction == "both" else 1, form)
    return o, state if direction == "both" else state[0]
