"""Exponentials for loops in machine code, made of sums, products and bits, so that LLVM computes several at a time.

A call of a mathematical library would keep a loop from being vectorised. A loop that `machine_code` compiles may call
the functions here on a float32 or a float64; its result has the same type, and NaN stays NaN. The largest errors are
held by `tests/test_vector_math.py`; below the smallest normal number results are rounded to the denormal numbers, and
those of `exp_negative` are 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from decimal import Decimal
from typing import Any, NamedTuple, cast

import numba
import numpy as np
from numba import types
from numba.extending import intrinsic, overload

Function = Callable[[Any], Any]
LN2, LOG2E = math.log(2), math.log2(math.e)


def exp2(x: float) -> float:
    """2^x."""
    return cast(float, np.exp2(x))


def exp(x: float) -> float:
    """e^x."""
    return cast(float, np.exp(x))


def exp_negative(x: float) -> float:
    """e^x for x <= 0, in fewer operations than `exp`; 0 where it would be below the smallest normal number."""
    return cast(float, np.exp(x))


def sigmoid(x: float) -> float:
    """1 / (1 + e^-x); it has all its digits where it is near 0."""
    return 1 / (1 + exp(-x))


def log1p_of_exp(x: float) -> float:
    """log(1 + e^x) for x <= 0. It has all its digits where it is near 0. softplus(x) is max(x, 0) + this of -|x|."""
    return cast(float, np.log1p(np.exp(x)))


def widened(x: float) -> float:
    """A number as float32, or as float64 if it is one. int16 and uint16 are the bits of a bfloat16 and a float16."""
    raise NotImplementedError("bits are widened in machine code only")


_CONTRACT = ("contract",)
_OPTIONS = {"fastmath": {"contract"}, "error_model": "numpy", "forceinline": True}
_BITS = {types.float32: types.int32, types.float64: types.int64, types.int32: types.float32, types.int64: types.float64}


@intrinsic  # type: ignore[untyped-decorator]
def bits(context: Any, x: Any) -> Any:
    """The bits of a float as a whole number of its width, or of such a number as a float."""

    def generate(target: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], target.get_value_type(signature.return_type))

    return _BITS[x](x), generate


class _Functions(NamedTuple):
    """The functions for one type."""

    exp2: Function
    exp: Function
    exp_negative: Function
    sigmoid: Function
    log1p_of_exp: Function


def _functions(real: Any, whole: Any, digits: int, bias: int, terms: int, logarithm: int) -> _Functions:
    """The functions for the type `real`, whose bits are a `whole`.

    Args:
        digits: bits of the fraction. bias: of the exponent.
        terms: of the series of 2^f, |f| <= 1/2. logarithm: of the series of log((1 + s) / (1 - s)) / s in s², s <= 1/3.
    """
    inlined = numba.njit(**_OPTIONS)
    shift, one, offset = whole(digits), real(1), whole(bias)
    rounder = real(1.5 * 2**digits)  # a number added to it is rounded to a whole one, in its lowest bits
    zero_bits = whole(rounder.view(whole))
    below, above = real(-bias - digits - 2), real(bias + 3)  # beyond them powers of two are 0 and infinite
    high = math.floor(LN2 * 2 ** (digits // 2)) / 2 ** (digits // 2)  # its product with an exponent is exact
    low = real(float(Decimal(2).ln() - Decimal(high)))
    high, log2e = real(high), real(LOG2E)
    lowest = real(-bias * LN2)  # the exponent of its power of two is 0, and so is that power
    power = _series(tuple(LN2**n / math.factorial(n) for n in range(terms)))
    natural = _series(tuple(1 / math.factorial(n) for n in range(terms)))
    atanh = _series(tuple(2 / (2 * n + 1) for n in range(logarithm)))

    @inlined
    def scaled(p, n):  # type: ignore[no-untyped-def] # p · 2^n by two factors: one alone may overflow
        half = whole(n >> whole(1))
        rest = whole(n - half)
        return p * bits(whole(whole(half + offset) << shift)) * bits(whole(whole(rest + offset) << shift))

    @inlined
    def clamped(x):  # type: ignore[no-untyped-def] # written so that NaN stays
        x = below if x < below else x
        return above if x > above else x

    @inlined
    def exp2_(x):  # type: ignore[no-untyped-def]
        x = clamped(x)
        rounded = x + rounder
        return scaled(power(x - (rounded - rounder)), whole(bits(rounded) - zero_bits))

    @inlined
    def exp_(x):  # type: ignore[no-untyped-def]
        x = below if x < below else x  # 2^below and less is 0, and so is e^below
        x = above if x > above else x
        rounded = x * log2e + rounder
        n = rounded - rounder
        return scaled(natural((x - n * high) - n * low), whole(bits(rounded) - zero_bits))

    @inlined
    def exp_negative_(x):  # type: ignore[no-untyped-def]
        x = lowest if x < lowest else x
        rounded = x * log2e + rounder
        n = rounded - rounder
        power_of_two = bits(whole(whole(bits(rounded) - zero_bits + offset) << shift))
        return natural((x - n * high) - n * low) * power_of_two

    @inlined
    def sigmoid_(x):  # type: ignore[no-untyped-def]
        small = exp_(-abs(x))
        larger = one / (one + small)
        return small * larger if x < real(0) else larger

    @inlined
    def log1p_of_exp_(x):  # type: ignore[no-untyped-def] # log(1 + y) = log((1 + s) / (1 - s)), s = y / (2 + y)
        y = exp_(x)
        s = y / (real(2) + y)
        return s * atanh(s * s)

    return _Functions(exp2_, exp_, exp_negative_, sigmoid_, log1p_of_exp_)


def _series(terms: tuple[float, ...]) -> Any:
    """Σ terms[n] · x^n by Horner's rule, unrolled. A product and a sum may be rounded once together."""

    @intrinsic  # type: ignore[untyped-decorator]
    def series(context: Any, x: Any) -> Any:
        def generate(target: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            last, *others = (target.get_constant(x, term) for term in reversed(terms))
            for term in others:
                last = builder.fadd(builder.fmul(last, arguments[0], flags=_CONTRACT), term, flags=_CONTRACT)
            return last

        return x(x), generate

    return series


_BY_TYPE = {
    types.float32: _functions(np.float32, np.int32, digits=23, bias=127, terms=8, logarithm=8),
    types.float64: _functions(np.float64, np.int64, digits=52, bias=1023, terms=14, logarithm=17),
}


def _offer(name: str, stub: Function) -> None:
    """Have machine code call the function of this name for the type of its argument where `stub` is written."""
    chosen = {kind: getattr(functions, name) for kind, functions in _BY_TYPE.items()}

    @overload(stub, jit_options=_OPTIONS)
    def choose(x):  # type: ignore[no-untyped-def]
        function = chosen.get(x)
        return None if function is None else function.py_func


for _stub in (exp2, exp, exp_negative, sigmoid, log1p_of_exp):
    _offer(_stub.__name__, _stub)


@overload(widened, jit_options=_OPTIONS)
def _widened(x):  # type: ignore[no-untyped-def]
    if x in (types.float32, types.float64):
        return lambda x: x
    if x == types.int16:
        return lambda x: bits(np.int32(np.int32(x) << np.int32(16)))
    return _from_half if x == types.uint16 else None


def _from_half(x):  # type: ignore[no-untyped-def]
    """The exponent is moved by a product, which also makes denormal numbers normal; that of infinity and NaN is set."""
    rest = np.int32(np.int32(x) & np.int32(0x7FFF))
    size = bits(np.int32(rest << np.int32(13))) * np.float32(2.0**112)
    special = np.int32(0x7F800000) if rest >= np.int32(0x7C00) else np.int32(0)
    sign = np.int32((np.int32(x) & np.int32(0x8000)) << np.int32(16))
    return bits(np.int32(bits(size) | special | sign))
