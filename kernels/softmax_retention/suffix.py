"""Softmax retention by its causal half: what lies beyond a block of rows is one sum of values.

A later token has the weight exp(0) whatever its key, so all tokens after a block enter its queries as the
sum of their values and their number. Half the products of the full matrix remain.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vbench.kernels.retention.damping import rows
from vbench.kernels.shapes import accumulator
from vbench.kernels.softmax_retention import cost


def softmax_retention(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, *, scale: float | None = None
) -> tuple[Tensor, tuple[()]]:
    """Softmax retention, suffix form: a block of rows with all columns up to its end, and the rest as one.

        o_i = (Σ_{j<e} exp(L_ij) v_j + Σ_{j>=e} v_j) / (Σ_{j<e} exp(L_ij) + N - e)      e the block's end

    Numerator and denominator are divided by the exponential of the row's largest logit, so nothing overflows. A token
    beyond the block has the logit 0. Arguments, results and errors are those of
    `quadratic.softmax_retention`.
    """
    dtype = accumulator(q)
    N = int(q.shape[2])
    queries = q.to(dtype) * (q.shape[-1] ** -0.5 if scale is None else scale)
    keys, values = k.to(dtype), v.to(dtype)
    blocks = values.split(cost.ROWS, dim=2)
    beyond = torch.stack([block.sum(dim=2) for block in blocks], dim=2)  # values of a block: B H blocks E
    beyond = beyond.flip(2).cumsum(2).flip(2)  # and of all the blocks after it

    out = []
    for i, (start, stop, mask) in enumerate(rows(g, N, cost.ROWS, dtype)):
        logits = queries[:, :, start:stop] @ keys[:, :, :stop].mT * mask
        peak = logits.detach().amax(dim=-1, keepdim=True)
        if stop < N:
            peak = peak.clamp(min=0)
        weights = logits.sub_(peak).exp_()
        o, total = weights @ values[:, :, :stop], weights.sum(dim=-1, keepdim=True)
        if stop < N:
            one = peak.neg().exp()
            o, total = o + one * beyond[:, :, i + 1, None], total + one * (N - stop)
        out.append((o / total).to(q.dtype))
    return torch.cat(out, dim=2), ()
