"""What all operators share: how their shapes are declared and checked, and the type that they accumulate in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from vbench.errors import ShapeError

Direction = Literal["forward", "reverse", "both"]
State = Tensor | tuple[Tensor, ...]  # what an operator carries; for "both" each tensor leads with 2, forward first
Dims = tuple[str, ...]

NAMES = {"B": "batch", "H": "heads", "N": "tokens", "D": "key_dim", "E": "value_dim", "C": "channels"}
FIXED = {"2": 2, "3": 3}  # dimensions that are numbers


def accumulator(x: Tensor) -> torch.dtype:
    """float64 for float64 inputs, float32 for all others: the type of decays, sums and state."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


class Layout(NamedTuple):
    """The dimensions of one kind of call: of each input, of the output, and of each tensor of the state."""

    inputs: tuple[Dims, ...]
    output: Dims
    state: tuple[Dims, ...]


@dataclass(frozen=True, slots=True)
class Shapes:
    """The shapes of an operator's inputs and results, the same for all of its forms.

    Dimensions are words of a text such as "B H N D": the letters of `NAMES`, numbers, and W. W is 2 in a call with
    direction "both", forward first, and is left out in all other calls.

    Attributes:
        inputs: the tensors of a call in their order, by name.
        output: has the type of the first input.
        state: the keyword `state` and the returned state: a tensor, or a tuple of tensors, in the accumulator's type.
            () if there is no state.
        option: the keyword that selects what is computed, if there is one: "direction" or "reading".
        choices: its values; the first is the default.
        stateless: the choices that take no state.
    """

    inputs: Mapping[str, str]
    output: str
    state: str | tuple[str, ...] = ()
    option: str = ""
    choices: tuple[str, ...] = ("",)
    stateless: tuple[str, ...] = ()

    @property
    def _states(self) -> tuple[str, ...]:
        return self.state if isinstance(self.state, tuple) else (self.state,)

    def layout(self, choice: str) -> Layout:
        """The dimensions of a call."""

        def dims(text: str) -> Dims:
            return tuple("2" if word == "W" else word for word in text.split() if word != "W" or choice == "both")

        return Layout(tuple(map(dims, self.inputs.values())), dims(self.output), tuple(map(dims, self._states)))

    def sizes(self, found: Mapping[str, int], choice: str) -> dict[str, int | str]:
        """The keywords of `cost.macs`: sizes by name, `directions` if one call may have both, or the option."""
        named: dict[str, int | str] = {NAMES[dim]: side for dim, side in found.items() if dim in NAMES}
        if "both" in self.choices:
            return named | {"directions": 2 if choice == "both" else 1}
        return named if self.option in ("", "direction") else named | {self.option: choice}

    def refusal(self, op: str, choice: str, inputs: Sequence[Tensor], state: State | None) -> ShapeError:
        """The error for a call that does not fit: what was wanted, and what was given."""
        if choice not in self.choices:
            *most, last = map(repr, self.choices)
            return ShapeError(f"{op}: {self.option} is {', '.join(most)} or {last}, not {choice!r}")
        if state is not None and choice in self.stateless:
            return ShapeError(f"{op}: {self.option} {choice!r} takes no state")
        layout, alike = self.layout(choice), dict[Dims, list[str]]()
        for name, dims in zip(self.inputs, layout.inputs, strict=True):
            alike.setdefault(dims, []).append(name)
        wanted = [f"{', '.join(names)} {_told(dims)}" for dims, names in alike.items()] + ["N > 0"]
        given = [f"{name} {tuple(x.shape)}" for name, x in zip(self.inputs, inputs, strict=True)]
        if layout.state:
            wanted.append(f"state {' '.join(map(_told, layout.state))}")
            parts = state if isinstance(state, tuple) else () if state is None else (state,)
            given.append(f"state {' '.join(str(tuple(part.shape)) for part in parts) or 'none'}")
        return ShapeError(f"{f'{op} {choice}'.strip()}: want {', '.join(wanted)}; got {', '.join(given)}")


def match(shapes: Sequence[Sequence[int]], wanted: Sequence[Dims]) -> dict[str, int] | None:
    """The size of each dimension; None if the shapes do not agree or if there is no token."""
    if len(shapes) != len(wanted):
        return None
    found = dict(FIXED)
    for shape, dims in zip(shapes, wanted, strict=True):
        if len(shape) != len(dims):
            return None
        for dim, side in zip(dims, shape, strict=True):
            if found.setdefault(dim, side) != side:
                return None
    return found if found["N"] > 0 else None


def _told(dims: Dims) -> str:
    """("H",) -> "(H,)"."""
    return f"({', '.join(dims)}{',' if len(dims) == 1 else ''})"
