"""What every form of minGRU checks first, and how `scan` cuts its tokens."""

from __future__ import annotations

from torch import Tensor

from vbench.errors import ShapeError
from vbench.kernels.shapes import Direction, check_direction, misfit

CHUNK = 8  # tokens
GROUP = 1 << 17  # numbers that a temporary of `scan` holds, so that it stays in cache


def check(a: Tensor, b: Tensor, direction: Direction, state: Tensor | None) -> None:
    """Raise ShapeError, with all shapes in its message, unless the inputs agree (see `reference.mingru`)."""
    check_direction(direction)
    if direction == "both":
        raise ShapeError("mingru: each direction has projections of its own; call it once 'forward', once 'reverse'")
    fits = (
        a.ndim == 3
        and b.shape == a.shape
        and a.shape[1] > 0
        and (state is None or state.shape == (a.shape[0], a.shape[2]))
    )
    if not fits:
        wanted = "a, b (B, N, C), N > 0, state (B, C)"
        raise misfit(f"mingru {direction}", wanted, {"a": a, "b": b, "state": state})


def span_of(batch: int, channels: int, group: int) -> int:
    """Tokens of a group of `scan`: whole chunks of whole chunks, so that only the last group need be padded."""
    return max(1, group // (batch * channels * CHUNK**2)) * CHUNK**2
