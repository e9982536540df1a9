"""Bi-WKV as a softmax over all pairs of tokens, channel by channel: quadratic in N."""

from __future__ import annotations

import torch
from torch import Tensor

from vbench.kernels.shapes import accumulator
from vbench.kernels.wkv.shapes import Reading
from vbench.kernels.wkv.sums import costs, excess, gather, initial, read, segment, tokens

ROWS = 4  # tokens whose weights are held at a time; the arithmetic does not depend on it


def wkv(
    k: Tensor, v: Tensor, w: Tensor, u: Tensor, *, reading: Reading = "paper", state: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Bidirectional WKV, quadratic form (Duan et al. 2024, arXiv:2403.02308, equation 3).

        y_t = Σ_i e^{M_ti + k_i} v_i / Σ_i e^{M_ti + k_i}      M_ti = -w(|t-i|-1), M_tt = u

    A state is one more token, before the first or after the last. Arguments, results and errors are those of
    `reference.wkv`.
    """
    dtype, N = accumulator(k), k.shape[1]
    w, u = w.to(dtype), u.to(dtype)
    ahead, back = (initial(k, dtype) if state is None else state.to(dtype)).unsqueeze(-2).unbind(0)
    x = torch.cat((ahead, tokens(k.to(dtype), v.to(dtype)), back), dim=2)
    at = torch.arange(-1, N + 1, device=k.device)
    if reading == "paper":
        y = [gather(x, costs(w, rows, at, u)) for rows in at[1:-1].split(ROWS)]
    else:
        twice, S = torch.cat((x, excess(x, w)), dim=2), segment(N)
        y = [gather(twice, _released(w, u, rows, at, S)) for rows in at[1:-1].split(ROWS)]
    last = gather(x[:, :, :-1], costs(w, at[-1:], at[:-1])), gather(x[:, :, 1:], costs(w, at[:1], at[1:]))
    return read(torch.cat(y, dim=2), k.dtype), torch.stack(last).squeeze(-2)


def _released(w: Tensor, u: Tensor, rows: Tensor, at: Tensor, length: int) -> Tensor:
    """The costs -M of the released kernels: of all sources, then of their `excess`: Float[R 2S C]."""
    start = (rows - rows % length)[:, None]
    gap = rows[:, None] - at
    far = ((gap < 0) | (at < start)).unsqueeze(-1)
    again = ((gap >= 0) & (at > start)).unsqueeze(-1)
    once = costs(w, rows, at, u) + torch.where(far, w, 0.0)
    return torch.cat((once, torch.where(again, -w * gap.unsqueeze(-1), torch.inf)), dim=1)
