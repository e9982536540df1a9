"""The Triton kernels of the selective scan: what each chunk of tokens adds to a state, and what its tokens read.

A chunk is the same tokens for a walk and for the one backwards, so a program of `apply_kernel` takes both, one after
the other. Between them the sum of the walks waits in memory, in float32, and the program that wrote it reads it.
"""

from __future__ import annotations

import triton
import triton.language as tl

from vbench.kernels.selective_scan.tiles import (
    after,
    before_all,
    hidden,
    insides,
    numbers_of,
    places,
    rates_of,
    sigmoid,
    steps_of,
    store_state,
)


@triton.jit
def summary_kernel(
    x, x_w, x_b, x_g, x_n, delta, d_w, d_b, d_g, d_n, rates, mixed, m_w, m_b, m_g, m_n, bias, z, z_b, z_g, z_n,
    found, size, N, C, width, length, chunks, batch, groups,
    GRADIENT: tl.constexpr, WALKS: tl.constexpr, AHEAD: tl.constexpr, CROSS: tl.constexpr, SOFTPLUS: tl.constexpr,
    STATES: tl.constexpr, PADDED: tl.constexpr, STEPS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """The element (keep, feed) of each chunk and walk: found float32 [2, lines, chunks, STATES, C], `size` apart.

    x is u and `mixed` B; in the gradient, whose walks run the other way, x is the output's gradient and `mixed` C.
    Lines are (walk, image, group). In the gradient the walks that ran backwards come first, for these now run ahead.
    """
    line, chunk = tl.program_id(0), tl.program_id(2)
    walk, image, group = line // groups // batch, (line // groups % batch).to(tl.int64), (line % groups).to(tl.int64)
    c = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    s = tl.arange(0, PADDED)
    ahead = (walk < AHEAD) != GRADIENT
    along = walk % 2 == 1
    begin = chunk * length
    count = tl.minimum(length, N - begin)
    first = tl.where(ahead, begin, begin + count - 1)
    way = tl.where(ahead, 1, -1)
    weights = (walk.to(tl.int64) * groups + group) * C
    a = rates_of(rates + weights * STATES, c, C, STATES, PADDED)
    shift = tl.load(bias + weights + c, mask=c < C, other=0.0).to(tl.float32)
    x += walk.to(tl.int64) * x_w + image * x_b + group * x_g + c
    delta += walk.to(tl.int64) * d_w + image * d_b + group * d_g + c
    mixed += walk.to(tl.int64) * m_w + image * m_b + group * m_g + s
    if z is not None:
        z += image * z_b + group * z_g + c
    h = tl.zeros([PADDED, WIDTH], tl.float32)
    total = tl.zeros([WIDTH], tl.float32)
    for i in range(0, count, STEPS):
        inside = insides(i, count, STEPS)
        tokens = places(first + i * way, way, along, N, width, STEPS, CROSS)
        xs = numbers_of(x, x_n, tokens, inside, c < C)
        steps = steps_of(numbers_of(delta, d_n, tokens, inside, c < C), shift, inside, SOFTPLUS)
        mixes = numbers_of(mixed, m_n, tokens, inside, s < STATES)
        if z is not None:
            gates = numbers_of(z, z_n, tokens, inside, c < C)
        for j in tl.static_range(STEPS):
            keep = tl.exp2(steps[j][None, :] * a)
            if GRADIENT:
                dy = xs[j]
                if z is not None:
                    dy *= gates[j] * sigmoid(gates[j])
                h = keep * (h + dy[None, :] * mixes[j][:, None])
            else:
                h = keep * h + (steps[j] * xs[j])[None, :] * mixes[j][:, None]
            total += steps[j]
    place = (walk + AHEAD) % WALKS if GRADIENT else walk
    at = (place.to(tl.int64) * batch + image) * groups + group
    c, s = hidden(c)[None, :], hidden(s)[:, None]
    found += ((at * chunks + chunk) * STATES + s) * C + c
    mask = (c < C) & (s < STATES)
    tl.store(found, tl.exp2(total[None, :] * a), mask=mask)
    tl.store(found + tl.cast(size, tl.int64), h, mask=mask)


@triton.jit
def apply_kernel(
    u, u_w, u_b, u_g, u_n, delta, d_w, d_b, d_g, d_n, rates, written, w_w, w_b, w_g, w_n, read, r_w, r_b, r_g, r_n,
    skip, bias, z, z_b, z_g, z_n, state, carried, size, total, o, final, N, C, width, length, chunks, batch, groups,
    FIRST: tl.constexpr, STRIDE: tl.constexpr, COUNT: tl.constexpr, WALKS: tl.constexpr, AHEAD: tl.constexpr,
    CROSS: tl.constexpr, SOFTPLUS: tl.constexpr, KEEP: tl.constexpr,
    STATES: tl.constexpr, PADDED: tl.constexpr, STEPS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """o [batch, N, groups, C] and the final states, of the walks FIRST, FIRST + STRIDE and so on, COUNT of them.

    `total`, float32 and shaped as o, is the sum of the walks so far, of earlier launches too; it may be o. The launch
    with the last walk writes o, and the sum before the gate if KEEP. If `length` is N, this is the whole recurrence.
    """
    for i in tl.static_range(COUNT):
        if i > 0:
            tl.debug_barrier()  # what is loaded now may have been stored by another lane
        read_walk(
            u, u_w, u_b, u_g, u_n, delta, d_w, d_b, d_g, d_n, rates, written, w_w, w_b, w_g, w_n, read, r_w, r_b, r_g,
            r_n, skip, bias, z, z_b, z_g, z_n, state, carried, size, total, o, final, N, C, width, length, chunks,
            batch, groups, FIRST + i * STRIDE, FIRST > 0 or i > 0, FIRST + i * STRIDE == WALKS - 1,
            AHEAD, CROSS, SOFTPLUS, KEEP, STATES, PADDED, STEPS, WIDTH,
        )  # fmt: skip


@triton.jit
def read_walk(
    u, u_w, u_b, u_g, u_n, delta, d_w, d_b, d_g, d_n, rates, written, w_w, w_b, w_g, w_n, read, r_w, r_b, r_g, r_n,
    skip, bias, z, z_b, z_g, z_n, state, carried, size, total, o, final, N, C, width, length, chunks, batch, groups,
    WALK: tl.constexpr, ADD: tl.constexpr, LAST: tl.constexpr, AHEAD: tl.constexpr, CROSS: tl.constexpr,
    SOFTPLUS: tl.constexpr, KEEP: tl.constexpr,
    STATES: tl.constexpr, PADDED: tl.constexpr, STEPS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """One walk through a chunk: ADD the sum of the walks before it; the LAST finishes the output."""
    line, chunk = tl.program_id(0), tl.program_id(2)
    image, group = (line // groups).to(tl.int64), (line % groups).to(tl.int64)
    c = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    s = tl.arange(0, PADDED)
    begin = chunk * length
    count = tl.minimum(length, N - begin)
    first = begin if WALK < AHEAD else begin + count - 1
    way = 1 if WALK < AHEAD else -1
    weights = (tl.cast(groups, tl.int64) * WALK + group) * C
    a = rates_of(rates + weights * STATES, c, C, STATES, PADDED)
    shift = tl.load(bias + weights + c, mask=c < C, other=0.0).to(tl.float32)
    passed = tl.load(skip + weights + c, mask=c < C, other=0.0).to(tl.float32)
    u += tl.cast(u_w, tl.int64) * WALK + image * u_b + group * u_g + c
    delta += tl.cast(d_w, tl.int64) * WALK + image * d_b + group * d_g + c
    written += tl.cast(w_w, tl.int64) * WALK + image * w_b + group * w_g + s
    read += tl.cast(r_w, tl.int64) * WALK + image * r_b + group * r_g + s
    out = (image * N * groups + group) * C + c
    o_n = groups * C
    at = (tl.cast(batch, tl.int64) * WALK + image) * groups + group
    h = before_all(state, at, c, C, STATES, PADDED)
    h = after(h, carried, size, at, c, C, chunk, chunks, STATES, PADDED)
    for i in range(0, count, STEPS):
        inside = insides(i, count, STEPS)
        tokens = places(first + i * way, way, WALK % 2 == 1, N, width, STEPS, CROSS)
        us = numbers_of(u, u_n, tokens, inside, c < C)
        steps = steps_of(numbers_of(delta, d_n, tokens, inside, c < C), shift, inside, SOFTPLUS)
        writes = numbers_of(written, w_n, tokens, inside, s < STATES)
        reads = numbers_of(read, r_n, tokens, inside, s < STATES)
        if ADD:
            before = numbers_of(total + out, o_n, tokens, inside, c < C)
        if LAST:
            if z is not None:
                gates = numbers_of(z + image * z_b + group * z_g + c, z_n, tokens, inside, c < C)
        for j in tl.static_range(STEPS):
            h = tl.exp2(steps[j][None, :] * a) * h + (steps[j] * us[j])[None, :] * writes[j][:, None]
            y = tl.sum(h * reads[j][:, None], 0) + passed * us[j]
            mask = (c < C) & inside[j]
            if ADD:
                y += before[j]
            if KEEP or not LAST:
                tl.store(total + out + tokens[j] * o_n, y, mask=mask)
            if LAST:
                if z is not None:
                    y *= gates[j] * sigmoid(gates[j])
                tl.store(o + out + tokens[j] * o_n, y, mask=mask)
    here = chunk == chunks - 1 if WALK < AHEAD else chunk == 0
    store_state(final, h, at, c, C, here, STATES, PADDED)
