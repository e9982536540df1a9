"""How forms made of torch's operations read tokens (in blocks or chunks, forward or in reverse) and write outputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from vbench.errors import ShapeError
from vbench.kernels.shapes import Direction

UNROLLED = 16  # steps of a loop; a longer one is exported as a scan
BLOCK = 256  # tokens whose views are made at a time; the arithmetic does not depend on it

Ordered = TypeVar("Ordered", list[Tensor], tuple[Tensor, ...], range)


def exporting() -> bool:
    """Whether torch.export traces this call: a loop is then best one operation, and a group all there is."""
    return torch.compiler.is_exporting()


def scanned(
    step: Callable[[Any, Any], tuple[Any, Any]], state: Any, items: tuple[Tensor, ...], dim: int, reverse: bool
) -> tuple[Any, Any]:
    """A loop over one dimension as the one operation `scan` of torch, for an export.

    Args:
        step: (state, items without `dim`) -> the next state, and what is put out there. It may change nothing, and
            what it returns is new.

    Returns: the last state, and the outputs, stacked in `dim`.
    """
    from torch._higher_order_ops import scan

    last, found = scan(step, state, tuple(x.movedim(dim, 0) for x in items), dim=0, reverse=reverse)
    return last, found.movedim(0, dim) if isinstance(found, Tensor) else tuple(x.movedim(0, dim) for x in found)


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
    """Spans of `group` chunks that cover all tokens in order; if group is None, of `usual` chunks, but at least
    one, and in an export of all.

    The tokens that are left over form one short chunk. If `padded`, they begin a chunk like the others.

    Raises: ShapeError if a chunk or a group is empty.
    """
    if group is None:
        group = max(1, -(-tokens // max(1, chunk)) if exporting() else usual)
    if chunk < 1 or group < 1:
        raise ShapeError(f"chunk and group are at least 1; got {chunk} and {group}")
    whole = tokens if padded else tokens - tokens % chunk
    found = [Span(start, min(start + chunk * group, whole), chunk) for start in range(0, whole, chunk * group)]
    if whole < tokens:
        found.append(Span(whole, tokens, tokens - whole))
    return found


def carry(added: Tensor, kept: Tensor, state: Tensor, reverse: bool) -> tuple[Tensor, Tensor]:
    """The state that enters each chunk, [B H chunks ...], and the last one: S' = kept · S + added, chunk by chunk."""
    if exporting() and added.shape[2] > UNROLLED:
        last, entering_all = scanned(_carry_step, state, (added, kept), 2, reverse)
        return entering_all, last
    gained, shares = added.unbind(2), kept.unbind(2)
    entering = [state] * len(gained)
    for at in turned(range(len(gained)), reverse):
        entering[at] = state
        state = torch.addcmul(gained[at], shares[at], state)
    return torch.stack(entering, dim=2), state


def _carry_step(state: Tensor, item: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    gained, share = item
    return torch.addcmul(gained, share, state), state.clone()


class Output:
    """A tensor that is written part by part along one dimension, in any order.

    Parts are written into one tensor. If a gradient may be taken, they are joined at the end instead: autograd
    would copy the whole tensor for every write. Heads (dimension 1 of 4) lie side by side in memory, where models join
    them without a copy.
    """

    def __init__(self, like: Tensor, shape: tuple[int, ...], dim: int, dtype: torch.dtype) -> None:
        self._whole = None
        if not torch.is_grad_enabled():
            order = (0, 2, 1, 3) if len(shape) == 4 else range(len(shape))
            self._whole = like.new_empty([shape[i] for i in order], dtype=dtype).permute(*order)
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
