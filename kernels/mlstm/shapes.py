"""What every form of the matrix LSTM checks first, and the state before the first token."""

from __future__ import annotations

from torch import Tensor

from vbench.errors import ShapeError
from vbench.kernels.shapes import Direction, accumulator, check_direction, misfit

Memory = tuple[Tensor, Tensor, Tensor]  # C (B, H, D, E), n (B, H, D), m (B, H)


def check(q: Tensor, k: Tensor, v: Tensor, i: Tensor, f: Tensor, direction: Direction, state: Memory | None) -> None:
    """Raise ShapeError, with all shapes in its message, unless the inputs agree (see `reference.mlstm`)."""
    check_direction(direction)
    if direction == "both":
        raise ShapeError("mlstm has one direction a call, 'forward' or 'reverse'; ViL alternates them block by block")
    fits = (
        q.ndim == 4
        and k.shape == q.shape
        and v.ndim == 4
        and v.shape[:3] == q.shape[:3]
        and i.shape == f.shape == q.shape[:3]
        and q.shape[2] > 0
        and (state is None or _fits(state, q, v))
    )
    if not fits:
        wanted = (
            "q, k (B, H, N, D), v (B, H, N, E), i, f (B, H, N), N > 0, "
            "state a tuple of (B, H, D, E), (B, H, D) and (B, H)"
        )
        raise misfit(f"mlstm {direction}", wanted, {"q": q, "k": k, "v": v, "i": i, "f": f, "state": state})


def _fits(state: Memory, q: Tensor, v: Tensor) -> bool:
    B, H, _, D = q.shape
    wanted = [(B, H, D, v.shape[-1]), (B, H, D), (B, H)]
    return isinstance(state, tuple) and [tuple(part.shape) for part in state] == wanted


def memory(q: Tensor, v: Tensor, state: Memory | None) -> Memory:
    """The state to begin with, in the type that sums are kept in; empty if None: C = 0, n = 0, m = -inf."""
    dtype = accumulator(q)
    if state is not None:
        C, n, m = state
        return C.to(dtype), n.to(dtype), m.to(dtype)
    B, H, _, D = q.shape
    return (
        q.new_zeros(B, H, D, v.shape[-1], dtype=dtype),
        q.new_zeros(B, H, D, dtype=dtype),
        q.new_full((B, H), float("-inf"), dtype=dtype),
    )
