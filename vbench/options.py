"""Comma lists as the command line takes them: "a,b,c". Each error is one line that names the option."""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import TypeVar

from vbench.errors import UsageError

T = TypeVar("T", bound=str)


def items(text: str, option: str, example: str) -> list[str]:
    """ "a, b" -> ["a", "b"]. Raises: UsageError for an empty item; it shows `example`."""
    parts = [part.strip() for part in text.split(",")]
    if not all(parts):
        raise UsageError(f"{option}: '{text}' has an empty item; write it like {example}")
    return parts


def choices(text: str, option: str, allowed: Sequence[T]) -> tuple[T, ...]:
    """The items of a list, each once. Raises: UsageError for one that is not in `allowed`."""
    known: dict[str, T] = {choice: choice for choice in allowed}
    parts = items(text, option, ",".join(allowed))
    for part in parts:
        if part not in known:
            raise UsageError(f"{option}: '{part}' is not one of {', '.join(allowed)}")
    return tuple(dict.fromkeys(known[part] for part in parts))


def numbers(text: str, option: str, example: str, *, allowed: Container[int], kind: str) -> tuple[int, ...]:
    """ "80,90" -> (80, 90), each once. Raises: UsageError for what is not an `allowed` number; it says the `kind`."""
    parts = items(text, option, example)
    for part in parts:
        if not part.isdecimal() or int(part) not in allowed:
            raise UsageError(f"{option}: '{part}' is not {kind}")
    return tuple(dict.fromkeys(map(int, parts)))
