"""The small table and the findings of the README, and the page of all results, from committed records.

`python -P -m vbench.reports.readme DIR README.md docs/results.md` fills both pages between their markers.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from io import StringIO
from pathlib import Path

import pandas as pd
from rich.console import Console

from vbench.reports import tables
from vbench.reports.grid import pipes
from vbench.reports.write import filled
from vbench.results.answers import Answer, answers
from vbench.results.frame import frame
from vbench.results.scaling import COSTS
from vbench.results.store import Record, read

WIDTH = 110
SIDES = (224, 512, 1024, 2048)  # px; the rows of the small table
SHOWN = ("model", "mode", "size (px)", "GMACs", "latency (ms)", "95 % interval", "peak memory (MiB)", "flags")


def printed(table: pd.DataFrame) -> str:
    """What `vbench sweep` prints, as a fenced block."""
    text = StringIO()
    tables.show(table, Console(file=text, width=WIDTH, highlight=False))
    lines = [line.rstrip() for line in text.getvalue().splitlines()]
    return "```text\n" + "\n".join(lines) + "\n```"


def small(table: pd.DataFrame) -> str:
    """The sizes and columns that the README shows, in Markdown, with their caption and notes."""
    few = table[(table["height"] == table["width"]) & table["height"].isin(SIDES)]
    places = [tables.HEADER.index(name) for name in SHOWN]
    rows = [[row[place] for place in places] for row in tables.rows(few)]
    return "\n\n".join(["\n".join(pipes(SHOWN, rows, tables.NUMBERS)), tables.caption(few), *tables.notes(few)])


def findings(table: pd.DataFrame) -> str:
    """All answers in words, each computed from the rows that it names."""
    return _items(answers(table))


def headline(table: pd.DataFrame) -> str:
    """The answers that the README shows: the ratios, and the answers about time."""
    time = COSTS["latency_ms"]
    return _items([one for one in answers(table) if one.kind == "ratio" or time in one.text])


def spent(records: list[Record]) -> str:
    """How long the cells took, as a line of the findings."""
    cells = len({record.case_id for record in records})
    return f"- The {cells} cells took {sum(record.wall_s for record in records) / 60:.1f} minutes."


def fill(text: str, records: list[Record]) -> str:
    """The README with new text between its markers. Raises: ValueError if a marker is missing."""
    table = frame(records)
    text = filled(text, "table", small(table))
    return filled(text, "findings", f"{headline(table)}\n{spent(records)}")


def fill_results(text: str, records: list[Record]) -> str:
    """The page of all results with new text between its markers. Raises: ValueError if a marker is missing."""
    table = frame(records)
    text = filled(text, "table", printed(table))
    return filled(text, "findings", f"{findings(table)}\n{spent(records)}")


def _items(found: Sequence[Answer]) -> str:
    return "\n".join(f"- {answer.text}" for answer in found)


if __name__ == "__main__":
    measured = read(Path(sys.argv[1]))
    for name, make in zip(sys.argv[2:], (fill, fill_results), strict=True):
        page = Path(name)
        page.write_text(make(page.read_text(encoding="utf-8"), measured), encoding="utf-8")
