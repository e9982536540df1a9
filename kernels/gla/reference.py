"""Gated linear attention, one token a step: the definition. All other forms must agree with it."""

from __future__ import annotations

import torch
from torch import Tensor

from vbench.kernels.blocks import blocks, each_way, exporting, scanned, turned
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
    """Gated linear attention, recurrent form (Yang et al. 2024, arXiv:2312.06635, equation 3).

        forward   S_t = diag(exp g_t) S_{t-1} + k_t v_t^T      o_t = scale · S_t^T q_t
        reverse   S_t = diag(exp g_t) S_{t+1} + k_t v_t^T      o_t = scale · S_t^T q_t
        both      the sum of the two outputs, each with gates of its own (ViG, arXiv:2405.18425);
                  token t reads itself in both, so the diagonal counts twice

    Args:
        q, k: (B, H, N, D), q unscaled.
        v: (B, H, N, E).
        g: (B, H, N, D) log decay, g <= 0, at the token's own position; (2, B, H, N, D) for "both",
            forward first.
        direction: which way the state travels.
        scale: factor of q; D**-0.5 if None.
        state: (B, H, D, E) before the first token that the direction meets; (2, B, H, D, E) for
            "both"; zeros if None.

    Returns: o (B, H, N, E) in q.dtype, and the final state, shaped as `state`, in float32 (float64 for
        float64 inputs).
    Raises: ShapeError if the inputs do not agree.
    """
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    gates = list(g) if direction == "both" else [g]
    return each_way(direction, state, q.dtype, lambda way, s, reverse: _walk(q, k, v, gates[way], scale, s, reverse))


def _walk(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, scale: float, state: Tensor | None, reverse: bool
) -> tuple[Tensor, Tensor]:
    dtype = accumulator(q)
    B, H, N, D = q.shape
    s = q.new_zeros(B, H, D, v.shape[-1], dtype=dtype) if state is None else state.to(dtype)
    if exporting():
        items = (q.to(dtype) * scale, k.to(dtype), v.to(dtype), g.to(dtype).exp())
        s, o = scanned(_step, s, items, -2, reverse)
        return o, s
    out = []
    for block in blocks(N, reverse):
        rows = (q[:, :, block].to(dtype) * scale).unsqueeze(-2).unbind(2)  # of Float[B H 1 D]
        columns = k[:, :, block].to(dtype).unsqueeze(-1).unbind(2)  # of Float[B H D 1]
        values = v[:, :, block].to(dtype).unsqueeze(-2).unbind(2)  # of Float[B H 1 E]
        decays = g[:, :, block].to(dtype).exp().unsqueeze(-1).unbind(2)  # of Float[B H D 1]
        read = []
        for t in turned(range(len(rows)), reverse):
            s = torch.addcmul(decays[t] * s, columns[t], values[t])
            read.append(rows[t] @ s)
        out.append(torch.cat(turned(read, reverse), dim=2))
    return torch.cat(turned(out, reverse), dim=2), s


def _step(s: Tensor, item: tuple[Tensor, Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """One token, for an export."""
    q, k, v, decay = item
    s = torch.addcmul(decay.unsqueeze(-1) * s, k.unsqueeze(-1), v.unsqueeze(-2))
    return s, (q.unsqueeze(-2) @ s).squeeze(-2)
