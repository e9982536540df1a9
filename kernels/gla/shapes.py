"""What every form of gated linear attention checks first, and what it answers on the meta device."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from vbench.errors import ShapeError

Direction = Literal["forward", "reverse", "both"]


def accumulator(q: Tensor) -> torch.dtype:
    """float64 for float64 inputs, float32 for all others: the type of decays, sums and state."""
    return torch.float64 if q.dtype == torch.float64 else torch.float32


def check(q: Tensor, k: Tensor, v: Tensor, g: Tensor, direction: Direction, state: Tensor | None) -> None:
    """Raise ShapeError, with all shapes in its message, unless the inputs agree (see `reference.gla`)."""
    if direction not in ("forward", "reverse", "both"):
        raise ShapeError(f"direction is 'forward', 'reverse' or 'both', not {direction!r}")
    pair = (2,) if direction == "both" else ()
    fits = (
        q.ndim == 4
        and k.shape == q.shape
        and v.ndim == 4
        and v.shape[:3] == q.shape[:3]
        and g.shape == (*pair, *q.shape)
        and q.shape[2] > 0
        and (state is None or state.shape == (*pair, *q.shape[:2], q.shape[3], v.shape[3]))
    )
    if not fits:
        shapes = ", ".join(f"{name} {tuple(x.shape)}" for name, x in zip("qkvg", (q, k, v, g), strict=True))
        given = "none" if state is None else str(tuple(state.shape))
        raise ShapeError(
            f"gla {direction}: want q, k {'(2,)+' if pair else ''}g (B, H, N, D), v (B, H, N, E), N > 0, "
            f"state {'(2, B, H, D, E)' if pair else '(B, H, D, E)'}; got {shapes}, state {given}"
        )
