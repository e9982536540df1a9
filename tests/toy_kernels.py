"""Small Triton kernels for the tests of `vbench.operators.compile`, and of what holds launches to CUDA's limits."""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl
from torch import Tensor

from vbench.kernels.fused.launch import launch


@triton.jit
def product(a, b, out, absent, N, one, factor, SIDE: tl.constexpr, ROUNDED: tl.constexpr):
    """out = factor · a @ b, all (SIDE, SIDE), N of whose rows are written."""
    at = tl.arange(0, SIDE)
    tile = at[:, None] * SIDE + at[None, :]
    x = tl.load(a + tile).to(tl.float32)
    y = tl.load(b + tile * one).to(tl.float32)
    z = tl.dot(x, y, input_precision=ROUNDED) * factor
    if absent is not None:
        z += tl.load(absent)
    tl.store(out + tile, z, mask=at[:, None] < N)


@triton.jit
def double(x, out, N, BLOCK: tl.constexpr):
    """out = 2x."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out + at, tl.load(x + at, mask=at < N) * 2, mask=at < N)


@triton.jit
def far(x, step, repeats, WIDE: tl.constexpr):
    """x = 0 at the product of a program's number and `step`, and at a number that is not known before the loop ends."""
    row = tl.program_id(0)
    if WIDE:
        row = row.to(tl.int64)
    tl.store(x + row * step, 0.0)
    if repeats > 1:
        at = 1
        for _ in range(repeats):
            at += at
        tl.store(x + at, 0.0)


def multiply(a: Tensor, b: Tensor, rounded: str) -> Tensor:
    """One launch of `product`."""
    out = a.new_empty(a.shape, dtype=a.new_empty(()).float().dtype)
    args: dict[str, Any] = {"a": a, "b": b, "out": out, "absent": None, "N": len(a), "one": 1, "factor": 0.5}
    launch(product, (1,), args, {"SIDE": len(a), "ROUNDED": rounded})
    return out


def twice(x: Tensor) -> Tensor:
    """One launch of `double`."""
    out = x.new_empty(x.shape)
    launch(double, (1,), {"x": x, "out": out, "N": x.numel()}, {"BLOCK": 128})
    return out
