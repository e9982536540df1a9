"""WKV6, one token a step: the definition. All other forms must agree with it."""

from __future__ import annotations

import torch
from torch import Tensor

from vbench.kernels.blocks import blocks, each_way, exporting, scanned, turned
from vbench.kernels.shapes import Direction, accumulator


def wkv6(
    r: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    u: Tensor,
    *,
    direction: Direction = "forward",
    state: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """WKV6 (Peng et al. 2024, arXiv:2404.05892, section 4.2; Vision-RWKV, arXiv:2403.02308), recurrent form.

        forward   o_t = S_t^T r_t + (r_t · (u ∘ k_t)) v_t    S_{t+1} = diag(exp g_t) S_t + k_t v_t^T
        reverse   o_t = S_t^T r_t                            S_{t-1} = diag(exp g_t) S_t + k_t v_t^T
        both      the sum of the two outputs, with one decay; token t reads itself once, by the bonus u

    The decay of a token acts on what passes through it, so that neighbours read each other undamped.

    Args:
        r, k: (B, H, N, D); nothing is scaled.
        v: (B, H, N, E).
        g: (B, H, N, D) log decay, g <= 0: -exp(ω) in the papers.
        u: (H, D) bonus.
        direction: which way the state travels.
        state: (B, H, D, E) before the first token that the direction meets; (2, B, H, D, E) for
            "both", forward first; zeros if None.

    Returns: o (B, H, N, E) in r.dtype, and the final state, shaped as `state`, in float32 (float64 for
        float64 inputs).
    Raises: ShapeError if the inputs do not agree.
    """
    return each_way(direction, state, r.dtype, lambda _, s, reverse: _walk(r, k, v, g, u, s, reverse))


def _walk(
    r: Tensor, k: Tensor, v: Tensor, g: Tensor, u: Tensor, state: Tensor | None, reverse: bool
) -> tuple[Tensor, Tensor]:
    dtype = accumulator(r)
    B, H, N, D = r.shape
    s = r.new_zeros(B, H, D, v.shape[-1], dtype=dtype) if state is None else state.to(dtype)
    bonus = (u * (not reverse)).to(dtype)[:, None]
    if exporting():
        items = (r.to(dtype), k.to(dtype), v.to(dtype), g.to(dtype).exp())
        s, o = scanned(_step, s, items, -2, reverse)
        return o + (items[0] * items[1] * bonus).sum(-1, keepdim=True) * items[2], s
    out = []
    for block in blocks(N, reverse):
        queries, keys, values, decays = (x[:, :, block].to(dtype) for x in (r, k, v, g))
        rows = queries.unsqueeze(-2).unbind(2)  # of Float[B H 1 D]
        columns = keys.unsqueeze(-1).unbind(2)  # of Float[B H D 1]
        outer = values.unsqueeze(-2).unbind(2)  # of Float[B H 1 E]
        kept = decays.exp().unsqueeze(-1).unbind(2)  # of Float[B H D 1]
        read = []
        for t in turned(range(len(rows)), reverse):
            read.append(rows[t] @ s)
            s = torch.addcmul(kept[t] * s, columns[t], outer[t])
        out.append(torch.cat(turned(read, reverse), dim=2) + (queries * keys * bonus).sum(-1, keepdim=True) * values)
    return torch.cat(turned(out, reverse), dim=2), s


def _step(s: Tensor, item: tuple[Tensor, Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """One token, for an export."""
    r, k, v, decay = item
    read = (r.unsqueeze(-2) @ s).squeeze(-2)
    return torch.addcmul(decay.unsqueeze(-1) * s, k.unsqueeze(-1), v.unsqueeze(-2)), read
