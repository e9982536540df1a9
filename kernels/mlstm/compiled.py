"""The matrix LSTM, one token a step, in machine code on the CPU."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from vbench.kernels.machine_code import Array, Strides, array, flat, machine_code, number, recomputed
from vbench.kernels.mlstm import chunkwise
from vbench.kernels.mlstm.readout import EPS
from vbench.kernels.mlstm.shapes import Memory, memory
from vbench.kernels.shapes import Direction, accumulator
from vbench.kernels.state_tiles import COLUMNS, ROWS, columns_of, load_state, padded, product, store_state, walk
from vbench.kernels.threads import least_items, shares, split
from vbench.kernels.token_tiles import TOKENS, read, tile, write
from vbench.kernels.vector_math import exp


def mlstm(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    i: Tensor,
    f: Tensor,
    *,
    direction: Direction = "forward",
    scale: float | None = None,
    eps: float = EPS,
    state: Memory | None = None,
) -> tuple[Tensor, Memory]:
    """The matrix LSTM, recurrent form (Beck et al. 2024, arXiv:2405.04517, equations 15 to 21), compiled.

    Arguments, results and errors are those of `reference.mlstm`. Gradients are those of `chunkwise.mlstm`.
    """
    factor = q.shape[-1] ** -0.5 if scale is None else scale

    def run(q: Tensor, k: Tensor, v: Tensor, i: Tensor, f: Tensor, state: Memory) -> tuple[Tensor, Memory]:
        dtype = accumulator(q)
        B, H, N, D = q.shape
        E = v.shape[-1]
        h = q.new_empty(B, N, H, E, dtype=dtype).transpose(1, 2)  # heads side by side, as models go on with them
        C, n, m = (x.detach().clone(memory_format=torch.contiguous_format) for x in state)
        before = array(n, dtype).copy(), array(m, dtype).copy()  # what every part of a head begins with
        gates = array(i, torch.float64), array(logsigmoid(f.double()), torch.float64)
        parts = shares(B * H, -(-E // COLUMNS))
        arrays = *flat(q), *flat(k), *flat(v), *gates, *flat(h), C.view(-1).numpy(), *before, n.numpy(), m.numpy()
        numbers = number(factor, dtype), number(eps, dtype)
        run = partial(_walk, *arrays, (H, N, D, E, parts), *numbers, direction == "reverse")
        split(run, B * H * parts, least_items(N * D * E // parts))
        return h.to(q.dtype), (C, n, m)

    again = partial(chunkwise.mlstm, direction=direction, scale=scale, eps=eps)
    return recomputed(run, again, (q, k, v, i, f), memory(q, v, state))


@machine_code
def _walk(
    q: Array,
    q_strides: Strides,
    k: Array,
    k_strides: Strides,
    v: Array,
    v_strides: Strides,
    i: Array,
    log_f: Array,
    out: Array,
    out_strides: Strides,
    C: Array,
    n_first: Array,
    m_first: Array,
    n_last: Array,
    m_last: Array,
    sizes: tuple[int, int, int, int, int],
    scale: float,
    eps: float,
    reverse: bool,
    first: int,
    stop: int,
) -> None:
    """What the tokens read, and the last C, n and m, for parts [first, stop) of the columns of all heads.

    q, k: Float[B H N D], v, out: Float[B H N E], flat; i, log_f: float64 (B, H, N), C: Float[B · H · D · E],
    n: (B, H, D), m: (B, H). sizes: H, N, D, E, and the number of parts of a head.
    """
    (H, N, D, E, parts), one = sizes, C.dtype.type(1)
    rows = padded(D, ROWS)
    for item in range(first, stop):
        head, part = item // parts, item % parts
        b, h = head // H, head % H
        left, width = columns_of(part, parts, E)
        columns = padded(width, COLUMNS)
        s = load_state(C, head, D, E, left, width)
        queries, keys, keep, sums = tile(rows, one), tile(rows, one), tile(rows, one), tile(rows, one)
        values, o = tile(columns, one), tile(columns, one)
        gates, divisor = np.empty((3, TOKENS)), np.empty(TOKENS, C.dtype)
        n, m = np.zeros(rows, C.dtype), m_first[b, h]
        for c in range(D):
            n[c] = n_first[b, h, c]
        for done in range(0, N, TOKENS):
            count = min(TOKENS, N - done)
            spot = (b, h, N - 1 - done, -1) if reverse else (b, h, done, 1)
            read(q, q_strides, spot, 0, D, one, queries[:count])
            read(k, k_strides, spot, 0, D, scale, keys[:count])
            read(v, v_strides, spot, left, width, one, values[:count])
            m = _gate(i[b, h], log_f[b, h], spot[2], spot[3], m, gates[0], gates[1], gates[2], count)
            for t in range(count):
                _damp(gates[1, t], gates[2, t], keep[t], keys[t])
                _feed(keep[t], keys[t], sums[t - 1] if t else n, sums[t])
            for c in range(rows):
                n[c] = sums[count - 1, c]
            o[:count] = 0
            for e in range(0, columns, COLUMNS):
                for c in range(0, rows, ROWS):
                    walk(s, c * columns + e, columns, queries, keys, keep, c, rows, values, e, o, columns, count)
            for t in range(count):
                divisor[t] = product(queries[t], sums[t])
            _read_out(divisor, gates[0], eps)
            for t in range(count):
                _scale(divisor[t], o[t])
            write(o[:count], out, out_strides, spot, left, width, one, False)
        store_state(s, C, head, D, E, left, width)
        if part == 0:
            m_last[b, h] = m
            for c in range(D):
                n_last[b, h, c] = n[c]


@machine_code
def _gate(
    i: Array, log_f: Array, t: int, way: int, m: float, greatest: Array, forget: Array, feed: Array, count: int
) -> float:
    """m_t, α_t and β_t of the tokens of a tile; returns the last m.

    m is rounded to its type, because it cancels in h. The exponents use the rounded m, in float64.
    """
    last = m
    for step in range(count):
        at = t + way * step
        forget[step] = log_f[at] + last
        last = type(m)(max(forget[step], i[at]))
        greatest[step] = last
        forget[step] -= last
        feed[step] = i[at] - last
    for step in range(count):
        forget[step], feed[step] = exp(forget[step]), exp(feed[step])
    return last


@machine_code
def _damp(forget: float, feed: float, keep: Array, key: Array) -> None:
    """keep = α_t for all rows, k = β_t k."""
    share, factor = keep.dtype.type(forget), keep.dtype.type(feed)
    for c in range(keep.size):
        keep[c] = share
        key[c] *= factor


@machine_code
def _feed(keep: Array, key: Array, before: Array, after: Array) -> None:
    """n_t from n_{t-1}."""
    for c in range(after.size):
        after[c] = keep[c] * before[c] + key[c]


@machine_code
def _read_out(den: Array, m: Array, eps: float) -> None:
    """In place of n · q, what the read-out is multiplied by: `readout.normalise`, where all is said of it."""
    zero = den.dtype.type(0)
    for t in range(den.size):
        last = den.dtype.type(m[t])
        shrink, floor = exp(min(last, zero)), exp(-max(last, zero))
        den[t] = shrink / (max(abs(den[t]) * shrink, floor) + eps * shrink)


@machine_code
def _scale(factor: float, x: Array) -> None:
    for e in range(x.size):
        x[e] *= factor
