"""Which configuration a fused form takes: a small table, looked up by operator, tokens, rows and device."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files

import torch
from torch import Tensor
from vbench.kernels.registry import missing

from vbench.errors import UnsupportedError


@dataclass(frozen=True, slots=True)
class Choice:
    """How a fused form computes a call: `chunk` tokens a program and its `warps`; or, if `sequential`, by one
    program a state that walks all tokens in a single launch."""

    chunk: int
    warps: int
    sequential: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """A choice, and up to how many tokens and from how many rows (batch · heads, or batch) it is the best.

    `source` says how that is known: a device and a commit, or "estimate".
    """

    op: str
    tokens_max: int
    rows_min: int
    device: str  # a device's name as CUDA gives it; "any" for those that are not in the table
    choice: Choice
    source: str


@lru_cache(maxsize=1)
def table() -> tuple[Row, ...]:
    """The rows of tuning.toml, in its order."""
    found = tomllib.loads((files("vbench.kernels.fused") / "tuning.toml").read_text())["row"]
    return tuple(
        Row(
            row["op"],
            row.get("tokens_max", 1 << 62),
            row.get("rows_min", 0),
            row.get("device", "any"),
            Choice(row["chunk"], row["warps"], row.get("sequential", False)),
            row["source"],
        )
        for row in found
    )


@lru_cache(maxsize=4096)
def pick(op: str, tokens: int, rows: int, device: str = "any") -> Choice:
    """The first choice of the table that fits; those of the device come before those of any."""
    for name in (device, "any"):
        for row in table():
            if row.op == op and row.device == name and tokens <= row.tokens_max and rows >= row.rows_min:
                return row.choice
    raise LookupError(f"tuning.toml has no row for {op}")


def choose(op: str, form: str, q: Tensor) -> tuple[int, int]:
    """(chunk, warps) for a call with queries q (B, H, N, D); chunk 0 is one launch, sequential in tokens.

    Raises: UnsupportedError if `form` cannot run on q.
    """
    if reason := missing(op, form, q.device.type, str(q.dtype).removeprefix("torch.")):
        raise UnsupportedError(reason)
    choice = pick(op, q.shape[2], q.shape[0] * q.shape[1], device_name(q.device))
    return (0 if choice.sequential or form == "fused_recurrent" else choice.chunk), choice.warps


@lru_cache(maxsize=64)
def device_name(device: torch.device) -> str:
    """A CUDA device's name as in the table's rows; "any" for others."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "any"
