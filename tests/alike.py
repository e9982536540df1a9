"""Committed tables compare as numbers: no test depends on the last digit of a library's arithmetic."""

from __future__ import annotations

import csv
import re
from itertools import zip_longest
from math import isclose
from pathlib import Path

RELATIVE = 1e-9
FLOAT = re.compile(r"-?\d+(\.\d+(e[-+]\d+)?|e[-+]\d+)")  # whole numbers are counts, and those are equal or not


def same(one: str, other: str) -> bool:
    """Whether two cells are alike: floats within `RELATIVE`, anything else as text."""
    if one == other:
        return True
    both = FLOAT.fullmatch(one) and FLOAT.fullmatch(other)
    return bool(both) and isclose(float(one), float(other), rel_tol=RELATIVE)


def differences(made: Path, committed: Path) -> list[str]:
    """Where two CSV files differ, a line each: the row's number, the column, both cells."""
    mine, theirs = (list(csv.reader(file.read_text(encoding="utf-8").splitlines())) for file in (made, committed))
    header = theirs[0] if theirs else []
    return [
        f"row {number}, {name}: {one!r} is not {other!r}"
        for number, rows in enumerate(zip_longest(mine, theirs, fillvalue=[]))
        for name, one, other in zip_longest(header, *rows, fillvalue="")
        if not same(one, other)
    ]
