"""Retention, one token a step, in machine code on the CPU."""

from __future__ import annotations

from functools import partial

from torch import Tensor

from vbench.kernels.machine_code import Array, Strides, flat, machine_code, number, recomputed
from vbench.kernels.retention import chunkwise
from vbench.kernels.shapes import accumulator
from vbench.kernels.state_tiles import COLUMNS, ROWS, columns_of, load_state, padded, store_state, walk_lost
from vbench.kernels.threads import least_items, shares, split
from vbench.kernels.token_tiles import TOKENS, read, tile, write


def retention(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, *, scale: float | None = None, state: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Retention, recurrent form (Sun et al. 2023, arXiv:2307.08621, equation 1, with real decays), compiled.

    Arguments, results and errors are those of `reference.retention`. Gradients are those of
    `chunkwise.retention`.
    """
    factor = q.shape[-1] ** -0.5 if scale is None else scale

    def run(q: Tensor, k: Tensor, v: Tensor, g: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        dtype = accumulator(q)
        B, H, N, D = q.shape
        E = v.shape[-1]
        o = q.new_empty(B, N, H, E, dtype=dtype).transpose(1, 2)  # heads side by side, as models go on with them
        s = q.new_zeros(B, H, D, E, dtype=dtype)
        if state is not None:
            s.copy_(state)
        lost = g.detach().double().expm1().to(dtype)  # more digits than the decay has, where it is near 1
        parts = shares(B * H, -(-E // COLUMNS))
        arrays = *flat(q), *flat(k), *flat(v), lost.numpy(), *flat(o), s.view(-1).numpy()
        work = partial(_walk, *arrays, (H, N, D, E, parts), number(factor, dtype))
        split(work, B * H * parts, least_items(N * D * E // parts))
        return o.to(q.dtype), s

    return recomputed(run, partial(chunkwise.retention, scale=scale), (q, k, v, g), state)


@machine_code
def _walk(
    q: Array,
    q_strides: Strides,
    k: Array,
    k_strides: Strides,
    v: Array,
    v_strides: Strides,
    lost: Array,
    out: Array,
    out_strides: Strides,
    state: Array,
    sizes: tuple[int, int, int, int, int],
    scale: float,
    first: int,
    stop: int,
) -> None:
    """What the tokens read, and the last state, for parts [first, stop) of the columns of all heads.

    q, k: Float[B H N D], v, out: Float[B H N E], flat; lost: Float[H], state: Float[B · H · D · E]. sizes: H, N, D, E,
    and the number of parts of a head.
    """
    (H, N, D, E, parts), one = sizes, state.dtype.type(1)
    rows = padded(D, ROWS)
    for item in range(first, stop):
        head = item // parts
        b, h = head // H, head % H
        left, width = columns_of(item % parts, parts, E)
        columns = padded(width, COLUMNS)
        s = load_state(state, head, D, E, left, width)
        queries, keys, loses = tile(rows, one), tile(rows, one), tile(rows, one)
        values, o = tile(columns, one), tile(columns, one)
        loses[:] = lost[h]
        for t in range(0, N, TOKENS):
            n, spot = min(TOKENS, N - t), (b, h, t, 1)
            read(q, q_strides, spot, 0, D, scale, queries[:n])
            read(k, k_strides, spot, 0, D, one, keys[:n])
            read(v, v_strides, spot, left, width, one, values[:n])
            o[:n] = 0
            for e in range(0, columns, COLUMNS):
                for c in range(0, rows, ROWS):
                    walk_lost(s, c * columns + e, columns, queries, keys, loses, c, rows, values, e, o, columns, n)
            write(o[:n], out, out_strides, spot, left, width, one, False)
        store_state(s, state, head, D, E, left, width)
