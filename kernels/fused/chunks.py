"""Operators with a matrix state, S_t = decay_t S_{t-1} + k_t v_tᵀ, in chunks of tokens.

Three launches. `summarise` finds what each chunk adds to the state and keeps of it. `carry` finds the states between
chunks. `read` finds what every token reads: from its own chunk by scores, from all others by the states, in both
directions at once. The operators differ by their `Policy`; kernels are compiled for it.

Nothing is divided by a decay. If the decay is a vector, the chunk is folded: blocks of 1, 2, 4, ... tokens are
joined in pairs, queries and keys are damped up to the common border by products of decays in [0, 1], and one product
of matrices a level fills in the scores of both directions. If the decay is a number, scores are damped by
exponentials of differences of sums in float64, which are as exact as the numbers themselves.

    L tokens a chunk, BD and BE the tiles of D and E; a row is a direction, an image and a head

Rows are the first dimension of a grid, the only one that CUDA lets grow past 65535; heads lie side by side in memory.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from vbench.kernels.fused.carry import carry
from vbench.kernels.fused.launch import cdiv, ceiling, launch, power_of_two, precision, threefold
from vbench.kernels.fused.layout import empty_output, empty_state, gates_of, present, strides, tile
from vbench.kernels.fused.parts import entering_state, entering_sums, fold, log_decays, pair_weights, tile_of
from vbench.kernels.fused.policy import Operands


@triton.jit
def summarise_kernel(
    k, v, gates,
    inputs,  # input gates, or None
    feed, keep,  # [rows chunks SIZE] and what a chunk keeps, to be filled
    # For a gradient of a stable operator:
    peaks, initial_peak,  # the peak of the state after each chunk, and of the state before the first
    token_peaks, tail,  # [rows N] the peak of each token's sums, and what replaces the ones that the normaliser sums
    scale, N, H, chunks,
    k_b, k_h, k_n, v_b, v_h, v_n, g_x, g_b, g_h, g_n, i_b, i_h, i_n,
    D: tl.constexpr, E: tl.constexpr, L: tl.constexpr, BD: tl.constexpr, BE: tl.constexpr,
    FORWARD: tl.constexpr, REVERSE: tl.constexpr, DECAY: tl.constexpr,
    OWN: tl.constexpr,  # whether a key is damped by its own token's decay too
    STABLE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    c = tl.program_id(2)
    tiles: tl.constexpr = (E + BE - 1) // BE
    d = tl.program_id(1) // tiles * BD + tl.arange(0, BD)
    e = tl.program_id(1) % tiles * BE + tl.arange(0, BE)
    row = tl.program_id(0).to(tl.int64)
    rows = tl.num_programs(0)
    b, h = row // H, row % H
    t = c * L + tl.arange(0, L)
    stop = tl.minimum(N, c * L + L)
    SIZE: tl.constexpr = D * E + (D if STABLE else 0)

    keys = tile_of(k + b * k_b + h * k_h, t, k_n, d, D, stop) * scale
    values = tile_of(v + b * v_b + h * v_h, t, v_n, e, E, stop)
    gates += b * g_b + h * g_h
    for direction in tl.static_range(2):
        if (direction == 0 and FORWARD) or (direction == 1 and REVERSE):
            to = ((rows if direction == 1 and FORWARD else 0) + row) * chunks + c
            if DECAY == "vector":
                mine = gates + (g_x if direction == 1 and FORWARD else 0)
                g = tile_of(mine, t, g_n, d, D, stop)
                if OWN:
                    keys_here = keys * tl.exp(g)
                else:
                    keys_here = keys
                if direction == 0:
                    near = tl.exp(tile_of(mine, t + 1, g_n, d, D, stop))
                    fed = keys_here * tl.cumprod(near, 0, reverse=True)
                else:
                    near = tl.exp(tile_of(mine, tl.where(t > c * L, t - 1, -1), g_n, d, D, stop))
                    fed = keys_here * tl.cumprod(near, 0)
                if tl.program_id(1) % tiles == 0:
                    tl.store(keep + to * D + d, tl.exp(tl.sum(g, 0)), mask=d < D)
            else:
                lf = log_decays(gates, t, g_n, t < stop, DECAY == "head")
                total = tl.sum(lf, 0)
                to_edge = total - tl.cumsum(lf, 0, reverse=direction == 1)
                if OWN:
                    to_edge += lf
                if STABLE and token_peaks is not None:
                    # The mirrored operator: what the chunk before it left was relative to `enters`.
                    there = ((c > 0) if direction == 1 else (c < chunks - 1)).to(tl.int32)
                    left = peaks + row * chunks + c
                    enters = tl.load(left - 1 if direction == 1 else left + 1, mask=there > 0, other=float("-inf"))
                    if initial_peak is not None:
                        enters = tl.where(there > 0, enters, tl.load(initial_peak + row))
                    m = tl.load(token_peaks + row * N + t, mask=t < stop, other=0.0)
                    to_edge += enters.to(tl.float64) - m.to(tl.float64)
                    fed = keys * tl.exp(to_edge.to(tl.float32))[:, None]
                    if tl.program_id(1) % tiles == 0:
                        weight = tl.load(tail + row * N + t, mask=t < stop, other=0.0)
                        tl.store(feed + to * SIZE + D * E + d, tl.sum(fed * weight[:, None], 0), mask=d < D)
                    if tl.program_id(1) == 0:
                        tl.store(keep + to, total + enters.to(tl.float64) - tl.load(left).to(tl.float64))
                elif STABLE:
                    i = tl.load(inputs + b * i_b + h * i_h + t * i_n, mask=t < stop, other=float("-inf"))
                    to_edge += i.to(tl.float64)
                    peak = tl.max(to_edge, 0).to(tl.float32).to(tl.float64)
                    fed = keys * tl.exp((to_edge - peak).to(tl.float32))[:, None]
                    if tl.program_id(1) % tiles == 0:
                        tl.store(feed + to * SIZE + D * E + d, tl.sum(fed, 0), mask=d < D)
                    if tl.program_id(1) == 0:
                        tl.store(keep + to * 2, total)
                        tl.store(keep + to * 2 + 1, peak)
                else:
                    fed = keys * tl.exp(to_edge.to(tl.float32))[:, None]
                    if tl.program_id(1) == 0:
                        tl.store(keep + to, total)
            added = tl.dot(tl.trans(fed), values, input_precision=PRECISION)
            mask = (d < D)[:, None] & (e < E)[None, :]
            tl.store(feed + to * SIZE + d[:, None] * E + e[None, :], added, mask=mask)


@triton.jit
def read_kernel(
    q, k, v, gates, inputs,
    bonus,  # [H D], or None
    states,  # [rows chunks SIZE], the state after each chunk
    peaks, initial, initial_tail, initial_peak, o,
    saved,  # [3 rows N] for a gradient: peaks, what o is multiplied by, and that where the sum of scores moves it
    score_scale, read_scale, eps, N, H, chunks,
    q_b, q_h, q_n, k_b, k_h, k_n, v_b, v_h, v_n, g_x, g_b, g_h, g_n, i_b, i_h, i_n, o_b, o_h, o_n,
    D: tl.constexpr, E: tl.constexpr, L: tl.constexpr, LEVELS: tl.constexpr, BD: tl.constexpr, BE: tl.constexpr,
    FORWARD: tl.constexpr, REVERSE: tl.constexpr, DECAY: tl.constexpr, SHARED: tl.constexpr, OWN: tl.constexpr,
    STABLE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    c = tl.program_id(2)
    e = tl.program_id(1) * BE + tl.arange(0, BE)
    row = tl.program_id(0).to(tl.int64)
    back = row + (tl.num_programs(0) if FORWARD else 0)  # the row of the reverse direction
    b, h = row // H, row % H
    t = c * L + tl.arange(0, L)
    stop = tl.minimum(N, c * L + L)
    within = tl.arange(0, L)
    SIZE: tl.constexpr = D * E + (D if STABLE else 0)
    q += b * q_b + h * q_h
    k += b * k_b + h * k_h
    gates += b * g_b + h * g_h

    # Where the states that enter were left, if they were.
    there_ahead = (c > 0).to(tl.int32)
    there_back = (c < chunks - 1).to(tl.int32)
    ahead_to = row * chunks + c - 1
    back_to = back * chunks + c + 1
    there = there_back if REVERSE else there_ahead  # for one direction
    to = back_to if REVERSE else ahead_to
    ahead = (states, initial, ahead_to, row, there_ahead)
    behind = (states, initial, back_to, back, there_back)

    if DECAY != "vector":  # what pairs of tokens weigh, and what the entering state weighs
        lf = log_decays(gates, t, g_n, t < stop, DECAY == "head")
        sums = tl.cumsum(lf, 0, reverse=REVERSE)
        sources = sums
        if STABLE:
            i = tl.load(inputs + b * i_b + h * i_h + t * i_n, mask=t < stop, other=float("-inf"))
            sources -= tl.where(t < stop, i.to(tl.float64), -1e30)
        pairs = pair_weights(sums, sources, REVERSE)
        if STABLE:
            peak = tl.load(peaks + to, mask=there > 0, other=float("-inf"))
            if initial_peak is not None:
                peak = tl.where(there > 0, peak, tl.load(initial_peak + row))
            m = tl.maximum(tl.max(pairs, 1), (sums + peak.to(tl.float64)).to(tl.float32))
            pairs -= m[:, None]
            entering = tl.exp(((sums + peak.to(tl.float64)) - m.to(tl.float64)).to(tl.float32))[:, None]
        else:
            entering = tl.exp(sums.to(tl.float32))[:, None]
        weights = tl.exp(pairs)

    scores = tl.zeros((L, L), tl.float32)
    read = tl.zeros((L, BE), tl.float32)
    normaliser = tl.zeros((L,), tl.float32)
    for start in range(0, D, BD):
        d = start + tl.arange(0, BD)
        queries = tile_of(q, t, q_n, d, D, stop)
        keys = tile_of(k, t, k_n, d, D, stop)
        if DECAY == "vector":
            a = tl.exp(tile_of(gates, t, g_n, d, D, stop))
            r = a if SHARED else tl.exp(tile_of(gates + g_x, t, g_n, d, D, stop))
            if bonus is not None:
                own = tl.load(bonus + h * D + d, mask=d < D, other=0.0).to(tl.float32)[None, :]
            else:
                own = 2.0 if FORWARD and REVERSE else 1.0
            diagonal = tl.sum(queries * keys * own, 1)
            scores += tl.where(within[:, None] == within[None, :], diagonal[:, None], 0.0)
            folded, from_start, from_end = fold(queries, keys, a, r, LEVELS, FORWARD, REVERSE, SHARED, OWN, PRECISION)
            scores += folded
            if FORWARD:
                s = entering_state(ahead, d, e, D, E, SIZE)
                read += tl.dot(queries * from_start, s, input_precision=PRECISION)
            if REVERSE:
                s = entering_state(behind, d, e, D, E, SIZE)
                read += tl.dot(queries * from_end, s, input_precision=PRECISION)
        else:
            scores += tl.dot(queries, tl.trans(keys), input_precision=PRECISION)
            s = entering_state((states, initial, to, row, there), d, e, D, E, SIZE)
            read += tl.dot(queries * entering, s, input_precision=PRECISION)
            if STABLE:
                n = entering_sums((states, initial_tail, to, row, there), d, D, E, SIZE)
                normaliser += tl.sum(queries * entering * n[None, :], 1)

    if DECAY != "vector":
        scores *= weights
    scores *= score_scale
    values = tile_of(v + b * v_b + h * v_h, t, v_n, e, E, stop)
    out = tl.dot(scores, values, input_precision=PRECISION) + read * read_scale
    if STABLE:  # out / (max(|den|, e^-m) + eps), both sides times e^m where m < 0
        shrink = tl.exp(tl.minimum(m, 0.0))
        floor = tl.exp(-tl.maximum(m, 0.0))
        den = tl.sum(scores, 1) + normaliser
        factor = shrink / (tl.maximum(tl.abs(den) * shrink, floor) + eps * shrink)
        out *= factor[:, None]
        if saved is not None:
            if tl.program_id(1) == 0:
                to_save = saved + row * N + t
                count = tl.num_programs(0).to(tl.int64) * N
                moved = tl.where(tl.abs(den) * shrink > floor, tl.where(den < 0, -factor, factor), 0.0)
                tl.store(to_save, m, mask=t < stop)
                tl.store(to_save + count, factor, mask=t < stop)
                tl.store(to_save + 2 * count, moved, mask=t < stop)
    mask = (t < stop)[:, None] & (e < E)[None, :]
    tl.store(o + b * o_b + h * o_h + t[:, None] * o_n + e[None, :], out.to(o.dtype.element_ty), mask=mask)


@dataclass(frozen=True, slots=True)
class States:
    """The states between chunks, in float32: `after` each chunk Float[rows chunks SIZE], and `final`.

    Those of a stable operator are relative to e^peaks, Float[rows chunks].
    """

    after: Tensor
    peaks: Tensor | None
    final: tuple[Tensor, ...]
    initial: tuple[Tensor, ...]
    chunk: int


@dataclass(frozen=True, slots=True)
class Mirror:
    """What a mirrored operator needs to know of a stable operator whose gradient it finds.

    The states; the peak of each token and what the normaliser sums, both Float[rows N].
    """

    of: States | None = None
    peaks: Tensor | None = None
    tail: Tensor | None = None


def states(x: Operands, chunk: int, warps: int, mirror: Mirror | None = None) -> States:
    """The first two launches: the states between chunks of `chunk` tokens, by programs of `warps`.

    `mirror` is given with the operands of a mirrored operator, whose keys are damped by their own decay too.
    """
    (B, H, N, D, E), policy = x.sizes, x.policy
    rows = B * H
    L = min(chunk, power_of_two(N, 16))
    chunks = cdiv(N, L)
    ways = 2 if x.both else 1
    feed = x.k.new_empty(ways * rows, chunks, D * E + (D if policy.stable else 0), dtype=torch.float32)
    gradient = mirror is not None and policy.stable
    of = mirror.of if mirror is not None and policy.stable else None
    kept = (D,) if policy.decay == "vector" else (2,) if policy.stable and not gradient else ()
    exact = torch.float32 if policy.decay == "vector" else torch.float64
    keep = x.k.new_empty(ways * rows, chunks, *kept, dtype=exact)
    BD, BE = tile(D, 32), tile(E, 64)
    launch(
        summarise_kernel,
        (rows, cdiv(D, BD) * cdiv(E, BE), chunks),
        {"k": x.k, "v": x.v, "inputs": None if gradient else x.inputs, "feed": feed, "keep": keep}
        | {"peaks": of.peaks if of else None, "initial_peak": of.initial[2] if of and of.initial else None}
        | {"token_peaks": mirror.peaks if mirror else None, "tail": mirror.tail if mirror else None}
        | {"scale": float(x.key_scale), "N": N, "H": H, "chunks": chunks}
        | strides(k=x.k, v=x.v)
        | gates_of(x, mirrored=mirror is not None),
        {"D": D, "E": E, "L": L, "BD": BD, "BE": BE, **x.ways, "DECAY": policy.decay}
        | {"OWN": mirror is not None and not policy.exclusive, "STABLE": policy.stable, "PRECISION": precision(x.k)},
        warps=warps,
        registers=ceiling(warps) if threefold(x.k) else None,
    )
    final = empty_state(x.k, x.v, ways, stable=policy.stable)
    peaks = x.k.new_empty(rows, chunks, dtype=torch.float32) if policy.stable and not gradient else None
    carry(feed, keep, peaks, x.state, final, ahead=rows * (x.direction != "reverse"))
    return States(feed, peaks, final, x.state, L)


def read(x: Operands, found: States, warps: int, *, mirrored: bool = False, saved: Tensor | None = None) -> Tensor:
    """The third launch: what every token reads, (B, H, N, E) in q.dtype.

    Args:
        mirrored: for a gradient: keys, and not queries, are damped by their own decay.
        saved: Float[3 rows N], to be filled with what the gradient of a stable operator needs.
    """
    (B, H, N, D, E), L, policy = x.sizes, found.chunk, x.policy
    o = empty_output(x.q, E)
    # Scores of a chunk take most registers. Where one product is made of three, tiles of D and E must be smaller.
    narrow = policy.decay != "vector" and threefold(x.q)
    BD, BE = (tile(D, 16), tile(E, 32)) if narrow else (tile(D, 32), tile(E, 64))
    initial, tail, peak = present(found.initial, stable=policy.stable)
    launch(
        read_kernel,
        (B * H, cdiv(E, BE), cdiv(N, L)),
        {"q": x.q, "k": x.k, "v": x.v, "inputs": x.inputs, "bonus": x.bonus, "states": found.after}
        | {"peaks": found.peaks, "initial": initial, "initial_tail": tail, "initial_peak": peak, "o": o, "saved": saved}
        | {"score_scale": float(x.query_scale * x.key_scale), "read_scale": float(x.query_scale), "eps": float(x.eps)}
        | {"N": N, "H": H, "chunks": cdiv(N, L)}
        | strides(q=x.q, k=x.k, v=x.v, o=o)
        | gates_of(x, mirrored=mirrored),
        {"D": D, "E": E, "L": L, "LEVELS": L.bit_length() - 1, "BD": BD, "BE": BE, **x.ways, "DECAY": policy.decay}
        | {"SHARED": x.gates.ndim != x.q.ndim + 1, "STABLE": policy.stable, "PRECISION": precision(x.q)}
        | {"OWN": "none" if policy.exclusive else "key" if mirrored else "query"},
        warps=warps,
        registers=ceiling(warps) if threefold(x.q) else None,
    )
    return o.to(x.q.dtype)


def attend(x: Operands, chunk: int, warps: int) -> tuple[Tensor, tuple[Tensor, ...]]:
    """An operator with a matrix state, in chunks of `chunk` tokens (a power of two), by programs of `warps`.

    Returns: o (B, H, N, E) in q.dtype, and the final state, shaped as `x.state`, in float32.
    """
    found = states(x, chunk, warps)
    return read(x, found, warps), found.final
