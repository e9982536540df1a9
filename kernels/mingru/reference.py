"""minGRU's recurrence, one token a step: the definition. All other forms must agree with it."""

from __future__ import annotations

import torch
from torch import Tensor

from vbench.kernels.blocks import blocks, exporting, scanned, turned
from vbench.kernels.mingru.gates import coefficients
from vbench.kernels.shapes import Direction, accumulator


def mingru(
    a: Tensor, b: Tensor, *, direction: Direction = "forward", state: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """minGRU, recurrent form (Feng et al. 2024, arXiv:2410.01201, section 3.1; g as in its log-space code).

        forward   h_t = (1 - z_t) · h_{t-1} + z_t · g(a_t)      z = sigmoid(b)
        reverse   h_t = (1 - z_t) · h_{t+1} + z_t · g(a_t)      g(a) = a + 1/2 if a >= 0, else sigmoid(a)

    All products are elementwise; every h lies between its predecessor and its candidate.

    Args:
        a: (B, N, C) candidate before g.
        b: (B, N, C) gate before its sigmoid.
        direction: which way the state travels, "forward" or "reverse".
        state: (B, C) h before the first token that the direction meets; zeros if None.

    Returns: h (B, N, C) in a.dtype, and the last h that the direction meets, (B, C) in float32 (float64 for
        float64 inputs).
    Raises: ShapeError if the inputs do not agree, or for direction "both": in VisionGRU each direction has
        projections of its own, so there is nothing to share.
    """
    dtype = accumulator(a)
    B, N, C = a.shape
    h = a.new_zeros(B, C, dtype=dtype) if state is None else state.to(dtype)
    reverse = direction == "reverse"
    if exporting():
        h, states = scanned(_step, h, coefficients(a, b, dtype), -2, reverse)
        return states.to(a.dtype), h
    out = []
    for block in blocks(N, reverse):
        keep, feed = (x.unbind(1) for x in coefficients(a[:, block], b[:, block], dtype))  # of Float[B C]
        states = []
        for t in turned(range(len(keep)), reverse):
            h = torch.addcmul(feed[t], keep[t], h)
            states.append(h)
        out.append(torch.stack(turned(states, reverse), dim=1).to(a.dtype))
    return torch.cat(turned(out, reverse), dim=1), h


def _step(h: Tensor, item: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """One token, for an export."""
    keep, feed = item
    h = torch.addcmul(feed, keep, h)
    return h, h.clone()
