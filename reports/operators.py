"""Timings of operators, for a terminal: a table, what stands out, and remarks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.table import Table

if TYPE_CHECKING:
    pass


def _setting(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """What rows that may be compared have in common."""
    return tuple(row[key] for key in ("op", "tokens", "batch", "dtype", "backend", "l2"))


def to_rich(rows: Sequence[Mapping[str, Any]]) -> Table:
    """One row a timing; what was not timed is told by `remarks`."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    left = ("operator", "form", "setting")
    for name in ("operator", "tokens", "batch", "setting", "form", "ms", "interval", "x floor", "x fastest", "error"):
        table.add_column(name, justify="left" if name in left else "right", no_wrap=True)
    timed = [row for row in rows if row["ms"] is not None]
    fastest: dict[tuple[Any, ...], float] = {}
    for row in timed:
        fastest[_setting(row)] = min(row["ms"], fastest.get(_setting(row), math.inf))
    for row in timed:
        table.add_row(
            row["op"],
            str(row["tokens"]),
            str(row["batch"]),
            f"{row['dtype']} {row['backend']} {row['l2']}",
            row["form"],
            f"{row['ms']:.4g}",
            f"{row['ms_lo']:.4g}–{row['ms_hi']:.4g}",
            f"{row['floor_ratio']:.3g}",
            f"{row['ms'] / fastest[_setting(row)]:.3g}",
            "" if row["error"] is None else f"{row['error']:.0e}",
        )
    return table


def remarks(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """One line for each thing that has no time, and why; alike ones together."""
    alike: dict[tuple[str, str, str, str], list[str]] = {}
    for row in rows:
        if row["status"] != "ok":
            where = f"N={row['tokens']} B={row['batch']}" if row["tokens"] else ""
            said = row["reason"] if row["status"] != "skipped" else "would take too long"
            alike.setdefault((row["op"], str(row["form"]), row["status"], str(said)), []).append(where)
    return [
        f"{op} {form}: {status}, {reason}"
        + "".join(f" ({'; '.join(dict.fromkeys(where))})" for _ in where[:1] if where[0])
        for (op, form, status, reason), where in alike.items()
    ]


def findings(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """For each peer and setting, how our fastest form compares on the longest sequence that both were timed on."""
    lines = []
    timed = [row for row in rows if row["ms"] is not None]
    pairs: dict[tuple[Any, ...], dict[int, tuple[Mapping[str, Any], Mapping[str, Any]]]] = {}
    for peer in (row for row in timed if row["peer"]):
        ours = [row for row in timed if not row["peer"] and _setting(row) == _setting(peer)]
        if ours:
            key = (peer["op"], peer["form"], peer["batch"], peer["dtype"], peer["backend"], peer["l2"])
            pairs.setdefault(key, {})[peer["tokens"]] = min(ours, key=lambda row: row["ms"]), peer
    for (op, name, batch, dtype, backend, cache), found in pairs.items():
        tokens = max(found)
        best, peer = found[tokens]
        times = peer["ms"] / best["ms"]
        said = f"{times:.1f} times faster than" if times >= 1 else f"{1 / times:.1f} times slower than"
        lines.append(
            f"{op} {best['form']} is {said} {name} at N={tokens}, batch {batch} "
            f"({best['ms']:.4g} against {peer['ms']:.4g} ms; {dtype}, {backend}, {cache})"
        )
    return lines
