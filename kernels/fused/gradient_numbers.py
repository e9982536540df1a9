"""Gradients of operators with a matrix state whose decays are numbers. `gradient.py` describes the method."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.nn.functional import logsigmoid, pad

from vbench.kernels.fused.chunks import Mirror, States, read, states
from vbench.kernels.fused.launch import cdiv, ceiling, launch, precision, threefold
from vbench.kernels.fused.layout import empty_like, gates_of, present, strides, tile
from vbench.kernels.fused.parts import (
    border,
    entering_state,
    entering_sums,
    log_decays,
    pair_weights,
    pair_worths,
    through,
    tile_of,
)
from vbench.kernels.fused.policy import Operands


@triton.jit
def pull_gates_kernel(
    q, k, v,
    o_grad,  # of the sums before they are normalised
    gates, inputs,
    saved,  # [3 rows N], of a stable operator
    tail,  # [rows N], the gradient of the sum of a token's scores
    left, initial, initial_tail, initial_peak, peaks,
    back, back_initial, back_tail,
    q_grad, k_grad, v_grad,
    worths,  # [5 rows chunks·L], of each token's pairs: as the query inside the chunk, as the key, as the query of one
    # before it, as the key of one after it, and with itself
    beyond,  # [rows chunks], of pairs of a token before the chunk and one after it
    query_scale, key_scale, N, H, chunks,
    q_b, q_h, q_n, k_b, k_h, k_n, v_b, v_h, v_n, o_b, o_h, o_n, g_x, g_b, g_h, g_n, i_b, i_h, i_n,
    dq_b, dq_h, dq_n, dk_b, dk_h, dk_n, dv_b, dv_h, dv_n,
    D: tl.constexpr, E: tl.constexpr, L: tl.constexpr, BD: tl.constexpr, BE: tl.constexpr,
    PART: tl.constexpr,  # "queries", "keys" or "values": all three together would not fit the registers
    REVERSE: tl.constexpr, DECAY: tl.constexpr, STABLE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    c = tl.program_id(1)
    row = tl.program_id(0).to(tl.int64)
    b, h = row // H, row % H
    t = c * L + tl.arange(0, L)
    within = tl.arange(0, L)
    stop = tl.minimum(N, c * L + L)
    SIZE: tl.constexpr = D * E + (D if STABLE else 0)
    there = ((c < chunks - 1) if REVERSE else (c > 0)).to(tl.int32)  # the chunk met before this one
    there_next = ((c > 0) if REVERSE else (c < chunks - 1)).to(tl.int32)  # and the one after it
    here = row * chunks + c
    to = here + 1 if REVERSE else here - 1
    to_next = here - 1 if REVERSE else here + 1
    edge = (left, initial, to, row, there)
    next_edge = (back, back_initial, to_next, row, there_next)
    q += b * q_b + h * q_h
    k += b * k_b + h * k_h
    v += b * v_b + h * v_h
    o_grad += b * o_b + h * o_h
    gates += b * g_b + h * g_h

    # What pairs weigh, what the entering state weighs to a token, and a token to the leaving state.
    lf = log_decays(gates, t, g_n, t < stop, DECAY == "head")
    sums = tl.cumsum(lf, 0, reverse=REVERSE)
    sources = sums
    entering = sums
    leaving = tl.sum(lf, 0) - sums
    if STABLE:
        i = tl.load(inputs + b * i_b + h * i_h + t * i_n, mask=t < stop, other=-1e30).to(tl.float64)
        m = tl.load(saved + row * N + t, mask=t < stop, other=0.0).to(tl.float64)
        entered = tl.load(peaks + to, mask=there > 0, other=float("-inf"))
        if initial_peak is not None:
            entered = tl.where(there > 0, entered, tl.load(initial_peak + row))
        sources -= i
        entering += entered.to(tl.float64) - m
        leaving += i - tl.load(peaks + here).to(tl.float64)
        sums -= m
        weight = tl.load(tail + row * N + t, mask=t < stop, other=0.0)
    weights = tl.exp(pair_weights(sums, sources, REVERSE)) * (query_scale * key_scale)
    to_token = tl.exp(entering.to(tl.float32)) * query_scale
    from_token = tl.where(t < stop, tl.exp(leaving.to(tl.float32)), 0.0) * key_scale

    scores = tl.zeros((L, L), tl.float32)
    for start in range(0, D, BD):
        d = start + tl.arange(0, BD)
        queries = tile_of(q, t, q_n, d, D, stop)
        scores += tl.dot(queries, tl.trans(tile_of(k, t, k_n, d, D, stop)), input_precision=PRECISION)
    scores *= weights
    if PART == "values":
        for start in range(0, E, BE):
            e = start + tl.arange(0, BE)
            dv = tl.dot(tl.trans(scores), tile_of(o_grad, t, o_n, e, E, stop), input_precision=PRECISION)
            for inner in range(0, D, BD):
                d = inner + tl.arange(0, BD)
                keys = tile_of(k, t, k_n, d, D, stop) * from_token[:, None]
                s = entering_state(next_edge, d, e, D, E, SIZE)
                dv += tl.dot(keys, s, input_precision=PRECISION)
            mask = (t < stop)[:, None] & (e < E)[None, :]
            at = v_grad + b * dv_b + h * dv_h + t[:, None] * dv_n + e[None, :]
            tl.store(at, dv.to(v_grad.dtype.element_ty), mask=mask)
        return

    pairs = pair_worths(o_grad, o_n, v, v_n, t, stop, E, BE, PRECISION)
    if STABLE:
        pairs += weight[:, None]
    worth = scores * pairs
    same = within[:, None] == within[None, :]  # no decay stands between a token and itself
    worth_to = worths + row * chunks * L + t
    count = tl.num_programs(0).to(tl.int64) * chunks * L
    pairs *= weights
    if PART == "queries":
        tl.store(worth_to, tl.sum(tl.where(same, 0.0, worth), 1))
        found = tl.zeros((L,), tl.float32)
        across = tl.zeros((BD,), tl.float32)
        for start in range(0, D, BD):
            d = start + tl.arange(0, BD)
            read = through(o_grad, o_n, t, stop, edge, d, D, E, SIZE, BE, PRECISION)
            if STABLE:
                n = entering_sums((left, initial_tail, to, row, there), d, D, E, SIZE)
                read += weight[:, None] * n[None, :]
                dn = entering_sums((back, back_tail, to_next, row, there_next), d, D, E, SIZE)
                across += n * dn
            across += border(edge, next_edge, d, D, E, SIZE, BE)
            read *= to_token[:, None]
            found += tl.sum(tile_of(q, t, q_n, d, D, stop) * read, 1)
            dq = tl.dot(pairs, tile_of(k, t, k_n, d, D, stop), input_precision=PRECISION) + read
            mask = (t < stop)[:, None] & (d < D)[None, :]
            at = q_grad + b * dq_b + h * dq_h + t[:, None] * dq_n + d[None, :]
            tl.store(at, dq.to(q_grad.dtype.element_ty), mask=mask)
        tl.store(worth_to + 2 * count, found)
        kept = tl.sum(lf, 0)
        if STABLE:
            kept += entered.to(tl.float64) - tl.load(peaks + here).to(tl.float64)
        tl.store(beyond + here, tl.exp(kept.to(tl.float32)) * tl.sum(across, 0))
    else:
        tl.store(worth_to + count, tl.sum(tl.where(same, 0.0, worth), 0))
        tl.store(worth_to + 4 * count, tl.sum(tl.where(same, worth, 0.0), 0))
        found = tl.zeros((L,), tl.float32)
        for start in range(0, D, BD):
            d = start + tl.arange(0, BD)
            fed = through(v, v_n, t, stop, next_edge, d, D, E, SIZE, BE, PRECISION)
            if STABLE:
                dn = entering_sums((back, back_tail, to_next, row, there_next), d, D, E, SIZE)
                fed += dn[None, :]
            fed *= from_token[:, None]
            found += tl.sum(tile_of(k, t, k_n, d, D, stop) * fed, 1)
            dk = tl.dot(tl.trans(pairs), tile_of(q, t, q_n, d, D, stop), input_precision=PRECISION) + fed
            mask = (t < stop)[:, None] & (d < D)[None, :]
            at = k_grad + b * dk_b + h * dk_h + t[:, None] * dk_n + d[None, :]
            tl.store(at, dk.to(k_grad.dtype.element_ty), mask=mask)
        tl.store(worth_to + 3 * count, found)


def gradients(
    x: Operands, o_grad: Tensor, final_grad: tuple[Tensor, ...], there: States, warps: int
) -> dict[str, Tensor | tuple[Tensor, ...]]:
    """As `gradient.gradients`; `there` are the states of the forward pass."""
    B, H, N, _, _ = x.sizes
    saved, still_grad, mirror, numerator_grad = None, None, Mirror(), o_grad
    if x.policy.stable:
        saved = x.q.new_empty(3, B * H, N, dtype=torch.float32)
        h = read(x, there, 2 * warps, saved=saved)  # it needs more registers than the kernels below
        _, factor, moved = saved.view(3, B, H, N)
        worth = (o_grad.float() * h.float()).sum(-1)  # of the whole output of a token
        numerator_grad = (o_grad.float() * factor.unsqueeze(-1)).to(x.q.dtype)
        mirror = Mirror(there, saved[0], (-worth * moved).view(B * H, N))
        still_grad = -worth * x.eps * factor  # eps is added to sums relative to e^m: by it alone h depends on m
    back = states(x.mirrored(numerator_grad, final_grad), there.chunk, warps, mirror)
    q_grad, k_grad, v_grad = grads = empty_like(x.q), empty_like(x.k), empty_like(x.v)
    decays_grad, inputs_grad = _launch_pull_gates(x, numerator_grad, saved, mirror.tail, there, back, grads, warps)
    found: dict[str, Tensor | tuple[Tensor, ...]] = {"q": q_grad, "k": k_grad, "v": v_grad}
    if x.policy.decay == "head":
        return found | {"gates": decays_grad.sum((0, 2)).to(x.gates.dtype), "state": back.final}
    assert x.inputs is not None
    assert still_grad is not None
    by_peaks, by_inputs, peak_grad = _through_peaks(x, x.inputs, still_grad, there, final_grad)
    log_grad = decays_grad.double() + by_peaks
    gates_grad = log_grad * (-x.gates.double()).sigmoid()
    entered = (back.final[0], back.final[1])
    if x.state:
        peak_grad = peak_grad + ((x.state[0] * entered[0]).sum(-1) + (x.state[1] * entered[1]).sum(-1)).view(B, H)
    return found | {
        "gates": gates_grad.to(x.gates.dtype),
        "inputs": (inputs_grad + by_inputs).to(x.inputs.dtype),
        "state": (*entered, peak_grad.float().flatten()),
    }


def _launch_pull_gates(
    x: Operands,
    o_grad: Tensor,
    saved: Tensor | None,
    tail: Tensor | None,
    there: States,
    back: States,
    grads: tuple[Tensor, Tensor, Tensor],
    warps: int,
) -> tuple[Tensor, Tensor]:
    """Write the gradients of q, k and v to `grads`. Returns those of log decays and input gates, Float[B H N]."""
    (B, H, N, D, E), L, stable = x.sizes, there.chunk, x.policy.stable
    initial, initial_tail, initial_peak = present(there.initial, stable=stable)
    back_initial, back_tail, _ = present(back.initial, stable=stable)
    dq, dk, dv = grads
    chunks = cdiv(N, L)
    worths = x.q.new_empty(5, B, H, chunks, L, dtype=torch.float32)
    beyond = x.q.new_empty(B, H, chunks, dtype=torch.float32)
    arguments = (
        {"q": x.q, "k": x.k, "v": x.v, "o_grad": o_grad, "inputs": x.inputs, "saved": saved, "tail": tail}
        | {"left": there.after, "initial": initial, "initial_tail": initial_tail, "initial_peak": initial_peak}
        | {"peaks": there.peaks, "back": back.after, "back_initial": back_initial, "back_tail": back_tail}
        | {"q_grad": dq, "k_grad": dk, "v_grad": dv, "worths": worths, "beyond": beyond}
        | {"query_scale": float(x.query_scale), "key_scale": float(x.key_scale), "N": N, "H": H, "chunks": chunks}
        | strides(q=x.q, k=x.k, v=x.v, o=o_grad, dq=dq, dk=dk, dv=dv)
        | gates_of(x)
    )
    wide = threefold(x.q)  # one product made of three takes three times the registers
    constants: dict[str, Any] = {"D": D, "E": E, "L": L, "BE": tile(E, 32 if stable and not wide else 16)}
    constants |= {"REVERSE": x.direction == "reverse", "DECAY": x.policy.decay, "STABLE": stable}
    constants |= {"PRECISION": precision(x.q)}
    if D > 128 and wide:
        warps *= 2
    for part in ("queries", "keys", "values"):
        BD = 32 if part == "values" and x.q.dtype == torch.float16 else 16  # the compiler spills nothing with these
        parted = constants | {"PART": part, "BD": tile(D, BD)}
        launch(pull_gates_kernel, (B * H, chunks), arguments, parted, warps=warps, registers=ceiling(warps))

    # A decay stands between a token before it and one at it or after it: sums run away from it on both sides.
    if x.direction == "reverse":
        worths = worths.flip(-1)
    rows, columns, entering, leaving, own = worths
    grad = (rows - columns + entering).flip(-1).cumsum(-1).flip(-1) + pad(leaving[..., :-1], (1, 0)).cumsum(-1)
    found = torch.stack((grad + beyond.unsqueeze(-1), columns + leaving + own))
    if x.direction == "reverse":
        found = found.flip(-1)
    decays_grad, inputs_grad = found.flatten(-2)[..., :N]
    return decays_grad, inputs_grad


def _through_peaks(
    x: Operands, inputs: Tensor, still_grad: Tensor, there: States, final_grad: tuple[Tensor, ...]
) -> tuple[Tensor, Tensor, Tensor]:
    """The parts of the gradients of log decays, input gates and the initial peak that come through the tokens' peaks.

    `still_grad` is the gradient of these peaks, Float[B H N], with all that they scale held fixed. It goes to the token
    whose weight is the peak, and to the decays since that token.
    """
    B, H, N = inputs.shape
    reverse, state = x.direction == "reverse", x.state
    last = 0 if reverse else N - 1
    worth = still_grad.double()
    if final_grad:
        carried = (there.final[0] * final_grad[0]).sum(-1) + (there.final[1] * final_grad[1]).sum(-1)
        at_end = (final_grad[2] - carried).view(B, H).double()
        worth = torch.cat(
            (worth[..., :last], worth[..., last : last + 1] + at_end.unsqueeze(-1), worth[..., last + 1 :]), -1
        )
    i, lf = inputs.double(), logsigmoid(x.gates.double())
    if reverse:
        i, lf, worth = i.flip(2), lf.flip(2), worth.flip(2)
    b = lf.cumsum(2)
    greatest, source = (i - b).cummax(2)
    entered = state[2].view(B, H, 1).double() if state else torch.full_like(b[..., :1], float("-inf"))
    carried_in = entered > greatest  # the peak is still that of the state carried in
    inner = worth.masked_fill(carried_in, 0.0)
    by_inputs = torch.zeros_like(worth).scatter_add_(2, source, inner)
    # A token's decay counts for its own peak and all later ones, except peaks whose source is this or a later token.
    by_peaks = worth.flip(2).cumsum(2).flip(2) - by_inputs.flip(2).cumsum(2).flip(2)
    peak_grad = worth.masked_fill(~carried_in, 0.0).sum(2)
    if reverse:
        by_peaks, by_inputs = by_peaks.flip(2), by_inputs.flip(2)
    return by_peaks, by_inputs, peak_grad
