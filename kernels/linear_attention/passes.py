"""The Triton kernels of linear attention: a chunk of tokens is added to a summary, or reads it; a walk does both.

A row is an image and a head. D and E are cut into tiles of BD and BE; S is Float[rows D E], z is Float[rows D].
"""

from __future__ import annotations

import triton
import triton.language as tl

from vbench.kernels.fused.parts import tile_of


@triton.jit
def gather_kernel(
    k, k_norm, v, S, z, N, H, chunks,
    k_b, k_h, k_n, w_b, w_h, w_n, v_b, v_h, v_n,
    D: tl.constexpr, E: tl.constexpr, L: tl.constexpr, BD: tl.constexpr, BE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """The summary of each chunk of L tokens: S [rows chunks D E] and z [rows chunks D]."""
    c = tl.program_id(2)
    tiles: tl.constexpr = (E + BE - 1) // BE
    d = tl.program_id(1) // tiles * BD + tl.arange(0, BD)
    e = tl.program_id(1) % tiles * BE + tl.arange(0, BE)
    row = tl.program_id(0).to(tl.int64)
    b, h = row // H, row % H
    t = c * L + tl.arange(0, L)
    stop = tl.minimum(N, c * L + L)
    keys = tile_of(k + b * k_b + h * k_h, t, k_n, d, D, stop)
    values = tile_of(v + b * v_b + h * v_h, t, v_n, e, E, stop)
    added = tl.dot(tl.trans(keys), values, input_precision=PRECISION)
    to = row * chunks + c
    tl.store(S + to * D * E + d[:, None] * E + e[None, :], added, mask=(d < D)[:, None] & (e < E)[None, :])
    if tl.program_id(1) % tiles == 0:
        weights = tile_of(k_norm + b * w_b + h * w_h, t, w_n, d, D, stop)
        tl.store(z + to * D + d, tl.sum(weights, 0), mask=d < D)


@triton.jit
def read_kernel(
    q, q_norm, S, z, n, o, eps, N, H,
    q_b, q_h, q_n, w_b, w_h, w_n, o_b, o_h, o_n,
    D: tl.constexpr, E: tl.constexpr, L: tl.constexpr, BD: tl.constexpr, BE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """What the L tokens of a chunk read of a summary of n tokens; n is in memory."""
    c = tl.program_id(2)
    e = tl.program_id(1) * BE + tl.arange(0, BE)
    row = tl.program_id(0).to(tl.int64)
    b, h = row // H, row % H
    t = c * L + tl.arange(0, L)
    stop = tl.minimum(N, c * L + L)
    q += b * q_b + h * q_h
    q_norm += b * w_b + h * w_h
    found = tl.zeros((L, BE), tl.float32)
    total = tl.zeros((L,), tl.float32)
    for start in range(0, D, BD):
        d = start + tl.arange(0, BD)
        inside = (d < D)[:, None] & (e < E)[None, :]
        s = tl.load(S + row * D * E + d[:, None] * E + e[None, :], mask=inside, other=0.0)
        found += tl.dot(tile_of(q, t, q_n, d, D, stop), s, input_precision=PRECISION)
        sums = tl.load(z + row * D + d, mask=d < D, other=0.0)
        total += tl.sum(tile_of(q_norm, t, w_n, d, D, stop) * sums[None, :], 1)
    found /= (total + eps * tl.load(n))[:, None]
    mask = (t < stop)[:, None] & (e < E)[None, :]
    tl.store(o + b * o_b + h * o_h + t[:, None] * o_n + e[None, :], found.to(o.dtype.element_ty), mask=mask)


@triton.jit
def walk_kernel(
    q, q_norm, k, k_norm, v, S, z, n, o, final, final_sums, eps, N, H,
    q_b, q_h, q_n, x_b, x_h, x_n, k_b, k_h, k_n, w_b, w_h, w_n, v_b, v_h, v_n, o_b, o_h, o_n,
    D: tl.constexpr, E: tl.constexpr, BD: tl.constexpr, BE: tl.constexpr,
):  # fmt: skip
    """A head's tokens one by one, twice: they are added to the summary S and z of other tokens, then they read it.

    x_b, x_h, x_n: the strides of q_norm.
    """
    d = tl.arange(0, BD)
    e = tl.program_id(1) * BE + tl.arange(0, BE)
    row = tl.program_id(0).to(tl.int64)
    b, h = row // H, row % H
    q += b * q_b + h * q_h + d
    q_norm += b * x_b + h * x_h + d
    k += b * k_b + h * k_h + d
    k_norm += b * w_b + h * w_h + d
    v += b * v_b + h * v_h + e
    o += b * o_b + h * o_h + e
    at = row * D * E + d[:, None] * E + e[None, :]
    mask = (d < D)[:, None] & (e < E)[None, :]
    s = tl.load(S + at, mask=mask, other=0.0)
    sums = tl.load(z + row * D + d, mask=d < D, other=0.0)
    for t in range(0, N):
        key = tl.load(k + t * k_n, mask=d < D, other=0.0).to(tl.float32)
        value = tl.load(v + t * v_n, mask=e < E, other=0.0).to(tl.float32)
        s += key[:, None] * value[None, :]
        sums += tl.load(k_norm + t * w_n, mask=d < D, other=0.0).to(tl.float32)
    tl.store(final + at, s, mask=mask)
    if tl.program_id(1) == 0:
        tl.store(final_sums + row * D + d, sums, mask=d < D)
    floor = eps * tl.load(n)
    for t in range(0, N):
        query = tl.load(q + t * q_n, mask=d < D, other=0.0).to(tl.float32)
        weight = tl.load(q_norm + t * x_n, mask=d < D, other=0.0).to(tl.float32)
        found = tl.sum(query[:, None] * s, 0) / (tl.sum(weight * sums, 0) + floor)
        tl.store(o + t * o_n, found.to(o.dtype.element_ty), mask=e < E)
