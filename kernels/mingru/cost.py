"""Work of minGRU's recurrence in multiply-accumulates (MACs), and the meta device's stand-in.

A form run on meta tensors computes nothing: it answers with one operator, `vbench::mingru`, that knows the
result's shape and what the form would have cost. A counter sees that operator and asks `macs`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from vbench.kernels.fused.tiling import cut, joins
from vbench.kernels.mingru.shapes import CHUNK, GROUP, span_of
from vbench.kernels.shapes import accumulator
from vbench.kernels.work import Work

GATES = 7  # pointwise FLOPs of `gates.coefficients`, a token and channel


def macs(form: str, *, batch: int, tokens: int, channels: int, group: int = GROUP) -> int:
    """MACs of one call, in one direction.

    Args:
        form: "algorithm" is the recurrence itself, elementwise: one MAC, keep · h + feed, a token and channel.
            "quadratic" counts every pair of tokens. "scan" counts the MACs of its walks, on all levels; "fused" those
            of its folds and walks, in tiles as the tuning table has them for any device.
            Sigmoids, the product z · g(a) and products of gates among themselves are not MACs.
        group: as in `scan.mingru`.
    """
    if form in ("algorithm", "reference", "compiled", "fused_recurrent"):
        return batch * tokens * channels
    if form == "quadratic":
        return batch * tokens * tokens * channels
    if form == "fused":
        return batch * channels * joins("mingru", batch, tokens)
    span = span_of(batch, channels, group)
    return batch * channels * (tokens // span * _scan_steps(span) + _scan_steps(tokens % span))


def _scan_steps(tokens: int) -> int:
    """Tokens and chunks that `scan` steps over: all but the first of each chunk, the chunks, and all again."""
    if tokens <= 2 * CHUNK:
        return tokens
    chunks = -(-tokens // CHUNK)
    return chunks * (2 * CHUNK - 1) + _scan_steps(chunks)


def elementwise_flops(form: str, *, batch: int, tokens: int, channels: int, group: int = GROUP) -> int:
    """Pointwise FLOPs of one call, in one direction, in none of `macs`.

    Args:
        form: all take 7 a token and channel for keep and feed, which is all of "algorithm" and "reference".
            "quadratic" has running sums of logarithms, and a difference and an exponential a pair. "scan" joins
            the gates of a chunk, a product for all its tokens but one, on all levels. "fused" has a product for
            each MAC, and in more than one tile finds keep and feed twice.
        group: as in `scan.mingru`.
    """
    gates = GATES * tokens
    if form in ("algorithm", "reference", "compiled", "fused_recurrent"):
        return batch * channels * gates
    if form == "fused":
        how = cut("mingru", batch, tokens)
        padded = how.tiles * how.rows * how.steps
        return batch * channels * (GATES * padded * (1 if how.tiles == 1 else 2) + joins("mingru", batch, tokens))
    if form == "quadratic":
        return batch * channels * (gates + 4 * tokens + 2 * tokens * tokens)
    span = span_of(batch, channels, group)
    return batch * channels * (gates + tokens // span * _scan_joins(span) + _scan_joins(tokens % span))


def _scan_joins(tokens: int) -> int:
    """Products of two gates that `scan` takes."""
    if tokens <= 2 * CHUNK:
        return 0
    chunks = -(-tokens // CHUNK)
    return chunks * (CHUNK - 1) + _scan_joins(chunks)


def state_bytes(*, batch: int, channels: int) -> int:
    """Bytes of the state: a number of float32 a channel."""
    return 4 * batch * channels


@torch.library.custom_op("vbench::mingru", mutates_args=())
def _mingru(a: Tensor, form: str) -> tuple[Tensor, Tensor]:
    raise RuntimeError("vbench::mingru stands in on the meta device only; call a form")


@_mingru.register_fake
def _(a: Tensor, form: str) -> tuple[Tensor, Tensor]:
    return torch.empty_like(a), a.new_empty(a.shape[0], a.shape[2], dtype=accumulator(a))


@register_flop_formula(torch.ops.vbench.mingru)
def _flops(a: Any, form: str, **_: Any) -> int:
    return 2 * macs(form, batch=a[0], tokens=a[1], channels=a[2])


def work(a: Tensor, form: str) -> Work:
    """All that is counted of one call, from the arguments of the stand-in."""
    B, N, C = a.shape
    return Work(
        macs=macs(form, batch=B, tokens=N, channels=C),
        macs_algorithm=macs("algorithm", batch=B, tokens=N, channels=C),
        flops_elementwise=elementwise_flops(form, batch=B, tokens=N, channels=C),
        state_bytes=state_bytes(batch=B, channels=C),
        gate_bytes=a.numel() * a.element_size(),  # b
    )


def on_meta(a: Tensor, form: str) -> tuple[Tensor, Tensor]:
    """The result of `form` on meta tensors: shapes alone, counted by `macs`."""
    h, state = _mingru(a, form)
    return h, state
