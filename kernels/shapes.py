"""What all operators share: how their shapes are declared and checked, and the type that they accumulate in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from vbench.errors import ShapeError

Direction = Literal["forward", "reverse", "both", "cross"]
State = Tensor | tuple[Tensor, ...]  # what an operator carries; with several walks each tensor leads with their number
Dims = tuple[str, ...]

NAMES = {
    "B": "batch",
    "H": "heads",
    "G": "groups",
    "N": "tokens",
    "D": "key_dim",
    "E": "value_dim",
    "C": "channels",
    "S": "states",
}
FIXED = {"2": 2, "3": 3, "4": 4}  # dimensions that are numbers
WALKS = {"W": {"both": 2}}  # usual: two walks in a call with direction "both"


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

    Dimensions are words of a text such as "B H N D": the letters of `NAMES`, numbers, and the words of `walks`.

    Attributes:
        inputs: the tensors of a call in their order, by name.
        optional: tensors that a call may have as keywords, by name; none without those before it.
        output: has the type of the first input.
        state: the keyword `state` and the returned state: a tensor, or a tuple of tensors, in the accumulator's type.
            () if there is no state.
        option: the keyword that selects what is computed, if there is one: "direction" or "reading".
        choices: its values; the first is the default.
        stateless: the choices that take no state.
        walks: how long the dimension of a word is in a call, by choice; with any other choice it is left out. W is the
            number of walks over the tokens; usually 2 for "both", forward first.
    """

    inputs: Mapping[str, str]
    output: str
    state: str | tuple[str, ...] = ()
    option: str = ""
    choices: tuple[str, ...] = ("",)
    stateless: tuple[str, ...] = ()
    optional: Mapping[str, str] = field(default_factory=dict)
    walks: Mapping[str, Mapping[str, int]] = field(default_factory=lambda: WALKS)

    @property
    def _states(self) -> tuple[str, ...]:
        return self.state if isinstance(self.state, tuple) else (self.state,)

    def given(self, count: int) -> tuple[str, ...]:
        """The optional tensors in a call with `count` tensors, which has the first ones of them."""
        return tuple(self.optional)[: count - len(self.inputs)]

    def layout(self, choice: str, optional: Sequence[str] = ()) -> Layout:
        """The dimensions of a call that has these optional tensors after its inputs."""

        def dims(text: str) -> Dims:
            sides = ((word, self.walks.get(word)) for word in text.split())
            return tuple(
                word if lengths is None else str(lengths[choice])
                for word, lengths in sides
                if lengths is None or choice in lengths
            )

        tensors = (*self.inputs.values(), *(self.optional[name] for name in optional))
        return Layout(tuple(map(dims, tensors)), dims(self.output), tuple(map(dims, self._states)))

    def sizes(self, found: Mapping[str, int], choice: str, optional: Sequence[str] = ()) -> dict[str, int | str]:
        """The keywords of `cost.macs`: sizes by name; which optional tensors there are; and `directions`, the number of
        walks, if one call may have several, or the option."""
        named: dict[str, int | str] = {NAMES[dim]: side for dim, side in found.items() if dim in NAMES}
        named |= {name: name in optional for name in self.optional}
        if "both" in self.choices:
            return named | {"directions": self.walks["W"].get(choice, 1)}
        return named if self.option in ("", "direction") else named | {self.option: choice}

    def refusal(
        self, op: str, choice: str, inputs: Sequence[Tensor], state: State | None, optional: Sequence[str] = ()
    ) -> ShapeError:
        """The error for a call that does not fit: what was wanted, and what was given, optional tensors last."""
        if choice not in self.choices:
            *most, last = map(repr, self.choices)
            return ShapeError(f"{op}: {self.option} is {', '.join(most)} or {last}, not {choice!r}")
        if state is not None and choice in self.stateless:
            return ShapeError(f"{op}: {self.option} {choice!r} takes no state")
        if without := [name for name in self.given(len(self.inputs) + len(optional)) if name not in optional]:
            return ShapeError(f"{op}: {optional[-1]} is given without {', '.join(without)}")
        layout, alike = self.layout(choice, optional), dict[Dims, list[str]]()
        names = (*self.inputs, *optional)
        for name, dims in zip(names, layout.inputs, strict=True):
            alike.setdefault(dims, []).append(name)
        wanted = [f"{', '.join(same)} {_told(dims)}" for dims, same in alike.items()] + ["N > 0"]
        given = [f"{name} {tuple(x.shape)}" for name, x in zip(names, inputs, strict=True)]
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
