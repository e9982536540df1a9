"""Linear attention by all pairs of tokens: the textbook's form, quadratic in N."""

from __future__ import annotations

import torch
from torch import Tensor

from vbench.kernels.linear_attention import cost
from vbench.kernels.linear_attention.shapes import EPS, Summary, others
from vbench.kernels.shapes import accumulator


def linear_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    q_norm: Tensor | None = None,
    k_norm: Tensor | None = None,
    eps: float = EPS,
    state: Summary | None = None,
) -> tuple[Tensor, Summary]:
    """Linear attention, quadratic form (Katharopoulos et al. 2020, arXiv:2006.16236, equation 3).

        o_t = Σ_j (q_t · k_j) v_j / (Σ_j q'_t · k'_j + n ε)

    A block of rows at a time, so that memory is linear in N. Arguments, results and errors are those of
    `reference.linear_attention`.
    """
    dtype = accumulator(q)
    N = int(q.shape[2])
    queries, keys, values = (x.to(dtype) for x in (q, k, v))
    own = q_norm is None  # then the scores are summed themselves
    weighed = queries if q_norm is None else q_norm.to(dtype)
    summed = keys if k_norm is None else k_norm.to(dtype)
    S, z, n = others(q, v, state)
    n = n + N

    out = []
    for start in range(0, N, cost.ROWS):
        rows = slice(start, start + cost.ROWS)
        scores = queries[:, :, rows] @ keys.mT
        o = scores @ values
        total = (scores if own else weighed[:, :, rows] @ summed.mT).sum(dim=-1, keepdim=True) + eps * n
        if state is not None:
            o = o + queries[:, :, rows] @ S
            total = total + weighed[:, :, rows] @ z.unsqueeze(-1)
        out.append((o / total).to(q.dtype))
    return torch.cat(out, dim=2), (S + keys.mT @ values, z + summed.sum(dim=2), n)
