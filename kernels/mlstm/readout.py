"""The normalised read-out, the last step of every form."""

from __future__ import annotations

import torch
from torch import Tensor

EPS = 1e-6


def normalise(num: Tensor, den: Tensor, m: Tensor, eps: float) -> Tensor:
    """num / (max(|den|, e^-m) + eps), where num and den are sums scaled by e^-m.

    Where m < 0, both sides of the fraction are multiplied by e^m, so that nothing overflows even if the input gates
    are tiny. With m = -inf, before any token, the result is 0.

    num: (..., E), den and m: (...).
    """
    shrink = m.clamp(max=0).exp()
    floor = (-m.clamp(min=0)).exp()
    divisor = torch.maximum(den.abs() * shrink, floor) + eps * shrink
    return num * (shrink / divisor).unsqueeze(-1)
