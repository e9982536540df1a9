"""A table as plain values, and the same table as Markdown, LaTeX and CSV. All text is tame, and escaped."""

from __future__ import annotations

import csv
import re
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, field
from io import StringIO
from itertools import groupby

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


def to_markdown(grids: Sequence[Grid]) -> str:
    """The tables one after another, each with heading, caption, footnotes and remarks."""
    return "\n".join(_markdown(grid) for grid in grids)


def to_latex(grids: Sequence[Grid], label: str) -> str:
    r"""`table*` environments for a document with \usepackage{booktabs}; labelled "tab:LABEL", "tab:LABEL-2" ..."""
    head = "% made by vbench; needs \\usepackage{booktabs}, and \\usepackage[T1]{fontenc} under pdflatex\n"
    labels = [f"tab:{label}" + (f"-{number}" if number > 1 else "") for number in range(1, len(grids) + 1)]
    return head + "\n".join(_latex(grid, name) for grid, name in zip(grids, labels, strict=True))


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


def _latex(grid: Grid, label: str) -> str:
    count, marks = len(grid.columns), grid.marks()
    lines = [r"\begin{table*}[t]", r"\centering", r"\scriptsize", r"\setlength{\tabcolsep}{3pt}"]
    lines += [rf"\caption{{{_tex(grid.title)}}}", rf"\label{{{label}}}"]
    lines += [rf"\begin{{tabular}}{{@{{}}{''.join('r' if c.number else 'l' for c in grid.columns)}@{{}}}}", r"\toprule"]
    lines += _tex_groups(grid.columns)
    lines += [_tex_row([_tex(column.head) for column in grid.columns])]
    for block in grid.blocks:
        lines.append(r"\midrule")
        if block.name:
            lines.append(rf"\multicolumn{{{count}}}{{@{{}}l@{{}}}}{{\emph{{{_tex(block.name)}}}}} \\")
        lines += [_tex_row([_tex_cell(cell, marks) for cell in row]) for row in block.rows]
    lines += [r"\bottomrule", r"\end{tabular}", "", r"\smallskip", r"\begin{minipage}{\textwidth}\raggedright"]
    lines += [_tex(grid.caption) + r"\par"]
    lines += [rf"\textsuperscript{{{mark}}} {_tex(note)}\par" for note, mark in marks.items()]
    lines += [rf"{_tex(line)}\par" for line in grid.remarks]
    return "\n".join([*lines, r"\end{minipage}", r"\end{table*}"]) + "\n"


def _tex_groups(columns: Sequence[Column]) -> list[str]:
    """The line of group heads and the rules below it; empty if no column has a group."""
    if not any(column.group for column in columns):
        return []
    heads, rules, at = [], [], 1
    for name, members in groupby(columns, key=lambda column: column.group):
        width = len(list(members))
        if name:
            heads.append(rf"\multicolumn{{{width}}}{{c}}{{{_tex(name)}}}")
            rules.append(rf"\cmidrule(lr){{{at}-{at + width - 1}}}")
        else:
            heads += [""] * width
        at += width
    return [_tex_row(heads), " ".join(rules)]


def _tex_row(cells: list[str]) -> str:
    return " & ".join(cells) + r" \\"


def _tex_cell(cell: TableCell, marks: dict[str, str]) -> str:
    text = rf"\textbf{{{_tex(cell.text)}}}" if cell.bold else _tex(cell.text)
    mark = ",".join(marks[note] for note in cell.notes)
    return " ".join(filter(None, [text, _tex(cell.extent)])) + (rf"\textsuperscript{{{mark}}}" if mark else "")


_TEX = {
    "\\": r"\textbackslash{}",
    **{c: f"\\{c}" for c in "{}$&#_%"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "`": r"\textasciigrave{}",
    "[": "{[}",  # at the start of a row, LaTeX reads [ and * as options
    "]": "{]}",
    "*": "{*}",
    "\0": "{}",  # stands between two hyphens, which else become a dash
    "–": "--",
    "—": "---",
    "−": "$-$",
    "×": r"$\times$",
    "·": r"$\cdot$",
    "±": r"$\pm$",
    "≥": r"$\geq$",
    "≤": r"$\leq$",
    "→": r"$\to$",
    "…": r"\dots{}",
    "⁹": r"\textsuperscript{9}",
    "’": "'",
}


def _tex(text: str) -> str:
    """Text that LaTeX prints unchanged. Letters beyond Latin-1 have no glyph in its fonts and print as code points."""
    return "".join(_TEX.get(c) or _glyph(c) for c in re.sub("-(?=-)", "-\0", tame(text)))


def _glyph(c: str) -> str:
    return c if c.isascii() or "À" <= c <= "ÿ" else f"{{[}}U+{ord(c):04X}{{]}}"


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
