"""The README's table and findings, from committed records: `python -P -m vbench.reports.readme DIR README.md`."""

from __future__ import annotations

import sys
from io import StringIO
from math import log
from pathlib import Path

import numpy as np
import pandas as pd
from rich.console import Console
from vbench.reports import tables
from vbench.results.frame import frame
from vbench.results.store import Record, read

WIDTH = 132


def printed(table: pd.DataFrame) -> str:
    """What `vbench sweep` prints, as a fenced block."""
    text = StringIO()
    tables.show(table, Console(file=text, width=WIDTH, highlight=False))
    lines = [line.rstrip() for line in text.getvalue().splitlines()]
    return "```\n" + "\n".join(lines) + "\n```"


def findings(table: pd.DataFrame, model: str = "vig_t", baseline: str = "deit_t") -> str:
    """The answers in words: ratios, crossover and exponents, each computed from the rows named in it."""
    ok = table[(table["status"] == "ok") & (table["height"] == table["width"])]
    modes = {mode: _rows(ok, model, mode) for mode in ("parallel", "recurrent")}
    other = _rows(ok, baseline, "parallel")
    lines = []
    for side in (1024, 2048):
        if side in modes["parallel"].index and side in other.index:
            mine, theirs = modes["parallel"].loc[side], other.loc[side]
            share = {column: mine[column] / theirs[column] for column in ("macs", "latency_ms", "peak_memory_bytes")}
            lines.append(
                f"At {side} px {model} needs {share['macs']:.2f}× the MACs, {share['latency_ms']:.2f}× the time and "
                f"{share['peak_memory_bytes']:.2f}× the peak memory of {baseline} (parallel mode, batch 1)."
            )
    for mode, mine in modes.items():
        if mine.empty or other.empty:
            continue
        faster = mine.index[(mine["latency_ms_hi"] < other["latency_ms_lo"].reindex(mine.index)).fillna(False)]
        last_slower = max((side for side in mine.index if side not in faster), default=0)
        since = [side for side in faster if side > last_slower]
        where = f"from {since[0]} px up" if since else f"nowhere up to {mine.index.max()} px"
        lines.append(f"{model} in {mode} mode is faster than {baseline} {where} (intervals apart).")
    for name, mine in ((f"{model}, parallel", modes["parallel"]), (baseline, other)):
        high = mine[mine.index >= 768]
        if len(high) < 2:
            continue
        grows = [
            f"{what} {_exponent(high, column):.2f}" for column, what in (("macs", "MACs"), ("latency_ms", "latency"))
        ]
        lines.append(f"Exponents in tokens from 768 px up, {name}: {', '.join(grows)}; 1 is linear, 2 quadratic.")
    return "\n".join(f"- {line}" for line in lines)


def _rows(ok: pd.DataFrame, model: str, mode: str) -> pd.DataFrame:
    return ok[(ok["model"] == model) & (ok["mode"] == mode)].set_index("height").sort_index()


def _exponent(rows: pd.DataFrame, column: str) -> float:
    """Least-squares slope of log cost against log tokens."""
    tokens = [log(value) for value in rows["tokens"]]
    return float(np.polyfit(tokens, [log(value) for value in rows[column]], 1)[0])


def spent(records: list[Record]) -> str:
    """How long the cells took, as a line of the findings."""
    cells = len({record.case_id for record in records})
    return f"- The {cells} cells took {sum(record.wall_s for record in records) / 60:.1f} minutes."


def fill(text: str, records: list[Record]) -> str:
    """The README with whatever stands between its markers made anew.

    Raises: ValueError if a marker is missing.
    """
    table = frame(records)
    text = between(text, "table", printed(table))
    return between(text, "findings", f"{findings(table)}\n{spent(records)}")


def between(text: str, name: str, made: str) -> str:
    """A page with `made` between its markers of that name. Raises: ValueError if one is missing."""
    begin, end = f"<!-- {name} -->\n", f"\n<!-- /{name} -->"
    before, found, rest = text.partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise ValueError(f"the page has no {begin.strip()} ... {end.strip()}")
    return before + begin + made + end + after


if __name__ == "__main__":
    folder, readme = Path(sys.argv[1]), Path(sys.argv[2])
    readme.write_text(fill(readme.read_text(encoding="utf-8"), read(folder)), encoding="utf-8")
