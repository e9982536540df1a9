"""Retention, one token a step: the definition. All other forms must agree with it."""

from __future__ import annotations

import torch
from torch import Tensor

from vbench.kernels.blocks import blocks, exporting, scanned
from vbench.kernels.shapes import accumulator


def retention(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, *, scale: float | None = None, state: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Retention, recurrent form (Sun et al. 2023, arXiv:2307.08621, equation 1, with real decays).

        S_t = exp(g) S_{t-1} + k_t v_t^T      o_t = scale · S_t^T q_t

    No normaliser and no rotation, as in ViR (Hatamizadeh et al. 2023, arXiv:2310.19731).

    Args:
        q, k: (B, H, N, D), q unscaled.
        v: (B, H, N, E).
        g: (H,) log decay of a token, finite and g <= 0; fixed for each head.
        scale: factor of q; D**-0.5 if None.
        state: (B, H, D, E) before the first token; zeros if None.

    Returns: o (B, H, N, E) in q.dtype, and the final state (B, H, D, E) in float32 (float64 for float64
        inputs).
    Raises: ShapeError if the inputs do not agree.
    """
    dtype = accumulator(q)
    B, H, N, D = q.shape
    scale = D**-0.5 if scale is None else scale
    s = q.new_zeros(B, H, D, v.shape[-1], dtype=dtype) if state is None else state.to(dtype)
    lost = g.double().expm1().to(dtype).view(-1, 1, 1)  # more digits than the decay has, where it is near 1
    if exporting():
        s, o = _scanned(q.to(dtype) * scale, k.to(dtype), v.to(dtype), lost, s)
        return o.to(q.dtype), s
    out = []
    for block in blocks(N):
        queries = (q[:, :, block].to(dtype) * scale).unsqueeze(-2).unbind(2)  # of Float[B H 1 D]
        keys = k[:, :, block].to(dtype).unsqueeze(-1).unbind(2)  # of Float[B H D 1]
        values = v[:, :, block].to(dtype).unsqueeze(-2).unbind(2)  # of Float[B H 1 E]
        read = []
        for query, key, value in zip(queries, keys, values, strict=True):
            s = torch.addcmul(torch.addcmul(s, s, lost), key, value)
            read.append(query @ s)
        out.append(torch.cat(read, dim=2).to(q.dtype))
    return torch.cat(out, dim=2), s


def _scanned(q: Tensor, k: Tensor, v: Tensor, lost: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
    """The recurrence as one operation, for an export."""

    def step(s: Tensor, item: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        query, key, value = item
        s = torch.addcmul(torch.addcmul(s, s, lost), key.unsqueeze(-1), value.unsqueeze(-2))
        return s, (query.unsqueeze(-2) @ s).squeeze(-2)

    return scanned(step, s, (q, k, v), -2, reverse=False)
