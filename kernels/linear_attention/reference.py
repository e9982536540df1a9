"""Linear attention, one token a step: the definition. All other forms must agree with it."""

from __future__ import annotations

import torch
from torch import Tensor

from vbench.kernels.blocks import blocks, exporting, scanned
from vbench.kernels.linear_attention.shapes import EPS, Summary, others
from vbench.kernels.shapes import accumulator

Items = tuple[Tensor, ...]


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
    """Linear attention, normalised and not causal (Katharopoulos et al. 2020, arXiv:2006.16236, equation 5).

        S = Σ_j k_j v_j^T      z = Σ_j k'_j      n = Σ_j 1      o_t = S^T q_t / (q'_t · z + n ε)

    In another form, o_t = Σ_j (q_t · k_j) v_j / n over (q'_t · Σ_j k'_j / n + ε): numerator and normaliser are means.
    One walk along the tokens gathers the summary S, z, n; a second one reads it. No token has a place in a summary, so
    the order of the tokens does not matter. MLLA (Han et al. 2024, arXiv:2405.16605) turns q and k by the places of
    their tokens, but not those of the normaliser, q' and k'.

    Args:
        q, k: (B, H, N, D), after the feature map.
        v: (B, H, N, E).
        q_norm, k_norm: (B, H, N, D), q' and k'; q and k themselves if None. k_norm is not given without q_norm.
        eps: ε, added to q' · mean of k'.
        state: the summary of other tokens, which are read beside these: S (B, H, D, E), z (B, H, D), n (); of no token
            if None.

    Returns: o (B, H, N, E) in q.dtype, and the summary of these and the other tokens, in float32 (float64 for float64
        inputs).
    Raises: ShapeError if the inputs do not agree.
    """
    dtype = accumulator(q)
    N = int(q.shape[2])
    S, z, n = others(q, v, state)
    n = n + N
    read = (q, q if q_norm is None else q_norm)
    written = (k, k if k_norm is None else k_norm, v)
    if exporting():
        start, items = (S.clone(), z.clone()), tuple(x.to(dtype) for x in written)
        (S, z), _ = scanned(lambda summary, item: (_gathered(summary, item), item[0].clone()), start, items, -2, False)
        floor = (eps * n).clone()
        _, o = scanned(
            lambda kept, item: (kept.clone(), _read(S, z, floor, item)),
            floor,
            tuple(x.to(dtype) for x in read),
            -2,
            False,
        )
        return o.to(q.dtype), (S, z, n)
    for block in blocks(N):
        for item in _tokens(written, block, dtype):
            S, z = _gathered((S, z), item)
    out = []
    for block in blocks(N):
        found = [_read(S, z, eps * n, item) for item in _tokens(read, block, dtype)]
        out.append(torch.stack(found, dim=2).to(q.dtype))
    return torch.cat(out, dim=2), (S, z, n)


def _tokens(given: Items, block: slice, dtype: torch.dtype) -> list[Items]:
    """The tokens of a block one by one: of each Float[B H N D] a Float[B H D]."""
    return list(zip(*(x[:, :, block].to(dtype).unbind(2) for x in given), strict=True))


def _gathered(summary: tuple[Tensor, Tensor], item: Items) -> tuple[Tensor, Tensor]:
    """One token is added to S and z."""
    (S, z), (key, summed, value) = summary, item
    return torch.addcmul(S, key.unsqueeze(-1), value.unsqueeze(-2)), z + summed


def _read(S: Tensor, z: Tensor, floor: Tensor, item: Items) -> Tensor:
    """What one token reads: Float[B H E]."""
    query, weighed = item
    total = (weighed * z).sum(-1, keepdim=True) + floor
    return (query.unsqueeze(-2) @ S).squeeze(-2) / total
