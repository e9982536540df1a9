"""Operators with a matrix state, token by token: in one launch, each program carries a tile of it through all tokens.

The work is done in the order of the recurrence, so its time grows with N on any device. It is the recurrent mode of a
GPU, and the best form for short sequences in large batches.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from vbench.kernels.fused.launch import cdiv, launch, power_of_two
from vbench.kernels.fused.layout import empty_output, empty_state, gates_of, present, strides
from vbench.kernels.fused.policy import Operands

STATE = 2048  # numbers of a state's tile


@triton.jit
def _step(
    state, given, steps, scales, own, t, d, e,
    D: tl.constexpr, E: tl.constexpr, DECAY: tl.constexpr, EXCLUSIVE: tl.constexpr, STABLE: tl.constexpr,
):  # fmt: skip
    """One token: the state after it, and what it reads, Float[BE].

    state: s Float[BD BE], n Float[BD] and the peak m. given: q, k, v, gates and input gates, of which a token's are
    `steps` apart. scales: of queries and keys, and eps. own: what a token's own key is weighted by.
    """
    s, n, m = state
    q, k, v, gates, inputs = given
    q_n, k_n, v_n, g_n, i_n = steps
    query_scale, key_scale, eps = scales
    query = tl.load(q + t * q_n + d, mask=d < D, other=0.0).to(tl.float32) * query_scale
    key = tl.load(k + t * k_n + d, mask=d < D, other=0.0).to(tl.float32) * key_scale
    value = tl.load(v + t * v_n + e, mask=e < E, other=0.0).to(tl.float32)
    if DECAY == "vector":
        kept = tl.exp(tl.load(gates + t * g_n + d, mask=d < D, other=0.0).to(tl.float32))[:, None]
    elif DECAY == "head":
        kept = 1.0
        s += (tl.exp(tl.load(gates).to(tl.float64)) - 1.0).to(tl.float32) * s  # 1 - x has more digits than x near 1
    else:  # the exponents are taken in float64, since a decay repeats N times
        f = tl.load(gates + t * g_n).to(tl.float64)
        before = tl.minimum(f, 0.0) - tl.log(1.0 + tl.exp(-tl.abs(f))) + m
        i = tl.load(inputs + t * i_n).to(tl.float64)
        m = tl.maximum(before, i)
        kept = tl.exp((before - m).to(tl.float32))
        key *= tl.exp((i - m).to(tl.float32))
    if EXCLUSIVE:
        out = tl.sum(query[:, None] * s, 0) + tl.sum(query * key * own, 0) * value
        s = kept * s + key[:, None] * value[None, :]
    else:
        s = kept * s + key[:, None] * value[None, :]
        out = tl.sum(query[:, None] * s, 0)
    if STABLE:
        n = kept * n + key
        low = m.to(tl.float32)
        shrink = tl.exp(tl.minimum(low, 0.0))
        den = tl.maximum(tl.abs(tl.sum(query * n, 0)) * shrink, tl.exp(-tl.maximum(low, 0.0))) + eps * shrink
        out *= shrink / den
    return (s, n, m), out


@triton.jit
def walk_kernel(
    q, k, v, gates, inputs, bonus,
    initial, initial_tail, initial_peak,  # [rows D E], [rows D] and [rows], or None
    o,
    partial,  # Float[B H N E], what the first direction to arrive reads; None for one direction
    final, final_tail, final_peak,
    query_scale, key_scale, eps, N, H,
    q_b, q_h, q_n, k_b, k_h, k_n, v_b, v_h, v_n, g_x, g_b, g_h, g_n, i_b, i_h, i_n, o_b, o_h, o_n,
    D: tl.constexpr, E: tl.constexpr, BD: tl.constexpr, BE: tl.constexpr,
    FORWARD: tl.constexpr, REVERSE: tl.constexpr,
    DECAY: tl.constexpr, EXCLUSIVE: tl.constexpr, STABLE: tl.constexpr,
):  # fmt: skip
    d = tl.arange(0, BD)
    e = tl.program_id(1) * BE + tl.arange(0, BE)
    row = tl.program_id(0).to(tl.int64)
    rows = tl.num_programs(0)
    b, h = row // H, row % H
    q += b * q_b + h * q_h
    k += b * k_b + h * k_h
    v += b * v_b + h * v_h
    gates += b * g_b + h * g_h
    if inputs is not None:
        inputs += b * i_b + h * i_h
    o += b * o_b + h * o_h
    at = d[:, None] * E + e[None, :]
    mask = (d < D)[:, None] & (e < E)[None, :]
    s = tl.zeros((BD, BE), tl.float32)
    z = tl.zeros((BD, BE), tl.float32)  # the state of the reverse direction beside a forward one
    n = tl.zeros((BD,), tl.float32)
    m = tl.full((), float("-inf"), tl.float64)
    if initial is not None:
        s = tl.load(initial + row * D * E + at, mask=mask, other=0.0)
        if FORWARD and REVERSE:
            z = tl.load(initial + (rows + row) * D * E + at, mask=mask, other=0.0)
        if STABLE:
            n = tl.load(initial_tail + row * D + d, mask=d < D, other=0.0)
            m = tl.load(initial_peak + row).to(tl.float64)
    own = tl.zeros((BD,), tl.float32)
    if EXCLUSIVE:
        own = tl.load(bonus + h * D + d, mask=d < D, other=0.0).to(tl.float32)
    state = (s, n, m)
    given = (q, k, v, gates, inputs)
    steps = (q_n, k_n, v_n, g_n, i_n)
    scales = (query_scale, key_scale, eps)

    if FORWARD and REVERSE:
        partial += row * N * E
        turned = (z, n, m)  # n and m are those of stable operators, which have one direction
        given_back = (q, k, v, gates + g_x, inputs)
        none = tl.zeros((BD,), tl.float32)  # a token reads itself once, forward
        for meeting in tl.static_range(2):  # the halves before and after the directions meet
            for t in range(meeting * (N // 2), N // 2 if meeting == 0 else N):
                u = N - 1 - t
                state, x = _step(state, given, steps, scales, own, t, d, e, D, E, DECAY, EXCLUSIVE, STABLE)
                turned, y = _step(turned, given_back, steps, scales, none, u, d, e, D, E, DECAY, EXCLUSIVE, STABLE)
                if meeting == 0:
                    tl.store(partial + t * E + e, x, mask=e < E)
                    tl.store(partial + u * E + e, y, mask=e < E)
                else:  # in the middle of an odd number both are at one token, and neither was there before
                    apart = (t != u).to(tl.int32)
                    x += tl.load(partial + t * E + e, mask=e < E * apart, other=0.0)
                    y += tl.load(partial + u * E + e, mask=e < E * apart, other=0.0)
                    x += tl.where(apart > 0, 0.0, y)
                    tl.store(o + t * o_n + e, x.to(o.dtype.element_ty), mask=e < E)
                    tl.store(o + u * o_n + e, y.to(o.dtype.element_ty), mask=e < E * apart)
            tl.debug_barrier()  # what one thread left, another reads
        tl.store(final + (rows + row) * D * E + at, turned[0], mask=mask)
    else:
        for step in range(0, N):
            t = N - 1 - step if REVERSE else step
            state, x = _step(state, given, steps, scales, own, t, d, e, D, E, DECAY, EXCLUSIVE, STABLE)
            tl.store(o + t * o_n + e, x.to(o.dtype.element_ty), mask=e < E)
    s, n, m = state
    if STABLE:  # the state is relative to the peak that is handed on
        handed = m.to(tl.float32)
        s *= tl.exp((m - handed.to(tl.float64)).to(tl.float32))
        n *= tl.exp((m - handed.to(tl.float64)).to(tl.float32))
    tl.store(final + row * D * E + at, s, mask=mask)
    if STABLE:
        if tl.program_id(1) == 0:
            tl.store(final_tail + row * D + d, n, mask=d < D)
            tl.store(final_peak + row, handed)


def walk(x: Operands) -> tuple[Tensor, tuple[Tensor, ...]]:
    """An operator with a matrix state, one token a step; the results are those of `chunks.attend`."""
    (B, H, N, D, E), policy = x.sizes, x.policy
    rows = B * H
    BD = power_of_two(D, 16)
    BE = min(power_of_two(E, 16), max(16, STATE // BD))
    final = empty_state(x.q, x.v, 2 if x.both else 1, stable=policy.stable)
    states: dict[str, Tensor | None] = {}
    for name, state in {"initial": x.state, "final": final}.items():
        parts = present(state, stable=policy.stable)
        states |= dict(zip((name, f"{name}_tail", f"{name}_peak"), parts, strict=True))
    o = empty_output(x.q, E)
    launch(
        walk_kernel,
        (rows, cdiv(E, BE)),
        {"q": x.q, "k": x.k, "v": x.v, "inputs": x.inputs, "bonus": x.bonus, "o": o}
        | {"partial": x.q.new_empty(rows, N, E, dtype=torch.float32) if x.both else None}
        | {"query_scale": float(x.query_scale), "key_scale": float(x.key_scale), "eps": float(x.eps), "N": N, "H": H}
        | states
        | strides(q=x.q, k=x.k, v=x.v, o=o)
        | gates_of(x),
        {"D": D, "E": E, "BD": BD, "BE": BE, **x.ways}
        | {"DECAY": policy.decay, "EXCLUSIVE": policy.exclusive, "STABLE": policy.stable},
        warps=min(4, max(1, BD * BE // 256)),
    )
    return o.to(x.q.dtype), final
