"""Work of WKV6 in multiply-accumulates (MACs), and the meta device's stand-in.

A form run on meta tensors computes nothing: it answers with one operator, `vbench::wkv6`, that knows the
result's shape and what the form would have cost. A counter sees that operator and asks `macs`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from vbench.kernels.fused import cost as fused
from vbench.kernels.fused.policy import Policy
from vbench.kernels.fused.tuning import chunk_of
from vbench.kernels.gla import cost as gla
from vbench.kernels.shapes import Direction, accumulator
from vbench.kernels.work import Work

POLICY = Policy("vector", exclusive=True)


def macs(form: str, *, batch: int, heads: int, tokens: int, key_dim: int, value_dim: int, directions: int) -> int:
    """MACs of one call.

    Args:
        form: "algorithm" is the recurrence itself (an outer product and a read-out a token and direction,
            key_dim · value_dim each; the bonus is elementwise), which every form must at least equal; the others
            count the products that these forms execute. "quadratic" has one score matrix for both directions;
            all others do what gla's forms of their name do, with the bonus in the place of the diagonal.
    """
    if form in ("fused", "fused_recurrent"):
        length = chunk_of("wkv6", form, tokens, batch * heads)
        return fused.macs(POLICY, fused.Call(batch, heads, tokens, key_dim, value_dim, directions, length, shared=True))
    sizes = {"batch": batch, "heads": heads, "tokens": tokens, "key_dim": key_dim, "value_dim": value_dim}
    if form == "quadratic":
        state = key_dim * value_dim
        return batch * heads * (tokens * tokens * (key_dim + value_dim) + directions * tokens * state)
    return gla.macs(form, **sizes, directions=directions)


def elementwise_flops(
    form: str, *, batch: int, heads: int, tokens: int, key_dim: int, value_dim: int, directions: int
) -> int:
    """Pointwise FLOPs of one call, in none of `macs`.

    Args:
        form: "algorithm" and "reference": a token's decay is an exponential of key_dim and damps the state
            (key_dim · value_dim); its bonus is three products of key_dim, and adds a value. "quadratic": a pair is
            two differences, an exponential and a product of key_dim. "chunkwise" is gla's, with one decay for both
            directions, no damped query where the folding starts, and a bonus on the diagonal.
    """
    D, E, joined = key_dim, value_dim, (directions - 1) * value_dim
    if form in ("fused", "fused_recurrent"):
        length = chunk_of("wkv6", form, tokens, batch * heads)
        call = fused.Call(batch, heads, tokens, D, E, directions, length, shared=True)
        return fused.elementwise_flops(POLICY, call)
    if form in ("algorithm", "reference", "compiled"):
        return batch * heads * tokens * (directions * (D * E + 4 * D + 2 * E) + joined)
    if form == "quadratic":
        return batch * heads * tokens * D * (4 * tokens + 3 + 2 * directions)
    sizes = {"batch": batch, "heads": heads, "tokens": tokens, "key_dim": D, "value_dim": E}
    as_gla = gla.elementwise_flops("chunkwise", **sizes, directions=directions)
    return as_gla + batch * heads * tokens * D * (2 - 2 * directions)


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


def work(r: Tensor, k: Tensor, v: Tensor, directions: int, form: str) -> Work:
    """All that is counted of one call, from the arguments of the stand-in."""
    B, H, N, D = r.shape
    E = v.shape[-1]
    call = {"batch": B, "heads": H, "tokens": N, "key_dim": D, "value_dim": E, "directions": directions}
    return Work(
        macs=macs(form, **call),
        macs_algorithm=macs("algorithm", **call),
        flops_elementwise=elementwise_flops(form, **call),
        state_bytes=gla.state_bytes(batch=B, heads=H, key_dim=D, value_dim=E, directions=directions),
        gate_bytes=4 * r.numel() + H * D * r.element_size(),  # decays in float32, and the bonus
    )


def on_meta(r: Tensor, k: Tensor, v: Tensor, direction: Direction, form: str) -> tuple[Tensor, Tensor]:
    """The result of `form` on meta tensors: shapes alone, counted by `macs`."""
    o, state = _wkv6(r, k, v, 2 if direction == "both" else 1, form)
    return o, state if direction == "both" else state[0]
