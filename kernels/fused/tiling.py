"""How a scan over tokens is cut into tiles, and how many elements it joins."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vbench.errors import UnsupportedError
from vbench.kernels.fused.launch import can_run, cdiv, device_name
from vbench.kernels.fused.tuning import pick

CARRY = 8, 4  # rows of a tile of the carry, and chunks in each


@dataclass(frozen=True, slots=True)
class Tiling:
    """How a call is cut into `tiles` of `rows` · `steps` tokens: a program each or, if `sequential`, one for all."""

    tiles: int
    rows: int
    steps: int
    sequential: bool = False

    @property
    def constants(self) -> dict[str, Any]:
        """What every kernel of a scan is compiled for."""
        return {"ROWS": self.rows, "STEPS": self.steps}


def tiling(op: str, x: Tensor, *, sequential: bool = False, gradient: bool = False) -> Tiling:
    """How a call on x (B, N, C) is cut, by the tuning table; if `sequential`, one row after another.

    A gradient holds twice as many numbers a token, so its rows are half as long; it is never sequential.
    """
    B, N, _ = map(int, x.shape)
    return cut(op, B, N, device_name(x.device), sequential=sequential, gradient=gradient)


def cut(
    op: str, batch: int, tokens: int, device: str = "any", *, sequential: bool = False, gradient: bool = False
) -> Tiling:
    """As `tiling`, for sizes and a device's name."""
    choice = pick(op, tokens, batch, device)
    rows, steps = choice.warps, choice.chunk // choice.warps
    if gradient:
        return Tiling(cdiv(tokens, rows * steps // 2), rows, steps // 2)
    if sequential or choice.sequential:
        return Tiling(cdiv(tokens, steps), 1, steps, sequential=True)
    return Tiling(cdiv(tokens, rows * steps), rows, steps)


def joins(op: str, batch: int, tokens: int) -> int:
    """How many elements a call joins to others, a channel and direction. Tiles count as a whole: no lane stops early.

    A row is folded, the rows of a tile are scanned, what enters is joined, and the row is walked. With several tiles,
    everything but the walk is done twice, and the elements of the tiles are scanned too.
    """
    how = cut(op, batch, tokens)
    if how.sequential:
        return how.tiles * how.steps
    once = how.rows * (how.steps - 1 + how.rows.bit_length())  # of a fold, and of log2(rows) + 1 joins a row
    total = how.tiles * (once + how.rows * how.steps)
    if how.tiles > 1:
        total += how.tiles * (once + how.rows) + carry_joins(how.tiles)
    return total


def carry_joins(tiles: int) -> int:
    """How many elements the scan of the elements of tiles joins, a channel and direction, in whole tiles of its own."""
    rows, steps = CARRY
    return cdiv(tiles, rows * steps) * rows * (2 * steps - 1 + rows.bit_length())


def strided(name: str, x: Tensor) -> dict[str, Any]:
    """A (B, N, C) view as kernel arguments: itself and its strides."""
    return {name: x, f"{name}_b": x.stride(0), f"{name}_n": x.stride(1), f"{name}_c": x.stride(2)}


def check_supported(form: str, *inputs: Tensor) -> None:
    """Raise UnsupportedError unless the kernels take these types and run on their device."""
    for x in inputs:
        if x.dtype not in (torch.float32, torch.bfloat16, torch.float16):
            raise UnsupportedError(f"{form} takes float32, bfloat16 and float16, not {str(x.dtype)[6:]}")
        if not can_run(x):
            raise UnsupportedError(f"{form} runs on cuda, not on {x.device.type}, unless TRITON_INTERPRET=1 is set")
