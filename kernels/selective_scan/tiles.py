"""What the Triton kernels of the selective scan share: where the tokens of a walk lie, how they are read, what enters.

A program has `WIDTH` channels, one a lane, and all states of each in the registers of that lane: a tile [STATES WIDTH].
So a token's sum over states needs no exchange between lanes, and its B and C are the same loads for all lanes. A tile
takes the tokens of its chunk one after the other.
"""

from __future__ import annotations

import triton
import triton.language as tl

from vbench.kernels.fused.scans import LOG2E

GRID = tl.constexpr(65536)  # more programs than there are in the third dimension of a grid


@triton.jit
def softplus(x):
    """log(1 + e^x) to the last digits for every x: with f = s / (2 + s), log(1 + s) is 2 artanh(f), and f <= 1/3."""
    small = tl.exp2(-tl.abs(x) * LOG2E)
    f = small / (2 + small)
    q = f * f
    series = 1 / 3 + q * (1 / 5 + q * (1 / 7 + q * (1 / 9 + q * (1 / 11 + q * (1 / 13)))))
    return tl.maximum(x, 0.0) + 2 * f * (1 + q * series)


@triton.jit
def sigmoid(x):
    """1 / (1 + e^-x), without overflow."""
    small = tl.exp2(-tl.abs(x) * LOG2E)
    return tl.where(x < 0, small, 1.0) / (1 + small)


@triton.jit
def places(first, way, along, N, width, STEPS: tl.constexpr, CROSS: tl.constexpr):
    """The tokens at `STEPS` positions of a walk, from position `first` on, as numbers in the order of memory.

    way: 1, or -1 for a walk towards position 0. along: whether positions count along columns of a map with rows of
    `width` tokens; asked only if CROSS. Positions outside the sequence have numbers that are not to be read.
    """
    out = ()
    for i in tl.static_range(STEPS):
        t = first + i * way
        if CROSS:
            height = N // width
            t = tl.where(along, t % height * width + t // height, t)
        out = out + (t,)
    return out


@triton.jit
def numbers_of(x, x_n, tokens, inside, mask):
    """A vector of numbers of each token in float32; 0 where there is no token. x points to those of token 0."""
    out = ()
    for i in tl.static_range(len(tokens)):
        out = out + (tl.load(x + tokens[i] * x_n, mask=mask & inside[i], other=0.0).to(tl.float32),)
    return out


@triton.jit
def insides(i, count, STEPS: tl.constexpr):
    """Whether there is a token at each of the next steps, after `i` of `count`."""
    out = ()
    for j in tl.static_range(STEPS):
        out = out + (i + j < count,)
    return out


@triton.jit
def steps_of(raw, bias, inside, SOFTPLUS: tl.constexpr):
    """δ of each token; 0 where there is none: then the state passes through."""
    out = ()
    for i in tl.static_range(len(raw)):
        step = raw[i] + bias
        if SOFTPLUS:
            step = softplus(step)
        out = out + (tl.where(inside[i], step, 0.0),)
    return out


@triton.jit
def hidden(x):
    """x, as numbers of which the compiler knows no order. So it does not read four numbers of a row at a time, and lets
    the channels of a tile [PADDED WIDTH] stay one a lane. Where it sees the order, lanes share the states of a channel,
    and each token costs exchanges between them."""
    return x ^ (tl.program_id(2) // GRID)


@triton.jit
def rates_of(rates, c, C, STATES: tl.constexpr, PADDED: tl.constexpr):
    """A · log2 e of a tile's channels [PADDED WIDTH], for exp2; 0 for states that are padding."""
    c, s = hidden(c)[None, :], hidden(tl.arange(0, PADDED))[:, None]
    return tl.load(rates + c * STATES + s, mask=(c < C) & (s < STATES), other=0.0).to(tl.float32) * LOG2E


@triton.jit
def before_all(state, line, c, C, STATES: tl.constexpr, PADDED: tl.constexpr):
    """The state before the first token of a line's walk [PADDED WIDTH]: of [lines, C, STATES], or zeros for None."""
    h = tl.zeros([PADDED, c.shape[0]], tl.float32)
    if state is not None:
        c, s = hidden(c)[None, :], hidden(tl.arange(0, PADDED))[:, None]
        h += tl.load(state + (line * C + c) * STATES + s, mask=(c < C) & (s < STATES), other=0.0)
    return h


@triton.jit
def after(h, carried, size, line, c, C, chunk, chunks, STATES: tl.constexpr, PADDED: tl.constexpr):
    """A state after all chunks that are met before this one. `carried` has elements (keep, feed) of these, each
    [lines, chunks, STATES, C] and `size` apart; None if there are none."""
    if carried is not None:
        c, s = hidden(c)[None, :], hidden(tl.arange(0, PADDED))[:, None]
        x = carried + ((line * chunks + chunk) * STATES + s) * C + c
        mask = (c < C) & (s < STATES)
        h = tl.load(x, mask=mask, other=0.0) * h + tl.load(x + tl.cast(size, tl.int64), mask=mask, other=0.0)
    return h


@triton.jit
def store_state(found, h, line, c, C, here, STATES: tl.constexpr, PADDED: tl.constexpr):
    """Store a state in [lines, C, STATES] if `here`."""
    c, s = hidden(c)[None, :], hidden(tl.arange(0, PADDED))[:, None]
    tl.store(found + (line * C + c) * STATES + s, h, mask=(c < C) & (s < STATES) & here)
