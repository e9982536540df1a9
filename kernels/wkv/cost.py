"""Work of Bi-WKV in multiply-accumulates (MACs), and the meta device's stand-in.

A form run on meta tensors computes nothing: it answers with one operator, `vbench::wkv`, that knows the
result's shape and what the form would have cost. A counter sees that operator and asks `macs`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula
from vbench.kernels.shapes import accumulator
from vbench.kernels.wkv.shapes import Reading
from vbench.kernels.wkv.sums import segment


def macs(form: str, *, batch: int, tokens: int, channels: int, reading: Reading = "paper", chunk: int = 8) -> int:
    """MACs of one call.

    Every sum has a numerator and a denominator, so a token that is added to a sum costs two MACs a channel.
    All of them are elementwise, so a counter of matrix products sees none. Exponentials, maxima and the
    quotient are no MACs.

    Args:
        form: "algorithm" is the recurrence itself (a token is added to two sums in two directions), whatever
            the reading; the others count what these forms execute.
    """
    added = 2 * batch * channels
    S = segment(tokens)
    if form == "algorithm" or (form == "reference" and reading == "paper"):
        return added * 2 * tokens
    if form == "reference":  # besides, the sums inside a segment, and the growing ones without its first token
        return added * (4 * tokens - -(-tokens // S))
    if form == "quadratic":
        return added * tokens * tokens * (1 if reading == "paper" else 2)
    if reading == "kernel":
        segments = -(-tokens // S)
        return added * (2 * _carried(tokens, chunk) + segments * (_carried(S, chunk) + _carried(S - 1, chunk)))
    parts = [(tokens // chunk, chunk), (1, tokens % chunk)]
    return added * sum(n * L * (L + 4) + 2 * _carried(n, chunk) for n, L in parts if n * L)


def _carried(n: int, chunk: int) -> int:
    """Sources that the scan adds up for the sums entering n tokens."""
    if n <= chunk:
        return (n + 1) ** 2
    whole, rest = divmod(n, chunk)
    found = whole * chunk * (chunk + 2) + _carried(whole, chunk)
    return found + (_carried(rest, chunk) if rest else 0)


@torch.library.custom_op("vbench::wkv", mutates_args=())
def _wkv(k: Tensor, v: Tensor, reading: str, form: str) -> tuple[Tensor, Tensor]:
    raise RuntimeError("vbench::wkv stands in on the meta device only; call a form")


@_wkv.register_fake
def _(k: Tensor, v: Tensor, reading: str, form: str) -> tuple[Tensor, Tensor]:
    B, _, C = k.shape
    return torch.empty_like(k), k.new_empty(2, 3, B, C, dtype=accumulator(k))


@register_flop_formula(torch.ops.vbench.wkv)
def _flops(k: Any, v: Any, reading: Reading, form: str, **_: Any) -> int:
    return 2 * macs(form, batch=k[0], tokens=k[1], channels=k[2], reading=reading)


def on_meta(k: Tensor, v: Tensor, reading: Reading, form: str) -> tuple[Tensor, Tensor]:
    """The result of `form` on meta tensors: shapes alone, counted by `macs`."""
    y, state = _wkv(k, v, reading, form)
    return y, state
