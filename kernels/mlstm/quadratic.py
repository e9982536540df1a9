"""The matrix LSTM as one weighted score matrix: the parallel form of the papers, quadratic in N."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from vbench.kernels.mlstm.readout import EPS, normalise
from vbench.kernels.mlstm.shapes import Memory, memory
from vbench.kernels.shapes import Direction, accumulator

ROWS = 64  # queries whose weights are held at a time; the arithmetic does not depend on it


def mlstm(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    i: Tensor,
    f: Tensor,
    *,
    direction: Direction = "forward",
    scale: float | None = None,
    eps: float = EPS,
    state: Memory | None = None,
) -> tuple[Tensor, Memory]:
    """The matrix LSTM, quadratic form (Beck et al. 2024, arXiv:2405.04517, appendix A).

        L_tj = b_t - b_j + i_j (j <= t)      b_t = Σ_{u<=t} log σ(f_u)      m_t = max_j L_tj
        S_tj = scale · (q_t · k_j) exp(L_tj - m_t)
        h_t = Σ_j S_tj v_j / (max(|Σ_j S_tj|, e^-m_t) + eps)

    and mirrored in reverse. An initial state is one more column, of weight b_t + m. All pairs are computed.
    Differences of running sums are taken in float64. Arguments, results and errors are those of `reference.mlstm`.
    """
    dtype, N, reverse = accumulator(q), q.shape[2], direction == "reverse"
    queries, values = q.to(dtype), v.to(dtype)
    keys = k.to(dtype) * (q.shape[-1] ** -0.5 if scale is None else scale)
    C, n, m = memory(q, v, state)

    log_f = logsigmoid(f.double())
    b = log_f.flip(2).cumsum(2).flip(2) if reverse else log_f.cumsum(2)
    source = i.double() - b
    carried = b + m.unsqueeze(-1)
    at = torch.arange(N, device=q.device)
    out, maxima = [], []
    for start in range(0, N, ROWS):
        rows = slice(start, start + ROWS)
        seen = at[rows, None] <= at if reverse else at[rows, None] >= at
        log_weight = (b[:, :, rows, None] + source[:, :, None]).masked_fill(~seen, -torch.inf)
        m_t = torch.maximum(log_weight.amax(-1), carried[:, :, rows]).to(dtype)
        scores = queries[:, :, rows] @ keys.mT * (log_weight - m_t.unsqueeze(-1)).exp().to(dtype)
        num, den = scores @ values, scores.sum(-1)
        if state is not None:
            reads = queries[:, :, rows] * (carried[:, :, rows] - m_t).exp().to(dtype).unsqueeze(-1)
            num = num + reads @ C
            den = den + (reads @ n.unsqueeze(-1)).squeeze(-1)
        out.append(normalise(num, den, m_t, eps).to(q.dtype))
        maxima.append(m_t)

    last = 0 if reverse else -1
    m_last, total = torch.cat(maxima, dim=2)[..., last], b[..., last]
    fed = keys * (total.unsqueeze(-1) + source - m_last.unsqueeze(-1)).exp().to(dtype).unsqueeze(-1)
    kept = (total + m - m_last).exp().to(dtype).unsqueeze(-1)
    final = kept.unsqueeze(-1) * C + fed.mT @ values, kept * n + fed.sum(2), m_last
    return torch.cat(out, dim=2), final
