"""From raw pre-activations to the two coefficients of the recurrence."""

from __future__ import annotations

import torch
from torch import Tensor


def coefficients(a: Tensor, b: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """How much of the state each token keeps, and what it adds: h_t = keep_t · h_{t-1} + feed_t.

        keep = 1 - z = sigmoid(-b)      feed = z · g(a),  z = sigmoid(b)
        g(a) = a + 1/2 where a >= 0, sigmoid(a) where a < 0, which is the larger of the two everywhere

    Both are positive. 1 - z is computed as sigmoid(-b), because a difference has no digits where z is near 1.

    a, b: (B, N, C) of any type -> 2 × (B, N, C) in `dtype`.
    """
    a, b = a.to(dtype), b.to(dtype)
    candidate = torch.maximum(a + 0.5, a.sigmoid())
    return (-b).sigmoid(), b.sigmoid() * candidate
