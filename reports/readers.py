"""Tables in the words of somebody who reads the paper, and has never seen vbench or its command line."""

from __future__ import annotations

import re
from collections.abc import Container, Sequence
from dataclasses import replace
from typing import TypeVar

from vbench.reports.grid import ABSENT, Grid, Row, mapped
from vbench.reports.tables import NOTES
from vbench.results.axes import AXES

T = TypeVar("T")
INTERVAL, FLAGS = "95 % interval", "flags"  # heads of columns of the table of a sweep
COMMANDS = re.compile(  # what only a user of vbench knows: options, commands, columns and files of a run
    r"--[a-z]|'vbench |`\w+`|\b(summary\.csv|records\.jsonl)\b|\ba line below\b|\bunder policy\b"
)
STATUS = {"unsupported": "not supported", "oom": "out of memory", "timeout": "time-out", "error": "error"}
_FLAG = re.compile(rf"(?:are flagged )?\b({'|'.join(NOTES)}): ?")
_COLUMN = re.compile(rf"^rows differ in ({'|'.join(AXES)}):")


def for_reader(text: str) -> str:
    """A note without the words of the command line: a clause that has one is left out, a flag is told by its meaning.

    A note that is only such words keeps what stands before the first of them.
    """
    clauses = text.split("; ")
    kept = [clause for clause in clauses if not COMMANDS.search(clause)]
    text = "; ".join(kept) or COMMANDS.split(text)[0].rstrip(" ,;:(")
    status, colon, reason = text.partition(": ")
    if colon and status in STATUS:
        text = f"{STATUS[status]}: {reason}"
    text = _COLUMN.sub(lambda found: f"rows differ in {AXES[found[1]].label}:", text)
    return _FLAG.sub(lambda found: "have this note: " if found[0].startswith("are") else "", text).rstrip(" :")


def printed(grid: Grid) -> Grid:
    """A table in print: notes are `for_reader`; intervals and flags with columns of their own stand at their figure."""
    grid = _with_flags(_with_intervals(grid))
    grid = mapped(grid, lambda cell: replace(cell, notes=tuple(dict.fromkeys(map(for_reader, cell.notes)))))
    return replace(grid, caption=for_reader(grid.caption), remarks=tuple(filter(None, map(for_reader, grid.remarks))))


def without(grid: Grid, lost: Container[int]) -> Grid:
    """A table without the columns at these places."""

    def kept(cells: Sequence[T]) -> tuple[T, ...]:
        return tuple(cell for at, cell in enumerate(cells) if at not in lost)

    blocks = tuple(replace(block, rows=tuple(map(kept, block.rows))) for block in grid.blocks)
    return replace(grid, columns=kept(grid.columns), blocks=blocks)


def _with_intervals(grid: Grid) -> Grid:
    """The column of intervals as extents of the column before it."""
    heads = [column.head for column in grid.columns]
    if INTERVAL not in heads:
        return grid
    at = heads.index(INTERVAL)

    def joined(row: Row) -> Row:
        text = row[at].text.strip(ABSENT)
        extent = f"({text})" if text and not text.startswith("[") else text
        return (*row[: at - 1], replace(row[at - 1], extent=extent), *row[at:])

    blocks = tuple(replace(block, rows=tuple(map(joined, block.rows))) for block in grid.blocks)
    said = "In parentheses: the 95 % interval."
    return without(replace(grid, blocks=blocks, caption=f"{grid.caption} {said}"), {at})


def _with_flags(grid: Grid) -> Grid:
    """The column of flags as notes at the first cell of their row."""
    heads = [column.head for column in grid.columns]
    if FLAGS not in heads:
        return grid
    at = heads.index(FLAGS)

    def noted(row: Row) -> Row:
        notes = tuple(NOTES[flag] for flag in row[at].text.split() if flag in NOTES)
        return (replace(row[0], notes=(*row[0].notes, *notes)), *row[1:])

    blocks = tuple(replace(block, rows=tuple(map(noted, block.rows))) for block in grid.blocks)
    told = set(NOTES.values())
    return without(replace(grid, blocks=blocks, remarks=tuple(r for r in grid.remarks if r not in told)), {at})
