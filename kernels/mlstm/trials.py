"""Inputs on which the forms of the matrix LSTM are compared."""

from __future__ import annotations

from torch import Generator, Tensor

from vbench.kernels.mlstm.shapes import Memory, memory
from vbench.kernels.shapes import Direction
from vbench.kernels.trials import Inputs, in_every_direction, standard_normal

B, H, D, E = 2, 2, 16, 24

Gates = tuple[tuple[float, float], tuple[float, float]]  # mean and deviation of the input gates and of the forget gates
GATES: dict[str, Gates] = {
    "typical gates": ((0.0, 0.1), (4.5, 1.0)),  # as ViL is initialised
    "open gates": ((0.0, 1.0), (30.0, 1.0)),
    "closed gates": ((0.0, 1.0), (-8.0, 1.0)),
    "wide gates": ((0.0, 4.0), (0.0, 4.0)),  # the maximum of the weights jumps from token to token
    "large gates": ((15.0, 2.0), (4.0, 1.0)),  # eps is nearly the whole normaliser
    "small gates": ((-20.0, 2.0), (4.0, 1.0)),  # the normaliser is at its lower bound
}


def _draw(N: int, generator: Generator, *, direction: Direction, regime: Gates) -> Inputs:
    normal = standard_normal(generator)

    def gates(mean: float, deviation: float) -> Tensor:
        return mean + deviation * normal(B, H, N)

    # Queries and keys have a mean of 1. The normaliser is a sum of their products; where it is near 0, no form
    # computes h with any accuracy.
    q, k = 1 + 0.5 * normal(B, H, N, D), 1 + 0.5 * normal(B, H, N, D)
    return {"q": q, "k": k, "v": normal(B, H, N, E), "i": gates(*regime[0]), "f": gates(*regime[1])}


def _initial(inputs: Inputs, *, direction: Direction) -> Memory:
    return memory(inputs["q"], inputs["v"], None)


TRIALS = in_every_direction(("forward", "reverse"), GATES, _draw, {"q": 2, "k": 2, "v": 2, "i": 2, "f": 2}, _initial)
