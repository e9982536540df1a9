"""Work of WKV6 in multiply-accumulates (MACs), and the meta device's stand-in.

A form run on meta tensors computes nothing: it answers with one operator, `vbench::wkv6`, that knows the
result's shape and what the form would have cost. A counter sees that operator and asks `macs`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula
from vbench.kernels.gla import cost as gla
from vbench.kernels.shapes import Direction, accumulator


def macs(form: str, *, batch: int, heads: int, tokens: int, key_dim: int, value_dim: int, directions: int) -> int:
    """MACs of one call.

    Args:
        form: "algorithm" is the recurrence itself (an outer product and a read-out a token and direction,
            key_dim · value_dim each; the bonus is elementwise), which every form must at least equal; the others
            count the products that these forms execute. "quadratic" has one score matrix for both directions;
            all others do what gla's forms of their name do, with the bonus in the place of the diagonal.
    """
    sizes = {"batch": batch, "heads": heads, "tokens": tokens, "key_dim": key_dim, "value_dim": value_dim}
    if form == "quadratic":
        state = key_dim * value_dim
        return batch * heads * (tokens * tokens * (key_dim + value_dim) + directions * tokens * state)
    return gla.macs(form, **sizes, directions=directions)


@torch.library.custom_op("vbench::wkv6", mutates_args=())
def _wkv6(r: Tensor, k: Tensor, v: Tensor, directions: int, form: str) -> tuple[Tensor, Tensor]:
    raise RuntimeError("vbench::wkv6 stands in on the meta device only; call a form")


@_wkv6.register_fake
def _(r: Tensor, k: Tensor, v: Tensor, directions: int, form: str) -> tuple[Tensor, Tensor]:
    B, H, _, D = r.shape
    state = r.new_empty(directions, B, H, D, v.shape[-1], dtype=accumulator(r))
    return r.new_empty(*r.shape[:3], v.shape[-1]), state


@register_flop_formula(torch.ops.vbench.wkv6)
def _flops(r: Any, k: Any, v: Any, directions: int, form: str, **_: Any) -> int:
    return 2 * macs(
        form,
        batch=r[0],
        heads=r[1],
        tokens=r[2],
        key_dim=r[3],
        value_dim=v[3],
        directions=directions,
    )


def on_meta(r: Tensor, k: Tensor, v: Tensor, direction: Direction, form: str) -> tuple[Tensor, Tensor]:
    """The result of `form` on meta tensors: shapes alone, counted by `macs`."""
    o, state = _wkv6(r, k, v, 2 if direction == "both" else 1, form)
    return o, state if direction == "both" else state[0]
