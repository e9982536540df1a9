"""Inputs on which the forms of the selective scan are compared."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from vbench.kernels.selective_scan.orders import row_of
from vbench.kernels.shapes import Direction
from vbench.kernels.trials import Inputs, Trial, standard_normal

B, G, C = 2, 2, 6
DIRECTIONS: tuple[Direction, ...] = ("forward", "reverse", "both", "cross")


@dataclass(frozen=True, slots=True)
class Regime:
    """What the inputs of a trial are like: mean and spread of delta, states of a channel, and the call's options."""

    mean: float
    spread: float
    states: int = 4
    gated: bool = False
    softplus: bool = True


# Steps as at Mamba's initialisation; steps near 0, which forget almost nothing; and steps from nothing to 20, after
# which a state is forgotten at once.
TYPICAL = Regime(-4.0, 1.5)
STEPS = {"typical steps": TYPICAL, "small steps": Regime(-9.0, 0.5), "wide steps": Regime(0.0, 8.0)}
OTHERS: tuple[tuple[str, Direction, Regime], ...] = (
    ("gated, sixteen states", "both", replace(TYPICAL, states=16, gated=True)),  # as in Vim
    ("gated, one state", "cross", replace(TYPICAL, states=1, gated=True)),  # as in VMamba, but for the gate
    ("steps as they are", "forward", replace(TYPICAL, softplus=False)),
)


def _draw(N: int, generator: Generator, *, direction: Direction, regime: Regime) -> Inputs:
    normal, S = standard_normal(generator), regime.states
    walks = {"both": (2,), "cross": (4,)}.get(direction, ())
    rates = -torch.arange(1, S + 1, dtype=torch.float64) * (0.2 * normal(*walks, G, C, 1)).exp()
    delta, bias = regime.mean + regime.spread * normal(*walks, B, G, N, C), 0.3 * normal(*walks, G, C)
    if not regime.softplus:  # steps are positive
        delta, bias = F.softplus(delta), bias.abs() / 30
    inputs = {
        "u": normal(*(walks if direction == "both" else ()), B, G, N, C),
        "delta": delta,
        "A": rates,
        "B": normal(*walks, B, G, N, S),
        "C": normal(*walks, B, G, N, S),
        "D": normal(*walks, G, C),
        "delta_bias": bias,
    }
    return inputs | ({"z": normal(B, G, N, C)} if regime.gated else {})


def _initial(inputs: Inputs) -> Tensor:
    delta = inputs["delta"]
    return delta.new_zeros(*delta.shape[:-2], C, inputs["A"].shape[-1])


def _width(inputs: Inputs) -> dict[str, Any]:
    return {"width": row_of(int(inputs["u"].shape[-2]))}


def _trial(name: str, direction: Direction, regime: Regime) -> Trial:
    return Trial(
        f"{direction}, {name}",
        direction,
        partial(_draw, direction=direction, regime=regime),
        dict.fromkeys(("u", "delta", "B", "C", *(["z"] if regime.gated else [])), -2),
        {"direction": direction} | ({} if regime.softplus else {"softplus": False}),
        _initial,
        _width if direction == "cross" else None,
    )


TRIALS = (
    *(_trial(name, direction, regime) for direction in DIRECTIONS for name, regime in STEPS.items()),
    *(_trial(*other) for other in OTHERS),
)
