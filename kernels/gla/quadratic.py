"""Gated linear attention as one masked score matrix: the textbook's parallel form, quadratic in N."""

from __future__ import annotations

import torch
from torch import Tensor

from vbench.kernels.blocks import each_way
from vbench.kernels.shapes import Direction, accumulator

ROWS = 16  # queries whose pairwise decays are held at a time; the arithmetic does not depend on it


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
    """Gated linear attention, quadratic form (Yang et al. 2024, arXiv:2312.06635, equation 4).

        forward   o_t = scale · Σ_{j<=t} Σ_c q_tc k_jc exp(b_tc - b_jc) v_j      b_t = Σ_{u<=t} g_u

    and mirrored in reverse. Differences of running sums are taken pair by pair, in float64, so nothing overflows.
    Arguments, results and errors are those of `reference.gla`.
    """
    dtype = accumulator(q)
    queries = q.to(dtype) * (q.shape[-1] ** -0.5 if scale is None else scale)
    keys, values = k.to(dtype), v.to(dtype)
    gates = list(g) if direction == "both" else [g]
    return each_way(
        direction, state, q.dtype, lambda way, s, reverse: _attend(queries, keys, values, gates[way], s, reverse)
    )


def _attend(q: Tensor, k: Tensor, v: Tensor, g: Tensor, state: Tensor | None, reverse: bool) -> tuple[Tensor, Tensor]:
    N = q.shape[2]
    g = g.double()
    total = g.sum(2, keepdim=True)
    b = g.flip(2).cumsum(2).flip(2) if reverse else g.cumsum(2)
    at = torch.arange(N, device=q.device)
    out = []
    for start in range(0, N, ROWS):
        rows = slice(start, start + ROWS)
        seen = at[rows, None] <= at if reverse else at[rows, None] >= at
        decay = (b[:, :, rows, None] - b[:, :, None]).masked_fill(~seen[..., None], -torch.inf).exp()  # B H R N D
        out.append(torch.einsum("bhrd,bhnd,bhrnd->bhrn", q[:, :, rows], k, decay.to(q.dtype)) @ v)
    o = torch.cat(out, dim=2)
    s = (k * (total - b).exp().to(k.dtype)).mT @ v
    if state is not None:
        state = state.to(q.dtype)
        o = o + (q * b.exp().to(q.dtype)) @ state
        s = s + total.exp().to(q.dtype).mT * state
    return o, s
