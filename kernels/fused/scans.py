"""Scans over tokens in Triton, channels innermost: what a tile of tokens hands on, and what enters each of its rows.

The element of a run of tokens is a few numbers a channel that sum it up. `join` makes one element of two runs in a row,
and `nothing` is the element of no token. Operators differ only in these two:

    affine  (keep, feed)                        h -> keep · h + feed; minGRU, and its gradient
    sums    (n, key, age, a, b[, a', b'])       a, b: sums of weights times two values; Bi-WKV, and its gradient

A tile is `ROWS` rows of consecutive tokens and 32 channels, one row a warp and one channel a lane. All rows are
walked side by side, a token a step, with their elements in registers; then what enters each row is found in
log2(ROWS) exchanges between lanes. A sequence of one tile needs one launch. A longer one needs three: `summary`,
an element a tile; `carry`, a scan of these; `apply`, the tiles again, from what enters them. In the recurrent forms,
one program walks all tiles one after the other, with one row.

Images are the first dimension of a grid, the only one that CUDA lets grow past 65535.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from vbench.kernels.fused.launch import cdiv, launch
from vbench.kernels.fused.tiling import CARRY

WIDTH = 32  # channels of a tile
NEVER = tl.constexpr(-1e38)  # the exponent of an empty sum, as in wkv.sums
LOG2E = tl.constexpr(1.4426950408889634)


@triton.jit
def affine_nothing(zero):
    """The element of no token, shaped as `zero`: it keeps all and adds nothing."""
    return zero + 1, zero


@triton.jit
def affine(x, y, w):
    """x, then y."""
    return x[0] * y[0], x[1] * y[0] + y[1]


@triton.jit
def sums_nothing(zero):
    """The empty sum."""
    return zero, zero + NEVER, zero, zero, zero


@triton.jit
def aged_nothing(zero):
    """The empty sum with ages."""
    return zero, zero + NEVER, zero, zero, zero, zero, zero


@triton.jit
def sums(x, y, w):
    """x, then y, whose n tokens damp x by e^(-w n).

    An element is a run of n tokens and its sums a, b in units of its greatest weight. That weight's exponent is kept
    as the token's key and how many tokens ago it was, key - w · age: the age is exact, and a difference of
    two exponents is rounded once, however many tokens lie between. a' and b', if there, are sums in which
    every weight is multiplied by its age: minus the derivatives of a and b by w.
    """
    age = x[2] + y[0]
    lead = (x[1] - y[1]) - w * (age - y[2])
    first = lead >= 0
    less = tl.exp2(-tl.abs(lead) * LOG2E)
    of_x, of_y = tl.where(first, 1.0, less), tl.where(first, less, 1.0)
    a, b = of_x * x[3] + of_y * y[3], of_x * x[4] + of_y * y[4]
    out = (x[0] + y[0], tl.where(first, x[1], y[1]), tl.where(first, age, y[2]), a, b)
    if len(x) == 7:
        older_a, older_b = x[5] + y[0] * x[3], x[6] + y[0] * x[4]
        out = out + (of_x * older_a + of_y * y[5], of_x * older_b + of_y * y[6])
    return out


@triton.jit
def lanes(ROWS: tl.constexpr, WIDTH: tl.constexpr):
    """The channels of a tile from its first: Int[ROWS WIDTH]."""
    return tl.broadcast_to(tl.arange(0, WIDTH)[None, :], [ROWS, WIDTH])


@triton.jit
def places(first, N, C, c, ROWS: tl.constexpr, STEPS: tl.constexpr, BACK: tl.constexpr):
    """How a tile is walked: each row's first token, whether there is a token at each step, the step to the next one.

    first: the tile's first token in the order of the walk, which begins at the last token if BACK.
    """
    p = first + tl.arange(0, ROWS)[:, None] * STEPS
    left = tl.where(c < C, N, 0) - p
    inside = ()
    for i in tl.static_range(STEPS):
        inside = inside + (left > i,)
    return N - 1 - p if BACK else p, inside, -1 if BACK else 1


@triton.jit
def rows_of(x, step, inside, other: tl.constexpr):
    """The tokens of a tile's rows in float32: x points to the first of each, the next is `step` numbers further.

    `other` stands where there is no token; it may lie outside the range of the inputs' type.
    """
    out = ()
    for i in tl.static_range(len(inside)):
        value = tl.load(x, mask=inside[i], other=0.0).to(tl.float32)
        out = out + (value if other == 0 else tl.where(inside[i], value, other),)
        x += step
    return out


@triton.jit
def fold(row, w, join: tl.constexpr, BACK: tl.constexpr):
    """The one element of a whole row of elements; BACK walks it from its end."""
    x = row[len(row) - 1] if BACK else row[0]
    for i in tl.static_range(1, len(row)):
        x = join(x, row[len(row) - 1 - i] if BACK else row[i], w)
    return x


@triton.jit
def row_of(x, at):
    """Row at[r, :] of each tile, in row r."""
    out = ()
    for i in tl.static_range(len(x)):
        out = out + (tl.gather(x[i], at, 0),)
    return out


@triton.jit
def last_row(x):
    """The last row of each tile, in every row."""
    out = ()
    for i in tl.static_range(len(x)):
        last = tl.arange(0, x[i].shape[0])[:, None] == x[i].shape[0] - 1
        out = out + (tl.broadcast_to(tl.sum(tl.where(last, x[i], 0.0), 0)[None, :], x[i].shape),)
    return out


@triton.jit
def choose(chosen, x, y):
    """x where chosen, y elsewhere."""
    out = ()
    for i in tl.static_range(len(x)):
        out = out + (tl.where(chosen, x[i], y[i]),)
    return out


@triton.jit
def before(total, nothing, w, join: tl.constexpr, BACK: tl.constexpr):
    """The elements of all rows before each row, joined; of the rows after it if BACK.

    Load what enters the tile after this call: the compiler walks the rows in the layout of the last loads or exchanges
    that it sees, and in the layout of an exchange each store needs one more exchange.
    """
    ROWS: tl.constexpr = total[0].shape[0]
    rows = tl.broadcast_to(tl.arange(0, ROWS)[:, None], total[0].shape)
    met = ROWS - 1 - rows if BACK else rows  # how many rows are met before
    at = tl.minimum(rows + 1, ROWS - 1) if BACK else tl.maximum(rows - 1, 0)
    x = choose(met == 0, nothing, row_of(total, at))
    for step in tl.static_range(5):
        if (1 << step) < ROWS:
            at = tl.minimum(rows + (1 << step), ROWS - 1) if BACK else tl.maximum(rows - (1 << step), 0)
            x = choose(met >= (1 << step), join(row_of(x, at), x, w), x)
    return x


@triton.jit
def load_element(at, stride, mask, other):
    """An element whose numbers lie `stride` apart, which may be 2^31 and more; `other` where masked."""
    out = ()
    for i in tl.static_range(len(other)):
        out = out + (tl.load(at + i * tl.cast(stride, tl.int64), mask=mask, other=0.0),)
    return choose(mask, out, other)


@triton.jit
def store_element(at, stride, x, mask):
    """The reverse of `load_element`."""
    for i in tl.static_range(len(x)):
        tl.store(at + i * tl.cast(stride, tl.int64), x[i], mask=mask)


@triton.jit
def carry_kernel(
    given, found, w, size, batch, chunks, C,
    join: tl.constexpr, nothing: tl.constexpr, ROWS: tl.constexpr, STEPS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """What enters each chunk: the elements of all before it, joined.

    given, found: float32 [numbers, directions · batch, chunks, C], `size` apart. The second direction's chunks are met
    from the last to the first. Many chunks are loaded at a time; no load waits for the carry.
    """
    c = tl.program_id(1) * WIDTH + lanes(ROWS, WIDTH)
    line = tl.program_id(0)
    back = line >= batch
    base = line.to(tl.int64) * chunks * C + c
    rate = tl.load(w + c, mask=c < C, other=0.0).to(tl.float32) if w is not None else 0.0
    row = tl.arange(0, ROWS)[:, None] * STEPS
    zero = tl.zeros([ROWS, WIDTH], tl.float32)
    start = nothing(zero)
    for first in range(0, chunks, ROWS * STEPS):
        elements = ()
        for i in tl.static_range(STEPS):
            at = first + row + i
            place = tl.where(back, chunks - 1 - at, at)
            elements = elements + (
                load_element(given + base + place * C, size, (at < chunks) & (c < C), nothing(zero)),
            )
        x = join(start, before(fold(elements, rate, join, False), nothing(zero), rate, join, False), rate)
        for i in tl.static_range(STEPS):
            at = first + row + i
            place = tl.where(back, chunks - 1 - at, at)
            store_element(found + base + place * C, size, x, (at < chunks) & (c < C))
            x = join(x, elements[i], rate)
        start = last_row(x)


def carry(summaries: Tensor, batch: int, join: object, nothing: object, w: Tensor | None = None) -> Tensor:
    """What enters each chunk, if the sequence starts with nothing: Float[numbers lines chunks C] -> the same.

    Args:
        summaries: the element of each chunk; of its lines the first `batch` run forward, the others back.
        join, nothing: of these elements.
        w: (C,) for `sums`.
    """
    found = torch.empty_like(summaries)
    _, lines, chunks, C = summaries.shape
    rows, steps = CARRY
    launch(
        carry_kernel,
        (lines, cdiv(C, WIDTH)),
        {"given": summaries, "found": found, "w": w, "size": lines * chunks * C, "batch": batch}
        | {"chunks": chunks, "C": C},
        {"join": join, "nothing": nothing, "ROWS": rows, "STEPS": steps, "WIDTH": WIDTH},
        warps=rows,
    )
    return found
