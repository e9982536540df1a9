"""The walks of a call: which tensors each takes, and in what order it meets the tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import isqrt

import torch
from torch import Tensor

from vbench.errors import ShapeError
from vbench.kernels.shapes import Direction


@dataclass(frozen=True, slots=True)
class Walk:
    """One walk over the tokens, with its own part of every input.

    Attributes:
        reverse: from the last token in this order to the first.
        width: tokens in a row of the map, if the walk goes along columns; None for a walk in the order of memory.
    """

    u: Tensor
    delta: Tensor
    A: Tensor
    B: Tensor
    C: Tensor
    D: Tensor
    delta_bias: Tensor
    state: Tensor | None
    reverse: bool
    width: int | None

    def ordered(self, x: Tensor) -> Tensor:
        """Float[B G N ·] with its tokens along columns if the walk goes so; a view if it does not."""
        return x if self.width is None else x.unflatten(2, (-1, self.width)).transpose(2, 3).flatten(2, 3)

    def restored(self, x: Tensor) -> Tensor:
        """The inverse of `ordered`."""
        if self.width is None:
            return x
        return x.unflatten(2, (self.width, -1)).transpose(2, 3).flatten(2, 3)

    def ahead(self, x: Tensor) -> Tensor:
        """Float[B G N ·] with its tokens as the walk meets them, from the first to the last."""
        return self.ordered(x).flip(2) if self.reverse else self.ordered(x)

    def back(self, x: Tensor) -> Tensor:
        """The inverse of `ahead`."""
        return self.restored(x.flip(2) if self.reverse else x)


def side_by_side(found: Sequence[Walk]) -> Walk:
    """Several walks as one forward walk over the groups of all of them. Tokens are copied into their order."""
    met = zip(*([walk.ahead(x) for x in (walk.u, walk.delta, walk.B, walk.C)] for walk in found), strict=True)
    u, delta, B, C = (torch.cat(each, dim=1) for each in met)
    A, D, bias = map(torch.cat, zip(*((walk.A, walk.D, walk.delta_bias) for walk in found), strict=True))
    states = [walk.state for walk in found if walk.state is not None]
    return Walk(u, delta, A, B, C, D, bias, torch.cat(states, dim=1) if states else None, False, None)


def walks(
    direction: Direction,
    width: int | None,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    delta_bias: Tensor,
    state: Tensor | None,
) -> Iterator[Walk]:
    """The walks of a call, in the order in which they lie in the inputs. Arguments as in `reference.selective_scan`.

    Raises: ShapeError if "cross" has no width that divides the number of tokens, or another direction has one.
    """
    check(direction, width, int(u.shape[-2]))
    if direction in ("forward", "reverse"):
        yield Walk(u, delta, A, B, C, D, delta_bias, state, direction == "reverse", None)
        return
    count = 2 if direction == "both" else 4
    for i in range(count):
        own = u[i] if direction == "both" else u
        before = None if state is None else state[i]
        along = width if direction == "cross" and i % 2 else None
        yield Walk(own, delta[i], A[i], B[i], C[i], D[i], delta_bias[i], before, i >= count // 2, along)


def row_of(tokens: int) -> int:
    """The tokens in a row of the map of so many that is nearest to a square, and at least as wide as high."""
    return next(side for side in range(isqrt(max(tokens - 1, 0)) + 1, max(tokens, 1) + 1) if tokens % side == 0)


def check(direction: Direction, width: int | None, tokens: int) -> None:
    """Raises: ShapeError if `width` does not fit the direction and the number of tokens."""
    if direction != "cross":
        if width is not None:
            raise ShapeError(f"selective_scan {direction}: width is for direction 'cross' alone; got width {width}")
        return
    if width is None or width < 1 or tokens % width:
        raise ShapeError(f"selective_scan cross: want a width that divides N; got width {width}, N {tokens}")
    torch._check(tokens % width == 0)
