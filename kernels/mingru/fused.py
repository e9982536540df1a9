"""minGRU in Triton: the gates are computed inside, h is stored once, and the gradient is a scan the other way.

The scan itself, and how it is cut into launches, is `fused.scans`. The gradient's recurrence is of the same kind:
what token t hands to the one before it is e_t = keep_t · (e_{t+1} + dh_t), so its element is (keep, keep · dh).
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula
from vbench.kernels.fused.launch import cdiv, launch
from vbench.kernels.fused.scans import (
    LOG2E,
    WIDTH,
    affine,
    affine_nothing,
    before,
    carry,
    fold,
    lanes,
    places,
    rows_of,
    store_element,
    strided,
    takes,
)
from vbench.kernels.fused.tiling import Tiling, tiling
from vbench.kernels.mingru import cost
from vbench.kernels.mingru.shapes import check
from vbench.kernels.shapes import Direction


SHUT = tl.constexpr(-1e30)  # the b of a token that is none: it keeps all and adds nothing


def mingru(
    a: Tensor, b: Tensor, *, direction: Direction = "forward", state: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """minGRU, fused parallel form (a scan of affine maps: Martin & Cundy 2018, arXiv:1709.04057, section 2).

    Arguments, results and errors are those of `reference.mingru`. Besides:

    Raises: UnsupportedError for float64, and for tensors on a device that the kernels do not run on.
    """
    return _call(a, b, direction, state, "fused")


def mingru_recurrent(
    a: Tensor, b: Tensor, *, direction: Direction = "forward", state: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """minGRU, fused recurrent form: all tokens in order, in one launch. Its gradient is that of `mingru` here.

    Arguments, results and errors are those of `mingru` here.
    """
    return _call(a, b, direction, state, "fused_recurrent")


def _call(a: Tensor, b: Tensor, direction: Direction, state: Tensor | None, form: str) -> tuple[Tensor, Tensor]:
    check(a, b, direction, state)
    if a.is_meta:
        return cost.on_meta(a, form)
    takes(f"mingru {form}", a, b)
    op = _fused if form == "fused" else _recurrent
    h, final = op(a, b, None if state is None else state.float(), direction == "reverse")
    return h, final


@triton.jit
def gates(a, b):
    """keep, z and g(a), as in gates.py; no exponential of a positive number, and one quotient for all three."""
    small, below = tl.exp2(-tl.abs(b) * LOG2E), tl.exp2(tl.minimum(a, 0.0) * LOG2E)
    p, q = 1 + small, 1 + below
    both = 1 / (p * q)
    large = q * both
    small *= large
    open = b >= 0
    return tl.where(open, small, large), tl.where(open, large, small), tl.where(a > 0, a + 0.5, below * p * both)


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
    """The element of each chunk: found float32 [2, batch, chunks, C], chunks in the order of the walk."""
    chunk, line = tl.program_id(0), tl.program_id(2).to(tl.int64)
    c = tl.program_id(1) * WIDTH + lanes(ROWS, WIDTH)
    t, inside, way = places(chunk * ROWS * STEPS, N, C, c, ROWS, STEPS, BACK)
    xs = rows_of(x + line * x_b + t * x_n + c * x_c, way * x_n, inside, 0.0)
    bs = rows_of(b + line * b_b + t * b_n + c * b_c, way * b_n, inside, SHUT)
    total = fold(elements_of(xs, bs, GRADIENT), 0.0, affine, False)
    total = affine(before(total, affine_nothing(tl.zeros([ROWS, WIDTH], tl.float32)), 0.0, affine, False), total, 0.0)
    last = (tl.arange(0, ROWS)[:, None] == ROWS - 1) & (c < C)
    store_element(found + (line * chunks + chunk) * C + c, batch * chunks * C, total, last)


@triton.jit
def start_of(state, carried, line, chunk, chunks, batch, C, c, ROWS: tl.constexpr, WIDTH: tl.constexpr):
    """What enters a chunk: the state before all tokens and the chunks since."""
    keep, feed = affine_nothing(tl.zeros([ROWS, WIDTH], tl.float32))
    if state is not None:
        feed += tl.load(state + line * C + c, mask=c < C, other=0.0)
    if carried is not None:
        at = carried + (line * chunks + chunk) * C + c
        since = tl.load(at, mask=c < C, other=0.0), tl.load(at + batch * chunks * C, mask=c < C, other=0.0)
        feed = since[0] * feed + since[1]
    return keep, feed


@triton.jit
def apply_kernel(
    a, a_b, a_n, a_c, b, b_b, b_n, b_c, state, carried, h, final, N, C, chunks, batch,
    BACK: tl.constexpr, ROWS: tl.constexpr, STEPS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """h [batch, N, C] and the last of them, float32 [batch, C]."""
    chunk, line = tl.program_id(0), tl.program_id(2).to(tl.int64)
    c = tl.program_id(1) * WIDTH + lanes(ROWS, WIDTH)
    t, inside, way = places(chunk * ROWS * STEPS, N, C, c, ROWS, STEPS, BACK)
    a_s = rows_of(a + line * a_b + t * a_n + c * a_c, way * a_n, inside, 0.0)
    b_s = rows_of(b + line * b_b + t * b_n + c * b_c, way * b_n, inside, SHUT)
    tokens = elements_of(a_s, b_s, False)
    x = before(fold(tokens, 0.0, affine, False), affine_nothing(tl.zeros(c.shape, tl.float32)), 0.0, affine, False)
    x = affine(start_of(state, carried, line, chunk, chunks, batch, C, c, ROWS, WIDTH), x, 0.0)
    x = store_walk(h + line * N * C + t * C + c, way * C, x, tokens, inside)
    last = (tl.arange(0, ROWS)[:, None] == ROWS - 1) & (c < C)
    if chunk == chunks - 1:
        tl.store(final + line * C + c, x[1], mask=last)


@triton.jit
def recurrent_kernel(
    a, a_b, a_n, a_c, b, b_b, b_n, b_c, state, h, final, N, C, tiles,
    BACK: tl.constexpr, ROWS: tl.constexpr, STEPS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """The same in one launch: a program walks all tokens of its channels, loading a row of them at a time. ROWS is 1."""
    line = tl.program_id(1).to(tl.int64)
    c = tl.program_id(0) * WIDTH + lanes(ROWS, WIDTH)
    x = start_of(state, None, line, 0, 1, 1, C, c, ROWS, WIDTH)
    for tile in range(tiles):
        t, inside, way = places(tile * STEPS, N, C, c, ROWS, STEPS, BACK)
        a_s = rows_of(a + line * a_b + t * a_n + c * a_c, way * a_n, inside, 0.0)
        b_s = rows_of(b + line * b_b + t * b_n + c * b_c, way * b_n, inside, SHUT)
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

    The walk, BACK or not, is the other way than h was found. `state` is the gradient that enters it, of the last h;
    `initial` is the state that h began with.
    """
    chunk, line = tl.program_id(0), tl.program_id(2).to(tl.int64)
    c = tl.program_id(1) * WIDTH + lanes(ROWS, WIDTH)
    first = chunk * ROWS * STEPS
    t, inside, way = places(first, N, C, c, ROWS, STEPS, BACK)
    a_s = rows_of(a + line * a_b + t * a_n + c * a_c, way * a_n, inside, 0.0)
    b_s = rows_of(b + line * b_b + t * b_n + c * b_c, way * b_n, inside, SHUT)
    dhs = rows_of(dh + line * dh_b + t * dh_n + c * dh_c, way * dh_n, inside, 0.0)
    _, inner, _ = places(first + 1, N, C, c, ROWS, STEPS, BACK)  # tokens with one before them, which is met after them
    at = line * N * C + t * C + c
    hs = rows_of(h + at + way * C, way * C, inner, 0.0)
    begin = tl.load(initial + line * C + c, mask=c < C, other=0.0) if initial is not None else 0.0
    tokens = elements_of(dhs, b_s, True)
    nothing = affine_nothing(tl.zeros([ROWS, WIDTH], tl.float32))
    since = before(fold(tokens, 0.0, affine, False), nothing, 0.0, affine, False)
    start = affine(start_of(state, carried, line, chunk, chunks, batch, C, c, ROWS, WIDTH), since, 0.0)
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


def _summaries(x: Tensor, b: Tensor, gradient: bool, back: bool, how: Tiling) -> Tensor | None:
    """What enters each chunk but for the state, float32 (2, B, chunks, C); None if there is one."""
    B, N, C = b.shape
    if how.tiles == 1:
        return None
    found = b.new_empty(2, B, how.tiles, C, dtype=torch.float32)
    args = {**strided("x", x), **strided("b", b), "found": found, "N": N, "C": C, "chunks": how.tiles, "batch": B}
    constants = {"GRADIENT": gradient, "BACK": back, **how.constants, "WIDTH": WIDTH}
    launch(summary_kernel, (how.tiles, cdiv(C, WIDTH), B), args, constants, warps=how.rows)
    return carry(found, B, affine, affine_nothing)


def _forward(a: Tensor, b: Tensor, state: Tensor | None, reverse: bool, how: Tiling) -> tuple[Tensor, Tensor]:
    B, N, C = a.shape
    h, final = a.new_empty(B, N, C), a.new_empty(B, C, dtype=torch.float32)
    args = {**strided("a", a), **strided("b", b), "state": None if state is None else state.contiguous()}
    args |= {"h": h, "final": final, "N": N, "C": C}
    constants, columns = {"BACK": reverse, **how.constants, "WIDTH": WIDTH}, cdiv(C, WIDTH)
    if how.sequential:
        launch(recurrent_kernel, (columns, B), args | {"tiles": how.tiles}, constants, warps=how.rows)
    else:
        args |= {"carried": _summaries(a, b, False, reverse, how), "chunks": how.tiles, "batch": B}
        launch(apply_kernel, (how.tiles, columns, B), args, constants, warps=how.rows)
    return h, final


@torch.library.custom_op("vbench::mingru_fused", mutates_args=())
def _fused(a: Tensor, b: Tensor, state: Tensor | None, reverse: bool) -> tuple[Tensor, Tensor]:
    return _forward(a, b, state, reverse, tiling("mingru", a))


@torch.library.custom_op("vbench::mingru_fused_recurrent", mutates_args=())
def _recurrent(a: Tensor, b: Tensor, state: Tensor | None, reverse: bool) -> tuple[Tensor, Tensor]:
    return _forward(a, b, state, reverse, tiling("mingru", a, sequential=True))


@torch.library.custom_op("vbench::mingru_fused_backward", mutates_args=())
def _backward(
    dh: Tensor, dfinal: Tensor | None, a: Tensor, b: Tensor, h: Tensor, state: Tensor | None, reverse: bool
) -> tuple[Tensor, Tensor, Tensor]:
    B, N, C = a.shape
    how = tiling("mingru", a, gradient=True)
    da, db, dstate = torch.empty_like(h), torch.empty_like(h), a.new_empty(B, C, dtype=torch.float32)
    carried = _summaries(dh, b, True, not reverse, how)
    args = {**strided("a", a), **strided("b", b), **strided("dh", dh), "h": h}
    args |= {"initial": None if state is None else state.contiguous()}
    args |= {"state": None if dfinal is None else dfinal.contiguous(), "carried": carried}
    args |= {"da": da, "db": db, "final": dstate, "N": N, "C": C, "chunks": how.tiles, "batch": B}
    constants = {"BACK": not reverse, **how.constants, "WIDTH": WIDTH}
    launch(gradient_kernel, (how.tiles, cdiv(C, WIDTH), B), args, constants, warps=how.rows)
    return da, db, dstate


def _fake(a: Tensor, b: Tensor, state: Tensor | None, reverse: bool) -> tuple[Tensor, Tensor]:
    return a.new_empty(a.shape), a.new_empty(a.shape[0], a.shape[2], dtype=torch.float32)


@_backward.register_fake
def _fake_backward(
    dh: Tensor, dfinal: Tensor | None, a: Tensor, b: Tensor, h: Tensor, state: Tensor | None, reverse: bool
) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(h), torch.empty_like(h), a.new_empty(a.shape[0], a.shape[2], dtype=torch.float32)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    a, b, state, ctx.reverse = inputs
    ctx.save_for_backward(a, b, output[0], state)


def _gradient(ctx: Any, dh: Tensor | None, dfinal: Tensor | None) -> tuple[Tensor | None, ...]:
    a, b, h, state = ctx.saved_tensors
    da, db, dstate = _backward(torch.zeros_like(h) if dh is None else dh, dfinal, a, b, h, state, ctx.reverse)
    return da, db, None if state is None else dstate, None


for _op, _form in ((_fused, "fused"), (_recurrent, "fused_recurrent")):
    _op.register_fake(_fake)
    _op.register_autograd(_gradient, setup_context=_save)


@register_flop_formula([torch.ops.vbench.mingru_fused])
def _flops(a: Any, *_: Any, **__: Any) -> int:
    return 2 * cost.macs("fused", batch=a[0], tokens=a[1], channels=a[2])


@register_flop_formula([torch.ops.vbench.mingru_fused_recurrent])
def _flops_recurrent(a: Any, *_: Any, **__: Any) -> int:
    return 2 * cost.macs("fused_recurrent", batch=a[0], tokens=a[1], channels=a[2])


@register_flop_formula([torch.ops.vbench.mingru_fused_backward])
def _flops_backward(dh: Any, *_: Any, **__: Any) -> int:
    return 2 * cost.macs("fused", batch=dh[0], tokens=dh[1], channels=dh[2])
