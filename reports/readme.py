"""The README's table and findings, from committed records: `python -P -m vbench.reports.readme DIR README.md`."""

from __future__ import annotations

import sys
from io import StringIO
from pathlib import Path

import pandas as pd
from rich.console import Console
from vbench.reports import tables
from vbench.results.frame import frame
from vbench.results.scaling import COSTS, crossover, exponents
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
    both = ok[ok["model"].isin([model, baseline])]
    for mode, mine in modes.items():
        if len(mine.index.intersection(other.index)) > 1:
            lines.append(f"{crossover(both, f'{model} {mode}', baseline).reading}.")
    for row in exponents(both, ("macs_executed", "latency_ms")).to_dict("records"):
        mode = f", {row['mode']}" if row["model"] == model else ""
        lines.append(f"{COSTS[row['cost']]} of {row['model']}{mode}: {row['reading']}.")
    return "\n".join(f"- {line}" for line in lines)


def _rows(ok: pd.DataFrame, model: str, mode: str) -> pd.DataFrame:
    return ok[(ok["model"] == model) & (ok["mode"] == mode)].set_index("height").sort_index()


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
