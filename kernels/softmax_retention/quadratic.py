"""Softmax retention as it is defined: every query weighs every key. All other forms must agree with it."""

from __future__ import annotations

import torch
from torch import Tensor

from vbench.kernels.retention.damping import damping
from vbench.kernels.shapes import accumulator
from vbench.kernels.softmax_retention import cost


def softmax_retention(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, *, scale: float | None = None
) -> tuple[Tensor, tuple[()]]:
    """Softmax retention, the function that ViR's released code computes by default; its paper has another.

        L_ij = scale · (q_i · k_j) · exp(g · (i - j)) for j <= i, and 0 beyond
        o_i = Σ_j softmax_j(L_ij) v_j      over all j

    A masked score is 0 and not -∞: a later token enters with the weight exp(0), so this is not causal
    (github.com/anom63931/ViR, models/vir.py). A block of rows at a time, so that memory is linear in N.

    Args:
        q, k: (B, H, N, D), q unscaled.
        v: (B, H, N, E).
        g: (H,) log decay of a token, finite and g <= 0; fixed for each head.
        scale: factor of q; D**-0.5 if None.

    Returns: o (B, H, N, E) in q.dtype, and (): there is no state.
    Raises: ShapeError if the inputs do not agree.
    """
    dtype = accumulator(q)
    queries = q.to(dtype) * (q.shape[-1] ** -0.5 if scale is None else scale)
    keys, values = k.to(dtype), v.to(dtype)
    N = int(q.shape[2])
    at = torch.arange(N, device=q.device)
    out = []
    for start in range(0, N, cost.ROWS):
        rows = slice(start, start + cost.ROWS)
        logits = queries[:, :, rows] @ keys.mT * damping(g, at[rows, None] - at, dtype)
        out.append((logits.softmax(dim=-1) @ values).to(q.dtype))
    return torch.cat(out, dim=2), ()
