"""An output that is written in parts."""

from __future__ import annotations

import torch
from torch import Tensor


class Output:
    """A tensor that is written part by part along one dimension, in any order.

    Parts are written into one tensor. If a gradient may be taken, they are joined at the end instead: autograd
    would copy the whole tensor for every write.
    """

    def __init__(self, like: Tensor, shape: tuple[int, ...], dim: int, dtype: torch.dtype) -> None:
        self._whole = None if torch.is_grad_enabled() else like.new_empty(shape, dtype=dtype)
        self._dim, self._dtype = dim, dtype
        self._parts: dict[int, Tensor] = {}

    def put(self, start: int, part: Tensor) -> Tensor:
        """Store the part that begins at `start`; return the stored part, which may be changed in place."""
        if self._whole is None:
            kept = self._parts[start] = part.to(self._dtype)
            return kept
        return self._whole.narrow(self._dim, start, part.shape[self._dim]).copy_(part)

    def whole(self) -> Tensor:
        """All parts in order."""
        if self._whole is None:
            return torch.cat([self._parts[start] for start in sorted(self._parts)], dim=self._dim)
        return self._whole
