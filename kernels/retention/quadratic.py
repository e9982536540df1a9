"""Retention as one masked score matrix: the textbook's parallel form, quadratic in N."""

from __future__ import annotations

import torch
from torch import Tensor

from vbench.kernels.retention import cost
from vbench.kernels.retention.damping import damping, rows
from vbench.kernels.shapes import accumulator


def retention(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, *, scale: float | None = None, state: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Retention, quadratic form (Sun et al. 2023, arXiv:2307.08621, equation 5, with real decays).

        o_t = scale · Σ_{j<=t} exp(g · (t - j)) (q_t · k_j) v_j

    A block of rows at a time, so that memory is linear in N. Arguments, results and errors are those of
    `reference.retention`.
    """
    dtype = accumulator(q)
    N = int(q.shape[2])
    queries = q.to(dtype) * (q.shape[-1] ** -0.5 if scale is None else scale)
    keys, values = k.to(dtype), v.to(dtype)
    at = torch.arange(N, device=q.device)
    initial = None if state is None else state.to(dtype)

    out = []
    for start, stop, mask in rows(g, N, cost.ROWS, dtype):
        here = queries[:, :, start:stop]
        o = (here @ keys[:, :, :stop].mT * mask) @ values[:, :, :stop]
        if initial is not None:
            o = o + (here * damping(g, at[start:stop, None] + 1, dtype)) @ initial
        out.append(o.to(q.dtype))

    s = (keys * damping(g, N - 1 - at[:, None], dtype)).mT @ values
    if initial is not None:
        s = s + (N * g.to(dtype)).exp().view(-1, 1, 1) * initial
    return torch.cat(out, dim=2), s
