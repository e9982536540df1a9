"""Bi-WKV, one token a step, in machine code on the CPU.

A walk forward keeps the sums that enter each tile of tokens. The walk back goes through a tile from there once more,
for the sums that enter each token from the past, and joins them with the future and the token itself. The loops over
channels are LLVM's to vectorise.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from torch import Tensor

from vbench.kernels.machine_code import Array, Strides, array, flat, machine_code, number, recomputed
from vbench.kernels.registers import wide_vectors
from vbench.kernels.shapes import accumulator
from vbench.kernels.threads import least_items, split
from vbench.kernels.token_tiles import read
from vbench.kernels.vector_math import exp_negative
from vbench.kernels.wkv import reference, scan
from vbench.kernels.wkv.shapes import Reading
from vbench.kernels.wkv.sums import EPSILON, initial

TILE = 32  # tokens
LINE = 16  # channels: a part has a multiple of them
MOST = 384  # channels of a part, so that a tile stays in the second cache
WORK = 128  # multiplications that take as long as a token and channel


def wkv(
    k: Tensor, v: Tensor, w: Tensor, u: Tensor, *, reading: Reading = "paper", state: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Bidirectional WKV (Duan et al. 2024, arXiv:2403.02308, section 3), recurrent form, compiled.

    Arguments, results and errors are those of `reference.wkv`. Gradients are those of `scan.wkv`. The reading "kernel"
    keeps the sums that enter each token, and joins them by operations of torch.
    """
    run = _published if reading == "paper" else partial(reference.by_walks, _entering, reading=reading)
    return recomputed(run, partial(scan.wkv, reading=reading), (k, v, w, u), state)


def _published(k: Tensor, v: Tensor, w: Tensor, u: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
    dtype = accumulator(k)
    B, N, C = k.shape
    y = k.new_empty(B, N, C, dtype=dtype)
    found = (initial(k, dtype) if state is None else state.to(dtype)).clone(memory_format=torch.contiguous_format)
    tokens = *flat(k.unsqueeze(1)), *flat(v.unsqueeze(1)), array(w, dtype), array(u, dtype)
    width = _width(B, C)
    run = partial(_walk, *tokens, found.numpy(), y.numpy(), width, number(EPSILON, dtype))
    split(run, B * -(-C // width), least_items(N * width * WORK))
    return y.to(k.dtype), found


def _width(batch: int, channels: int) -> int:
    """The channels of a part: all, or fewer where there are more threads than images."""
    parts = max(-(-channels // MOST), -(-torch.get_num_threads() // batch))
    return -(-channels // (LINE * parts)) * LINE


@machine_code
def _walk(
    k: Array,
    k_strides: Strides,
    v: Array,
    v_strides: Strides,
    w: Array,
    u: Array,
    state: Array,
    y: Array,
    width: int,
    epsilon: float,
    first: int,
    stop: int,
) -> None:
    """y (B, N, C), and the last state (2, 3, B, C) in place of the first, for the parts [first, stop) of all images.

    k, v: Float[B 1 N C], flat. An image has a part for every `width` channels.
    """
    N, C = y.shape[1:]
    parts, tiles, one = -(-C // width), -(-N // TILE), y.dtype.type(1)
    for part in range(first, stop):
        b, left = part // parts, part % parts * width
        size = min(width, C - left)
        keys, values = np.empty((TILE, size), y.dtype), np.empty((TILE, size), y.dtype)  # two: numba knows their layout
        entering = np.empty((TILE, 3, size), y.dtype)
        kept, sums = np.empty((tiles, 4, size), y.dtype), np.empty((4, size), y.dtype)
        decay, bonus = w[left : left + size], u[left : left + size]
        for way in range(2):
            for i in range(3):
                _copy(state[way, i, b, left : left + size], sums[i])
            sums[3] = 0
            for step in range(tiles):
                tile = tiles - 1 - step if way else step
                t, past = tile * TILE, kept[tile]
                n = min(TILE, N - t)
                read(k, k_strides, (b, 0, t, 1), left, size, one, keys[:n])
                read(v, v_strides, (b, 0, t, 1), left, size, one, values[:n])
                if way == 0:
                    for i in range(4):
                        _copy(sums[i], past[i])
                    for i in range(n):
                        _add(keys[i], values[i], decay, sums[0], sums[1], sums[2], sums[3])
                    continue
                for i in range(n):
                    _leave(past[0], past[1], past[2], past[3], decay, entering[i, 0], entering[i, 1], entering[i, 2])
                    _add(keys[i], values[i], decay, past[0], past[1], past[2], past[3])
                for i in range(n - 1, -1, -1):
                    num, den, exponent = entering[i, 0], entering[i, 1], entering[i, 2]
                    o = y[b, t + i, left : left + size]
                    _read(
                        num,
                        den,
                        exponent,
                        sums[0],
                        sums[1],
                        sums[2],
                        sums[3],
                        keys[i],
                        values[i],
                        decay,
                        bonus,
                        epsilon,
                        o,
                    )
                    _add(keys[i], values[i], decay, sums[0], sums[1], sums[2], sums[3])
            num, den, exponent = state[way, 0, b], state[way, 1, b], state[way, 2, b]
            _leave(
                sums[0],
                sums[1],
                sums[2],
                sums[3],
                decay,
                num[left : left + size],
                den[left : left + size],
                exponent[left : left + size],
            )


def _entering(k: Tensor, v: Tensor, w: Tensor, state: Tensor, *, reverse: bool) -> tuple[Tensor, Tensor]:
    """The sums that enter each token, and the last: Float[B N C], Float[3 B C] -> Float[3 B N C], Float[3 B C]."""
    dtype = w.dtype
    entering, last = k.new_empty(3, *k.shape, dtype=dtype), state.clone(memory_format=torch.contiguous_format)
    tokens = array(k, dtype), array(v, dtype), array(w, dtype)
    run = partial(_keep, *tokens, last.numpy(), entering.numpy(), reverse)
    split(run, len(k), least_items(k[0].numel() * WORK))
    return entering, last


@machine_code
def _keep(k: Array, v: Array, w: Array, state: Array, entering: Array, reverse: bool, first: int, stop: int) -> None:
    """Store the sums that enter each token of the images [first, stop), and the last ones in place of the first.

    k, v: (B, N, C), w: (C,), state: (3, B, C), entering: (3, B, N, C)
    """
    N, C = k.shape[1:]
    sums = np.empty((4, C), k.dtype)
    for b in range(first, stop):
        for i in range(3):
            _copy(state[i, b], sums[i])
        sums[3] = 0
        for step in range(N):
            t = N - 1 - step if reverse else step
            _leave(sums[0], sums[1], sums[2], sums[3], w, entering[0, b, t], entering[1, b, t], entering[2, b, t])
            _add(k[b, t], v[b, t], w, sums[0], sums[1], sums[2], sums[3])
        _leave(sums[0], sums[1], sums[2], sums[3], w, state[0, b], state[1, b], state[2, b])


# The functions below take the numbers of all channels. Sums are four rows: a and b as in `reference`, a key, and how
# many tokens ago it was. Their exponent p is that key less a decay for each of these tokens, and so is rounded once.


@machine_code
def _copy(x: Array, out: Array) -> None:
    for c in range(out.size):
        out[c] = x[c]


@machine_code
def _leave(a: Array, b: Array, key: Array, age: Array, decay: Array, num: Array, den: Array, exponent: Array) -> None:
    """Store a, b and p."""
    wide_vectors()
    for c in range(decay.size):
        num[c], den[c], exponent[c] = a[c], b[c], key[c] - decay[c] * age[c]


@machine_code
def _add(k: Array, v: Array, decay: Array, a: Array, b: Array, key: Array, age: Array) -> None:
    """Add a token to the sums."""
    wide_vectors()
    one, zero = v.dtype.type(1), v.dtype.type(0)
    for c in range(decay.size):
        older = age[c] + one
        lead = k[c] - (key[c] - decay[c] * older)  # how far the token's exponent lies above the sum's
        weight = exp_negative(-abs(lead))  # of the smaller exponent; the weight of the greater one is 1
        keep, add = (weight, one) if lead > zero else (one, weight)
        a[c] = keep * a[c] + add * v[c]
        b[c] = keep * b[c] + add
        key[c] = k[c] if lead > zero else key[c]
        age[c] = zero if lead > zero else older


@machine_code
def _read(
    num: Array,
    den: Array,
    exponent: Array,
    a: Array,
    b: Array,
    key: Array,
    age: Array,
    k: Array,
    v: Array,
    decay: Array,
    bonus: Array,
    epsilon: float,
    y: Array,
) -> None:
    """y = (a of past, future and token) / (b of the three + epsilon); the past is num, den and exponent."""
    wide_vectors()
    for c in range(decay.size):
        behind, own = key[c] - decay[c] * age[c], k[c] + bonus[c]
        most = max(max(exponent[c], behind), own)  # noqa: PLW3301 - of three, numba makes a call
        before, after = exp_negative(exponent[c] - most), exp_negative(behind - most)
        itself = exp_negative(own - most)
        value = before * num[c] + after * a[c] + itself * v[c]
        y[c] = value / (before * den[c] + after * b[c] + itself + epsilon)
