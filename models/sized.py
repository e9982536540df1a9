"""Handing an image size over to a callable that somebody else wrote: by which argument, and as what."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

Choices = Sequence[tuple[str, Sequence[Any]]]  # names of an argument in order, each with the values to try


def as_size(value: Any) -> tuple[int, int] | None:
    """(height, width) of a number, a pair, or a shape (channels, height, width); None for anything else."""
    sides = [value, value] if isinstance(value, int) else list(value) if isinstance(value, tuple | list) else []
    if len(sides) not in (2, 3) or not all(isinstance(side, int) and side > 1 for side in sides):
        return None
    return sides[-2], sides[-1]


def as_values(image_size: tuple[int, int], default: Any = None) -> list[Any]:
    """What to hand over for (height, width): that pair, and after it the side of a square, as some take a number alone.

    Args:
        default: of the argument. If it is a shape of three, as timm's `input_size`, a shape (3, height, width) is
            handed over.
    """
    if isinstance(default, tuple | list) and len(default) == 3:
        return [(3, *image_size)]
    square = image_size[0] == image_size[1]
    return [image_size, image_size[0]] if square else [image_size]


def call(function: Callable[..., Any], given: Mapping[str, Any], sizes: Choices) -> tuple[Any, str | None]:
    """Call a function with the first argument for the size that it takes, and without one if it takes none.

    Whether it takes an argument is found out by calling: a function with **kwargs hands them on to we know not what.
    Only a TypeError about the argument itself leads to the next one. Of the values of an argument the first with which
    the call succeeds counts.

    Returns: what the function returns, and the name of the argument; None if it got no size.
    Raises: what the function raises with the first value.
    """
    for name, values in sizes:
        first: Exception | None = None
        try:
            for value in values:
                try:
                    return function(**given, **{name: value}), name
                except (TypeError, AssertionError, ValueError) as error:
                    first = first or error
                    if _refuses(error, name):
                        break
            if first is not None and not _refuses(first, name):
                raise first
        finally:
            del first  # an error holds the frames in which a model was half built
    return function(**given), None


def _refuses(error: Exception, name: str) -> bool:
    """Whether a call failed because a function takes no such argument, or has it already."""
    text = str(error)
    return isinstance(error, TypeError) and "argument" in text and any(f"{q}{name}{q}" in text for q in "'\"")
