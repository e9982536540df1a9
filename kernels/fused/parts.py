"""Functions that are compiled into the kernels of the operators with a matrix state.

L tokens a chunk, BD and BE the tiles of D and E
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def tile_of(x, rows, step, columns, WIDTH: tl.constexpr, stop):
    """Rows [0, stop) and columns [0, WIDTH) of x in float32, zeros elsewhere."""
    mask = ((rows >= 0) & (rows < stop))[:, None] & (columns < WIDTH)[None, :]
    return tl.load(x + rows[:, None] * step + columns[None, :], mask=mask, other=0.0).to(tl.float32)


@triton.jit
def widen(before, after, decay, m):
    """The decays of the tokens before and after each, Float[L BD]: from those within its block of m tokens to those
    within its pair of blocks."""
    t = tl.arange(0, decay.shape[0])
    late = ((t // m) % 2 == 1)[:, None]
    last = ((t // m) ^ 1) * m + m - 1  # of the other block, where the decay up to a token is that of the whole block
    other = tl.gather(before * decay, tl.broadcast_to(last[:, None], decay.shape), 0)
    return tl.where(late, before * other, before), tl.where(late, after, after * other)


@triton.jit
def met(pairs, m):
    """`pairs`, Float[L L], for two tokens in different blocks of one pair of blocks of m tokens; zeros elsewhere."""
    t = tl.arange(0, pairs.shape[0])
    together = (t // (2 * m))[:, None] == (t // (2 * m))[None, :]
    return tl.where(together & ((t // m)[:, None] != (t // m)[None, :]), pairs, 0.0)


@triton.jit
def join(q, k, to_query, from_key, m, PRECISION: tl.constexpr):
    """The scores between the two blocks of m tokens of each pair, Float[L L], damped on the way to and from the border.

    `to_query` are the decays from the border to a query, in a late block and in an early one. `from_key` are those from
    a key to the border, in the same two blocks.
    """
    late = ((tl.arange(0, q.shape[0]) // m) % 2 == 1)[:, None]
    queries = q * tl.where(late, to_query[0], to_query[1])
    keys = k * tl.where(late, from_key[0], from_key[1])
    return met(tl.dot(queries, tl.trans(keys), input_precision=PRECISION), m)


@triton.jit
def fold(
    q, k, a, r,
    LEVELS: tl.constexpr, FORWARD: tl.constexpr, REVERSE: tl.constexpr, SHARED: tl.constexpr, OWN: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """The scores of a chunk off the diagonal, Float[L L], L = 2^LEVELS, by decays Float[L BD]: a forward, r in reverse.

    OWN says what is also damped by its own token's decay: "query", "key" or "none".

    Also returns: the decays from the start of the chunk to each token, forward, and from its end, in reverse.
    """
    # Within a token's block, the decays of the tokens before it and after it.
    one = tl.full(a.shape, 1.0, tl.float32)
    none = tl.full(a.shape, 0.0, tl.float32)
    before, after = one, one
    r_before, r_after = one, one
    scores = tl.zeros((a.shape[0], a.shape[0]), tl.float32)
    m = 1
    for _ in range(LEVELS):  # not unrolled: a level is the same code, and its registers are free for the next
        to_late = before * (a if OWN == "query" else 1.0) if FORWARD else none
        to_early = (after if SHARED else r_after) * (r if OWN == "query" else 1.0) if REVERSE else none
        from_early = after * (a if OWN == "key" else 1.0) if FORWARD else none
        from_late = (before if SHARED else r_before) * (r if OWN == "key" else 1.0) if REVERSE else none
        scores += join(q, k, (to_late, to_early), (from_late, from_early), m, PRECISION)
        if FORWARD or SHARED:
            before, after = widen(before, after, a, m)
        if REVERSE and not SHARED:
            r_before, r_after = widen(r_before, r_after, r, m)
        m *= 2
    if SHARED:
        r_after = after
    if OWN == "query":
        return scores, before * a, r_after * r
    else:
        return scores, before, r_after


@triton.jit
def log_decays(gates, at, step, inside, HEAD: tl.constexpr):
    """Log decays of tokens, Float64[L]: that of the head, or log σ of the tokens' gates; 0 outside."""
    if HEAD:
        g = tl.load(gates).to(tl.float64)
        return tl.where(inside, g, 0.0)
    else:
        f = tl.load(gates + at * step, mask=inside, other=0.0).to(tl.float64)
        return tl.where(inside, tl.minimum(f, 0.0) - tl.log(1.0 + tl.exp(-tl.abs(f))), 0.0)


@triton.jit
def entering_state(edge, d, e, D: tl.constexpr, E: tl.constexpr, SIZE: tl.constexpr):
    """The state that enters a chunk at one of its edges, Float[BD BE].

    An edge is (states, initial, to, row, there). If `there`, the state is the one that a chunk left in slot `to` of
    `states`; otherwise it is that of `row` in `initial`.
    """
    states, initial, to, row, there = edge
    at = d[:, None] * E + e[None, :]
    s = tl.load(states + to * SIZE + at, mask=(d < D * there)[:, None] & (e < E)[None, :], other=0.0)
    if initial is not None:
        mask = (d < D * (1 - there))[:, None] & (e < E)[None, :]
        s += tl.load(initial + row * D * E + at, mask=mask, other=0.0)
    return s


@triton.jit
def entering_sums(edge, d, D: tl.constexpr, E: tl.constexpr, SIZE: tl.constexpr):
    """The sums of the normaliser at an edge, Float[BD]; `initial` has the initial sums."""
    states, initial, to, row, there = edge
    n = tl.load(states + to * SIZE + D * E + d, mask=d < D * there, other=0.0)
    if initial is not None:
        n += tl.load(initial + row * D + d, mask=d < D * (1 - there), other=0.0)
    return n


@triton.jit
def pair_weights(sums, sources, REVERSE: tl.constexpr):
    """The log weights of pairs of tokens, Float[L L]: differences of float64, and -inf where a key is not seen."""
    high, low = sums.to(tl.float32), (sums - sums.to(tl.float32).to(tl.float64)).to(tl.float32)
    source_high = sources.to(tl.float32)
    source_low = (sources - source_high.to(tl.float64)).to(tl.float32)
    pairs = (high[:, None] - source_high[None, :]) + (low[:, None] - source_low[None, :])
    within = tl.arange(0, sums.shape[0])
    unseen = within[:, None] > within[None, :] if REVERSE else within[:, None] < within[None, :]
    return tl.where(unseen, float("-inf"), pairs)


@triton.jit
def pair_worths(o_grad, o_n, v, v_n, t, stop, E: tl.constexpr, BE: tl.constexpr, PRECISION: tl.constexpr):
    """The worth of each pair, the gradient of the loss by its score: Float[L L], rows are queries."""
    pairs = tl.zeros((t.shape[0], t.shape[0]), tl.float32)
    for start in range(0, E, BE):
        e = start + tl.arange(0, BE)
        grads = tile_of(o_grad, t, o_n, e, E, stop)
        values = tile_of(v, t, v_n, e, E, stop)
        pairs += tl.dot(grads, tl.trans(values), input_precision=PRECISION)
    return pairs


@triton.jit
def through(
    x, step, t, stop, edge, d,
    D: tl.constexpr, E: tl.constexpr, SIZE: tl.constexpr, BE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """x (tokens of E numbers) times the transposed state that enters a chunk at an edge: Float[L BD]."""
    found = tl.zeros((t.shape[0], d.shape[0]), tl.float32)
    for start in range(0, E, BE):
        e = start + tl.arange(0, BE)
        s = entering_state(edge, d, e, D, E, SIZE)
        found += tl.dot(tile_of(x, t, step, e, E, stop), tl.trans(s), input_precision=PRECISION)
    return found


@triton.jit
def border(edge, next_edge, d, D: tl.constexpr, E: tl.constexpr, SIZE: tl.constexpr, BE: tl.constexpr):
    """The state that enters a chunk times the gradient of the one that leaves it, summed over E: Float[BD].

    It is the worth of all pairs of a token before the chunk and one after it, if the chunk had no decay.
    """
    total = tl.zeros(d.shape, tl.float32)
    for start in range(0, E, BE):
        e = start + tl.arange(0, BE)
        s = entering_state(edge, d, e, D, E, SIZE)
        total += tl.sum(s * entering_state(next_edge, d, e, D, E, SIZE), 1)
    return total
