"""What every form of WKV6 checks first."""

from __future__ import annotations

from torch import Tensor

from vbench.kernels.shapes import Direction, check_direction, misfit


def check(r: Tensor, k: Tensor, v: Tensor, g: Tensor, u: Tensor, direction: Direction, state: Tensor | None) -> None:
    """Raise ShapeError, with all shapes in its message, unless the inputs agree (see `reference.wkv6`)."""
    check_direction(direction)
    pair = (2,) if direction == "both" else ()
    fits = (
        r.ndim == 4
        and k.shape == g.shape == r.shape
        and v.ndim == 4
        and v.shape[:3] == r.shape[:3]
        and u.shape == (r.shape[1], r.shape[3])
        and r.shape[2] > 0
        and (state is None or state.shape == (*pair, *r.shape[:2], r.shape[3], v.shape[3]))
    )
    if not fits:
        two = "2, " if pair else ""
        wanted = f"r, k, g (B, H, N, D), v (B, H, N, E), u (H, D), N > 0, state ({two}B, H, D, E)"
        raise misfit(f"wkv6 {direction}", wanted, {"r": r, "k": k, "v": v, "g": g, "u": u, "state": state})
