"""Gradients of operators with a matrix state whose decays are vectors. `gradient.py` describes the method."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from vbench.kernels.fused.chunks import Mirror, States, read, states
from vbench.kernels.fused.launch import cdiv, ceiling, launch, precision, threefold
from vbench.kernels.fused.layout import empty_like, gates_of, strides, tile
from vbench.kernels.fused.parts import border, met, pair_worths, through, tile_of, widen
from vbench.kernels.fused.policy import Operands


@triton.jit
def _neighbours(x, by: tl.constexpr):
    """x of the token `by` further on, 0 beyond the chunk: Float[L BD] -> Float[L BD]."""
    at = tl.arange(0, x.shape[0]) + by
    there = (at >= 0) & (at < x.shape[0])
    found = tl.gather(x, tl.broadcast_to(tl.where(there, at, 0)[:, None], x.shape), 0)
    return tl.where(there[:, None], found, 0.0)


@triton.jit
def _spanned(rows, columns, entering, leaving, beyond, REVERSE: tl.constexpr, EXCLUSIVE: tl.constexpr):
    """The worth of all pairs with a token's decay between them, for each token: Float[L BD].

    A pair lies within the chunk (`rows` are its later tokens in the order of travel, `columns` its earlier ones); or it
    is a token and one before the chunk (`entering`) or after it (`leaving`); or it lies on both sides (`beyond`).

    A decay stands between a token before it and one that is at it or after it; if `EXCLUSIVE`, only after it. Sums run
    away from a token, so that no large term is added and subtracted again.
    """
    on: tl.constexpr = -1 if REVERSE else 1
    if EXCLUSIVE:
        rows = _neighbours(rows, on)
        entering = _neighbours(entering, on)
    found = tl.cumsum(rows - columns + entering, 0, reverse=not REVERSE)
    return found + tl.cumsum(_neighbours(leaving, -on), 0, reverse=REVERSE) + beyond


@triton.jit
def pull_kernel(
    q, k, v, o_grad, gates, bonus,
    left, initial,  # the state after each chunk, [rows chunks D·E], and the one before the first
    back, back_initial,  # likewise of the mirrored operator, which has the rows of its two directions in reverse order
    q_grad, k_grad, gates_grad,
    bonus_grad,  # [rows chunks D], or None
    scale, N, H, chunks,
    q_b, q_h, q_n, k_b, k_h, k_n, v_b, v_h, v_n, o_b, o_h, o_n, g_x, g_b, g_h, g_n, i_b, i_h, i_n,
    dq_b, dq_h, dq_n, dk_b, dk_h, dk_n, dg_x, dg_b, dg_h, dg_n,
    D: tl.constexpr, E: tl.constexpr, L: tl.constexpr, LEVELS: tl.constexpr, BD: tl.constexpr, BE: tl.constexpr,
    FORWARD: tl.constexpr, REVERSE: tl.constexpr, SHARED: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
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
    queries = tile_of(q + b * q_b + h * q_h, t, q_n, d, D, stop) * scale
    keys = tile_of(k + b * k_b + h * k_h, t, k_n, d, D, stop)
    a = tl.exp(tile_of(gates, t, g_n, d, D, stop))
    r = a if SHARED else tl.exp(tile_of(gates + g_x, t, g_n, d, D, stop))
    pairs = pair_worths(o_grad, o_n, v, v_n, t, stop, E, BE, PRECISION)

    # Pairs inside the chunk, at each join, as `parts.fold` damps them.
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
        joined = met(pairs, m)
        dq = to_query * tl.dot(joined, keys * to_key, input_precision=PRECISION)
        dk = to_key * tl.dot(tl.trans(joined), queries * to_query, input_precision=PRECISION)
        dq_ahead += tl.where(late, dq, 0.0)
        dq_back += tl.where(late, 0.0, dq)
        dk_ahead += tl.where(late, 0.0, dk)
        dk_back += tl.where(late, dk, 0.0)
        if FORWARD or SHARED:
            before, after = widen(before, after, a, m)
        if REVERSE and not SHARED:
            r_before, r_after = widen(r_before, r_after, r, m)
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
        edge = (left, initial, row * chunks + c - 1, row, there_ahead)
        next_edge = (back, back_initial, second * chunks + c + 1, second, there_back)
        dq = to_a * through(o_grad, o_n, t, stop, edge, d, D, E, D * E, BE, PRECISION)
        dk = after * through(v, v_n, t, stop, next_edge, d, D, E, D * E, BE, PRECISION)
        beyond = border(edge, next_edge, d, D, E, D * E, BE)
        kept = tl.exp(tl.sum(tile_of(gates, t, g_n, d, D, stop), 0))
        beyond = (kept * beyond)[None, :]
        dg = _spanned(queries * dq_ahead, keys * dk_ahead, queries * dq, keys * dk, beyond, False, EXCLUSIVE)
        dq_ahead += dq
        dk_ahead += dk
        if not SHARED:
            tl.store(gates_grad + t[:, None] * dg_n + d[None, :], dg, mask=mask)
    if REVERSE:
        edge = (left, initial, second * chunks + c + 1, second, there_back)
        next_edge = (back, back_initial, row * chunks + c - 1, row, there_ahead)
        dq = to_r * through(o_grad, o_n, t, stop, edge, d, D, E, D * E, BE, PRECISION)
        dk = r_before * through(v, v_n, t, stop, next_edge, d, D, E, D * E, BE, PRECISION)
        beyond = border(edge, next_edge, d, D, E, D * E, BE)
        kept = tl.exp(tl.sum(tile_of(gates if SHARED else gates + g_x, t, g_n, d, D, stop), 0))
        beyond = (kept * beyond)[None, :]
        dr = _spanned(queries * dq_back, keys * dk_back, queries * dq, keys * dk, beyond, True, EXCLUSIVE)
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


def gradients(
    x: Operands, o_grad: Tensor, final_grad: tuple[Tensor, ...], there: States, warps: int
) -> dict[str, Tensor | tuple[Tensor, ...]]:
    """As `gradient.gradients`; `there` are the states of the forward pass."""
    (B, H, N, D, E), L = x.sizes, there.chunk
    chunks = cdiv(N, L)
    # The mirrored operator has its two directions, and so its states, in reverse order.
    mirrored = x.mirrored(o_grad, tuple(_swapped(part, x.both) for part in final_grad))
    back = states(mirrored, L, warps, Mirror())
    v_grad = read(mirrored, back, 2 * warps, mirrored=True)
    q_grad, k_grad = empty_like(x.q), empty_like(x.k)
    gates_grad = torch.empty_like(x.gates, dtype=torch.float32, memory_format=torch.contiguous_format)
    bonus_grad = x.q.new_empty(B, H, chunks, D, dtype=torch.float32) if x.bonus is not None else None
    dg = gates_grad.stride() if gates_grad.ndim > x.q.ndim else (0, *gates_grad.stride())
    # A bonus takes registers too. bfloat16 has no ceiling of registers, so its tile of D is smaller.
    narrow = x.bonus is not None and not threefold(x.q)
    BD, BE = tile(D, 16 if narrow else 32), tile(E, 16)
    launch(
        pull_kernel,
        (B * H, cdiv(D, BD), chunks),
        {"q": x.q, "k": x.k, "v": x.v, "o_grad": o_grad, "bonus": x.bonus}
        | {"left": there.after, "initial": there.initial[0] if there.initial else None}
        | {"back": back.after, "back_initial": back.initial[0] if back.initial else None}
        | {"q_grad": q_grad, "k_grad": k_grad, "gates_grad": gates_grad, "bonus_grad": bonus_grad}
        | {"scale": float(x.query_scale), "N": N, "H": H, "chunks": chunks}
        | strides(q=x.q, k=x.k, v=x.v, o=o_grad, dq=q_grad, dk=k_grad)
        | gates_of(x)
        | dict(zip(("dg_x", "dg_b", "dg_h", "dg_n"), dg[:4], strict=True)),
        {"D": D, "E": E, "L": L, "LEVELS": L.bit_length() - 1, "BD": BD, "BE": BE, **x.ways}
        | {"SHARED": x.gates.ndim == x.q.ndim, "PRECISION": precision(x.q)},
        warps=warps,
        registers=ceiling(warps) if threefold(x.q) else None,
    )
    found: dict[str, Tensor | tuple[Tensor, ...]] = {"q": q_grad, "k": k_grad, "v": v_grad}
    if x.bonus is not None and bonus_grad is not None:
        found["bonus"] = bonus_grad.sum((0, 2)).to(x.bonus.dtype)
    return found | {
        "gates": gates_grad.to(x.gates.dtype),
        "state": tuple(_swapped(part, x.both) for part in back.final),
    }


def _swapped(x: Tensor, both: bool) -> Tensor:
    """Rows of two directions, the second before the first."""
    return x.roll(x.shape[0] // 2, 0) if both else x
