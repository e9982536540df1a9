"""The decay between two tokens, exp(g · distance), built from whole distances: nothing can overflow."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor


def damping(g: Tensor, distance: Tensor, dtype: torch.dtype) -> Tensor:
    """exp(g · distance) where distance >= 0, and 0 where it is negative.

    g: Float[H], distance: Int[...] -> Float[H ...]
    """
    g = g.to(dtype).view(-1, *[1] * distance.ndim)
    return (g * distance.clamp(min=0)).exp() * (distance >= 0)


def rows(g: Tensor, tokens: int, block: int, dtype: torch.dtype) -> Iterator[tuple[int, int, Tensor]]:
    """The decay mask by blocks of rows: (start, stop, Float[H, stop - start, stop]).

    Row i holds exp(g · (i - j)) for j <= i and 0 beyond. Columns from `stop` on are 0 and left out. The mask depends on
    i - j alone, so every other block is a right-hand corner of the last block.
    """
    block = min(block, tokens)
    at = torch.arange(tokens, device=g.device)
    last = damping(g, at[tokens - block :, None] - at, dtype)
    for start in range(0, tokens, block):
        stop = min(start + block, tokens)
        yield start, stop, last[:, block - (stop - start) :, tokens - stop :]
