"""Inputs on which an operator's forms are compared, and a sequence that is computed in two parts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Generator, Tensor

from vbench.devices import kind_of
from vbench.kernels.shapes import Direction, State

Inputs = dict[str, Tensor]  # an operator's tensors in order, optional ones last


@dataclass(frozen=True, slots=True)
class Trial:
    """One way to call an operator.

    The trials of an operator are `TRIALS` in its `trials.py`: one for every direction and every regime of its gates.
    """

    name: str  # "both, closed gates"
    direction: Direction
    draw: Callable[[int, Generator], Inputs]  # number of tokens -> float64 inputs, random by this generator alone
    token_dims: Mapping[str, int]  # the dimension of the tokens in each argument that has tokens
    options: Mapping[str, Any] = field(default_factory=dict)  # keywords of the call, its direction among them
    initial: Callable[[Inputs], State] | None = None  # the state before the first token; None if there is none
    chosen: Callable[[Inputs], Mapping[str, Any]] | None = None  # keywords that depend on the inputs
    pooled: bool = False  # the state is a summary of other tokens, in whatever order

    @property
    def divisible(self) -> bool:
        """Whether a sequence can be computed in two parts: each walk meets all of one before any of the other."""
        return self.initial is not None and self.direction != "cross"

    @property
    def one_way(self) -> bool:
        """Whether tokens see nothing of those that lie beyond them."""
        return self.direction in ("forward", "reverse")

    def run(self, function: Callable[..., Any], inputs: Inputs, state: State | None = None) -> tuple[Tensor, State]:
        """Call a form, by the names of its tensors, for some may be optional: (output, final state)."""
        chosen, before = self.chosen(inputs) if self.chosen else {}, {} if state is None else {"state": state}
        o, s = function(**inputs, **self.options, **chosen, **before)
        return o, s


def in_every_direction(
    directions: Sequence[Direction],
    regimes: Mapping[str, Any],
    draw: Callable[..., Inputs],
    token_dims: Mapping[str, int],
    initial: Callable[..., State],
) -> tuple[Trial, ...]:
    """A trial for each direction and each regime, by the regime's name.

    Args:
        regimes: a name, and what `draw` needs to know.
        draw, initial: as in `Trial`; called with the keyword `direction`, and `draw` also with the keyword `regime`.
    """
    return tuple(
        Trial(
            f"{direction}, {name}",
            direction,
            partial(draw, direction=direction, regime=regime),
            token_dims,
            {"direction": direction},
            partial(initial, direction=direction),
        )
        for direction in directions
        for name, regime in regimes.items()
    )


def standard_normal(generator: Generator) -> Callable[..., Tensor]:
    """A function that takes a shape and returns numbers from N(0, 1), in float64."""
    return partial(torch.randn, generator=generator, dtype=torch.float64)


def relative(found: Tensor, wanted: Tensor) -> float:
    """‖found − wanted‖ / ‖wanted‖ in float64; infinite if any number found is not finite."""
    if not torch.isfinite(found).all():
        return float("inf")
    found, wanted = (x if kind_of(x.device.type).float64 else x.cpu() for x in (found, wanted))
    return float((found.double() - wanted.double()).norm() / wanted.double().norm().clamp_min(1e-300))


def cast(inputs: Inputs, dtype: torch.dtype) -> Inputs:
    """The inputs rounded to `dtype`."""
    return {name: value.to(dtype) for name, value in inputs.items()}


def cut(trial: Trial, inputs: Inputs, at: int) -> tuple[Inputs, Inputs]:
    """The inputs of tokens [0, at) and of [at, N), as views."""
    left, right = dict(inputs), dict(inputs)
    for name, dim in trial.token_dims.items():
        tokens = inputs[name].shape[dim]
        left[name] = inputs[name].narrow(dim, 0, at)
        right[name] = inputs[name].narrow(dim, at, tokens - at)
    return left, right


def hand_off(trial: Trial, function: Callable[..., Any], inputs: Inputs, at: int) -> tuple[Tensor, State]:
    """Cut a sequence before token `at`, compute both halves, and join them. Each half gets the other's state.

    The tokens of the output are in dim -2. "both" needs two passes: first for the states, then for the halves. So
    does a `pooled` state, which both halves then end with.
    """
    left, right = cut(trial, inputs, at)
    if trial.pooled:
        _, of_left = trial.run(function, left)
        _, of_right = trial.run(function, right)
        early, state = trial.run(function, left, of_right)
        late, _ = trial.run(function, right, of_left)
    elif trial.direction == "forward":
        early, state = trial.run(function, left)
        late, state = trial.run(function, right, state)
    elif trial.direction == "reverse":
        late, state = trial.run(function, right)
        early, state = trial.run(function, left, state)
    else:
        assert trial.initial is not None
        start = trial.initial(inputs)
        _, leaving_left = trial.run(function, left)
        _, leaving_right = trial.run(function, right)
        early, ended_left = trial.run(function, left, _pair(start, leaving_right))
        late, ended_right = trial.run(function, right, _pair(leaving_left, start))
        state = _pair(ended_right, ended_left)
    return torch.cat((early, late), dim=-2), state


def _pair(forward: State, reverse: State) -> State:
    """The forward part of one state beside the reverse part of another."""
    if isinstance(forward, tuple):
        return tuple(torch.stack((f[0], r[1])) for f, r in zip(forward, reverse, strict=True))
    assert isinstance(reverse, Tensor)
    return torch.stack((forward[0], reverse[1]))


def tensors(state: State) -> tuple[Tensor, ...]:
    """The tensors of a state."""
    return state if isinstance(state, tuple) else (state,)
