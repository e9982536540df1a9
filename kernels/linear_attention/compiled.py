"""Linear attention, one token a step, in machine code on the CPU."""

from __future__ import annotations

from functools import partial
from typing import Any

from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from torch import Tensor

from vbench.kernels.linear_attention import summary
from vbench.kernels.linear_attention.shapes import EPS, Summary, others
from vbench.kernels.machine_code import Array, Strides, flat, machine_code, number, recomputed
from vbench.kernels.registers import WHOLE, Vectors
from vbench.kernels.shapes import accumulator
from vbench.kernels.state_tiles import COLUMNS, ROWS, load_state, padded, product, store_state
from vbench.kernels.threads import least_items, split
from vbench.kernels.token_tiles import TOKENS, read, tile, write

SEGMENT = 1024  # tokens whose summary is gathered by itself, so that threads share the tokens of a head


def linear_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    q_norm: Tensor | None = None,
    k_norm: Tensor | None = None,
    eps: float = EPS,
    state: Summary | None = None,
) -> tuple[Tensor, Summary]:
    """Linear attention, two walks along the tokens (Katharopoulos et al. 2020, arXiv:2006.16236, equation 5), compiled.

    Arguments, results and errors are those of `reference.linear_attention`. Gradients are those of
    `summary.linear_attention`.
    """

    def run(q: Tensor, k: Tensor, v: Tensor, q_norm: Any, k_norm: Any, state: Summary) -> tuple[Tensor, Summary]:
        dtype = accumulator(q)
        B, H, N, D = q.shape
        E, segments = v.shape[-1], -(-N // SEGMENT)
        sizes, items, work = (H, N, D, E, segments), B * H * segments, least_items(SEGMENT * D * E)
        S, z = (q.new_zeros(segments, B, H, *rest, dtype=dtype) for rest in ((D, E), (D,)))
        written = *flat(k), *flat(k if k_norm is None else k_norm), *flat(v), S.view(-1).numpy(), z.view(-1, D).numpy()
        split(partial(_gather, *written, sizes), items, work)
        S, z, n = S.sum(0).add_(state[0]), z.sum(0).add_(state[1]), state[2] + N
        o = q.new_empty(B, N, H, E, dtype=dtype).transpose(1, 2)  # heads side by side, as models go on with them
        given = *flat(q), *flat(q if q_norm is None else q_norm), S.view(-1).numpy(), z.view(-1, D).numpy()
        floor = number(eps * float(n), dtype)
        split(partial(_read, *given, *flat(o), floor, sizes), items, work)
        return o.to(q.dtype), (S, z, n)

    def again(
        q: Tensor, k: Tensor, v: Tensor, q_norm: Any, k_norm: Any, state: Summary
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        return summary.linear_attention(q, k, v, q_norm=q_norm, k_norm=k_norm, eps=eps, state=state)

    return recomputed(run, again, (q, k, v, q_norm, k_norm), others(q, v, state))


@machine_code
def _gather(
    k: Array,
    k_strides: Strides,
    k_norm: Array,
    k_norm_strides: Strides,
    v: Array,
    v_strides: Strides,
    S: Array,
    z: Array,
    sizes: tuple[int, int, int, int, int],
    first: int,
    stop: int,
) -> None:
    """The summaries of segments [first, stop) of all heads.

    k, k_norm: Float[B H N D], v: Float[B H N E], flat; S: Float[segments · B · H · D · E], and
    z: Float[segments · B · H, D]. sizes: H, N, D, E, and the number of segments of a head.
    """
    (H, N, D, E, segments), one = sizes, S.dtype.type(1)
    rows, columns, heads = padded(D, ROWS), padded(E, COLUMNS), len(z) // segments
    for item in range(first, stop):
        head, segment = item // segments, item % segments
        b, h, place = head // H, head % H, segment * heads + head
        s, total = load_state(S, place, D, E, 0, E), z[place]
        keys, weights, values = tile(rows, one), tile(D, one), tile(columns, one)
        last = min(N, (segment + 1) * SEGMENT)
        for t in range(segment * SEGMENT, last, TOKENS):
            n, spot = min(TOKENS, last - t), (b, h, t, 1)
            read(k, k_strides, spot, 0, D, one, keys[:n])
            read(k_norm, k_norm_strides, spot, 0, D, one, weights[:n])
            read(v, v_strides, spot, 0, E, one, values[:n])
            for e in range(0, columns, COLUMNS):
                for c in range(0, rows, ROWS):
                    _write_block(s, c * columns + e, columns, keys, c, rows, values, e, columns, n)
            for i in range(n):
                weight = weights[i]
                for c in range(D):
                    total[c] += weight[c]
        store_state(s, S, place, D, E, 0, E)


@machine_code
def _read(
    q: Array,
    q_strides: Strides,
    q_norm: Array,
    q_norm_strides: Strides,
    S: Array,
    z: Array,
    out: Array,
    out_strides: Strides,
    floor: float,
    sizes: tuple[int, int, int, int, int],
    first: int,
    stop: int,
) -> None:
    """What the tokens of segments [first, stop) of all heads read.

    q, q_norm: Float[B H N D], out: Float[B H N E], flat; S: Float[B · H · D · E], z: Float[B · H, D]. floor: n ε.
    """
    (H, N, D, E, segments), one = sizes, S.dtype.type(1)
    rows, columns = padded(D, ROWS), padded(E, COLUMNS)
    for item in range(first, stop):
        head, segment = item // segments, item % segments
        b, h = head // H, head % H
        s, total = load_state(S, head, D, E, 0, E), z[head]
        queries, weights, o = tile(rows, one), tile(D, one), tile(columns, one)
        last = min(N, (segment + 1) * SEGMENT)
        for t in range(segment * SEGMENT, last, TOKENS):
            n, spot = min(TOKENS, last - t), (b, h, t, 1)
            read(q, q_strides, spot, 0, D, one, queries[:n])
            read(q_norm, q_norm_strides, spot, 0, D, one, weights[:n])
            o[:n] = 0
            for e in range(0, columns, COLUMNS):
                for c in range(0, rows, ROWS):
                    _read_block(s, c * columns + e, columns, queries, c, rows, o, e, columns, n)
            for i in range(n):
                share, found = one / (product(weights[i], total) + floor), o[i]
                for e in range(E):
                    found[e] *= share
            write(o[:n], out, out_strides, spot, 0, E, one, False)


def _along(reading: bool) -> Any:
    """The function that takes one block of a summary along the tokens of a tile, in the processor's registers.

    Args:
        reading: the tokens read the block; or else they are added to it.
    """

    @intrinsic
    def along(context, state, at, stride, rows, row, step, columns, column, width, tokens):  # type: ignore[no-untyped-def]
        """state[at + r·stride + e]: the block; rows[t·step + row + r], columns[t·width + column + e]: the tokens.

        A token: columns[e] += Σ_r rows[r]·S[r, e] if it reads, or else S[r, e] += rows[r]·columns[e].
        """

        def generate(target: Any, builder: Any, signature: Any, arguments: Any) -> None:
            by = Vectors(target, builder, state.dtype)
            s, s_at, s_stride, down, first, tile_step, across, e_at, e_step, count = by.values(
                signature.args, arguments
            )
            vectors = COLUMNS // by.lanes
            held, homes = [], []
            for r in range(ROWS):
                for n in range(vectors):
                    index = builder.add(s_at, builder.mul(s_stride, WHOLE(r)))
                    homes.append(by.place(s, builder.add(index, WHOLE(n * by.lanes))))
                    held.append(cgutils.alloca_once(builder, by.type))  # LLVM makes it a register
                    builder.store(by.load(homes[-1]), held[-1])
            with cgutils.for_range(builder, count) as loop:
                token = builder.add(builder.mul(loop.index, tile_step), first)
                begin = builder.add(builder.mul(loop.index, e_step), e_at)
                spots = [by.place(across, builder.add(begin, WHOLE(n * by.lanes))) for n in range(vectors)]
                found = [by.load(spot) for spot in spots]
                for r in range(ROWS):
                    factor = by.number(down, builder.add(token, WHOLE(r)))
                    for n in range(vectors):
                        register = held[r * vectors + n]
                        if reading:
                            found[n] = by.fma(factor, builder.load(register), found[n])
                        else:
                            builder.store(by.fma(factor, found[n], builder.load(register)), register)
                if reading:
                    for spot, sums in zip(spots, found, strict=True):
                        by.store(sums, spot)
            if not reading:
                for register, home in zip(held, homes, strict=True):
                    by.store(builder.load(register), home)

        given = (state, at, stride, rows, row, step, columns, column, width, tokens)
        return types.void(*(each if isinstance(each, types.Array) else types.int64 for each in given)), generate

    return along


_write_block, _read_block = _along(reading=False), _along(reading=True)
