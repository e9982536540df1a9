"""One row of the table of models. Reading it imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import inf, isnan, log
from typing import Any, get_args

from vbench.errors import ResolutionError
from vbench.kernels.registry import OPS, Mode

EXTERNAL = "vbench.models.external:build"


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """One row of the zoo.

    A row with a `caveat` is not the model that its family's paper describes. Every list of models prints the caveat.
    A pattern selects such a row only if it matches no other.
    """

    family: str
    build: str  # "module:callable"; `create` calls it with `image_size`, `args` and, for an operator of ours, `form`
    args: Mapping[str, Any]
    source: str  # the paper
    stem: tuple[tuple[int, int, int], ...] = ()  # convolutions from pixels to tokens: (kernel, stride, padding), in px
    multiple: int = 1  # each side of the image must be a multiple of this, in px
    patch: int = 1  # a side is `filled` up, or else cut down, to a multiple of this, in px
    filled: bool = False
    window: int | None = None  # each stage's map is padded to multiples of this, in tokens
    depths: tuple[int, ...] = ()  # blocks of each stage, for a model with a window
    operator: str | None = None  # a key of kernels.OPS; None for an attention baseline
    streams: bool = False  # in recurrent mode the whole network walks the tokens, and not only its operator
    caveat: str | None = None
    params: int | None = None  # parameters at 224 px; tests count them
    modes: tuple[Mode, ...] = field(init=False)

    def __post_init__(self) -> None:
        forms = OPS[self.operator].values() if self.operator else ()
        without: tuple[Mode, ...] = get_args(Mode) if self.external else ("parallel",)
        object.__setattr__(self, "modes", tuple(dict.fromkeys(form.mode for form in forms)) or without)

    @property
    def baseline(self) -> bool:
        """Whether this is an attention model that ours are compared with."""
        return self.operator is None and not self.external

    @property
    def external(self) -> bool:
        """Whether this is a user's own model. We only know how to call it."""
        return self.build == EXTERNAL

    def grid(self, height: int, width: int) -> tuple[int, int] | None:
        """Tokens (down, across) of an image of height × width px; None if not known.

        Raises: ResolutionError if a side is no `multiple`, or too small for the stem.
        """
        for px in (height, width):
            if px % self.multiple:
                low = px // self.multiple * self.multiple
                near = " or ".join(str(n) for n in (low, low + self.multiple) if n > 0)
                raise ResolutionError(f"{px} px is not a multiple of {self.multiple}; take {near}")
        return (self._tokens(height), self._tokens(width)) if self.stem else None

    def padding(self, height: int, width: int) -> str | None:
        """What the model adds to an image of this size, or cuts off, in words; None if it takes the image as it is.

        Raises: ResolutionError, as `grid`.
        """
        grid = self.grid(height, width)
        if height % self.patch or width % self.patch:
            if self.filled:
                return f"pads {-height % self.patch} rows and {-width % self.patch} columns of pixels"
            return f"cuts off {height % self.patch} rows and {width % self.patch} columns of pixels"
        padded = [
            f"stage {stage} {real[0]}x{real[1]} to {full[0]}x{full[1]}"
            for stage, (real, full) in enumerate(self._stage_maps(grid), start=1)
            if full != real
        ]
        return f"windows of {self.window} pad " + ", ".join(padded) if padded else None

    def padded_share(self, height: int, width: int) -> float | None:
        """The share of padding in what the model computes on at this size, 0 to 1; None if the grid is not known.

        With windows it is a share of the tokens that attention sees, summed over all blocks. For a `filled` image it
        is a share of its pixels. For every other model it is 0. Zeros at the border of a convolution do not count.

        Raises: ResolutionError, as `grid`.
        """
        grid = self.grid(height, width)
        if grid is None:
            return None
        if self.filled:
            return 1 - height * width / (_round_up(height, self.patch) * _round_up(width, self.patch))
        stages = list(zip(self.depths, self._stage_maps(grid), strict=True))
        seen = sum(depth * full[0] * full[1] for depth, (_, full) in stages)
        return 1 - sum(depth * real[0] * real[1] for depth, (real, _) in stages) / seen if seen else 0.0

    def _tokens(self, px: int) -> int:
        """Tokens along a side of that many px. Raises: ResolutionError if the side is too small."""
        side = _round_up(px, self.patch) if self.filled else px
        for kernel, stride, padding in self.stem:
            side = (side + 2 * padding - kernel) // stride + 1
            if side < 1:
                least = self.stem[0][0] - 2 * self.stem[0][2]
                raise ResolutionError(f"{px} px is too small; the least is {least}")
        return side

    def _stage_maps(self, grid: tuple[int, int] | None) -> list[tuple[tuple[int, int], tuple[int, int]]]:
        """Each stage's map, before and after windows pad it. Empty for a model without windows.

        A map that is no larger than a window is one window and is not padded.
        """
        maps: list[tuple[tuple[int, int], tuple[int, int]]] = []
        if grid is None or self.window is None:
            return maps
        for _ in self.depths:
            full = (_round_up(grid[0], self.window), _round_up(grid[1], self.window))
            maps.append((grid, full if min(grid) > self.window else grid))
            grid = ((grid[0] + 1) // 2, (grid[1] + 1) // 2)
        return maps


def _round_up(side: int, multiple: int) -> int:
    return -(-side // multiple) * multiple


def distance(one: float | None, other: float | None) -> float:
    """How far two numbers of parameters lie apart: the log of their ratio, without sign; infinite if one is unknown."""
    apart = abs(log(one / other)) if one and other else inf
    return inf if isnan(apart) else apart


def nearest(params: float | None, others: Sequence[float | None]) -> int | None:
    """With which attention model a model is compared: the place of the one nearest in parameters, the first of equals.

    None if there is no other.
    """
    return min(range(len(others)), key=lambda place: distance(params, others[place]), default=None)
