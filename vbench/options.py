"""Comma lists as the command line takes them: "a,b,c". Each error is one line that names the option."""

from __future__ import annotations

import re
from collections.abc import Container, Mapping, Sequence
from typing import TypeVar

from vbench.errors import UsageError

T = TypeVar("T", bound=str)


def folded(word: str) -> str:
    """A word without what people write in several ways, "ViG-T" -> "vigt": case, hyphens and underscores."""
    return word.lower().replace("-", "").replace("_", "")


def items(text: str, option: str, example: str) -> list[str]:
    """ "a, b" -> ["a", "b"]. Raises: UsageError for an empty item; it shows `example`."""
    parts = [part.strip() for part in text.split(",")]
    if not all(parts):
        raise UsageError(f"{option}: '{text}' has an empty item; write it like {example}")
    return parts


def choices(text: str, option: str, allowed: Sequence[T], also: Mapping[str, T] | None = None) -> tuple[T, ...]:
    """The items of a list, each once and as `allowed` has it; `folded` words are the same word.

    Args:
        also: other words for what is allowed.

    Raises: UsageError for an item that is none of these.
    """
    known = {folded(word): choice for word, choice in (also or {}).items() if choice in allowed}
    known |= {folded(choice): choice for choice in allowed}
    parts = items(text, option, ",".join(allowed))
    for part in parts:
        if folded(part) not in known:
            raise UsageError(f"{option}: '{part}' is not one of {', '.join(allowed)}")
    return tuple(dict.fromkeys(known[folded(part)] for part in parts))


def numbers(text: str, option: str, example: str, *, allowed: Container[int], kind: str) -> tuple[int, ...]:
    """ "80,90" -> (80, 90), each once. Raises: UsageError for what is not an `allowed` number; it says the `kind`."""
    parts = items(text, option, example)
    for part in parts:
        if not part.isdecimal() or int(part) not in allowed:
            raise UsageError(f"{option}: '{part}' is not {kind}")
    return tuple(dict.fromkeys(map(int, parts)))


_UNITS_S = {"s": 1.0, "m": 60.0, "h": 3600.0}


def seconds(text: str, option: str) -> float:
    """ "90s", "10m", "1h30m" -> seconds. Raises: UsageError."""
    parts = re.findall(r"(\d+(?:\.\d+)?)([smh])", text)
    total = sum(float(number) * _UNITS_S[unit] for number, unit in parts)
    if "".join(map("".join, parts)) != text or total <= 0:
        raise UsageError(f"{option}: '{text}' is not a time; write it like 90s, 10m or 1h30m")
    return total
