"""The README's small table and findings, and the page of all results, from committed records.

`python -P -m vbench.reports.readme DIR README.md docs/results.md` fills both between their markers.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from io import StringIO
from pathlib import Path

import pandas as pd
from rich.console import Console

from vbench.reports import tables
from vbench.results.answers import Answer, answers
from vbench.results.frame import frame
from vbench.results.scaling import COSTS
from vbench.results.store import Record, read

WIDTH = 110
SIDES = (224, 512, 1024, 2048)  # px; the rows of the small table
SHOWN = ("model", "mode", "size (px)", "GMACs", "latency (ms)", "95 % interval", "peak memory (MiB)", "flags")


def printed(table: pd.DataFrame) -> str:
    """Return what `vbench sweep` prints, as a fenced block."""
    text = StringIO()
    tables.show(table, Console(file=text, width=WIDTH, highlight=False))
    lines = [line.rstrip() for line in text.getvalue().splitlines()]
    return "```text\n" + "\n".join(lines) + "\n```"


def small(table: pd.DataFrame) -> str:
    """Return the few sizes and columns that the README shows, as Markdown, with what must be said of them."""
    few = table[(table["height"] == table["width"]) & table["height"].isin(SIDES)]
    places = [tables.HEADER.index(name) for name in SHOWN]
    rows = [[row[place] for place in places] for row in tables.rows(few)]
    rules = ["---:" if name in tables.NUMBERS else "---" for name in SHOWN]
    lines = ["| " + " | ".join(cells) + " |" for cells in (SHOWN, rules, *rows)]
    return "\n\n".join(["\n".join(lines), tables.caption(few), *tables.notes(few)])


def findings(table: pd.DataFrame) -> str:
    """Return all answers in words, each computed from the rows named in it."""
    return _items(answers(table))


def headline(table: pd.DataFrame) -> str:
    """Return the answers that the README shows: the ratios, and whatever is said of time alone."""
    time = COSTS["latency_ms"]
    return _items([one for one in answers(table) if one.kind == "ratio" or time in one.text])


def spent(records: list[Record]) -> str:
    """Return how long the cells took, as a line of the findings."""
    cells = len({record.case_id for record in records})
    return f"- The {cells} cells took {sum(record.wall_s for record in records) / 60:.1f} minutes."


def fill(text: str, records: list[Record]) -> str:
    """Return the README with new text between its markers; raise ValueError if a marker is missing."""
    table = frame(records)
    text = between(text, "table", small(table))
    return between(text, "findings", f"{headline(table)}\n{spent(records)}")


def fill_results(text: str, records: list[Record]) -> str:
    """Return the page of all results with new text between its markers; raise ValueError if a marker is missing."""
    table = frame(records)
    text = between(text, "table", printed(table))
    return between(text, "findings", f"{findings(table)}\n{spent(records)}")


def between(text: str, name: str, made: str) -> str:
    """Return a page with `made` between its markers of that name; raise ValueError if one is missing."""
    begin, end = f"<!-- {name} -->\n", f"\n<!-- /{name} -->"
    before, found, rest = text.partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise ValueError(f"the page has no {begin.strip()} ... {end.strip()}")
    return before + begin + made + end + after


def _items(found: Sequence[Answer]) -> str:
    return "\n".join(f"- {answer.text}" for answer in found)


if __name__ == "__main__":
    measured = read(Path(sys.argv[1]))
    for name, filled in zip(sys.argv[2:], (fill, fill_results), strict=True):
        page = Path(name)
        page.write_text(filled(page.read_text(encoding="utf-8"), measured), encoding="utf-8")
