"""How forms made of torch's operations read tokens (in blocks or chunks, forward or in reverse) and write outputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from vbench.errors import ShapeError
from vbench.kernels.shapes import Direction

BLOCK = 256  # tokens whose views are made at a time; the arithmetic does not depend on it

Ordered = TypeVar("Ordered", list[Tensor], tuple[Tensor, ...], range)


def turned(items: Ordered, reverse: bool) -> Ordered:
    """The items in the order of travel: as they are, or from the last to the first."""
    return items[::-1] if reverse else items


def blocks(tokens: int, reverse: bool = False) -> Iterator[slice]:
    """Blocks of `BLOCK` tokens in the order of travel."""
    for start in turned(range(0, int(tokens), BLOCK), reverse):
        yield slice(start, start + BLOCK)


def each_way(
    direction: Direction,
    state: Tensor | None,
    dtype: torch.dtype,
    walk: Callable[[int, Tensor | None, bool], tuple[Tensor, Tensor]],
) -> tuple[Tensor, Tensor]:
    """The output in `dtype` and the final state; for "both" the sum of the two outputs, and the states stacked.

    `walk` computes one direction. It takes its number in the call (0 or 1), its state, and whether it is reverse.
    """
    if direction != "both":
        o, s = walk(0, state, direction == "reverse")
        return o.to(dtype), s
    ahead, back = (walk(i, None if state is None else state[i], bool(i)) for i in (0, 1))
    return (ahead[0] + back[0]).to(dtype), torch.stack((ahead[1], back[1]))


@dataclass(frozen=True, slots=True)
class Span:
    """Tokens [start, stop) taken as chunks of `length` tokens; the last chunk may be ragged."""

    start: int
    stop: int
    length: int

    @property
    def chunks(self) -> int:
        return -(-(self.stop - self.start) // self.length)

    def tile(self, x: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """[B H N ...] -> [B H chunks length ...], contiguous; only for whole chunks."""
        tile: Tensor = x[:, :, self.start : self.stop].unflatten(2, (-1, self.length))
        return tile.to(dtype or x.dtype, memory_format=torch.contiguous_format)


def spans(tokens: int, chunk: int, group: int | None, usual: int, *, padded: bool = False) -> list[Span]:
    """Spans of `group` chunks that cover all tokens in order; of `usual` chunks, but at least one, if group is None.

    The tokens that are left over form one short chunk. If `padded`, its length is the next power of two.

    Raises: ShapeError if a chunk or a group is empty.
    """
    group = max(1, usual) if group is None else group
    if chunk < 1 or group < 1:
        raise ShapeError(f"chunk and group are at least 1; got {chunk} and {group}")
    whole, rest = tokens - tokens % chunk, tokens % chunk
    found = [Span(start, min(start + chunk * group, whole), chunk) for start in range(0, whole, chunk * group)]
    if rest:
        found.append(Span(whole, tokens, 1 << (rest - 1).bit_length() if padded else rest))
    return found


def carry(added: Tensor, kept: Tensor, state: Tensor, reverse: bool) -> tuple[Tensor, Tensor]:
    """The state that enters each chunk, [B H chunks ...], and the last one: S' = kept · S + added, chunk by chunk."""
    gained, shares = added.unbind(2), kept.unbind(2)
    entering = [state] * len(gained)
    for at in turned(range(len(gained)), reverse):
        entering[at] = state
        state = torch.addcmul(gained[at], shares[at], state)
    return torch.stack(entering, dim=2), state


class Output:
    """A tensor that is written part by part along one dimension, in any order.

    Parts are written into one tensor. If a gradient may be taken, they are joined at the end instead: autograd
    would copy the whole tensor for every write.
    """

    def __init__(self, like: Tensor, shape: tuple[int, ...], dim: int, dtype: torch.dtype) -> None:
        self._whole = None if torch.is_grad_enabled() else like.new_empty(shape, dtype=dtype)
        self._dim, self._dtype = dim, dtype
        self._parts: dict[int, Tensor] = {}

    def put(self, start: int, part: Tensor) -> None:
        """Store the part that begins at `start`."""
        if self._whole is None:
            self._parts[start] = part.to(self._dtype)
        else:
            self._whole.narrow(self._dim, start, part.shape[self._dim]).copy_(part)

    def whole(self) -> Tensor:
        """All parts in order."""
        if self._whole is None:
            return torch.cat([self._parts[start] for start in sorted(self._parts)], dim=self._dim)
        return self._whole
