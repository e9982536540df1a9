"""Inputs on which the forms of minGRU are held against each other."""

from __future__ import annotations

from functools import partial

import torch
from torch import Generator, Tensor

from vbench.kernels.shapes import Direction
from vbench.kernels.trials import Inputs, Trial

B, C = 2, 24

# Mean and spread of the gate's pre-activation: memories of a token or two, of hundreds, and gates that are shut or
# wide open by turns.
GATES = {"short memory": (0.0, 1.0), "long memory": (-6.0, 1.0), "wide gates": (0.0, 12.0)}


def _draw(N: int, generator: Generator, *, mean: float, spread: float) -> Inputs:
    def normal() -> Tensor:
        return torch.randn(B, N, C, generator=generator, dtype=torch.float64)

    return {"a": 2 * normal(), "b": mean + spread * normal()}


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
