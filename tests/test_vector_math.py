"""The exponentials of machine code: how far they are from the exact ones, over all numbers that a float can hold."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from vbench.kernels.machine_code import flat, machine_code
from vbench.kernels.vector_math import exp, exp2, exp_negative, log1p_of_exp, sigmoid, widened

Numbers = NDArray[Any]


@machine_code
def all_of_them(x: Numbers, found: Numbers) -> None:
    """The four functions, one a row."""
    for i in range(x.size):
        found[0, i], found[1, i] = exp2(x[i]), exp(x[i])
        found[2, i], found[3, i] = sigmoid(x[i]), log1p_of_exp(x[i])


@machine_code
def fall(x: Numbers, found: Numbers) -> None:
    for i in range(x.size):
        found[i] = exp_negative(x[i])


@machine_code
def widen(x: Numbers, found: Numbers) -> None:
    for i in range(x.size):
        found[i] = widened(x[i])


def exact_sigmoid(x: Numbers) -> Numbers:
    small = np.exp(-np.abs(x))
    return np.where(x < 0, small, 1) / (1 + small)


EXACT: dict[str, tuple[int, Callable[[Numbers], Numbers], float]] = {  # with the largest error in ulp
    "exp2": (0, np.exp2, 1.0),
    "exp": (1, np.exp, 1.0),
    "sigmoid": (2, exact_sigmoid, 3.0),
    "log1p_of_exp": (3, lambda x: np.log1p(np.exp(x)), 4.0),
}


def points(real: type[np.floating[Any]]) -> Numbers:
    """Numbers of all sizes, the ends of the range in steps, and around the numbers where the reduction turns."""
    about = np.finfo(real)
    ends = (about.minexp - about.nmant - 3, about.maxexp + 2)
    halves = np.arange(*ends, 0.5) * np.log(2)
    rng = np.random.default_rng(0)
    parts = [rng.uniform(*ends, 60_000), np.linspace(-1, 1, 20_001), *(halves + shift for shift in (-1e-6, 0, 1e-6))]
    parts += [sign * 2.0 ** np.arange(-60, 1) for sign in (1, -1)]
    return np.concatenate(parts).astype(real)


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("real", [np.float32, np.float64])
def test_error_in_ulp_from_the_denormal_numbers_to_overflow(real: type[np.floating[Any]], name: str) -> None:
    row, function, bound = EXACT[name]
    x = points(real)
    if name == "log1p_of_exp":
        x = -np.abs(x)
    found = np.empty((4, x.size), real)
    all_of_them(x, found)
    with np.errstate(over="ignore", under="ignore"):
        wanted = function(x.astype(np.longdouble))
        rounded = wanted.astype(real)
        finite = np.isfinite(rounded)
        error = np.abs(found[row] - wanted)[finite] / np.spacing(np.abs(rounded[finite]))
    assert error.max() <= bound
    assert np.array_equal(found[row][~finite], rounded[~finite])
    assert (rounded[finite] < np.finfo(real).tiny).any(), "no denormal result was tried"


@pytest.mark.parametrize("real", [np.float32, np.float64])
def test_of_what_is_negative_only_the_smallest_numbers_are_lost(real: type[np.floating[Any]]) -> None:
    x = np.append(-np.abs(points(real)), [0, -np.inf, -1e30, np.nan]).astype(real)
    found = np.empty_like(x)
    fall(x, found)
    with np.errstate(under="ignore"):
        wanted = np.exp(x.astype(np.longdouble))
    normal = wanted > np.finfo(real).tiny
    error = np.abs(found - wanted)[normal] / np.spacing(wanted[normal].astype(real))
    assert error.max() <= 1
    assert (found[wanted < np.finfo(real).tiny / 2] == 0).all()
    assert (found[~normal & ~np.isnan(x)] <= np.finfo(real).tiny).all()
    assert np.isnan(found[-1])


@pytest.mark.parametrize("real", [np.float32, np.float64])
def test_infinities_and_what_is_no_number(real: type[np.floating[Any]]) -> None:
    x = np.array([np.inf, -np.inf, np.nan, 1e30, -1e30], real)
    found = np.empty((4, x.size), real)
    all_of_them(x, found)
    for row in (0, 1):
        assert np.array_equal(found[row], [np.inf, 0, np.nan, np.inf, 0], equal_nan=True)
    assert np.array_equal(found[2], [1, 0, np.nan, 1, 0], equal_nan=True)
    assert np.array_equal(found[3][1:3], [0, np.nan], equal_nan=True)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_every_number_of_16_bits_is_widened_exactly(dtype: torch.dtype) -> None:
    every = torch.arange(-(2**15), 2**15).to(torch.int16).view(dtype)
    found = np.empty(every.numel(), np.float32)
    widen(flat(every)[0], found)
    wanted = every.float().numpy()
    assert np.array_equal(found, wanted, equal_nan=True)
    assert np.array_equal(np.signbit(found), np.signbit(wanted))
