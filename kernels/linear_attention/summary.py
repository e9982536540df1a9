"""Linear attention as products of matrices: all tokens make the summary, and all tokens read it."""

from __future__ import annotations

from torch import Tensor

from vbench.kernels.linear_attention.shapes import EPS, Summary
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
    """Linear attention, summary form (Katharopoulos et al. 2020, arXiv:2006.16236, equation 5).

        S = K^T V      z = Σ_j k'_j      O = Q S / (Q' z + n ε)

    Memory is linear in N, work too. Arguments, results and errors are those of `reference.linear_attention`.
    """
    dtype = accumulator(q)
    S = k.to(dtype).mT @ v.to(dtype)
    z = (k if k_norm is None else k_norm).sum(dim=2, dtype=dtype)
    n = q.new_full((), int(q.shape[2]), dtype=dtype)
    if state is not None:
        S, z, n = (mine + other.to(dtype) for mine, other in zip((S, z, n), state, strict=True))
    queries = q.to(dtype)
    weighed = queries if q_norm is None else q_norm.to(dtype)
    total = (weighed * z.unsqueeze(-2)).sum(dim=-1, keepdim=True) + eps * n  # faster than products with one column
    return ((queries @ S) / total).to(q.dtype), (S, z, n)
