"""Inputs on which the forms of minGRU are compared."""

from __future__ import annotations

from torch import Generator, Tensor

from vbench.kernels.shapes import Direction
from vbench.kernels.trials import Inputs, in_every_direction, standard_normal

B, C = 2, 24

# Mean and spread of the gate's pre-activation: a memory of a token or two, a memory of hundreds of tokens, and gates
# that are closed or open by turns.
GATES = {"short memory": (0.0, 1.0), "long memory": (-6.0, 1.0), "wide gates": (0.0, 12.0)}


def _draw(N: int, generator: Generator, *, direction: Direction, regime: tuple[float, float]) -> Inputs:
    normal, (mean, spread) = standard_normal(generator), regime
    return {"a": 2 * normal(B, N, C), "b": mean + spread * normal(B, N, C)}


def _initial(inputs: Inputs, *, direction: Direction) -> Tensor:
    return inputs["a"].new_zeros(B, C)


TRIALS = in_every_direction(("forward", "reverse"), GATES, _draw, {"a": 1, "b": 1}, _initial)
