"""The configuration of a fused form, from a small table, by operator, tokens, rows and device."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files

ANY_TOKENS = 1 << 62  # of a row that holds for any number of tokens
STEPS_MAX = 16  # chunk / warps of a scan: they are unrolled, and a kernel with 4 compiles in 1 s, with 32 in 70 s


@dataclass(frozen=True, slots=True)
class Choice:
    """How a fused form computes a call: `chunk` tokens a program and its `warps`. If `sequential`, a program walks all
    tokens of a state in a single launch."""

    chunk: int
    warps: int
    sequential: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """A choice, and where it is the best: up to how many tokens, and from how many rows (batch · heads, or batch).

    `source` is the evidence: a device and a commit, or "estimate".
    """

    op: str
    tokens_max: int
    rows_min: int
    device: str  # a device's name in CUDA; "any" for a device that the table does not name
    choice: Choice
    source: str


@lru_cache(maxsize=1)
def table() -> tuple[Row, ...]:
    """The rows of tuning.toml, in its order."""
    found = tomllib.loads((files("vbench.kernels.fused") / "tuning.toml").read_text())["row"]
    return tuple(
        Row(
            row["op"],
            row.get("tokens_max", ANY_TOKENS),
            row.get("rows_min", 0),
            row.get("device", "any"),
            Choice(row["chunk"], row["warps"], row.get("sequential", False)),
            row["source"],
        )
        for row in found
    )


_tried: Choice | None = None


@contextmanager
def trying(choice: Choice) -> Iterator[None]:
    """Give every call this choice, to time it."""
    global _tried  # noqa: PLW0603 - forms ask `pick` deep inside operators, on one thread
    _tried = choice
    try:
        yield
    finally:
        _tried = None


def pick(op: str, tokens: int, rows: int, device: str = "any") -> Choice:
    """The first choice in the table that fits. Rows of the device come before rows of any device."""
    return _tried or _look_up(op, tokens, rows, device)


@lru_cache(maxsize=4096)
def _look_up(op: str, tokens: int, rows: int, device: str) -> Choice:
    for name in (device, "any"):
        for row in table():
            if row.op == op and row.device == name and tokens <= row.tokens_max and rows >= row.rows_min:
                return row.choice
    raise LookupError(f"tuning.toml has no row for {op}")


def chunk_of(op: str, form: str, tokens: int, rows: int, device: str = "any") -> int:
    """Tokens in a chunk of a fused form; 0 if one launch walks all tokens."""
    choice = pick(op, tokens, rows, device)
    return 0 if choice.sequential or form == "fused_recurrent" else choice.chunk
