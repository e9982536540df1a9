"""A few tokens of a head at a time, as loops in machine code take them: read from where they lie, and widened.

A tile holds one token a row, in the order of travel. `spot` is (image, head, token, way): the first token of the tile,
and 1 or -1 for the way from one token to the next.
"""

from __future__ import annotations

import numpy as np
from numba.extending import overload

from vbench.kernels.machine_code import Array, Strides, machine_code
from vbench.kernels.registers import fetch, moved
from vbench.kernels.vector_math import exp, widened

TOKENS = 32  # of a tile: it stays in the first cache, beside the state
Spot = tuple[int, int, int, int]


@machine_code
def tile(width: int, like: float) -> Array:
    """A tile of zeros, of the type of a number."""
    return np.zeros((TOKENS, width), type(like))


@machine_code
def read(x: Array, strides: Strides, spot: Spot, left: int, width: int, factor: float, tile: Array) -> None:
    """tile[i, d] = factor · x[b, h, t ± i, left + d] for d < width, in the type of the tile; x is `flat`."""
    b, h, t, way = spot
    at, inner = b * strides[0] + h * strides[1] + t * strides[2] + left * strides[3], strides[3]
    for i in range(len(tile)):
        row, start = tile[i], at + i * way * strides[2]
        fetch(x, start + TOKENS * way * strides[2], width)  # the same row of the next tile
        if inner == 1:  # then LLVM sees that the numbers are neighbours
            done = _moved(x, start, tile, i * tile.shape[1], width, factor, False)
            given = x[start : start + width]
            for d in range(done, width):
                row[d] = widened(given[d]) * factor
        else:
            for d in range(width):
                row[d] = widened(x[start + d * inner]) * factor


@machine_code
def read_exp(x: Array, strides: Strides, spot: Spot, width: int, tile: Array) -> None:
    """As `read`, e to the power of each number; 1 where the tile is wider than the tokens."""
    read(x, strides, spot, 0, width, tile.dtype.type(1), tile)
    tile[:, width:] = 0
    every = tile.reshape(-1)
    for i in range(every.size):
        every[i] = exp(every[i])


@machine_code
def write(
    tile: Array, out: Array, strides: Strides, spot: Spot, left: int, width: int, factor: float, add: bool
) -> None:
    """out[b, h, t ± i, left + e] = factor · tile[i, e] for e < width, added to it if `add`; its inner stride is 1."""
    b, h, t, way = spot
    at = b * strides[0] + h * strides[1] + t * strides[2] + left
    for i in range(len(tile)):
        row, start = tile[i], at + i * way * strides[2]
        done = _moved(tile, i * tile.shape[1], out, start, width, factor, add)
        place = out[start : start + width]
        for e in range(done, width):
            place[e] = factor * row[e] + (place[e] if add else row.dtype.type(0))


def _moved(source: Array, at: int, target: Array, to: int, count: int, factor: float, add: bool) -> int:
    """How many of the numbers were moved by vectors: none if that would change their type."""
    raise NotImplementedError("in machine code only")


@overload(_moved, inline="always")
def _moves(source, at, target, to, count, factor, add):  # type: ignore[no-untyped-def]
    if source.dtype == target.dtype == factor:
        return lambda source, at, target, to, count, factor, add: moved(source, at, target, to, count, factor, add)  # noqa: PLW0108 # numba takes no intrinsic here
    return lambda source, at, target, to, count, factor, add: 0
