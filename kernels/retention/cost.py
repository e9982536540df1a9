"""Work of retention in multiply-accumulates (MACs), and the meta device's stand-in.

A form run on meta tensors computes nothing: it answers with one operator, `vbench::retention`, that knows
the result's shape and what the form would have cost. A counter sees that operator and asks `macs`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from vbench.kernels.fused import cost as fused
from vbench.kernels.fused.policy import Policy
from vbench.kernels.fused.tuning import chunk_of
from vbench.kernels.shapes import accumulator
from vbench.kernels.work import Work

POLICY = Policy("head")
CHUNK = 64  # tokens; any number works
GROUP = 48  # chunks of all heads handled together, so that a group's temporaries stay in cache
ROWS = 128  # queries whose scores are held at a time by a quadratic form


def group_of(rows: int) -> int:
    """Chunks of a head that are handled together, where there are `rows` heads in all images."""
    return max(1, GROUP // rows)


def causal_pairs(tokens: int, rows: int) -> int:
    """Pairs (query, key) that blocks of `rows` queries compute, each with all keys up to the block's end."""
    whole, tail = divmod(tokens, rows)
    return rows * rows * whole * (whole + 1) // 2 + tail * tokens


def macs(form: str, *, batch: int, heads: int, tokens: int, key_dim: int, value_dim: int) -> int:
    """MACs of one call.

    Args:
        form: "algorithm" is the recurrence itself (an outer product and a read-out a token, key_dim ·
            value_dim each), which every form must at least equal; the others count the products that
            these forms execute. The decay's elementwise products are not MACs.
    """
    state, pair = key_dim * value_dim, key_dim + value_dim
    if form in ("fused", "fused_recurrent"):
        length = chunk_of("retention", form, tokens, batch * heads)
        return fused.macs(POLICY, fused.Call(batch, heads, tokens, key_dim, value_dim, 1, length))
    if form in ("algorithm", "reference", "compiled"):
        return batch * heads * tokens * 2 * state
    if form == "quadratic":  # scores and what they weigh, and the final state
        return batch * heads * (causal_pairs(tokens, ROWS) * pair + tokens * state)
    whole, tail = divmod(tokens, CHUNK)
    group = group_of(batch * heads)
    groups, rest = divmod(whole, group)
    within = (whole * CHUNK**2 + tail**2) * pair
    carried = groups * (group + 1) ** 2 + (rest + 1) ** 2 * bool(rest) + 4 * bool(tail)
    return batch * heads * (within + tokens * 2 * state + carried * state)


def elementwise_flops(form: str, *, batch: int, heads: int, tokens: int, key_dim: int, value_dim: int) -> int:
    """Pointwise FLOPs of one call, in none of `macs`.

    Args:
        form: "algorithm": a token damps the state (key_dim · value_dim) and scales its query. "reference" damps by
            what is lost, a product and a difference. "quadratic": a damped score a pair. "chunkwise" besides damps
            keys and queries to the chunk's edges. Tables of decays cost three an entry, once for all images.
    """
    D, E = key_dim, value_dim
    if form in ("fused", "fused_recurrent"):
        length = chunk_of("retention", form, tokens, batch * heads)
        return fused.elementwise_flops(POLICY, fused.Call(batch, heads, tokens, D, E, 1, length))
    if form in ("algorithm", "reference", "compiled"):
        return batch * heads * tokens * (D * E * (1 if form == "algorithm" else 2) + D)
    if form == "quadratic":
        table = 3 * min(ROWS, tokens) * tokens
        return heads * (batch * (causal_pairs(tokens, ROWS) + 2 * tokens * D) + table)
    whole, tail = divmod(tokens, CHUNK)
    group = group_of(batch * heads)
    groups, rest = divmod(whole, group)
    tables = 4 * min(CHUNK, tokens) ** 2
    tables += 3 * (groups * (group + 1) ** 2 + (rest + 1) ** 2 * bool(rest) + 4 * bool(tail))
    return heads * (batch * (whole * CHUNK**2 + tail**2 + tokens * (2 * D + E)) + tables)


def state_bytes(*, batch: int, heads: int, key_dim: int, value_dim: int) -> int:
    """Bytes of the state: key_dim · value_dim numbers of float32 a head."""
    return 4 * batch * heads * key_dim * value_dim


@torch.library.custom_op("vbench::retention", mutates_args=())
def _retention(q: Tensor, k: Tensor, v: Tensor, form: str) -> tuple[Tensor, Tensor]:
    raise RuntimeError("vbench::retention stands in on the meta device only; call a form")


@_retention.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, form: str) -> tuple[Tensor, Tensor]:
    B, H, _, D = q.shape
    state = q.new_empty(B, H, D, v.shape[-1], dtype=accumulator(q))
    return q.new_empty(*q.shape[:3], v.shape[-1]), state


@register_flop_formula(torch.ops.vbench.retention)
def _flops(q: Any, k: Any, v: Any, form: str, **_: Any) -> int:
    return 2 * macs(form, batch=q[0], heads=q[1], tokens=q[2], key_dim=q[3], value_dim=v[3])


def work(q: Tensor, k: Tensor, v: Tensor, form: str) -> Work:
    """All that is counted of one call, from the arguments of the stand-in."""
    B, H, N, D = q.shape
    E = v.shape[-1]
    call = {"batch": B, "heads": H, "tokens": N, "key_dim": D, "value_dim": E}
    return Work(
        macs=macs(form, **call),
        macs_algorithm=macs("algorithm", **call),
        flops_elementwise=elementwise_flops(form, **call),
        state_bytes=state_bytes(batch=B, heads=H, key_dim=D, value_dim=E),
        gate_bytes=8 * H,  # a decay a head, in float64
    )


def on_meta(q: Tensor, k: Tensor, v: Tensor, form: str) -> tuple[Tensor, Tensor]:
    """The result of `form` on meta tensors: shapes alone, counted by `macs`."""
    o, state = _retention(q, k, v, form)
    return o, state
