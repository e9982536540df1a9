"""What every form of gated linear attention checks first."""

from __future__ import annotations

from torch import Tensor

from vbench.kernels.shapes import Direction, check_direction, misfit


def check(q: Tensor, k: Tensor, v: Tensor, g: Tensor, direction: Direction, state: Tensor | None) -> None:
    """Raise ShapeError, with all shapes in its message, unless the inputs agree (see `reference.gla`)."""
    check_direction(direction)
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
        two = "2, " if pair else ""
        wanted = f"q, k (B, H, N, D), v (B, H, N, E), g ({two}B, H, N, D), N > 0, state ({two}B, H, D, E)"
        raise misfit(f"gla {direction}", wanted, {"q": q, "k": k, "v": v, "g": g, "state": state})
