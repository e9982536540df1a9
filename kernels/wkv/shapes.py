"""What every form of Bi-WKV checks first."""

from __future__ import annotations

from typing import Literal, get_args

from torch import Tensor

from vbench.errors import ShapeError
from vbench.kernels.shapes import misfit

Reading = Literal["paper", "kernel"]


def check(k: Tensor, v: Tensor, w: Tensor, u: Tensor, reading: Reading, state: Tensor | None) -> None:
    """Raise ShapeError, with all shapes in its message, unless the inputs agree (see `reference.wkv`)."""
    if reading not in get_args(Reading):
        raise ShapeError(f"wkv: reading is 'paper' or 'kernel', not {reading!r}")
    if reading == "kernel" and state is not None:
        raise ShapeError("wkv: the released kernel divides a whole sequence into 32 segments and takes no state")
    fits = (
        k.ndim == 3
        and v.shape == k.shape
        and w.shape == u.shape == k.shape[2:]
        and k.shape[1] > 0
        and (state is None or state.shape == (2, 3, k.shape[0], k.shape[2]))
    )
    if not fits:
        wanted = "k, v (B, N, C), w, u (C,), N > 0, state (2, 3, B, C)"
        raise misfit("wkv", wanted, {"k": k, "v": v, "w": w, "u": u, "state": state})
