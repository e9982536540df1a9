"""Gradients of family A, in chunks.

What a gradient needs of other chunks is again a matrix state: the forward one, and one of the mirrored operator,
whose keys are the queries and whose values are the output's gradients, met in the opposite order; `states` finds
both. Then each chunk is on its own. For vector decays the gradient of v is the mirrored operator's output, and `pull`
takes those of q, k and the decays from the same fold as the forward pass; for decays that are numbers, `pull_gates`
takes them all from one matrix of weights.

The gradient of a log decay is the sum over all pairs of tokens that it stands between. Inside a chunk it is a running
sum of what rows and columns of pairs contribute; beyond it, the product of the two states at the border, exactly.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.nn.functional import logsigmoid, pad

from vbench.kernels.fused.chunks import States, _entering, _log_decays, _met, _tile, _widen, read, states
from vbench.kernels.fused.launch import cdiv, ceiling, launch, precision, threefold
from vbench.kernels.fused.layout import empty_like, gate_strides, rows_of_tokens, strides, tile
from vbench.kernels.fused.policy import Policy
from vbench.kernels.shapes import Direction

OPPOSITE: dict[Direction, Direction] = {"forward": "reverse", "reverse": "forward", "both": "both"}


@triton.jit
def _pairs(o_grad, v, t, o_n, v_n, stop, L: tl.constexpr, E: tl.constexpr, BE: tl.constexpr, PRECISION: tl.constexpr):
    """What each pair of tokens is worth to the loss, had it a score of 1: Float[L L], rows are queries."""
    pairs = tl.zeros((L, L), tl.float32)
    for start in range(0, E, BE):
        e = start + tl.arange(0, BE)
        grads = _tile(o_grad, t, o_n, e, E, stop)
        values = _tile(v, t, v_n, e, E, stop)
        pairs += tl.dot(grads, tl.trans(values), input_precision=PRECISION)
    return pairs


@triton.jit
def _through(
    x,
    step,
    t,
    stop,
    left,
    initial,
    to,
    row,
    there,
    d,
    D: tl.constexpr,
    E: tl.constexpr,
    SIZE: tl.constexpr,
    L: tl.constexpr,
    BD: tl.constexpr,
    BE: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """x (tokens of E numbers) times the transposed state that enters a chunk: Float[L BD]."""
    found = tl.zeros((L, BD), tl.float32)
    for start in range(0, E, BE):
        e = start + tl.arange(0, BE)
        s = _entering(left, initial, to, row, there, d, e, D, E, SIZE)
        found += tl.dot(_tile(x, t, step, e, E, stop), tl.trans(s), input_precision=PRECISION)
    return found


@triton.jit
def _border(
    left,
    initial,
    to,
    row,
    there,
    back,
    back_initial,
    to_next,
    next_row,
    there_next,
    d,
    D: tl.constexpr,
    E: tl.constexpr,
    SIZE: tl.constexpr,
    BD: tl.constexpr,
    BE: tl.constexpr,
):
    """The state that enters a chunk times the gradient of the one that leaves it, summed over E: Float[BD].

    It is what all pairs of a token before the chunk and one after it are worth, were nothing lost in the chunk.
    """
    total = tl.zeros((BD,), tl.float32)
    for start in range(0, E, BE):
        e = start + tl.arange(0, BE)
        s = _entering(left, initial, to, row, there, d, e, D, E, SIZE)
        total += tl.sum(s * _entering(back, back_initial, to_next, next_row, there_next, d, e, D, E, SIZE), 1)
    return total


@triton.jit
def _neighbours(x, by: tl.constexpr, L: tl.constexpr, BD: tl.constexpr):
    """x of the token `by` further on, 0 beyond the chunk: Float[L BD] -> Float[L BD]."""
    at = tl.arange(0, L) + by
    there = (at >= 0) & (at < L)
    found = tl.gather(x, tl.broadcast_to(tl.where(there, at, 0)[:, None], (L, BD)), 0)
    return tl.where(there[:, None], found, 0.0)


@triton.jit
def _spanned(
    inside,  # of pairs within the chunk: rows, the later tokens of a pair in the order of travel
    inside_columns,
    entering,  # of pairs of a token and one before the chunk
    leaving,  # or after it
    beyond,  # of pairs of tokens before and after it
    L: tl.constexpr,
    BD: tl.constexpr,
    REVERSE: tl.constexpr,
    EXCLUSIVE: tl.constexpr,
):
    """What the pairs are worth that each token's decay stands between: Float[L BD].

    A decay stands between a token before it and one from it on, or, if `EXCLUSIVE`, after it. Sums run away from a
    token, and no large term is taken off again.
    """
    on: tl.constexpr = -1 if REVERSE else 1
    if EXCLUSIVE:
        inside = _neighbours(inside, on, L, BD)
        entering = _neighbours(entering, on, L, BD)
    found = tl.cumsum(inside - inside_columns + entering, 0, reverse=not REVERSE)
    return found + tl.cumsum(_neighbours(leaving, -on, L, BD), 0, reverse=REVERSE) + beyond


@triton.jit
def pull_kernel(
    q,
    k,
    v,
    o_grad,
    gates,
    bonus,
    left,  # [rows chunks D·E], the states after each chunk
    initial,
    back,  # those of the mirrored operator, whose rows of two directions are the other way round
    back_initial,
    q_grad,
    k_grad,
    gates_grad,
    bonus_grad,  # [rows chunks D], or None
    scale,
    N,
    H,
    chunks,
    q_b,
    q_h,
    q_n,
    k_b,
    k_h,
    k_n,
    v_b,
    v_h,
    v_n,
    o_b,
    o_h,
    o_n,
    g_x,
    g_b,
    g_h,
    g_n,
    i_b,
    i_h,
    i_n,
    dq_b,
    dq_h,
    dq_n,
    dk_b,
    dk_h,
    dk_n,
    dg_x,
    dg_b,
    dg_h,
    dg_n,
    D: tl.constexpr,
    E: tl.constexpr,
    L: tl.constexpr,
    LEVELS: tl.constexpr,
    BD: tl.constexpr,
    BE: tl.constexpr,
    FORWARD: tl.constexpr,
    REVERSE: tl.constexpr,
    SHARED: tl.constexpr,
    PRECISION: tl.constexpr,
):
    c = tl.program_id(2)
    d = tl.program_id(1) * BD + tl.arange(0, BD)
    row = tl.program_id(0).to(tl.int64)
    rows = tl.num_programs(0)
    second = row + (rows if FORWARD and REVERSE else 0)  # reverse among the states, forward among the mirrored ones
    b, h = row // H, row % H
    t = c * L + tl.arange(0, L)
    within = tl.arange(0, L)
    stop = tl.minimum(N, c * L + L)
    there_ahead = (c > 0).to(tl.int32)
    there_back = (c < chunks - 1).to(tl.int32)
    v += b * v_b + h * v_h
    o_grad += b * o_b + h * o_h
    gates += b * g_b + h * g_h
    queries = _tile(q + b * q_b + h * q_h, t, q_n, d, D, stop) * scale
    keys = _tile(k + b * k_b + h * k_h, t, k_n, d, D, stop)
    a = tl.exp(_tile(gates, t, g_n, d, D, stop))
    r = a if SHARED else tl.exp(_tile(gates + g_x, t, g_n, d, D, stop))
    pairs = _pairs(o_grad, v, t, o_n, v_n, stop, L, E, BE, PRECISION)

    # Pairs inside the chunk, at each join, as `chunks._fold` damps them.
    none = tl.zeros((L, BD), tl.float32)
    one = tl.full((L, BD), 1.0, tl.float32)
    before, after, r_before, r_after = one, one, one, one
    dq_ahead, dk_ahead, dq_back, dk_back = none, none, none, none
    m = 1
    for _ in range(LEVELS):
        late = ((within // m) % 2 == 1)[:, None]
        to_late = before if bonus is not None else before * a
        to_early = (after if SHARED else r_after) * (1.0 if bonus is not None else r)
        to_query = tl.where(late, to_late if FORWARD else none, to_early if REVERSE else none)
        to_key = tl.where(late, (before if SHARED else r_before) if REVERSE else none, after if FORWARD else none)
        joined = _met(pairs, m, L)
        dq = to_query * tl.dot(joined, keys * to_key, input_precision=PRECISION)
        dk = to_key * tl.dot(tl.trans(joined), queries * to_query, input_precision=PRECISION)
        dq_ahead += tl.where(late, dq, 0.0)
        dq_back += tl.where(late, 0.0, dq)
        dk_ahead += tl.where(late, 0.0, dk)
        dk_back += tl.where(late, dk, 0.0)
        if FORWARD or SHARED:
            before, after = _widen(before, after, a, m, L, BD)
        if REVERSE and not SHARED:
            r_before, r_after = _widen(r_before, r_after, r, m, L, BD)
        m *= 2
    if SHARED:
        r_before, r_after = before, after
    to_a = before if bonus is not None else before * a
    to_r = r_after if bonus is not None else r_after * r

    # Pairs across the borders, and what the decays get of all.
    gates_grad += b * dg_b + h * dg_h
    mask = (t < stop)[:, None] & (d < D)[None, :]
    dg = none
    EXCLUSIVE: tl.constexpr = bonus is not None
    if FORWARD:
        to, to_next = row * chunks + c - 1, second * chunks + c + 1
        dq = to_a * _through(
            o_grad, o_n, t, stop, left, initial, to, row, there_ahead, d, D, E, D * E, L, BD, BE, PRECISION
        )
        dk = after * _through(
            v, v_n, t, stop, back, back_initial, to_next, second, there_back, d, D, E, D * E, L, BD, BE, PRECISION
        )
        beyond = _border(
            left,
            initial,
            to,
            row,
            there_ahead,
            back,
            back_initial,
            to_next,
            second,
            there_back,
            d,
            D,
            E,
            D * E,
            BD,
            BE,
        )
        kept = tl.exp(tl.sum(_tile(gates, t, g_n, d, D, stop), 0))
        dg = _spanned(
            queries * dq_ahead,
            keys * dk_ahead,
            queries * dq,
            keys * dk,
            (kept * beyond)[None, :],
            L,
            BD,
            False,
            EXCLUSIVE,
        )
        dq_ahead += dq
        dk_ahead += dk
        if not SHARED:
            tl.store(gates_grad + t[:, None] * dg_n + d[None, :], dg, mask=mask)
    if REVERSE:
        to, to_next = second * chunks + c + 1, row * chunks + c - 1
        dq = to_r * _through(
            o_grad, o_n, t, stop, left, initial, to, second, there_back, d, D, E, D * E, L, BD, BE, PRECISION
        )
        dk = r_before * _through(
            v, v_n, t, stop, back, back_initial, to_next, row, there_ahead, d, D, E, D * E, L, BD, BE, PRECISION
        )
        beyond = _border(
            left,
            initial,
            to,
            second,
            there_back,
            back,
            back_initial,
            to_next,
            row,
            there_ahead,
            d,
            D,
            E,
            D * E,
            BD,
            BE,
        )
        kept = tl.exp(tl.sum(_tile(gates if SHARED else gates + g_x, t, g_n, d, D, stop), 0))
        dr = _spanned(
            queries * dq_back,
            keys * dk_back,
            queries * dq,
            keys * dk,
            (kept * beyond)[None, :],
            L,
            BD,
            True,
            EXCLUSIVE,
        )
        dq_back += dq
        dk_back += dk
        if SHARED:
            dg += dr
        else:
            tl.store(gates_grad + dg_x + t[:, None] * dg_n + d[None, :], dr, mask=mask)
    if SHARED:
        tl.store(gates_grad + t[:, None] * dg_n + d[None, :], dg, mask=mask)

    # A token and itself.
    own = tl.sum(tl.where(within[:, None] == within[None, :], pairs, 0.0), 1)[:, None]
    if bonus is not None:
        u = tl.load(bonus + h * D + d, mask=d < D, other=0.0).to(tl.float32)[None, :]
        to = bonus_grad + (row * chunks + c) * D + d
        tl.store(to, tl.sum(own * queries * keys, 0), mask=d < D)
        own = own * u
    else:
        own = own * (2.0 if FORWARD and REVERSE else 1.0)
    dq = (dq_ahead + dq_back + own * keys) * scale
    dk = dk_ahead + dk_back + own * queries
    to = q_grad + b * dq_b + h * dq_h + t[:, None] * dq_n + d[None, :]
    tl.store(to, dq.to(q_grad.dtype.element_ty), mask=mask)
    to = k_grad + b * dk_b + h * dk_h + t[:, None] * dk_n + d[None, :]
    tl.store(to, dk.to(k_grad.dtype.element_ty), mask=mask)


@triton.jit
def pull_gates_kernel(
    q,
    k,
    v,
    o_grad,  # of the sums before they are normalised
    gates,
    inputs,
    saved,  # [3 rows N], of a stable operator
    tail,  # [rows N], the gradient of the sum of a token's scores
    left,
    initial,
    initial_tail,
    initial_peak,
    peaks,
    back,
    back_initial,
    back_tail,
    q_grad,
    k_grad,
    v_grad,
    worths,  # [5 rows chunks·L], of each token's pairs: as the query inside the chunk, as the key, as the query of one
    # before it, as the key of one after it, and with itself
    beyond,  # [rows chunks], of pairs of a token before the chunk and one after it
    query_scale,
    key_scale,
    N,
    H,
    chunks,
    q_b,
    q_h,
    q_n,
    k_b,
    k_h,
    k_n,
    v_b,
    v_h,
    v_n,
    o_b,
    o_h,
    o_n,
    g_x,
    g_b,
    g_h,
    g_n,
    i_b,
    i_h,
    i_n,
    dq_b,
    dq_h,
    dq_n,
    dk_b,
    dk_h,
    dk_n,
    dv_b,
    dv_h,
    dv_n,
    D: tl.constexpr,
    E: tl.constexpr,
    L: tl.constexpr,
    BD: tl.constexpr,
    BE: tl.constexpr,
    PART: tl.constexpr,  # "queries", "keys" or "values": what together would not fit the registers
    REVERSE: tl.constexpr,
    DECAY: tl.constexpr,
    STABLE: tl.constexpr,
    PRECISION: tl.constexpr,
):
    c = tl.program_id(1)
    row = tl.program_id(0).to(tl.int64)
    b, h = row // H, row % H
    t = c * L + tl.arange(0, L)
    within = tl.arange(0, L)
    stop = tl.minimum(N, c * L + L)
    SIZE: tl.constexpr = D * E + (D if STABLE else 0)
    there = ((c < chunks - 1) if REVERSE else (c > 0)).to(tl.int32)  # the chunk met before this one
    there_next = ((c > 0) if REVERSE else (c < chunks - 1)).to(tl.int32)  # and the one after it
    here = row * chunks + c
    to = here + 1 if REVERSE else here - 1
    to_next = here - 1 if REVERSE else here + 1
    q += b * q_b + h * q_h
    k += b * k_b + h * k_h
    v += b * v_b + h * v_h
    o_grad += b * o_b + h * o_h
    gates += b * g_b + h * g_h

    # What pairs weigh, what the entering state weighs to a token, and a token to the leaving state.
    lf = _log_decays(gates, t, g_n, t < stop, DECAY == "head")
    sums = tl.cumsum(lf, 0, reverse=REVERSE)
    sources = sums
    entering = sums
    leaving = tl.sum(lf, 0) - sums
    if STABLE:
        i = tl.load(inputs + b * i_b + h * i_h + t * i_n, mask=t < stop, other=-1e30).to(tl.float64)
        m = tl.load(saved + row * N + t, mask=t < stop, other=0.0).to(tl.float64)
        entered = tl.load(peaks + to, mask=there > 0, other=float("-inf"))
        if initial_peak is not None:
            entered = tl.where(there > 0, entered, tl.load(initial_peak + row))
        sources -= i
        entering += entered.to(tl.float64) - m
        leaving += i - tl.load(peaks + here).to(tl.float64)
        sums -= m
        weight = tl.load(tail + row * N + t, mask=t < stop, other=0.0)
    high, low = sums.to(tl.float32), (sums - sums.to(tl.float32).to(tl.float64)).to(tl.float32)
    source_high = sources.to(tl.float32)
    source_low = (sources - source_high.to(tl.float64)).to(tl.float32)
    weights = (high[:, None] - source_high[None, :]) + (low[:, None] - source_low[None, :])
    unseen = within[:, None] > within[None, :] if REVERSE else within[:, None] < within[None, :]
    weights = tl.exp(tl.where(unseen, float("-inf"), weights)) * (query_scale * key_scale)
    to_token = tl.exp(entering.to(tl.float32)) * query_scale
    from_token = tl.where(t < stop, tl.exp(leaving.to(tl.float32)), 0.0) * key_scale

    scores = tl.zeros((L, L), tl.float32)
    for start in range(0, D, BD):
        d = start + tl.arange(0, BD)
        queries = _tile(q, t, q_n, d, D, stop)
        scores += tl.dot(queries, tl.trans(_tile(k, t, k_n, d, D, stop)), input_precision=PRECISION)
    scores *= weights
    if PART == "values":
        for start in range(0, E, BE):
            e = start + tl.arange(0, BE)
            dv = tl.dot(tl.trans(scores), _tile(o_grad, t, o_n, e, E, stop), input_precision=PRECISION)
            for inner in range(0, D, BD):
                d = inner + tl.arange(0, BD)
                keys = _tile(k, t, k_n, d, D, stop) * from_token[:, None]
                s = _entering(back, back_initial, to_next, row, there_next, d, e, D, E, SIZE)
                dv += tl.dot(keys, s, input_precision=PRECISION)
            mask = (t < stop)[:, None] & (e < E)[None, :]
            at = v_grad + b * dv_b + h * dv_h + t[:, None] * dv_n + e[None, :]
            tl.store(at, dv.to(v_grad.dtype.element_ty), mask=mask)
        return

    pairs = _pairs(o_grad, v, t, o_n, v_n, stop, L, E, BE, PRECISION)
    if STABLE:
        pairs += weight[:, None]
    worth = scores * pairs
    same = within[:, None] == within[None, :]  # no decay stands between a token and itself
    worth_to = worths + row * chunks * L + t
    count = tl.num_programs(0).to(tl.int64) * chunks * L
    pairs *= weights
    if PART == "queries":
        tl.store(worth_to, tl.sum(tl.where(same, 0.0, worth), 1))
        found = tl.zeros((L,), tl.float32)
        across = tl.zeros((BD,), tl.float32)
        for start in range(0, D, BD):
            d = start + tl.arange(0, BD)
            read = _through(o_grad, o_n, t, stop, left, initial, to, row, there, d, D, E, SIZE, L, BD, BE, PRECISION)
            if STABLE:
                n = tl.load(left + to * SIZE + D * E + d, mask=d < D * there, other=0.0)
                if initial_tail is not None:
                    n += tl.load(initial_tail + row * D + d, mask=d < D * (1 - there), other=0.0)
                read += weight[:, None] * n[None, :]
                dn = tl.load(back + to_next * SIZE + D * E + d, mask=d < D * there_next, other=0.0)
                if back_tail is not None:
                    dn += tl.load(back_tail + row * D + d, mask=d < D * (1 - there_next), other=0.0)
                across += n * dn
            across += _border(
                left, initial, to, row, there, back, back_initial, to_next, row, there_next, d, D, E, SIZE, BD, BE
            )
            read *= to_token[:, None]
            found += tl.sum(_tile(q, t, q_n, d, D, stop) * read, 1)
            dq = tl.dot(pairs, _tile(k, t, k_n, d, D, stop), input_precision=PRECISION) + read
            mask = (t < stop)[:, None] & (d < D)[None, :]
            at = q_grad + b * dq_b + h * dq_h + t[:, None] * dq_n + d[None, :]
            tl.store(at, dq.to(q_grad.dtype.element_ty), mask=mask)
        tl.store(worth_to + 2 * count, found)
        kept = tl.sum(lf, 0)
        if STABLE:
            kept += entered.to(tl.float64) - tl.load(peaks + here).to(tl.float64)
        tl.store(beyond + here, tl.exp(kept.to(tl.float32)) * tl.sum(across, 0))
    else:
        tl.store(worth_to + count, tl.sum(tl.where(same, 0.0, worth), 0))
        tl.store(worth_to + 4 * count, tl.sum(tl.where(same, worth, 0.0), 0))
        found = tl.zeros((L,), tl.float32)
        for start in range(0, D, BD):
            d = start + tl.arange(0, BD)
            fed = _through(
                v, v_n, t, stop, back, back_initial, to_next, row, there_next, d, D, E, SIZE, L, BD, BE, PRECISION
            )
            if STABLE:
                dn = tl.load(back + to_next * SIZE + D * E + d, mask=d < D * there_next, other=0.0)
                if back_tail is not None:
                    dn += tl.load(back_tail + row * D + d, mask=d < D * (1 - there_next), other=0.0)
                fed += dn[None, :]
            fed *= from_token[:, None]
            found += tl.sum(_tile(k, t, k_n, d, D, stop) * fed, 1)
            dk = tl.dot(tl.trans(pairs), _tile(q, t, q_n, d, D, stop), input_precision=PRECISION) + fed
            mask = (t < stop)[:, None] & (d < D)[None, :]
            at = k_grad + b * dk_b + h * dk_h + t[:, None] * dk_n + d[None, :]
            tl.store(at, dk.to(k_grad.dtype.element_ty), mask=mask)
        tl.store(worth_to + 3 * count, found)


def gradients(
    o_grad: Tensor,
    final_grad: tuple[Tensor, ...],
    q: Tensor,
    k: Tensor,
    v: Tensor,
    gates: Tensor,
    policy: Policy,
    direction: Direction,
    *,
    chunk: int,
    warps: int,
    query_scale: float,
    key_scale: float,
    inputs: Tensor | None,
    bonus: Tensor | None,
    eps: float,
    state: tuple[Tensor, ...],
) -> dict[str, Tensor | tuple[Tensor, ...]]:
    """Gradients of all that `chunks.attend` takes, by name, in the types of what they are of.

    Args:
        o_grad: (B, H, N, E). final_grad: those of the final state, shaped as `state`; () for zeros.
        others: as in `chunks.attend`; `chunk` need not be that of the forward pass.
    """
    q, k, v, o_grad = map(rows_of_tokens, (q, k, v, o_grad))
    if policy.decay == "vector":
        gates = rows_of_tokens(gates)
    there = states(
        k, v, gates, policy, direction, chunk=chunk, warps=warps, scale=key_scale, inputs=inputs, initial=state
    )
    if policy.decay == "vector":
        return _of_vectors(o_grad, final_grad, q, k, v, gates, policy, direction, there, query_scale, bonus, warps)

    B, H, N, _ = q.shape
    saved, tail, restless = None, None, None
    numerator_grad = o_grad
    if policy.stable:
        saved = q.new_empty(3, B * H, N, dtype=torch.float32)
        h = read(
            q,
            k,
            v,
            gates,
            policy,
            direction,
            there,
            warps=2 * warps,  # it holds more than the kernels below
            score_scale=query_scale * key_scale,
            read_scale=query_scale,
            inputs=inputs,
            eps=eps,
            saved=saved,
        )
        _, factor, moved = saved.view(3, B, H, N)
        worth = (o_grad.float() * h.float()).sum(-1)  # of a token's output as a whole
        numerator_grad = (o_grad.float() * factor.unsqueeze(-1)).to(q.dtype)
        tail = (-worth * moved).view(B * H, N)
        restless = -worth * eps * factor  # eps is added to sums relative to e^m, and so is what alone depends on m
    mirrors = (there, saved[0] if saved is not None else q, tail if tail is not None else q)
    back = states(
        q,
        numerator_grad,
        gates,
        policy,
        OPPOSITE[direction],
        chunk=chunk,
        warps=warps,
        scale=query_scale,
        inputs=inputs,
        initial=final_grad,
        mirrors=mirrors,
    )
    q_grad, k_grad, v_grad = map(empty_like, (q, k, v))
    decays_grad, inputs_grad = _launch_pull_gates(
        q,
        k,
        v,
        numerator_grad,
        gates,
        inputs,
        saved,
        tail,
        there,
        back,
        (q_grad, k_grad, v_grad),
        policy,
        direction,
        query_scale,
        key_scale,
        warps,
    )
    found: dict[str, Tensor | tuple[Tensor, ...]] = {"q": q_grad, "k": k_grad, "v": v_grad}
    if policy.decay == "head":
        return found | {"gates": decays_grad.sum((0, 2)).to(gates.dtype), "state": back.final}
    assert inputs is not None
    assert restless is not None
    by_peaks, by_inputs, peak_grad = _through_peaks(gates, inputs, direction, restless, there, final_grad, state)
    log_grad = decays_grad.double() + by_peaks
    gates_grad = log_grad * (-gates.double()).sigmoid()
    entered = (back.final[0], back.final[1])
    if state:
        peak_grad = peak_grad + ((state[0] * entered[0]).sum(-1) + (state[1] * entered[1]).sum(-1)).view(B, H)
    return found | {
        "gates": gates_grad.to(gates.dtype),
        "inputs": (inputs_grad + by_inputs).to(inputs.dtype),
        "state": (*entered, peak_grad.float().flatten()),
    }


def _of_vectors(
    o_grad: Tensor,
    final_grad: tuple[Tensor, ...],
    q: Tensor,
    k: Tensor,
    v: Tensor,
    gates: Tensor,
    policy: Policy,
    direction: Direction,
    there: States,
    scale: float,
    bonus: Tensor | None,
    warps: int,
) -> dict[str, Tensor | tuple[Tensor, ...]]:
    (B, H, N, D), E = q.shape, v.shape[-1]
    both, L, opposite = direction == "both", there.chunk, OPPOSITE[direction]
    chunks = cdiv(N, L)
    # The mirrored operator's directions are the other way round, and so are its states.
    entering = tuple(_swapped(x, both) for x in final_grad)
    mirrors = (there, q, q)
    back = states(
        q,
        o_grad,
        gates,
        policy,
        opposite,
        chunk=L,
        warps=warps,
        scale=scale,
        inputs=None,
        initial=entering,
        mirrors=mirrors,
    )
    v_grad = read(
        k,
        q,
        o_grad,
        gates,
        policy,
        opposite,
        back,
        warps=2 * warps,
        score_scale=scale,
        read_scale=1.0,
        bonus=bonus,
        mirrored=True,
    )
    q_grad, k_grad = map(empty_like, (q, k))
    gates_grad = torch.empty_like(gates, dtype=torch.float32, memory_format=torch.contiguous_format)
    bonus_grad = q.new_empty(B, H, chunks, D, dtype=torch.float32) if bonus is not None else None
    dg = gates_grad.stride() if gates_grad.ndim > q.ndim else (0, *gates_grad.stride())
    BD, BE = tile(D, 32), tile(E, 16)
    launch(
        pull_kernel,
        (B * H, cdiv(D, BD), chunks),
        {"q": q, "k": k, "v": v, "o_grad": o_grad, "gates": gates, "bonus": bonus, "left": there.after}
        | {"initial": there.initial[0] if there.initial else None, "back": back.after}
        | {"back_initial": entering[0] if entering else None, "q_grad": q_grad, "k_grad": k_grad}
        | {"gates_grad": gates_grad, "bonus_grad": bonus_grad, "scale": float(scale), "N": N, "H": H, "chunks": chunks}
        | strides(q=q, k=k, v=v, o=o_grad, dq=q_grad, dk=k_grad)
        | gate_strides(gates, None, policy, both)
        | dict(zip(("dg_x", "dg_b", "dg_h", "dg_n"), dg[:4], strict=True)),
        {"D": D, "E": E, "L": L, "LEVELS": L.bit_length() - 1, "BD": BD, "BE": BE}
        | {"FORWARD": direction != "reverse", "REVERSE": direction != "forward", "SHARED": gates.ndim == q.ndim}
        | {"PRECISION": precision(q)},
        warps=warps,
        registers=ceiling(q, warps),
    )
    found: dict[str, Tensor | tuple[Tensor, ...]] = {"q": q_grad, "k": k_grad, "v": v_grad}
    if bonus is not None and bonus_grad is not None:
        found["bonus"] = bonus_grad.sum((0, 2)).to(bonus.dtype)
    return found | {"gates": gates_grad.to(gates.dtype), "state": tuple(_swapped(x, both) for x in back.final)}


def _swapped(x: Tensor, both: bool) -> Tensor:
    """Rows of two directions, the second before the first."""
    return x.roll(x.shape[0] // 2, 0) if both else x


def _launch_pull_gates(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    o_grad: Tensor,
    gates: Tensor,
    inputs: Tensor | None,
    saved: Tensor | None,
    tail: Tensor | None,
    there: States,
    back: States,
    grads: tuple[Tensor, Tensor, Tensor],
    policy: Policy,
    direction: Direction,
    query_scale: float,
    key_scale: float,
    warps: int,
) -> tuple[Tensor, Tensor]:
    """Fills in the gradients of q, k and v; those of log decays and of input gates, Float[B H N]."""
    (B, H, N, D), E, L = q.shape, v.shape[-1], there.chunk
    initial: tuple[Tensor | None, ...] = there.initial or (None, None, None)
    entering: tuple[Tensor | None, ...] = back.initial or (None, None, None)
    stable = policy.stable
    dq, dk, dv = grads
    chunks = cdiv(N, L)
    worths = q.new_empty(5, B, H, chunks, L, dtype=torch.float32)
    beyond = q.new_empty(B, H, chunks, dtype=torch.float32)
    arguments = (
        {"q": q, "k": k, "v": v, "o_grad": o_grad, "gates": gates, "inputs": inputs, "saved": saved, "tail": tail}
        | {"left": there.after, "initial": initial[0], "initial_tail": initial[1] if stable else None}
        | {"initial_peak": initial[2] if stable else None, "peaks": there.peaks, "back": back.after}
        | {"back_initial": entering[0], "back_tail": entering[1] if stable else None}
        | {"q_grad": dq, "k_grad": dk, "v_grad": dv, "worths": worths, "beyond": beyond}
        | {"query_scale": float(query_scale), "key_scale": float(key_scale), "N": N, "H": H, "chunks": cdiv(N, L)}
        | strides(q=q, k=k, v=v, o=o_grad, dq=dq, dk=dk, dv=dv)
        | gate_strides(gates, inputs, policy, False)
    )
    wide = threefold(q)  # three products for one hold three times the registers
    constants = {"D": D, "E": E, "L": L, "BE": tile(E, 32 if stable and not wide else 16)} | {
        "REVERSE": direction == "reverse",
        "DECAY": policy.decay,
        "STABLE": stable,
        "PRECISION": precision(q),
    }
    if D > 128 and wide:
        warps *= 2
    for part in ("queries", "keys", "values"):
        BD = 32 if part == "values" and q.dtype == torch.float16 else 16  # as the compiler spills nothing
        parted = {"PART": part, "BD": tile(D, BD)}
        launch(
            pull_gates_kernel,
            (B * H, chunks),
            arguments,
            constants | parted,
            warps=warps,
            registers=ceiling(q, warps),
        )

    # A decay stands between a token before it and one from it on: sums that run away from it, either way.
    if direction == "reverse":
        worths = worths.flip(-1)
    rows, columns, entering, leaving, own = worths
    grad = (rows - columns + entering).flip(-1).cumsum(-1).flip(-1) + pad(leaving[..., :-1], (1, 0)).cumsum(-1)
    found = torch.stack((grad + beyond.unsqueeze(-1), columns + leaving + own))
    if direction == "reverse":
        found = found.flip(-1)
    decays_grad, inputs_grad = found.flatten(-2)[..., :N]
    return decays_grad, inputs_grad


def _through_peaks(
    gates: Tensor,
    inputs: Tensor,
    direction: Direction,
    restless: Tensor,
    there: States,
    final_grad: tuple[Tensor, ...],
    state: tuple[Tensor, ...],
) -> tuple[Tensor, Tensor, Tensor]:
    """What log decays, input gates and the initial peak get through every token's peak, of which `restless` is the
    gradient, Float[B H N]: it goes to the token whose weight the peak is, and to the decays since.
    """
    B, H, N = inputs.shape
    last = 0 if direction == "reverse" else N - 1
    worth = restless.double()
    if final_grad:
        carried = (there.final[0] * final_grad[0]).sum(-1) + (there.final[1] * final_grad[1]).sum(-1)
        at_end = (final_grad[2] - carried).view(B, H).double()
        worth = torch.cat(
            (worth[..., :last], worth[..., last : last + 1] + at_end.unsqueeze(-1), worth[..., last + 1 :]), -1
        )
    turned = direction == "reverse"
    i, lf = inputs.double(), logsigmoid(gates.double())
    if turned:
        i, lf, worth = i.flip(2), lf.flip(2), worth.flip(2)
    b = lf.cumsum(2)
    greatest, source = (i - b).cummax(2)
    entered = state[2].view(B, H, 1).double() if state else torch.full_like(b[..., :1], float("-inf"))
    carried_in = entered > greatest  # the peak is still that of the state carried in
    inner = worth.masked_fill(carried_in, 0.0)
    by_inputs = torch.zeros_like(worth).scatter_add_(2, source, inner)
    # A token's decay counts for the peaks of all tokens from it on, but for those whose source is it or after it.
    by_peaks = worth.flip(2).cumsum(2).flip(2) - by_inputs.flip(2).cumsum(2).flip(2)
    peak_grad = worth.masked_fill(~carried_in, 0.0).sum(2)
    if turned:
        by_peaks, by_inputs = by_peaks.flip(2), by_inputs.flip(2)
    return by_peaks, by_inputs, peak_grad
