"""Bi-WKV, one token a step: the definition. All other forms must agree with it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from vbench.kernels.blocks import BLOCK, blocks, exporting, scanned, turned
from vbench.kernels.shapes import accumulator
from vbench.kernels.wkv.shapes import Reading
from vbench.kernels.wkv.sums import empty, initial, join, read, released, segment, tokens


def wkv(
    k: Tensor, v: Tensor, w: Tensor, u: Tensor, *, reading: Reading = "paper", state: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Bidirectional WKV of Vision-RWKV (Duan et al. 2024, arXiv:2403.02308, section 3), recurrent form.

        past     P_0 = 0      P_{t+1} = e^{-w} P_t + e^{k_t} z_t
        future   F_{N-1} = 0  F_{t-1} = e^{-w} F_t + e^{k_t} z_t
        y_t = [P_t + F_t + e^{u+k_t} z_t](z = v) / [P_t + F_t + e^{u+k_t} z_t](z = 1)

    channel by channel. A sum is kept as (a, b, p): its value a·e^p for z = v and b·e^p for z = 1, its greatest
    exponent p. 1e-6 is added to the denominator's b, as in the released kernels.

    Args:
        k, v: (B, N, C); k may have any size and sign.
        w: (C,) decay a step, already divided by N; negative where weights grow with the distance.
        u: (C,) bonus of a token for itself, already divided by N.
        reading: "paper" is the equation; "kernel" is what the released CUDA code computes instead, in which the
            carries between 32 segments decay one step too many and the future is advanced by subtraction
            (README.md has its weights).
        state: (2, 3, B, C), the (a, b, p) that enter at the first token and, in reverse, at the last; empty
            sums (0, 0, -1e38) if None. Not with the reading "kernel".

    Returns: y (B, N, C) in k.dtype, and the final state, shaped as `state` (of the published equation in either
        reading), in float32 (float64 for float64 inputs).
    Raises: ShapeError if the inputs do not agree, or if a state comes with the reading "kernel".
    """
    return by_walks(_walk, k, v, w, u, reading, state)


def by_walks(
    walk: Callable[..., tuple[Tensor, Tensor]],
    k: Tensor,
    v: Tensor,
    w: Tensor,
    u: Tensor,
    reading: Reading,
    state: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """The operator in either reading. `walk` finds the sums, as `_walk` does."""
    dtype = accumulator(k)
    w, u = w.to(dtype), u.to(dtype)
    ahead, back = (initial(k, dtype) if state is None else state.to(dtype)).unbind(0)
    past, ahead = walk(k, v, w, ahead, reverse=False)
    future, back = walk(k, v, w, back, reverse=True)
    own = tokens(k.to(dtype) + u, v.to(dtype))
    if reading == "paper":  # block by block, so that temporaries stay in cache
        block = int(k.shape[1]) if exporting() else BLOCK
        cut = zip(*(x.split(block, dim=2) for x in (past, future, own)), strict=True)
        y = torch.cat([read(join(*each), k.dtype) for each in cut], dim=1)
    else:
        inside, growing = [], []
        for keys, values in zip(*(x.split(segment(k.shape[1]), dim=1) for x in (k, v)), strict=True):
            inside.append(walk(keys, values, w, empty(k, dtype), reverse=False)[0])
            grown, last = walk(keys[:, 1:], values[:, 1:], -w, empty(k, dtype), reverse=False)
            growing += [grown, last.unsqueeze(2)]
        y = read(released(past, future, torch.cat(inside, dim=2), torch.cat(growing, dim=2), own, w), k.dtype)
    return y, torch.stack((ahead, back))


def _walk(k: Tensor, v: Tensor, w: Tensor, state: Tensor, *, reverse: bool) -> tuple[Tensor, Tensor]:
    """The sums that enter each token, and the last: Float[B N C], Float[3 B C] -> Float[3 B N C], Float[3 B C]."""
    decay = w.double()  # in float64 a decay that repeats N times leaves no rounding to add up
    if exporting():
        return _scanned(k, v, decay, state, reverse)
    entering = []
    for block in blocks(k.shape[1], reverse):
        keys, values = (x[:, block].flip(1) if reverse else x[:, block] for x in (k, v))
        peaks = [state[2].double()]
        for key in keys.double().unbind(1):
            peaks.append(torch.maximum(peaks[-1] - decay, key))
        p = torch.stack(peaks, dim=1)  # B n+1 C
        kept = (p[:, :-1] - p[:, 1:] - decay).exp().to(w.dtype)
        added = (keys - p[:, 1:]).exp().to(w.dtype)
        sums = [state[:2]]
        for keep, add in zip(kept.unbind(1), torch.stack((added * values, added)).unbind(2), strict=True):
            sums.append(torch.addcmul(add, keep, sums[-1]))
        found = torch.cat((torch.stack(sums, dim=2), p.to(w.dtype)[None]))
        entering.append(found[:, :, :-1].flip(2) if reverse else found[:, :, :-1])
        state = found[:, :, -1]
    nothing = state.new_empty(*state.shape[:2], 0, state.shape[2])
    return torch.cat(turned(entering, reverse) or [nothing], dim=2), state


def _scanned(k: Tensor, v: Tensor, decay: Tensor, state: Tensor, reverse: bool) -> tuple[Tensor, Tensor]:
    """`_walk` as one operation, for an export."""
    dtype = state.dtype

    def step(sums: tuple[Tensor, Tensor], item: tuple[Tensor, Tensor]) -> tuple[Any, Any]:
        (ab, p), (key, value) = sums, item
        key = key.double()
        top = torch.maximum(p - decay, key)
        add = (key - top).exp().to(dtype)
        after = torch.addcmul(torch.stack((add * value, add)), (p - top - decay).exp().to(dtype), ab)
        return (after, top), (ab.clone(), p.to(dtype, copy=True))

    (ab, p), (sums, peaks) = scanned(step, (state[:2], state[2].double()), (k, v), -2, reverse)
    return torch.cat((sums, peaks[None])), torch.cat((ab, p.to(dtype)[None]))
