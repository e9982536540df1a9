"""The rows that `vbench kernels bench` writes into a folder: timed calls of single operators."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from vbench.errors import OutputError, SchemaError
from vbench.kernels.registry import default_form

FILE = "kernels.jsonl"
_KEYS = ("op", "form", "peer", "tokens", "batch", "dtype", "device", "backend", "l2", "status", "ms")


def read(folder: Path) -> list[dict[str, Any]]:
    """All rows of a folder, the oldest first; empty if it has none. `operators.bench` explains the keys of a row.

    Raises: OutputError if the file cannot be read; SchemaError for a line that is not such a row.
    """
    path = folder / FILE
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise OutputError(f"{path} cannot be read: {error}") from None
    found = []
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if not isinstance(row, dict) or any(key not in row for key in _KEYS):
            raise SchemaError(f"{path}: line {number} is not a row of 'vbench kernels bench'; repair or remove it")
        found.append(row)
    return found


def beside_attention(
    rows: Iterable[Mapping[str, Any]], op: str, tokens: int
) -> list[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    """Pairs of the operator's default form and fused attention that were timed in turn, the newest first."""
    found: dict[tuple[Any, ...], dict[str, Mapping[str, Any]]] = {}
    for row in rows:
        if row["op"] == op and row["tokens"] == tokens and row["status"] == "ok" and row["ms"]:
            setting = tuple(row.get(key) for key in ("started_at", "device", "dtype", "batch", "backend", "l2"))
            found.setdefault(setting, {})[str(row["form"])] = row
    pairs = []
    for calls in reversed(found.values()):
        attention = calls.get("sdpa")
        own = attention and calls.get(default_form(op, "parallel", str(attention["device"])))
        if own and attention:
            pairs.append((own, attention))
    return pairs


def append(folder: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Add rows to the folder's file. Raises: OutputError."""
    file = folder / FILE
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with file.open("a", encoding="utf-8") as out:
            out.writelines(json.dumps(row) + "\n" for row in rows)
    except OSError as error:
        raise OutputError(f"--out: {file} cannot be written: {error.strerror}") from None
    return file
