"""Work of the matrix LSTM in multiply-accumulates (MACs), and the meta device's stand-in.

A form run on meta tensors computes nothing: it answers with one operator, `vbench::mlstm`, that knows the
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
from vbench.kernels.mlstm.shapes import Memory
from vbench.kernels.work import Work

POLICY = Policy("gate", stable=True)


def macs(form: str, *, batch: int, heads: int, tokens: int, key_dim: int, value_dim: int, chunk: int = 64) -> int:
    """MACs of one call, in one direction.

    Args:
        form: "algorithm" is the recurrence itself: a token updates and reads C, key_dim · value_dim each,
            and n, key_dim each. The others count the products that these forms execute from an empty
            state. Gates, weights, and sums of scores or keys are not MACs.
    """
    state = key_dim * (value_dim + 1)
    if form in ("fused", "fused_recurrent"):
        length = chunk_of("mlstm", form, tokens, batch * heads)
        return fused.macs(POLICY, fused.Call(batch, heads, tokens, key_dim, value_dim, 1, length))
    if form in ("algorithm", "reference", "compiled"):
        return batch * heads * tokens * 2 * state
    fed = key_dim * value_dim  # n is fed by a sum of keys
    if form == "quadratic":  # every pair, and the final state
        return batch * heads * tokens * (tokens * (key_dim + value_dim) + fed)
    whole, tail = divmod(tokens, chunk)
    pairs = whole * chunk**2 + tail**2
    return batch * heads * (pairs * (key_dim + value_dim) + tokens * (state + fed))


def elementwise_flops(
    form: str, *, batch: int, heads: int, tokens: int, key_dim: int, value_dim: int, chunk: int = 64
) -> int:
    """Pointwise FLOPs of one call, in none of `macs`.

    The quotient that is read out costs value_dim and 11 more a token and head: two exponentials of the stabiliser
    with their bounds, and the divisor.

    Args:
        form: "algorithm" and "reference": a token damps C and n, scales its key, and has 9 for its gates.
            "quadratic": a pair is a sum, a maximum, a difference, an exponential, a product and a sum again.
            "chunkwise": a pair of a chunk is a sum, an exponential, a product and a sum; a chunk carries C and n.
    """
    D, E = key_dim, value_dim
    if form in ("fused", "fused_recurrent"):
        length = chunk_of("mlstm", form, tokens, batch * heads)
        return fused.elementwise_flops(POLICY, fused.Call(batch, heads, tokens, D, E, 1, length))
    read = E + 11
    if form in ("algorithm", "reference", "compiled"):
        return batch * heads * tokens * (D * (E + 1) + D + 9 + read)
    if form == "quadratic":
        return batch * heads * (tokens * (6 * tokens + 3 * D + 8 + read) + 2 * D * E)
    whole, tail = divmod(tokens, chunk)
    chunks, pairs = whole + bool(tail), whole * chunk**2 + tail**2
    token = 15 + 4 * D + E + 1 + read  # gates; keys scaled, fed and summed, queries damped; two sums joined
    return batch * heads * (4 * pairs + tokens * token + chunks * (2 * D * (E + 1) + 4))


def state_bytes(*, batch: int, heads: int, key_dim: int, value_dim: int) -> int:
    """Bytes of C, n and m: key_dim · value_dim, key_dim and one number of float32 a head."""
    return 4 * batch * heads * (key_dim * value_dim + key_dim + 1)


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
        gate_bytes=2 * B * H * N * q.element_size(),  # i and f
    )


def on_meta(q: Tensor, k: Tensor, v: Tensor, form: str) -> tuple[Tensor, Memory]:
    """The result of `form` on meta tensors: shapes alone, counted by `macs`."""
    h, *state = _mlstm(q, k, v, form)
    C, n, m = state
    return h, (C, n, m)
