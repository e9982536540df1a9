"""CUDA cards by short names, as `cards.toml` describes them."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

GIB = 2**30


@dataclass(frozen=True, slots=True)
class Card:
    """A card. `memory_bytes` can be used by a process, `context_bytes` of it are CUDA's own, and `cublas_bytes` are
    cuBLAS's workspace for a thread."""

    key: str
    name: str
    memory_bytes: int
    context_bytes: int
    cublas_bytes: int


@cache
def cards() -> dict[str, Card]:
    """All cards by key."""
    rows = tomllib.loads(files("vbench.flops").joinpath("cards.toml").read_text(encoding="utf-8"))
    return {
        key: Card(
            key,
            row["name"],
            memory_bytes=int(row["memory_gib"] * GIB),
            context_bytes=int(row["context_gib"] * GIB),
            cublas_bytes=int(row["cublas_mib"] * 2**20),
        )
        for key, row in rows.items()
    }
