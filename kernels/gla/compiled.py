"""Gated linear attention, one token a step, in machine code on the CPU."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from vbench.kernels.gla import chunkwise
from vbench.kernels.machine_code import Array, array, machine_code, recomputed, rows
from vbench.kernels.shapes import Direction, accumulator


def gla(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    *,
    direction: Direction = "forward",
    scale: float | None = None,
    state: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Gated linear attention, recurrent form (Yang et al. 2024, arXiv:2312.06635, equation 3), compiled.

    Arguments, results and errors are those of `reference.gla`. Gradients are those of `chunkwise.gla`.
    """
    factor = q.shape[-1] ** -0.5 if scale is None else scale

    def run(q: Tensor, k: Tensor, v: Tensor, g: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        gates = list(g) if direction == "both" else [g]
        return attend(q.to(accumulator(q)) * factor, k, v, gates, direction, state=state, like=q)

    return recomputed(run, partial(chunkwise.gla, direction=direction, scale=scale), (q, k, v, g), state)


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    gates: list[Tensor],
    direction: Direction,
    *,
    state: Tensor | None,
    like: Tensor,
    bonus: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """What `gla` computes from scaled queries. With `bonus`, also operators whose tokens read before they write.

    Args:
        gates: Float[B H N D] for each direction, or one for all.
        like: the output has its type.
        bonus: Float[H D]; if given, a token reads each state as it is before the token's own decay and its own
            k and v, and itself once, with k times this factor.
    """
    dtype = accumulator(like)
    B, H, _, D = q.shape
    ways = {"forward": (False,), "reverse": (True,), "both": (False, True)}[direction]
    if bonus is None:
        o = torch.zeros_like(v, dtype=dtype, memory_format=torch.contiguous_format)
    else:
        own = (q.to(dtype) * k.to(dtype) * bonus.to(dtype)[:, None]).sum(-1, keepdim=True)
        o = (own * v.to(dtype)).contiguous()
    s = q.new_zeros(len(ways), B, H, D, v.shape[-1], dtype=dtype)
    if state is not None:
        s.copy_(state.view(s.shape))
    queries, keys, values = (rows(array(x, dtype), 2) for x in (q, k, v))
    for gate, each, reverse in zip(gates * (len(ways) // len(gates)), s, ways, strict=True):
        decays = rows(array(gate.to(dtype).exp(), dtype), 2)
        _walk(queries, keys, values, decays, rows(each.numpy(), 2), rows(o.numpy(), 2), bonus is not None, reverse)
    return o.to(like.dtype), s if direction == "both" else s[0]


@machine_code
def _walk(q: Array, k: Array, v: Array, decay: Array, state: Array, out: Array, before: bool, reverse: bool) -> None:
    """Add to `out` what each token reads, and leave the last state in `state`.

    q, k, decay: (R, N, D), v, out: (R, N, E), state: (R, D, E); before: whether a token reads before it writes.
    """
    R, N, D = q.shape
    E = v.shape[2]
    for r in range(R):
        s = state[r]
        for step in range(N):
            t = N - 1 - step if reverse else step
            value, o = v[r, t], out[r, t]
            for c in range(D):
                query, key, kept = q[r, t, c], k[r, t, c], decay[r, t, c]
                if before:
                    for e in range(E):
                        o[e] += query * s[c, e]
                        s[c, e] = kept * s[c, e] + key * value[e]
                else:
                    for e in range(E):
                        s[c, e] = kept * s[c, e] + key * value[e]
                        o[e] += query * s[c, e]
