"""Inputs on which the forms of minGRU are compared."""

from __future__ import annotations

from functools import partial

from torch import Generator, Tensor

from vbench.kernels.shapes import Direction
from vbench.kernels.trials import Inputs, Trial, standard_normal

B, C = 2, 24

# Mean and spread of the gate's pre-activation: memories of a token or two, of hundreds, and gates that are shut or
# wide open by turns.
GATES = {"short memory": (0.0, 1.0), "long memory": (-6.0, 1.0), "wide gates": (0.0, 12.0)}


def _draw(N: int, generator: Generator, *, mean: float, spread: float) -> Inputs:
    normal = standard_normal(generator)
    return {"a": 2 * normal(B, N, C), "b": mean + spread * normal(B, N, C)}


def _initial(inputs: Inputs) -> Tensor:
    return inputs["a"].new_zeros(B, C)


def _trials(direction: Direction) -> list[Trial]:
    return [
        Trial(
            f"{direction}, {name}",
            direction,
            partial(_draw, mean=mean, spread=spread),
            {"a": 1, "b": 1},
            {"direction": direction},
            _initial,
        )
        for name, (mean, spread) in GATES.items()
    ]


TRIALS = (*_trials("forward"), *_trials("reverse"))
