"""The walk of states that decay by themselves, channels side by side: a channel has some states, each a lane's number.

A vector has one state of as many channels as a register has numbers. The states of these channels stay in registers
while a tile of tokens goes by; every token takes an exponential for each of them, by a polynomial, inside the vector.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.polynomial import chebyshev

from vbench.kernels.registers import REGISTERS, WHOLE, WIDTH, Vectors

MOST = REGISTERS // 2  # states of a channel that are held in registers at once
SUMS = 4  # that a token's output is added up in, so that no product waits for the one before it
_CONTRACT = ("contract",)


def lanes(bytes_: int) -> int:
    """The channels of a vector of numbers that have so many bytes."""
    return WIDTH // bytes_


def held(states: int) -> int:
    """How many states of a channel are held at once: a power of two, and no more than fill up `states`."""
    passes = -(-states // MOST)
    return 1 << (-(-states // passes) - 1).bit_length()


class _Power(NamedTuple):
    """How 2^x is computed in one type, for x from `below`, where it is 0, to `above`, where it is infinite."""

    whole: ir.IntType  # its bits as a whole number
    digits: int  # bits of the fraction
    rounder: float  # a number added to it is rounded to a whole one n, and its low bits are n + bias
    below: float
    above: float
    series: tuple[float, ...]  # (2^f - 1) / f for |f| <= 1/2, highest power first


def _power(bits: int, digits: int, degree: int) -> _Power:
    bias = 2 ** (bits - digits - 2) - 1

    def slope(f: Any) -> Any:
        near = np.abs(f) < 1e-12
        return np.where(near, math.log(2), np.expm1(f * math.log(2)) / np.where(near, 1.0, f))

    found = chebyshev.cheb2poly(chebyshev.chebinterpolate(lambda x: slope(x / 2), degree))
    series = tuple(float(c) * 2.0**n for n, c in enumerate(found))
    return _Power(ir.IntType(bits), digits, 1.5 * 2**digits + bias, float(-bias), float(bias + 1), series[::-1])


_POWERS = {types.float32: _power(32, 23, 5), types.float64: _power(64, 52, 10)}


@intrinsic
def walk_lanes(context, count, state, at, rates, rated, B, C, stride, first, step, fed, y, width, channel, tokens):  # type: ignore[no-untyped-def]
    """Take the states of a vector of channels along the tokens of a tile.

        state[s] = 2^(step · rates[s]) · state[s] + fed · B[s]        y += Σ_s state[s] · C[s]

    Args:
        count: a tuple with as many whole numbers as states are held; their values do not matter.
        state, rates: the states lie at `at` and after, a vector for each; the rates in the same way at `rated`.
        B, C: the tile's, of shape (tokens, stride); those of the first state lie in column `first`.
        step, fed, y: the tile's, of shape (tokens, width); those of the first channel lie in column `channel`.
    """
    power, states = _POWERS[state.dtype], count.count

    def generate(target: Any, builder: Any, signature: Any, arguments: Any) -> None:
        by = Vectors(target, builder, state.dtype)
        _, h, begin, a, offset, writes, reads, row, left, steps, feeds, out, span, here, length = by.values(
            signature.args, arguments
        )
        whole = ir.VectorType(power.whole, by.lanes)
        below, above, rounder, one, *series = (
            ir.Constant(by.type, [x] * by.lanes) for x in (power.below, power.above, power.rounder, 1.0, *power.series)
        )
        digits = ir.Constant(whole, [power.digits] * by.lanes)

        def power_of_two(x: Any) -> Any:
            x = builder.select(builder.fcmp_ordered("<", x, below), below, x)  # so that NaN stays
            x = builder.select(builder.fcmp_ordered(">", x, above), above, x)
            rounded = builder.fadd(x, rounder)
            f = builder.fsub(x, builder.fsub(rounded, rounder))
            found = series[0]
            for term in (*series[1:], one):
                found = by.fma(found, f, term)
            scale = builder.bitcast(builder.shl(builder.bitcast(rounded, whole), digits), by.type)
            return by.times(found, scale)

        homes, rate = (
            [by.place(base, builder.add(start, WHOLE(s * by.lanes))) for s in range(states)]
            for base, start in ((h, begin), (a, offset))
        )
        registers = [cgutils.alloca_once(builder, by.type) for _ in homes]  # LLVM makes them registers
        for register, home in zip(registers, homes, strict=True):
            builder.store(by.load(home), register)
        with cgutils.for_range(builder, length) as loop:
            token = builder.add(builder.mul(loop.index, row), left)
            spot = builder.add(builder.mul(loop.index, span), here)
            size, given = by.load(by.place(steps, spot)), by.load(by.place(feeds, spot))
            sums = [by.load(by.place(out, spot))]
            for s in range(states):
                column = builder.add(token, WHOLE(s))
                keep = power_of_two(by.times(size, by.load(rate[s])))
                fresh = by.times(given, by.number(writes, column))
                new = by.fma(keep, builder.load(registers[s]), fresh)
                builder.store(new, registers[s])
                read = by.number(reads, column)
                if s < min(SUMS, states) - 1:
                    sums.append(by.times(new, read))
                else:
                    sums[(s + 1) % len(sums)] = by.fma(new, read, sums[(s + 1) % len(sums)])
            while len(sums) > 1:
                sums = [builder.fadd(x, z) for x, z in zip(sums[::2], sums[1::2], strict=True)]
            by.store(sums[0], by.place(out, spot))
        for register, home in zip(registers, homes, strict=True):
            by.store(builder.load(register), home)

    given = (count, state, at, rates, rated, B, C, stride, first, step, fed, y, width, channel, tokens)
    wanted = (each if isinstance(each, types.Array | types.UniTuple) else types.int64 for each in given)
    return types.void(*wanted), generate
