"""minGRU as a sum over all pairs of tokens: the textbook's parallel form, quadratic in N."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from vbench.kernels.mingru.gates import coefficients
from vbench.kernels.shapes import Direction, accumulator

PAIRS = 1 << 18  # pairwise decays that are held at a time; the arithmetic does not depend on it


def mingru(
    a: Tensor, b: Tensor, *, direction: Direction = "forward", state: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """minGRU, quadratic form: the recurrence of arXiv:2410.01201, section 3.1, unrolled.

        forward   h_t = Σ_{j<=t} 2^(s_t - s_j) · z_j · g(a_j)      s_t = Σ_{u<=t} log₂(1 - z_u)

    and mirrored in reverse. Differences of running sums are taken pair by pair, in float64, so nothing overflows and
    no digit is lost. Arguments, results and errors are those of `reference.mingru`.
    """
    dtype = accumulator(a)
    B, N, C = map(int, a.shape)  # int: under a trace, sizes are tensors
    _, feed = coefficients(a, b, dtype)
    logs = F.logsigmoid(-b.double()) / math.log(2)  # powers of 2 do not slow down where they vanish
    sums = logs.cumsum(1)
    if direction == "reverse":
        sums = sums[:, -1:] - sums + logs
    feed, since = feed.mT.unsqueeze(-1).contiguous(), sums.mT.unsqueeze(-2).contiguous()  # B C N 1, B C 1 N
    at = torch.arange(N, device=a.device)
    rows = max(1, PAIRS // (B * N * C))
    h = torch.empty_like(feed)
    for start in range(0, N, rows):
        block = slice(start, start + rows)
        unseen = at[block, None] > at if direction == "reverse" else at[block, None] < at
        decay = (since.mT[:, :, block] - since).to(dtype)  # B C rows N
        h[:, :, block] = decay.masked_fill_(unseen, -torch.inf).exp2_() @ feed
    h = h.squeeze(-1).mT
    if state is not None:
        h = h + sums.to(dtype).exp2() * state.to(dtype).unsqueeze(1)
    return h.to(a.dtype), h[:, 0 if direction == "reverse" else -1].clone()
