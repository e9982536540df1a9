"""A table as plain values, and the same table as Markdown, CSV and JSON. All text is tame, and escaped."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass, field, replace
from io import StringIO
from typing import Any

from vbench.reports.labels import Labels
from vbench.results.text import tame

ABSENT = "–"  # a missing number; the table says why
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
FORMULA = re.compile(r"(^|;\s*)(?=[=+\-@＝＋－＠])")  # where a spreadsheet starts to read one; ";" may end a cell
LEADS = re.compile(r"^(\d+(?=[.)]\s)|(?=#{1,6}\s|[+-]\s|[-=]{3}))")  # before what makes a line a heading or an item


@dataclass(frozen=True, slots=True)
class Column:
    """One column. `head` has the unit. Neighbours with the same `group` share a second head above them."""

    head: str
    group: str = ""
    number: bool = True  # flush right
    interval: bool = False  # in CSV, `lo` and `hi` of its cells are columns too
    spare: int = 0  # of those that a narrow table in print may leave out, the greatest goes first; 0: none may

    @property
    def name(self) -> str:
        """Group and head in one line."""
        return f"{self.group}: {self.head}" if self.group else self.head


@dataclass(frozen=True, slots=True)
class TableCell:
    """The printed text, and for CSV the numbers behind it in the unit of the column."""

    text: str
    extent: str = ""  # the interval as printed, never bold
    value: float | None = None
    lo: float | None = None
    hi: float | None = None
    bold: bool = False
    notes: tuple[str, ...] = ()  # whole sentences; each becomes one footnote of the table


Row = tuple[TableCell, ...]


@dataclass(frozen=True, slots=True)
class Block:
    """Rows that may be compared with each other, and their name. A table of one block needs no name."""

    rows: tuple[Row, ...]
    name: str = ""


@dataclass(frozen=True, slots=True)
class Grid:
    """A table. `settings` hold for all its rows; in CSV each one is a column."""

    title: str
    columns: tuple[Column, ...]
    blocks: tuple[Block, ...]
    caption: str
    remarks: tuple[str, ...] = ()
    settings: dict[str, str] = field(default_factory=dict)

    def marks(self) -> dict[str, str]:
        """Each footnote with its letter, in reading order: {note: "a"}."""
        found = dict.fromkeys(
            note for block in self.blocks for row in block.rows for cell in row for note in cell.notes
        )
        return {note: _letter(number) for number, note in enumerate(found)}


def labelled(grid: Grid, labels: Labels) -> Grid:
    """A table whose models have these names, wherever it names them."""
    if not labels.names:
        return grid

    def named(cell: TableCell) -> TableCell:
        return replace(cell, text=labels.within(cell.text), notes=tuple(map(labels.within, cell.notes)))

    title, caption = labels.within(grid.title), labels.within(grid.caption)
    remarks = tuple(map(labels.within, grid.remarks))
    return replace(mapped(grid, named), title=title, caption=caption, remarks=remarks)


def mapped(grid: Grid, change: Callable[[TableCell], TableCell]) -> Grid:
    """A table with each of its cells changed."""
    blocks = tuple(replace(block, rows=tuple(tuple(map(change, row)) for row in block.rows)) for block in grid.blocks)
    return replace(grid, blocks=blocks)


def to_markdown(grids: Sequence[Grid]) -> str:
    """The tables one after another, each with heading, caption, footnotes and remarks."""
    return "\n".join(_markdown(grid) for grid in grids)


def to_csv(grids: Sequence[Grid]) -> str:
    """One table of all grids, which must have the same columns and settings. Numbers are in full, with intervals.

    Columns: the settings, `group` (the block), those of the grid, and `notes`, the footnotes of the row.
    """
    columns, settings = grids[0].columns, list(grids[0].settings)
    heads = [name for c in columns for name in ([c.name, f"{c.name} lo", f"{c.name} hi"] if c.interval else [c.name])]
    rows = [[*settings, "group", *heads, "notes"]]
    for grid in grids:
        assert grid.columns == columns, "grids of one table have the same columns"
        assert list(grid.settings) == settings, "grids of one table have the same settings"
        for block in grid.blocks:
            for row in block.rows:
                cells = [part for c, cell in zip(columns, row, strict=True) for part in _plain_cells(c, cell)]
                notes = "; ".join(dict.fromkeys(note for cell in row for note in cell.notes))
                rows.append([*grid.settings.values(), block.name, *cells, notes])
    return csv_text(rows)


def to_json(grid: Grid) -> dict[str, Any]:
    """A table as one JSON-able dict: its settings, and a dict a row. A number is in full, in the unit of its column;
    where there is none, the text says why.

    Beside a number with an interval are its ends, "latency (ms) lo" and "latency (ms) hi". `block` is the name of the
    rows that may be compared with each other, `notes` are the footnotes of a row.
    """
    rows = []
    for block in grid.blocks:
        for row in block.rows:
            cells: dict[str, Any] = {}
            for column, cell in zip(grid.columns, row, strict=True):
                cells[column.name] = cell.value if cell.value is not None else cell.text or None
                if column.interval:
                    cells |= {f"{column.name} lo": cell.lo, f"{column.name} hi": cell.hi}
            notes = list(dict.fromkeys(note for cell in row for note in cell.notes))
            rows.append({"block": block.name, **cells, "notes": notes})
    about = {"caption": grid.caption, "remarks": list(grid.remarks)}
    return {"title": grid.title, "settings": grid.settings, "rows": rows, **about}


def csv_text(rows: Iterable[Iterable[str]]) -> str:
    """Rows as CSV with "\\n" line ends; their text is `inert`."""
    text = StringIO()
    csv.writer(text, lineterminator="\n").writerows(map(inert, row) for row in rows)
    return text.getvalue()


def _markdown(grid: Grid) -> str:
    lines, marks = [f"### {escaped(grid.title)}\n"] if grid.title else [], grid.marks()
    rows: list[list[str]] = []
    for block in grid.blocks:
        if block.name:
            rows.append([f"*{escaped(block.name)}*", *[""] * (len(grid.columns) - 1)])
        rows += [[_md_cell(cell, marks) for cell in row] for row in block.rows]
    right = [escaped(column.name) for column in grid.columns if column.number]
    lines += [*pipes([escaped(column.name) for column in grid.columns], rows, right), "", _paragraph(grid.caption)]
    lines += [f"\n- <sup>{mark}</sup> {escaped(note)}" for note, mark in marks.items()]
    lines += [f"\n- {_paragraph(line)}" for line in grid.remarks]
    return "\n".join(lines) + "\n"


def pipes(heads: Sequence[str], rows: Iterable[Sequence[str]], right: Container[str] = ()) -> list[str]:
    """The lines of a Markdown table. Cells must be escaped already. Columns in `right` are flush right."""
    first, *rest = ["| " + " | ".join(row) + " |" for row in [heads, *rows]]
    return [first, "|" + "".join(" ---: |" if head in right else " --- |" for head in heads), *rest]


def _md_cell(cell: TableCell, marks: dict[str, str]) -> str:
    text = f"**{escaped(cell.text)}**" if cell.bold else escaped(cell.text)
    mark = ",".join(marks[note] for note in cell.notes)
    return " ".join(filter(None, [text, escaped(cell.extent)])) + (f" <sup>{mark}</sup>" if mark else "")


def escaped(text: str) -> str:
    """Text that Markdown shows unchanged. An underscore within a word needs no escape."""
    text = tame(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*\[\]|~$]|(?<![^\W_])_|_(?![^\W_]))", r"\\\1", text)


def _paragraph(text: str) -> str:
    """Text that Markdown shows unchanged at the start of a line."""
    return LEADS.sub(r"\1\\", escaped(text))


def _plain_cells(column: Column, cell: TableCell) -> list[str]:
    if not column.interval:
        return [_number(cell.value) or cell.text]
    if cell.value is None:
        return [cell.text] * 3
    return [_number(end) or "not known" for end in (cell.value, cell.lo, cell.hi)]


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return str(int(value)) if float(value).is_integer() else repr(float(value))


def inert(text: str) -> str:
    """A tame text with an apostrophe before what a spreadsheet would read as a formula. Numbers stay as they are."""
    text = tame(text)
    return text if NUMBER.fullmatch(text) else FORMULA.sub(r"\1'", text)


def _letter(number: int) -> str:
    """0 -> "a", 25 -> "z", 26 -> "aa"."""
    letters = ""
    while number >= 0:
        letters = chr(ord("a") + number % 26) + letters
        number = number // 26 - 1
    return letters
