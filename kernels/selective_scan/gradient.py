"""The Triton kernel of the selective scan's gradient. It stores no state of a token: it computes them again.

With dh_t for the gradient of h_t, which is read by token t and handed to the next one on the walk,

    dh_t = C_t dy_t + e_t      e_{t-1} = exp(δ_t A) dh_t

so e is a selective scan in the other direction, with dy for δ u and C for B, and `passes.summary_kernel` has its
chunks. And

    d(δ_t u_t) = Σ B_t dh_t      dA = Σ_t δ_t q_t      dδ_t = u_t d(δ_t u_t) + Σ A q_t,  q_t = dh_t exp(δ_t A) h_{t-1}
    dB_t = Σ δ_t u_t dh_t        dC_t = Σ dy_t h_t     over the channels of the group

A chunk is met from its end, a block of tokens at a time. The states in a block are found from the chunk's start on.
"""

from __future__ import annotations

import triton
import triton.language as tl

from vbench.kernels.fused.scans import LOG2E
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
def gradient_kernel(
    u, u_w, u_b, u_g, u_n, delta, d_w, d_b, d_g, d_n, rates, written, w_w, w_b, w_g, w_n, read, r_w, r_b, r_g, r_n,
    skip, bias, z, z_b, z_g, z_n, do, o_b, o_g, o_n, total, state, past, entering, future, size,
    du, ddelta, dwritten, dread, dz, drates, dskip, dbias, leaving, N, C, width, length, chunks, batch, groups,
    WALKS: tl.constexpr, AHEAD: tl.constexpr, CROSS: tl.constexpr, SOFTPLUS: tl.constexpr,
    STATES: tl.constexpr, PADDED: tl.constexpr, STEPS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Gradients of one walk in one chunk; lines are (walk, image, group).

    du, ddelta [walks, batch, N, groups, C]; dwritten, dread float32 [columns, walks, batch, N, groups, STATES], of the
    channels of this program; dz [batch, N, groups, C]; drates float32 [lines, chunks, STATES, C]; dskip, dbias float32
    [lines, chunks, C]; leaving, the gradient of `state`. past and future: what enters from either side, as `carried`
    in `tiles.after`; the lines of `future`, and of no other tensor, begin with the walks that ran backwards. drates
    may be the first half of `past`.
    """
    line, column, chunk = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    walk, image, group = line // groups // batch, (line // groups % batch).to(tl.int64), (line % groups).to(tl.int64)
    c, s = column * WIDTH + tl.arange(0, WIDTH), tl.arange(0, PADDED)
    begin = chunk * length
    count = tl.minimum(length, N - begin)
    first = tl.where(walk < AHEAD, begin, begin + count - 1)
    way, along = tl.where(walk < AHEAD, 1, -1), walk % 2 == 1
    weights = (walk.to(tl.int64) * groups + group) * C
    a = rates_of(rates + weights * STATES, c, C, STATES, PADDED)
    shift = tl.load(bias + weights + c, mask=c < C, other=0.0).to(tl.float32)
    passed = tl.load(skip + weights + c, mask=c < C, other=0.0).to(tl.float32)
    far = walk.to(tl.int64)
    u += far * u_w + image * u_b + group * u_g + c
    delta += far * d_w + image * d_b + group * d_g + c
    written += far * w_w + image * w_b + group * w_g + s
    read += far * r_w + image * r_b + group * r_g + s
    do += image * o_b + group * o_g + c
    out = (image * N * groups + group) * C + c
    place = ((far * batch + image) * N * groups + group) * C + c
    of_states = (((column * WALKS + far) * batch + image) * N * groups + group) * STATES + s
    at = (far * batch + image) * groups + group
    turned = (((walk + AHEAD) % WALKS).to(tl.int64) * batch + image) * groups + group
    e = before_all(entering, at, c, C, STATES, PADDED)
    e = after(e, future, size, turned, c, C, chunk, chunks, STATES, PADDED)
    by_rates = tl.zeros([PADDED, WIDTH], tl.float32)
    by_skip, by_bias = tl.zeros([WIDTH], tl.float32), tl.zeros([WIDTH], tl.float32)
    blocks = (count + STEPS - 1) // STEPS
    for met in range(0, blocks):
        block = (blocks - 1 - met) * STEPS
        h = before_all(state, at, c, C, STATES, PADDED)  # read anew for each block, which saves its registers meanwhile
        h = after(h, past, size, at, c, C, chunk, chunks, STATES, PADDED)
        for i in range(0, block):
            inside = insides(i, count, 1)
            tokens = places(first + i * way, way, along, N, width, 1, CROSS)
            us = numbers_of(u, u_n, tokens, inside, c < C)
            steps = steps_of(numbers_of(delta, d_n, tokens, inside, c < C), shift, inside, SOFTPLUS)
            writes = numbers_of(written, w_n, tokens, inside, s < STATES)
            h = tl.exp2(steps[0][None, :] * a) * h + (steps[0] * us[0])[None, :] * writes[0][:, None]
        inside = insides(block, count, STEPS)
        tokens = places(first + block * way, way, along, N, width, STEPS, CROSS)
        us = numbers_of(u, u_n, tokens, inside, c < C)
        raw = numbers_of(delta, d_n, tokens, inside, c < C)
        steps = steps_of(raw, shift, inside, SOFTPLUS)
        dos = numbers_of(do, o_n, tokens, inside, c < C)
        if z is not None:
            gates = numbers_of(z + image * z_b + group * z_g + c, z_n, tokens, inside, c < C)
            sums = numbers_of(total + out, groups * C, tokens, inside, c < C)
        states = (h,)
        for j in tl.static_range(STEPS - 1):
            writes = tl.load(written + tokens[j] * w_n, mask=(s < STATES) & inside[j], other=0.0).to(tl.float32)
            h = tl.exp2(steps[j][None, :] * a) * h + (steps[j] * us[j])[None, :] * writes[:, None]
            states = states + (h,)
        for j in tl.static_range(STEPS - 1, -1, -1):
            dy, here = dos[j], (c < C) & inside[j]
            if z is not None:
                open_ = sigmoid(gates[j])
                slope = open_ * (1 + gates[j] * (1 - open_))
                tl.store(dz + out + tokens[j] * groups * C, dy * sums[j] * slope, mask=here & (walk == 0))
                dy *= gates[j] * open_
            fed = steps[j] * us[j]
            writes = tl.load(written + tokens[j] * w_n, mask=(s < STATES) & inside[j], other=0.0).to(tl.float32)
            reads = tl.load(read + tokens[j] * r_n, mask=(s < STATES) & inside[j], other=0.0).to(tl.float32)
            dh = e + dy[None, :] * reads[:, None]
            old = tl.exp2(steps[j][None, :] * a) * states[j]
            h = old + fed[None, :] * writes[:, None]
            q = dh * old
            by_fed = tl.sum(dh * writes[:, None], 0)
            by_step = us[j] * by_fed + tl.sum(a * q, 0) * (1 / LOG2E)
            if SOFTPLUS:
                by_step *= sigmoid(raw[j] + shift)
            by_rates += steps[j][None, :] * q
            by_skip += dy * us[j]
            by_bias += tl.where(inside[j], by_step, 0.0)
            tl.store(du + place + tokens[j] * groups * C, steps[j] * by_fed + passed * dy, mask=here)
            tl.store(ddelta + place + tokens[j] * groups * C, by_step, mask=here)
            at_token = of_states + tokens[j] * groups * STATES
            tl.store(dwritten + at_token, tl.sum(fed[None, :] * dh, 1), mask=(s < STATES) & inside[j])
            tl.store(dread + at_token, tl.sum(dy[None, :] * h, 1), mask=(s < STATES) & inside[j])
            e = tl.exp2(steps[j][None, :] * a) * dh
    part = (at * chunks + chunk) * C + c
    tl.store(dskip + part, by_skip, mask=c < C)
    tl.store(dbias + part, by_bias, mask=c < C)
    here = chunk == tl.where(walk < AHEAD, 0, chunks - 1)
    store_state(leaving, e, at, c, C, here, STATES, PADDED)
    c, s = hidden(c)[None, :], hidden(s)[:, None]
    tl.store(drates + ((at * chunks + chunk) * STATES + s) * C + c, by_rates, mask=(c < C) & (s < STATES))
