"""Work of gated linear attention in multiply-accumulates (MACs), and the meta device's stand-in.

A form run on meta tensors computes nothing: it answers with one operator, `vbench::gla`, that knows the
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
from vbench.kernels.shapes import Direction
from vbench.kernels.work import Work

POLICY = Policy("vector")


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
    if form in ("fused", "fused_recurrent"):
        length = chunk_of("gla", form, tokens, batch * heads)
        return fused.macs(POLICY, fused.Call(batch, heads, tokens, key_dim, value_dim, directions, length))
    if form in ("algorithm", "reference", "compiled"):
        return batch * heads * tokens * directions * 2 * state
    if form == "quadratic":  # every pair, and the final state
        return batch * heads * directions * (tokens * tokens * (key_dim + value_dim) + tokens * state)
    total = 0
    for chunks, length in _tiles(tokens, chunk):
        triangle = length * (length - 1) // 2 * key_dim  # scores off the diagonal, one direction
        within = directions * triangle + length * key_dim + length * length * value_dim
        total += chunks * (within + directions * 2 * length * state)
    return batch * heads * total


def elementwise_flops(
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
    """Pointwise FLOPs of one call, in none of `macs`.

    Args:
        form: "algorithm" and "reference": a token's decay is an exponential of key_dim, damps the state (key_dim ·
            value_dim) and its query is scaled. "quadratic": a pair is a difference, an exponential and a product of
            key_dim. "chunkwise": folding a chunk damps half the keys and half the queries at each of log₂ chunk joins.
    """
    D, E, joined = key_dim, value_dim, (directions - 1) * value_dim
    if form in ("fused", "fused_recurrent"):
        length = chunk_of("gla", form, tokens, batch * heads)
        return fused.elementwise_flops(POLICY, fused.Call(batch, heads, tokens, D, E, directions, length))
    if form in ("algorithm", "reference", "compiled"):
        return batch * heads * tokens * (directions * (2 * D + D * E) + joined)
    if form == "quadratic":
        return batch * heads * tokens * (directions * D * (3 * tokens + 5) + D + joined)
    total = 0
    for chunks, length in _tiles(tokens, chunk):
        folded = length * (length.bit_length() - 1) + length - 1  # half the queries and keys a join; decays
        way = D * (2 * length + folded) + 2 * D * E  # an exponential, a damped query; the state that is carried
        total += chunks * (directions * way + length * (D + 1 + joined))
    return batch * heads * total


def _tiles(tokens: int, chunk: int) -> list[tuple[int, int]]:
    """(chunks, tokens a chunk); what is left over is filled up to a power of two."""
    whole, tail = divmod(tokens, chunk)
    return [(whole, chunk), *([(1, 1 << (tail - 1).bit_length())] if tail else [])]


def state_bytes(*, batch: int, heads: int, key_dim: int, value_dim: int, directions: int) -> int:
    """Bytes of the state: key_dim · value_dim numbers of float32 a head and direction."""
    return 4 * directions * batch * heads * key_dim * value_dim


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


def work(q: Tensor, k: Tensor, v: Tensor, directions: int, form: str) -> Work:
    """All that is counted of one call, from the arguments of the stand-in."""
    B, H, N, D = q.shape
    E = v.shape[-1]
    call = {"batch": B, "heads": H, "tokens": N, "key_dim": D, "value_dim": E, "directions": directions}
    return Work(
        macs=macs(form, **call),
        macs_algorithm=macs("algorithm", **call),
        flops_elementwise=elementwise_flops(form, **call),
        state_bytes=state_bytes(batch=B, heads=H, key_dim=D, value_dim=E, directions=directions),
        gate_bytes=4 * directions * q.numel(),  # float32
    )


def on_meta(q: Tensor, k: Tensor, v: Tensor, direction: Direction, form: str) -> tuple[Tensor, Tensor]:
    """The result of `form` on meta tensors: shapes alone, counted by `macs`."""
    o, state = _gla(q, k, v, 2 if direction == "both" else 1, form)
    return o, state if direction == "both" else state[0]
