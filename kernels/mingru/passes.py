"""minGRU's Triton kernels: gates are computed inside, h is stored once, the gradient is a scan in the other direction.

The gradient's recurrence is of the same kind. Token t hands e_t = keep_t · (e_{t+1} + dh_t) to the token before it, so
its element is (keep, keep · dh).
"""

from __future__ import annotations

import triton
import triton.language as tl

from vbench.kernels.fused.scans import (
    LOG2E,
    affine,
    affine_nothing,
    before,
    fold,
    lanes,
    load_element,
    places,
    rows_of,
    store_element,
)

PADDING = tl.constexpr(-1e30)  # gate logit of a padding token; the state passes through


@triton.jit
def gates(a, b):
    """keep, z and g(a), as in gates.py. All exponents are at most 0, and the three share one quotient."""
    small, below = tl.exp2(-tl.abs(b) * LOG2E), tl.exp2(tl.minimum(a, 0.0) * LOG2E)
    p, q = 1 + small, 1 + below
    both = 1 / (p * q)
    large = q * both
    small *= large
    shut = b < 0
    return tl.where(shut, large, small), tl.where(shut, small, large), tl.where(a > 0, a + 0.5, below * p * both)


@triton.jit
def element(x, b, GRADIENT: tl.constexpr):
    """A token's (keep, feed), x being its a, or dh in the gradient's scan."""
    keep, z, g = gates(x, b)
    return (keep, keep * x) if GRADIENT else (keep, z * g)


@triton.jit
def elements_of(x, b, GRADIENT: tl.constexpr):
    """The elements of a tile's tokens."""
    out = ()
    for i in tl.static_range(len(x)):
        out = out + (element(x[i], b[i], GRADIENT),)
    return out


@triton.jit
def summary_kernel(
    x, x_b, x_n, x_c, b, b_b, b_n, b_c, found, N, C, chunks, batch,
    GRADIENT: tl.constexpr, BACK: tl.constexpr, ROWS: tl.constexpr, STEPS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Write the element of each chunk to `found`, float32 [2, batch, chunks, C], chunks in the order of the walk."""
    line, chunk = tl.program_id(0).to(tl.int64), tl.program_id(2)
    c = tl.program_id(1) * WIDTH + lanes(ROWS, WIDTH)
    t, inside, way = places(chunk * ROWS * STEPS, N, C, c, ROWS, STEPS, BACK)
    xs = rows_of(x + line * x_b + t * x_n + c * x_c, way * x_n, inside, 0.0)
    bs = rows_of(b + line * b_b + t * b_n + c * b_c, way * b_n, inside, PADDING)
    total = fold(elements_of(xs, bs, GRADIENT), 0.0, affine, False)
    total = affine(before(total, affine_nothing(tl.zeros([ROWS, WIDTH], tl.float32)), 0.0, affine, False), total, 0.0)
    last = (tl.arange(0, ROWS)[:, None] == ROWS - 1) & (c < C)
    store_element(found + (line * chunks + chunk) * C + c, batch * chunks * C, total, last)


@triton.jit
def start_of(state, carried, line, chunk, chunks, batch, C, c):
    """What enters a chunk: the state before all tokens, and the chunks since."""
    keep, feed = affine_nothing(tl.zeros(c.shape, tl.float32))
    if state is not None:
        feed += tl.load(state + line * C + c, mask=c < C, other=0.0)
    x = keep, feed
    if carried is not None:
        at = carried + (line * chunks + chunk) * C + c
        x = affine(x, load_element(at, batch * chunks * C, c < C, affine_nothing(tl.zeros(c.shape, tl.float32))), 0.0)
    return x


@triton.jit
def apply_kernel(
    a, a_b, a_n, a_c, b, b_b, b_n, b_c, state, carried, h, final, N, C, chunks, batch,
    BACK: tl.constexpr, ROWS: tl.constexpr, STEPS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Write h [batch, N, C], and the last h of the walk to `final`, float32 [batch, C]."""
    line, chunk = tl.program_id(0).to(tl.int64), tl.program_id(2)
    c = tl.program_id(1) * WIDTH + lanes(ROWS, WIDTH)
    t, inside, way = places(chunk * ROWS * STEPS, N, C, c, ROWS, STEPS, BACK)
    a_s = rows_of(a + line * a_b + t * a_n + c * a_c, way * a_n, inside, 0.0)
    b_s = rows_of(b + line * b_b + t * b_n + c * b_c, way * b_n, inside, PADDING)
    tokens = elements_of(a_s, b_s, False)
    x = before(fold(tokens, 0.0, affine, False), affine_nothing(tl.zeros(c.shape, tl.float32)), 0.0, affine, False)
    x = affine(start_of(state, carried, line, chunk, chunks, batch, C, c), x, 0.0)
    x = store_walk(h + line * N * C + t * C + c, way * C, x, tokens, inside)
    last = (tl.arange(0, ROWS)[:, None] == ROWS - 1) & (c < C)
    if chunk == chunks - 1:
        tl.store(final + line * C + c, x[1], mask=last)


@triton.jit
def recurrent_kernel(
    a, a_b, a_n, a_c, b, b_b, b_n, b_c, state, h, final, N, C, tiles,
    BACK: tl.constexpr, ROWS: tl.constexpr, STEPS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """The same in one launch: a program walks all tokens of its channels, STEPS of them at a time. ROWS is 1."""
    line = tl.program_id(0).to(tl.int64)
    c = tl.program_id(1) * WIDTH + lanes(ROWS, WIDTH)
    x = start_of(state, None, line, 0, 1, 1, C, c)
    for tile in range(tiles):
        t, inside, way = places(tile * STEPS, N, C, c, ROWS, STEPS, BACK)
        a_s = rows_of(a + line * a_b + t * a_n + c * a_c, way * a_n, inside, 0.0)
        b_s = rows_of(b + line * b_b + t * b_n + c * b_c, way * b_n, inside, PADDING)
        x = store_walk(h + line * N * C + t * C + c, way * C, x, elements_of(a_s, b_s, False), inside)
    tl.store(final + line * C + c, x[1], mask=c < C)


@triton.jit
def store_walk(h, step, x, tokens, inside):
    """Walk the rows of a tile from what enters them, and store every state. Returns: what leaves them."""
    for i in tl.static_range(len(tokens)):
        x = affine(x, tokens[i], 0.0)
        tl.store(h, x[1], mask=inside[i])
        h += step
    return x


@triton.jit
def gradient_kernel(
    a, a_b, a_n, a_c, b, b_b, b_n, b_c, dh, dh_b, dh_n, dh_c, h, initial, state, carried, da, db, final,
    N, C, chunks, batch,
    BACK: tl.constexpr, ROWS: tl.constexpr, STEPS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """da, db [batch, N, C], and `final`, the gradient of the state before the first token.

    The walk runs opposite to the one that found h. `state` is the gradient that enters it, of the last h; `initial` is
    the state before the first h.
    """
    line, chunk = tl.program_id(0).to(tl.int64), tl.program_id(2)
    c = tl.program_id(1) * WIDTH + lanes(ROWS, WIDTH)
    first = chunk * ROWS * STEPS
    t, inside, way = places(first, N, C, c, ROWS, STEPS, BACK)
    a_s = rows_of(a + line * a_b + t * a_n + c * a_c, way * a_n, inside, 0.0)
    b_s = rows_of(b + line * b_b + t * b_n + c * b_c, way * b_n, inside, PADDING)
    dhs = rows_of(dh + line * dh_b + t * dh_n + c * dh_c, way * dh_n, inside, 0.0)
    _, inner, _ = places(first + 1, N, C, c, ROWS, STEPS, BACK)  # tokens with one before them, which is met after them
    at = line * N * C + t * C + c
    hs = rows_of(h + at + way * C, way * C, inner, 0.0)
    begin = tl.load(initial + line * C + c, mask=c < C, other=0.0) if initial is not None else 0.0
    tokens = elements_of(dhs, b_s, True)
    nothing = affine_nothing(tl.zeros([ROWS, WIDTH], tl.float32))
    since = before(fold(tokens, 0.0, affine, False), nothing, 0.0, affine, False)
    start = affine(start_of(state, carried, line, chunk, chunks, batch, C, c), since, 0.0)
    for i in tl.static_range(STEPS):
        keep, z, g = gates(a_s[i], b_s[i])
        dfeed = dhs[i] + start[1]
        slope = tl.where(a_s[i] > 0, 1.0, g * (1 - g))
        tl.store(da + at + i * way * C, dfeed * z * slope, mask=inside[i])
        tl.store(db + at + i * way * C, dfeed * keep * z * (g - tl.where(inner[i], hs[i], begin)), mask=inside[i])
        start = affine(start, tokens[i], 0.0)
    if chunk == chunks - 1:
        last = tl.arange(0, ROWS)[:, None] == ROWS - 1
        tl.store(final + line * C + c, start[1], mask=last & (c < C))
