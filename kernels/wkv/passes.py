"""Bi-WKV's Triton kernels: a tile's tokens are read once, and walked from both ends.

The gradient is Bi-WKV again. With z_t = -log of token t's denominator, the weight of token i in y_t is
r_ti = e^(M_ti + k_i + z_t), and

    dv_i = Σ_t r_ti dy_t        dk_i = v_i dv_i - Σ_t r_ti dy_t y_t

are sums with z for keys and (dy, dy · y) for values, read with e^(k_i). Every r is at most 1. These sums also have
ages (`fused.scans.sums`), because dw is minus the sum of what each weight adds to the result, times its age.
"""

from __future__ import annotations

import triton
import triton.language as tl

from vbench.kernels.fused.scans import (
    LOG2E,
    NEVER,
    aged_nothing,
    before,
    fold,
    lanes,
    load_element,
    places,
    rows_of,
    store_element,
    sums,
    sums_nothing,
)

EPSILON = tl.constexpr(1e-6)  # wkv.sums.EPSILON


@triton.jit
def rate_of(w, C, c):
    """w or u of a tile's channels, float32."""
    return tl.load(w + c, mask=c < C, other=0.0).to(tl.float32)


@triton.jit
def tokens_of(keys, values, reads, inside):
    """Tokens as sums of one, (1, k, 0, v, 1), or with `reads` those of the gradient, (1, z, 0, dy, dy · y, 0, 0).

    Where there is no token, the empty sum.
    """
    zero = tl.zeros(keys[0].shape, tl.float32)
    out = ()
    for i in tl.static_range(len(keys)):
        here = inside[i].to(tl.float32)
        if reads is None:
            out = out + ((here, keys[i], zero, values[i], here),)
        else:
            out = out + ((here, keys[i], zero, values[i], values[i] * reads[i], zero, zero),)
    return out


@triton.jit
def merge(x, y, w):
    """Two sums that are read at the same token: neither damps the other."""
    return sums(x, (0.0,) + y[1:], w)


@triton.jit
def state_of(state, line, batch, C, c, nothing: tl.constexpr, BACK: tl.constexpr):
    """What enters the sequence, of a state (2, 3, batch, C): its a, b, p are a sum whose greatest weight has age 0."""
    x = nothing(tl.zeros(c.shape, tl.float32))
    if state is not None:
        at = state + ((3 * batch if BACK else 0) + line) * C + c
        a, b = tl.load(at, mask=c < C, other=0.0), tl.load(at + batch * C, mask=c < C, other=0.0)
        p = tl.load(at + 2 * batch * C, mask=c < C, other=NEVER)
        x = x[:1] + (p, x[2], a, b) + x[5:]
    return x


@triton.jit
def start_of(state, carried, size, line, chunk, chunks, batch, C, c, w, nothing: tl.constexpr, BACK: tl.constexpr):
    """What enters a chunk from one side: the state, then the chunks on the way."""
    x = state_of(state, line, batch, C, c, nothing, BACK)
    if carried is not None:
        at = carried + (((batch if BACK else 0) + line) * chunks + chunk) * C + c
        x = sums(x, load_element(at, size, c < C, nothing(tl.zeros(c.shape, tl.float32))), w)
    return x


@triton.jit
def store_ends(found, ages, x, w, line, batch, C, c, mask, BACK: tl.constexpr):
    """A final state: a, b and p to (2, 3, batch, C), and how many tokens ago p was to (2, batch, C)."""
    at = found + ((3 * batch if BACK else 0) + line) * C + c
    store_element(at, batch * C, (x[3], x[4], x[1] - w * x[2]), mask)
    if ages is not None:
        tl.store(ages + ((batch if BACK else 0) + line) * C + c, x[2], mask=mask)


@triton.jit
def summary_kernel(
    k, k_b, k_n, k_c, v, v_b, v_n, v_c, y, w, found, size, N, C, chunks, batch,
    ROWS: tl.constexpr, STEPS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """The element of each chunk, walked from either end: found float32 [numbers, 2 · batch, chunks, C], `size` apart.

    With y, contiguous, the element is the gradient's, of z in k and dy in v.
    """
    line, chunk = tl.program_id(0).to(tl.int64), tl.program_id(2)
    c = tl.program_id(1) * WIDTH + lanes(ROWS, WIDTH)
    t, inside, _ = places(chunk * ROWS * STEPS, N, C, c, ROWS, STEPS, False)
    keys = rows_of(k + line * k_b + t * k_n + c * k_c, k_n, inside, NEVER)
    values = rows_of(v + line * v_b + t * v_n + c * v_c, v_n, inside, 0.0)
    rate = rate_of(w, C, c)
    row = tl.arange(0, ROWS)[:, None]
    at = found + (line * chunks + chunk) * C + c
    zero = tl.zeros([ROWS, WIDTH], tl.float32)
    nothing = sums_nothing(zero) if y is None else aged_nothing(zero)
    reads = None if y is None else rows_of(y + line * N * C + t * C + c, C, inside, 0.0)
    tokens = tokens_of(keys, values, reads, inside)
    total = fold(tokens, rate, sums, False)
    ahead = sums(before(total, nothing, rate, sums, False), total, rate)
    store_element(at, size, ahead, (row == ROWS - 1) & (c < C))
    total = fold(tokens, rate, sums, True)
    back = sums(before(total, nothing, rate, sums, True), total, rate)
    store_element(at + batch * chunks * C, size, back, (row == 0) & (c < C))


@triton.jit
def read_tile(keys, values, tokens, inside, past, future, w, u, y, logs, C):
    """Walk a tile, from what enters its rows on both sides, and store what each token reads.

    Returns: what leaves the rows, past and future.
    """
    STEPS: tl.constexpr = len(tokens)
    pasts = ()
    for i in tl.static_range(STEPS):
        pasts = pasts + (past,)
        past = sums(past, tokens[i], w)
    for i in tl.static_range(STEPS - 1, -1, -1):
        own = (0.0, keys[i] + u, 0.0, values[i], 1.0)
        x = sums(merge(pasts[i], future, w), own, w)
        den = x[4] + EPSILON
        tl.store(y + i * C, x[3] / den, mask=inside[i])
        if logs is not None:
            tl.store(logs + i * C, w * x[2] - x[1] - tl.log(den), mask=inside[i])
        future = sums(future, tokens[i], w)
    return past, future


@triton.jit
def apply_kernel(
    k, k_b, k_n, k_c, v, v_b, v_n, v_c, w, u, state, carried, size, y, logs, final, ages, N, C, chunks, batch,
    ROWS: tl.constexpr, STEPS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """y [batch, N, C] and the final state; for the gradient also z (`logs`) and the ages of the state's exponents."""
    line, chunk = tl.program_id(0).to(tl.int64), tl.program_id(2)
    c = tl.program_id(1) * WIDTH + lanes(ROWS, WIDTH)
    t, inside, _ = places(chunk * ROWS * STEPS, N, C, c, ROWS, STEPS, False)
    keys = rows_of(k + line * k_b + t * k_n + c * k_c, k_n, inside, NEVER)
    values = rows_of(v + line * v_b + t * v_n + c * v_c, v_n, inside, 0.0)
    rate, bonus = rate_of(w, C, c), rate_of(u, C, c)
    tokens = tokens_of(keys, values, None, inside)
    nothing = sums_nothing(tl.zeros(c.shape, tl.float32))
    past = before(fold(tokens, rate, sums, False), nothing, rate, sums, False)
    future = before(fold(tokens, rate, sums, True), nothing, rate, sums, True)
    rate = tl.load(w + c, mask=c < C, other=0.0, cache_modifier=".ca")  # see `before`: another load, the same numbers
    past = sums(start_of(state, carried, size, line, chunk, chunks, batch, C, c, rate, sums_nothing, False), past, rate)
    ahead = start_of(state, carried, size, line, chunk, chunks, batch, C, c, rate, sums_nothing, True)
    future = sums(ahead, future, rate)
    at = line * N * C + t * C + c
    z = None if logs is None else logs + at
    past, future = read_tile(keys, values, tokens, inside, past, future, rate, bonus, y + at, z, C)
    row = tl.arange(0, ROWS)[:, None]
    if chunk == chunks - 1:
        store_ends(final, ages, past, rate, line, batch, C, c, (row == ROWS - 1) & (c < C), False)
    if chunk == 0:
        store_ends(final, ages, future, rate, line, batch, C, c, (row == 0) & (c < C), True)


@triton.jit
def recurrent_kernel(
    k, k_b, k_n, k_c, v, v_b, v_n, v_c, w, u, state, futures, size, y, logs, final, ages, N, C, tiles, batch,
    ROWS: tl.constexpr, STEPS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """The same in one launch: a program walks all tokens from the last to the first, then from the first to the last.

    ROWS is 1. On its way back it leaves what enters every tile in `futures`, float32 [5, batch, tiles, C].
    """
    line = tl.program_id(0).to(tl.int64)
    c = tl.program_id(1) * WIDTH + lanes(ROWS, WIDTH)
    rate, bonus = rate_of(w, C, c), rate_of(u, C, c)
    past = state_of(state, line, batch, C, c, sums_nothing, False)
    future = state_of(state, line, batch, C, c, sums_nothing, True)
    for met in range(tiles):
        tile = tiles - 1 - met
        store_element(futures + (line * tiles + tile) * C + c, size, future, c < C)
        t, inside, _ = places(tile * STEPS, N, C, c, ROWS, STEPS, False)
        keys = rows_of(k + line * k_b + t * k_n + c * k_c, k_n, inside, NEVER)
        values = rows_of(v + line * v_b + t * v_n + c * v_c, v_n, inside, 0.0)
        future = sums(future, fold(tokens_of(keys, values, None, inside), rate, sums, True), rate)
    store_ends(final, ages, future, rate, line, batch, C, c, c < C, True)
    tl.debug_barrier()  # what is loaded now may have been stored by another lane
    for tile in range(tiles):
        nothing = sums_nothing(tl.zeros(c.shape, tl.float32))
        future = load_element(futures + (line * tiles + tile) * C + c, size, c < C, nothing)
        t, inside, _ = places(tile * STEPS, N, C, c, ROWS, STEPS, False)
        keys = rows_of(k + line * k_b + t * k_n + c * k_c, k_n, inside, NEVER)
        values = rows_of(v + line * v_b + t * v_n + c * v_c, v_n, inside, 0.0)
        tokens = tokens_of(keys, values, None, inside)
        at = line * N * C + t * C + c
        z = None if logs is None else logs + at
        past, _ = read_tile(keys, values, tokens, inside, past, future, rate, bonus, y + at, z, C)
    store_ends(final, ages, past, rate, line, batch, C, c, c < C, False)


@triton.jit
def gradient_kernel(
    k, k_b, k_n, k_c, v, v_b, v_n, v_c, dy, dy_b, dy_n, dy_c, y, z, w, u, state, carried, size,
    dk, dv, dw, du, final, N, C, chunks, batch,
    ROWS: tl.constexpr, STEPS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """dk, dv [batch, N, C]; of dw and du each chunk's part, float32 [batch, chunks, C].

    `state` is what enters the gradient's sums from the final states' gradients, `final` what leaves them for
    the initial states', as elements [7, 2 · batch, C].
    """
    line, chunk = tl.program_id(0).to(tl.int64), tl.program_id(2)
    c = tl.program_id(1) * WIDTH + lanes(ROWS, WIDTH)
    t, inside, _ = places(chunk * ROWS * STEPS, N, C, c, ROWS, STEPS, False)
    at = line * N * C + t * C + c
    keys = rows_of(z + at, C, inside, NEVER)
    grads = rows_of(dy + line * dy_b + t * dy_n + c * dy_c, dy_n, inside, 0.0)
    reads = rows_of(y + at, C, inside, 0.0)
    ks = rows_of(k + line * k_b + t * k_n + c * k_c, k_n, inside, NEVER)
    vs = rows_of(v + line * v_b + t * v_n + c * v_c, v_n, inside, 0.0)
    rate, bonus = rate_of(w, C, c), rate_of(u, C, c)
    tokens = tokens_of(keys, grads, reads, inside)
    nothing = aged_nothing(tl.zeros([ROWS, WIDTH], tl.float32))
    past = before(fold(tokens, rate, sums, False), nothing, rate, sums, False)
    future = before(fold(tokens, rate, sums, True), nothing, rate, sums, True)
    rate = tl.load(w + c, mask=c < C, other=0.0, cache_modifier=".ca")  # see `before`: another load, the same numbers
    past = sums(start_of(state, carried, size, line, chunk, chunks, batch, C, c, rate, aged_nothing, False), past, rate)
    ahead = start_of(state, carried, size, line, chunk, chunks, batch, C, c, rate, aged_nothing, True)
    future = sums(ahead, future, rate)
    by_w, by_u = tl.zeros([ROWS, WIDTH], tl.float32), tl.zeros([ROWS, WIDTH], tl.float32)
    pasts = ()
    for i in tl.static_range(STEPS):
        pasts = pasts + (past,)
        past = sums(past, tokens[i], rate)
    for i in tl.static_range(STEPS - 1, -1, -1):
        x = merge(pasts[i], future, rate)
        weight = tl.exp2((x[1] + ks[i] - rate * x[2]) * LOG2E)
        itself = tl.exp2((keys[i] + ks[i] + bonus) * LOG2E)
        # EPSILON is in units of the greatest weight: where that is the token's own, it grows with its key.
        by_key = itself * grads[i] * (vs[i] - tl.where(itself > 0.5, 1 + EPSILON, 1.0) * reads[i])
        by_u += tl.where(inside[i], by_key, 0.0)
        by_w += tl.where(inside[i], weight * (vs[i] * x[5] - x[6]), 0.0)
        tl.store(dv + at + i * C, weight * x[3] + itself * grads[i], mask=inside[i])
        tl.store(dk + at + i * C, weight * (vs[i] * x[3] - x[4]) + by_key, mask=inside[i])
        future = sums(future, tokens[i], rate)
    part = (line * chunks + chunk) * C + tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    channel = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH) < C
    tl.store(dw + part, -tl.sum(by_w, 0), mask=channel)
    tl.store(du + part, tl.sum(by_u, 0), mask=channel)
    row = tl.arange(0, ROWS)[:, None]
    if chunk == chunks - 1:
        store_element(final + line * C + c, 2 * batch * C, past, (row == ROWS - 1) & (c < C))
    if chunk == 0:
        store_element(final + (batch + line) * C + c, 2 * batch * C, future, (row == 0) & (c < C))
