"""The README's table and findings, from committed records: `python -P -m vbench.reports.readme DIR README.md`."""

from __future__ import annotations

import sys
from io import StringIO
from pathlib import Path

import pandas as pd
from rich.console import Console

from vbench.reports import tables
from vbench.results.answers import answers
from vbench.results.frame import frame
from vbench.results.store import Record, read

WIDTH = 132


def printed(table: pd.DataFrame) -> str:
    """What `vbench sweep` prints, as a fenced block."""
    text = StringIO()
    tables.show(table, Console(file=text, width=WIDTH, highlight=False))
    lines = [line.rstrip() for line in text.getvalue().splitlines()]
    return "```\n" + "\n".join(lines) + "\n```"


def findings(table: pd.DataFrame) -> str:
    """The answers in words, each computed from the rows named in it."""
    return "\n".join(f"- {answer.text}" for answer in answers(table))


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
