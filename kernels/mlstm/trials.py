"""Inputs on which the forms of the matrix LSTM are compared."""

from __future__ import annotations

from functools import partial

from torch import Generator, Tensor

from vbench.kernels.mlstm.shapes import Memory, memory
from vbench.kernels.shapes import Direction
from vbench.kernels.trials import Inputs, Trial, standard_normal

B, H, D, E = 2, 2, 16, 24

# Mean and deviation of the input gates and of the forget gates.
GATES = {
    "typical": ((0.0, 0.1), (4.5, 1.0)),  # as ViL is initialised
    "open": ((0.0, 1.0), (30.0, 1.0)),
    "closed": ((0.0, 1.0), (-8.0, 1.0)),
    "wide": ((0.0, 4.0), (0.0, 4.0)),  # the maximum of the weights jumps from token to token
    "large": ((15.0, 2.0), (4.0, 1.0)),  # eps is all but the whole normaliser
    "small": ((-20.0, 2.0), (4.0, 1.0)),  # the normaliser is at its floor
}


def _draw(N: int, generator: Generator, *, input_gate: tuple[float, float], forget_gate: tuple[float, float]) -> Inputs:
    normal = standard_normal(generator)

    def gates(mean: float, deviation: float) -> Tensor:
        return mean + deviation * normal(B, H, N)

    # Queries and keys lean to one side: the normaliser is a sum of their products, and near a zero of it
    # h has no digits in any form.
    q, k = 1 + 0.5 * normal(B, H, N, D), 1 + 0.5 * normal(B, H, N, D)
    return {"q": q, "k": k, "v": normal(B, H, N, E), "i": gates(*input_gate), "f": gates(*forget_gate)}


def _initial(inputs: Inputs) -> Memory:
    return memory(inputs["q"], inputs["v"], None)


def _trials(direction: Direction) -> list[Trial]:
    return [
        Trial(
            f"{direction}, {name} gates",
            direction,
            partial(_draw, input_gate=input_gate, forget_gate=forget_gate),
            {"q": 2, "k": 2, "v": 2, "i": 2, "f": 2},
            {"direction": direction},
            _initial,
        )
        for name, (input_gate, forget_gate) in GATES.items()
    ]


TRIALS = (*_trials("forward"), *_trials("reverse"))
