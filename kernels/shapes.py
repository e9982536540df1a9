"""What all operators share: the type they accumulate in, directions, and how misfits are told."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

import torch
from torch import Tensor

from vbench.errors import ShapeError

Direction = Literal["forward", "reverse", "both"]
State = Tensor | tuple[Tensor, ...]  # what an operator carries; for "both" each tensor leads with 2, forward first


def accumulator(x: Tensor) -> torch.dtype:
    """float64 for float64 inputs, float32 for all others: the type of decays, sums and state."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def check_direction(direction: str) -> None:
    """Raise ShapeError unless `direction` is one."""
    if direction not in get_args(Direction):
        raise ShapeError(f"direction is 'forward', 'reverse' or 'both', not {direction!r}")


def misfit(op: str, wanted: str, given: Mapping[str, State | None]) -> ShapeError:
    """The error to raise where inputs do not agree: what was wanted, and every shape that was given."""
    shapes = ", ".join(f"{name} {_shape(value)}" for name, value in given.items())
    return ShapeError(f"{op}: want {wanted}; got {shapes}")


def _shape(value: State | None) -> str:
    if value is None:
        return "none"
    if isinstance(value, tuple):
        return " ".join(map(_shape, value))
    return str(tuple(value.shape))
