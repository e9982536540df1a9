"""How many exponentials a second one core computes in machine code."""

from __future__ import annotations

from time import perf_counter

import numpy as np

from vbench.kernels.machine_code import Array, machine_code
from vbench.kernels.registers import wide_vectors
from vbench.kernels.vector_math import exp_negative

CACHED = 4096  # numbers, which lie in the first cache with their exponentials
TURNS, WINDOWS = 200, 20


def exponentials_per_s() -> float:
    """The most exponentials of float32 that this core computes in a second, as the forms in machine code do."""
    x = np.linspace(-16, 0, CACHED, dtype=np.float32)
    out = np.empty_like(x)
    _exponentiate(x, out, 1)  # compiles it
    best = min(_seconds(x, out) for _ in range(WINDOWS))
    return TURNS * CACHED / best


def _seconds(x: Array, out: Array) -> float:
    begin = perf_counter()
    _exponentiate(x, out, TURNS)
    return perf_counter() - begin


@machine_code
def _exponentiate(x: Array, out: Array, turns: int) -> None:
    for _ in range(turns):
        _row(x, out)


@machine_code
def _row(x: Array, out: Array) -> None:
    wide_vectors()
    for n in range(len(x)):
        out[n] = exp_negative(x[n])
