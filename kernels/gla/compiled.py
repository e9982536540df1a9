"""Gated linear attention, one token a step, in machine code on the CPU."""

from __future__ import annotations

from functools import partial

from torch import Tensor

from vbench.kernels.gla import chunkwise
from vbench.kernels.machine_code import Array, Strides, flat, machine_code, number, recomputed
from vbench.kernels.shapes import Direction, accumulator
from vbench.kernels.state_tiles import (
    COLUMNS,
    ROWS,
    columns_of,
    load_part,
    padded,
    read_itself,
    store_part,
    walk,
    walk_before,
)
from vbench.kernels.threads import least_items, shares, split
from vbench.kernels.token_tiles import TOKENS, read, read_exp, tile, write


def gla(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    *,
    direction: Direction = "forward",
    scale: float | None = None,
    state: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Gated linear attention, recurrent form (Yang et al. 2024, arXiv:2312.06635, equation 3), compiled.

    Arguments, results and errors are those of `reference.gla`. Gradients are those of `chunkwise.gla`.
    """
    factor = q.shape[-1] ** -0.5 if scale is None else scale

    def run(q: Tensor, k: Tensor, v: Tensor, g: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        gates = list(g) if direction == "both" else [g]
        return attend(q, k, v, gates, direction, state=state, like=q, scale=factor)

    return recomputed(run, partial(chunkwise.gla, direction=direction, scale=scale), (q, k, v, g), state)


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    gates: list[Tensor],
    direction: Direction,
    *,
    state: Tensor | None,
    like: Tensor,
    bonus: Tensor | None = None,
    scale: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """What `gla` computes. With `bonus`, also operators whose tokens read before they write.

    Args:
        gates: Float[B H N D] for each direction, or one for all.
        like: the output has its type.
        bonus: Float[H D]; if given, a token reads each state as it is before the token's own decay and its own
            k and v, and itself once, with k times this factor.
        scale: factor of q.
    """
    dtype = accumulator(like)
    B, H, N, D = q.shape
    E = v.shape[-1]
    ways = {"forward": (False,), "reverse": (True,), "both": (False, True)}[direction]
    o = q.new_empty(B, N, H, E, dtype=dtype).transpose(1, 2)  # heads side by side, as models go on with them
    s = q.new_zeros(len(ways), B, H, D, E, dtype=dtype)
    if state is not None:
        s.copy_(state.view(s.shape))
    own = (q.new_zeros(1) if bonus is None else bonus).to(dtype).reshape(-1)
    parts = shares(B * H, -(-E // COLUMNS))
    sizes, factor = (H, N, D, E, parts), number(scale, dtype)
    for way, (gate, reverse) in enumerate(zip(gates * (len(ways) // len(gates)), ways, strict=True)):
        arrays = *flat(q), *flat(k), *flat(v), *flat(gate), own.numpy(), *flat(o), s[way].view(-1).numpy()
        work = partial(_walk, *arrays, sizes, factor, bonus is not None, way > 0, reverse)
        split(work, B * H * parts, least_items(N * D * E // parts))
    return o.to(like.dtype), s if direction == "both" else s[0]


@machine_code
def _walk(
    q: Array,
    q_strides: Strides,
    k: Array,
    k_strides: Strides,
    v: Array,
    v_strides: Strides,
    g: Array,
    g_strides: Strides,
    bonus: Array,
    out: Array,
    out_strides: Strides,
    state: Array,
    sizes: tuple[int, int, int, int, int],
    scale: float,
    before: bool,
    add: bool,
    reverse: bool,
    first: int,
    stop: int,
) -> None:
    """What the tokens read in one direction, and the last state, for parts [first, stop) of the columns of all heads.

    The parts of an image go along the tokens side by side: their heads are neighbours in memory.

    q, k, g: Float[B H N D], v, out: Float[B H N E], flat; bonus: Float[H · D], state: Float[B · H · D · E].

    Args:
        sizes: H, N, D, E, and the number of parts of a head.
        before: whether a token reads before it writes. add: whether `out` has what another direction read.
    """
    (H, N, D, E, parts), one = sizes, state.dtype.type(1)
    rows, columns = padded(D, ROWS), padded(E, COLUMNS)
    queries, keys, decays = tile(rows, one), tile(rows, one), tile(rows, one)
    values, o = tile(columns, one), tile(columns, one)
    begin = first
    while begin < stop:
        b = begin // (H * parts)
        end = min(stop, (b + 1) * H * parts)
        states = [load_part(state, item, parts, D, E) for item in range(begin, end)]
        for done in range(0, N, TOKENS):
            n = min(TOKENS, N - done)
            for item in range(begin, end):
                h, s = item // parts % H, states[item - begin]
                left, width = columns_of(item % parts, parts, E)
                spot = (b, h, N - 1 - done, -1) if reverse else (b, h, done, 1)
                read(q, q_strides, spot, 0, D, scale, queries[:n])
                read(k, k_strides, spot, 0, D, one, keys[:n])
                read(v, v_strides, spot, left, width, one, values[:n])
                read_exp(g, g_strides, spot, D, decays[:n])
                o[:n] = 0
                if before and not add:
                    read_itself(queries[:n], keys[:n], bonus[h * D : h * D + D], values, o)
                for e in range(0, s.shape[1], COLUMNS):
                    for c in range(0, rows, ROWS):
                        at = c * s.shape[1] + e
                        if before:
                            walk_before(s, at, s.shape[1], queries, keys, decays, c, rows, values, e, o, columns, n)
                        else:
                            walk(s, at, s.shape[1], queries, keys, decays, c, rows, values, e, o, columns, n)
                write(o[:n], out, out_strides, spot, left, width, one, add)
        for item in range(begin, end):
            store_part(states[item - begin], state, item, parts, D, E)
        begin = end
