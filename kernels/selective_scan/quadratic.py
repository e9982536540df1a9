"""The selective scan as a sum over all pairs of tokens: quadratic in N."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from vbench.kernels.selective_scan.orders import Walk, walks
from vbench.kernels.shapes import Direction, accumulator

PAIRS = 1 << 20  # decays of pairs of tokens that are held at a time; the arithmetic does not depend on it


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    delta_bias: Tensor,
    *,
    z: Tensor | None = None,
    softplus: bool = True,
    direction: Direction = "forward",
    width: int | None = None,
    state: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The selective scan, quadratic form: the recurrence of arXiv:2312.00752, equation 2a, unrolled.

        h_t = Σ_{j<=t} exp((s_t - s_j) A) δ_j u_j B_j^T      s_t = Σ_{i<=t} δ_i

    in the order of the walk. Differences of running sums are taken pair by pair, in float64, so nothing overflows and
    no digit is lost. Arguments, results and errors are those of `reference.selective_scan`.
    """
    dtype = accumulator(u)
    total, ends = None, []
    for walk in walks(direction, width, u, delta, A, B, C, D, delta_bias, state):
        y, h = _walk(walk, dtype, softplus)
        total = y if total is None else total + y
        ends.append(h)
    assert total is not None
    o = total if z is None else total * F.silu(z.to(dtype))
    return o.to(u.dtype), ends[0] if len(ends) == 1 else torch.stack(ends)


def _walk(walk: Walk, dtype: torch.dtype, softplus: bool) -> tuple[Tensor, Tensor]:
    """One walk: y Float[B G N C] with the skip, tokens in the caller's order, and the last h Float[B G C S]."""
    u, delta, B, C = (walk.ordered(x).to(dtype) for x in (walk.u, walk.delta, walk.B, walk.C))
    A, D = walk.A.to(dtype), walk.D.to(dtype)
    step = delta + walk.delta_bias.to(dtype).unsqueeze(-2)
    step = F.softplus(step) if softplus else step
    sums = step.double().cumsum(2)
    if walk.reverse:
        sums = sums[:, :, -1:] - sums + step.double()
    written = (step * u).unsqueeze(-1) * B.unsqueeze(-2)  # Float[B G N C S]
    at = torch.arange(u.shape[2], device=u.device)
    y: list[Tensor] = []
    last = u.new_zeros(())
    for rows in at.split(max(1, PAIRS // written.numel())):
        unseen = rows[:, None] > at if walk.reverse else rows[:, None] < at
        since = (sums[:, :, rows].unsqueeze(3) - sums.unsqueeze(2)).to(dtype)  # Float[B G rows N C]
        exponents = since.unsqueeze(-1) * A[:, None, None]  # Float[B G rows N C S]
        decays = exponents.masked_fill(unseen[:, :, None, None], -torch.inf).exp()
        h = (decays * written.unsqueeze(2)).sum(3)
        if walk.state is not None:
            h = h + (sums[:, :, rows].to(dtype).unsqueeze(-1) * A.unsqueeze(1)).exp() * walk.state.to(dtype).unsqueeze(
                2
            )
        if not walk.reverse or not y:  # the walk ends in the last rows, a reverse one in the first
            last = h[:, :, 0 if walk.reverse else -1].clone()
        y.append((h @ C[:, :, rows].unsqueeze(-1)).squeeze(-1))
    return walk.restored(torch.addcmul(torch.cat(y, dim=2), D.unsqueeze(-2), u)), last
