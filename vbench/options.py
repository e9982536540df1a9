"""Comma lists and numbers as the command line takes them: "a,b,c". Each error is one line that names the option."""

from __future__ import annotations

import re
from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from vbench.errors import UsageError

T = TypeVar("T", bound=str)
DIGITS = 15  # of a number; one with more is a typing error
SHOWN = 60  # characters of what a user gave, in a message
SHOWN_PATH = 300
LONGEST_S = 366 * 86_400  # of a time
NUMBERS: dict[str, tuple[float, float]] = {  # the bounds of options that take one number
    "seed": (0, 2**63 - 1),
    "threads": (1, 4096),
    "seconds": (0.001, 86_400),
    "limit_s": (0.001, 86_400),
    "timeout": (1, LONGEST_S),
    "batch": (1, 10**9),
    "cells": (1, 10**7),
}
OTHERS = (-(10**9), 10**9)  # of any other option
CHECKED_LATER = ("memory", "threshold", "latency_ms", "memory_gb", "cost", "emissions_g")  # by what uses them


def folded(word: str) -> str:
    """A word without what people write in several ways, "ViG-T" -> "vigt": case, hyphens and underscores."""
    return word.lower().replace("-", "").replace("_", "")


def shown(text: object) -> str:
    """What a user gave, as a message shows it: its beginning, if it is long; a path may be longer."""
    words, most = str(text), SHOWN_PATH if isinstance(text, Path) else SHOWN
    return words if len(words) <= most else f"{words[: most - 20]}... ({len(words):,} characters)"


def whole(text: str) -> int | None:
    """ "512" -> 512, "-8" -> -8; None for what is no whole number, or has more than 15 digits."""
    return int(text) if re.fullmatch(rf"-?[0-9]{{1,{DIGITS}}}", text) else None


def check_numbers(values: Mapping[str, Any]) -> None:
    """Check the options that take one number, by the names of their parameters, against `NUMBERS`.

    Raises: UsageError for one out of its bounds, and for one that is not finite.
    """
    for name, value in values.items():
        if isinstance(value, int | float) and not isinstance(value, bool) and name not in CHECKED_LATER:
            low, high = NUMBERS.get(name, OTHERS)
            if not low <= value <= high:  # so is nan
                raise UsageError(f"--{name.replace('_', '-')}: {_short(value)} is not between {low:,} and {high:,}")


def _short(value: float) -> str:
    return f"{value:g}" if isinstance(value, float) else shown(value) if abs(value) < 10**300 else "that number"


def items(text: str, option: str, example: str) -> list[str]:
    """ "a, b" -> ["a", "b"]. Raises: UsageError for an empty item; it shows `example`."""
    parts = [part.strip() for part in text.split(",")]
    if not all(parts):
        raise UsageError(f"{option}: '{shown(text)}' has an empty item; write it like {example}")
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
            raise UsageError(f"{option}: '{shown(part)}' is not one of {', '.join(allowed)}")
    return tuple(dict.fromkeys(known[folded(part)] for part in parts))


def numbers(text: str, option: str, example: str, *, allowed: Container[int], kind: str) -> tuple[int, ...]:
    """ "80,90" -> (80, 90), each once. Raises: UsageError for what is not an `allowed` number; it says the `kind`."""
    parts = items(text, option, example)
    found = {part: whole(part) for part in parts}
    for part, number in found.items():
        if number is None or number not in allowed:
            raise UsageError(f"{option}: '{shown(part)}' is not {kind}")
    return tuple(dict.fromkeys(number for number in found.values() if number is not None))


_UNITS_S = {"s": 1.0, "m": 60.0, "h": 3600.0}


def seconds(text: str, option: str) -> float:
    """ "90s", "10m", "1h30m" -> seconds. Raises: UsageError; it shows what is allowed."""
    parts = re.findall(r"([0-9]{1,15}(?:\.[0-9]{1,15})?)([smh])", text)
    total = sum(float(number) * _UNITS_S[unit] for number, unit in parts)
    if "".join(map("".join, parts)) != text or not 0 < total <= LONGEST_S:
        raise UsageError(f"{option}: '{shown(text)}' is not a time; write it like 90s, 10m or 1h30m, up to a year")
    return total
