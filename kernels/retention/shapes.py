"""What every form of retention checks first."""

from __future__ import annotations

from torch import Tensor

from vbench.kernels.shapes import misfit


def check(q: Tensor, k: Tensor, v: Tensor, g: Tensor, state: Tensor | None) -> None:
    """Raise ShapeError, with all shapes in its message, unless the inputs agree (see `reference.retention`)."""
    fits = (
        q.ndim == 4
        and k.shape == q.shape
        and v.ndim == 4
        and v.shape[:3] == q.shape[:3]
        and g.shape == q.shape[1:2]
        and q.shape[2] > 0
        and (state is None or state.shape == (*q.shape[:2], q.shape[3], v.shape[3]))
    )
    if not fits:
        wanted = "q, k (B, H, N, D), v (B, H, N, E), g (H,), N > 0, state (B, H, D, E)"
        raise misfit("retention", wanted, {"q": q, "k": k, "v": v, "g": g, "state": state})
