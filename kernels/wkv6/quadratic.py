"""WKV6 as one score matrix for both directions: the textbook's parallel form, quadratic in N."""

from __future__ import annotations

import torch
from torch import Tensor

from vbench.kernels.shapes import Direction, accumulator

ROWS = 16  # tokens whose pairwise decays are held at a time; the arithmetic does not depend on it


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
    """WKV6, quadratic form.

        o_t = Σ_i Σ_c r_tc k_ic d_tic v_i      d_ti = exp(sum of g strictly between t and i), d_tt = u

    over the tokens that the direction lets see, their own included except in "reverse". Sums are taken pair by
    pair as differences of running sums in float64, so nothing overflows. Arguments, results and errors are
    those of `reference.wkv6`.
    """
    dtype, N = accumulator(r), r.shape[2]
    queries, keys, values, bonus = (x.to(dtype) for x in (r, k, v, u * (direction != "reverse")))
    upto = g.double().cumsum(2)  # with the token's own
    before, total = upto - g.double(), upto[:, :, -1:]
    at = torch.arange(N, device=r.device)
    out = []
    for rows in at.split(ROWS):
        gap = (rows[:, None] - at)[..., None]
        past = before[:, :, rows, None] - upto[:, :, None]  # B H R N D
        future = before[:, :, None] - upto[:, :, rows, None]
        seen = {"forward": gap > 0, "reverse": gap < 0, "both": gap != 0}[direction]
        decay = torch.where(gap > 0, past, future).masked_fill(~seen, -torch.inf).exp().to(dtype)
        decay = torch.where(gap == 0, bonus[:, None, None], decay)
        out.append(torch.einsum("bhrd,bhnd,bhrnd->bhrn", queries[:, :, rows], keys, decay) @ values)
    o = torch.cat(out, dim=2)

    after = total - upto
    entering = {"forward": [before], "reverse": [after], "both": [before, after]}[direction]  # damp what is read
    leaving = {"forward": [after], "reverse": [before], "both": [after, before]}[direction]  # damp what is written
    initial = [None] * len(entering) if state is None else list(state.to(dtype).view(-1, *state.shape[-4:]))
    last = []
    for s, reads, writes in zip(initial, entering, leaving, strict=True):
        new = (keys * writes.exp().to(dtype)).mT @ values
        if s is not None:
            o = o + (queries * reads.exp().to(dtype)) @ s
            new = new + total.exp().to(dtype).mT * s
        last.append(new)
    return o.to(r.dtype), torch.stack(last) if direction == "both" else last[0]
