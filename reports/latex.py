"""Tables as LaTeX (booktabs) that fit the column of a paper or its page. All text is tame, and escaped."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from vbench.reports.fitting import HEIGHT, ROOMS, Fitted, Line, Room, fit, groups, lines
from vbench.reports.grid import Block, Column, Grid, Row
from vbench.reports.readers import printed
from vbench.reports.type_widths import broken, points
from vbench.results.text import tame

LEADING = 1.2  # the height of a line over its type
TITLE, RULE, APART = 30.0, 7.0, 1.5  # pt: a caption's title, the room about a rule, between rows of several lines
INLINE, UNDER = "In parentheses: the 95 % interval.", "Under a value: its 95 % interval."
NOTES = 7.0  # pt, the type of what stands below a table


class Note(NamedTuple):
    """A sentence below a table, and the letters of its footnote if it is one."""

    text: str
    mark: str = ""

    @property
    def tex(self) -> str:
        sentence = _breakable(self.text[:1].upper() + self.text[1:].rstrip(".") + ".")
        return (rf"\textsuperscript{{{self.mark}}}\," if self.mark else "") + sentence


class Part(NamedTuple):
    """What stands on one page: rows in their blocks, and notes."""

    blocks: list[Block]
    notes: list[Note]


def to_latex(grids: Sequence[Grid], label: str, width: str = "full") -> str:
    r"""The tables for a document with \usepackage{booktabs}; labelled "tab:LABEL", "tab:LABEL-2" ...

    Args:
        width: a key of `ROOMS`. "column" gives `table` environments that fit \columnwidth, "full" gives `table*`
            environments that fit \textwidth. A table that is higher than a page goes on in further ones.
    """
    room = ROOMS[width]
    head = "% made by vbench; needs \\usepackage{booktabs}, and \\usepackage[T1]{fontenc} under pdflatex\n"
    names = [f"tab:{label}" + (f"-{number}" if number > 1 else "") for number in range(1, len(grids) + 1)]
    fitted = [fit(printed(grid), room) for grid in grids]
    return head + "\n".join(text for one, name in zip(fitted, names, strict=True) for text in _tables(one, room, name))


def _tables(fitted: Fitted, room: Room, label: str) -> Iterator[str]:
    """The environments of one table."""
    for number, part in enumerate(_parts(fitted, room), start=1):
        title, own = fitted.grid.title, label
        if number > 1:
            title, own = f"{title} (continued)", f"{label}-part{number}"
        out = [
            rf"\begin{{{room.environment}}}[tp]",
            r"\centering",
            rf"\caption{{{_breakable(title)}}}",
            rf"\label{{{own}}}",
        ]
        if fitted.width > room.width:
            out.append(f"% about {fitted.width:.0f} pt wide; {room.length} may have only {room.width:g} pt")
        out += _tabular(fitted, part.blocks, room) if part.blocks else []
        if part.notes:
            out += ["", r"\smallskip", rf"\begin{{minipage}}{{{room.length}}}{_type(NOTES)}\raggedright"]
            out += [note.tex for note in part.notes]
            out += [r"\par\end{minipage}"]
        yield "\n".join([*out, rf"\end{{{room.environment}}}"]) + "\n"


def _parts(fitted: Fitted, room: Room) -> list[Part]:
    """A table in parts that are no higher than a page; notes stand below its last rows."""
    heading = TITLE + 3 * RULE + LEADING * fitted.setting.size * len(_heads(fitted))
    found, used = [Part([], [])], heading
    for block in fitted.grid.blocks:
        rest, named = list(block.rows), RULE + LEADING * fitted.setting.size * bool(block.name)
        whole = named + sum(_height(fitted, row) for row in rest)
        if used + whole > HEIGHT >= heading + whole:
            found, used = [*found, Part([], [])], heading
        while rest:
            used += named
            count = 0
            while count < len(rest) and (not count or used + _height(fitted, rest[count]) <= HEIGHT):
                used += _height(fitted, rest[count])
                count += 1
            found[-1].blocks.append(replace(block, rows=tuple(rest[:count])))
            rest = rest[count:]
            if rest:
                found, used = [*found, Part([], [])], heading
    for note in _notes(fitted):
        height = LEADING * NOTES * points(note.text + "  ", NOTES) / room.width
        if used + height > HEIGHT:
            found, used = [*found, Part([], [])], TITLE
        found[-1].notes.append(note)
        used += height
    return found


def _height(fitted: Fitted, row: Row) -> float:
    """The height of a row, in pt."""
    setting = fitted.setting
    of = zip(row, fitted.grid.columns, strict=True)
    most = max(len(lines(cell, column, setting, fitted.marks)) for cell, column in of)
    return LEADING * setting.size * most + (APART if most > 1 else 0.0)


def _notes(fitted: Fitted) -> list[Note]:
    """Footnotes, then the conditions, then remarks."""
    grid = fitted.grid
    feet = [Note(text, mark) for text, mark in fitted.marks.items()]
    caption = grid.caption.replace(INLINE, UNDER) if fitted.setting.stacked else grid.caption
    return [*feet, *(Note(text) for text in (caption, *grid.remarks) if text)]


def _type(size: float) -> str:
    return rf"\fontsize{{{size:g}}}{{{size * LEADING:.1f}}}\selectfont"


def _tabular(fitted: Fitted, blocks: Sequence[Block], room: Room) -> list[str]:
    """The rows of some blocks under the heads of the table."""
    grid, setting, marks = fitted.grid, fitted.setting, fitted.marks
    spec = "".join("r" if column.number else "l" for column in grid.columns)
    out = [_type(setting.size), rf"\setlength{{\tabcolsep}}{{{setting.gap / 2:g}pt}}"]
    out += [rf"\def\vbenchsmall{{{_type(setting.small)}}}"] if setting.stacked else []
    out += [rf"\begin{{tabular}}{{@{{}}{spec}@{{}}}}", r"\toprule"]
    out += [*_tex_groups(grid.columns), *_heads(fitted)]
    widest = min(room.width, max(fitted.width, 100.0))
    for block in blocks:
        out.append(r"\midrule")
        for name in broken(block.name, widest, setting.size) if block.name else []:
            out.append(rf"\multicolumn{{{len(spec)}}}{{@{{}}l@{{}}}}{{\emph{{{_tex(name)}}}}} \\")
        for row in block.rows:
            cells = [lines(cell, column, setting, marks) for cell, column in zip(row, grid.columns, strict=True)]
            out += _tex_lines([[_tex_line(line) for line in each] for each in cells])
    return [*out, r"\bottomrule", r"\end{tabular}"]


def _heads(fitted: Fitted) -> list[str]:
    """The heads of the columns, each in as many lines as its column's width asks for, the last one at the bottom."""
    size = fitted.setting.size
    cells = [
        [_tex(text) for text in broken(column.head, width + 0.1, size)]
        for column, width in zip(fitted.grid.columns, fitted.widths, strict=True)
    ]
    most = max(map(len, cells))
    return _tex_lines([[""] * (most - len(each)) + each for each in cells], apart="")


def _tex_groups(columns: Sequence[Column]) -> list[str]:
    """The line of group heads and the rules below it; empty if no column has a group."""
    found = {first: (name, last) for name, first, last in groups(columns)}
    if not found:
        return []
    heads, rules, at = [], [], 0
    while at < len(columns):
        name, last = found.get(at, ("", at))
        heads.append(rf"\multicolumn{{{last - at + 1}}}{{c}}{{{_tex(name)}}}" if name else "")
        rules += [rf"\cmidrule(lr){{{at + 1}-{last + 1}}}"] if name else []
        at = last + 1
    return [_tex_row(heads), " ".join(rules)]


def _tex_lines(cells: Sequence[Sequence[str]], apart: str = f"[{APART:g}pt]") -> list[str]:
    """Cells of several lines as rows below each other, and a little room after the last of several."""
    most = max(map(len, cells))
    rows = [_tex_row([each[at] if at < len(each) else "" for each in cells]) for at in range(most)]
    return rows if most == 1 else [*rows[:-1], rows[-1] + apart]


def _tex_row(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"


def _tex_line(line: Line) -> str:
    text = rf"\textbf{{{_tex(line.text)}}}" if line.bold else _tex(line.text)
    text = rf"{{\vbenchsmall {text}}}" if line.small else text
    mark = rf"\textsuperscript{{{line.mark}}}" if line.mark else ""
    return (f"{text} {_tex(line.extent)}" if line.extent else text) + mark


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
    **{c: rf"\textsuperscript{{{digit}}}" for c, digit in zip("⁶⁹", "69", strict=True)},
    "₂": r"\textsubscript{2}",
    "’": "'",
}


def _tex(text: str) -> str:
    """Text that LaTeX prints unchanged. Letters beyond Latin-1 have no glyph in its fonts and print as code points."""
    return "".join(_TEX.get(c) or _glyph(c) for c in re.sub("-(?=-)", "-\0", tame(text)))


def _breakable(text: str) -> str:
    """As `_tex`; LaTeX may break the line within a word of more than 60 pt, such as a path."""
    words = (r"\allowbreak{}".join(map(_tex, broken(word, 60.0, NOTES))) for word in tame(text).split(" "))
    return " ".join(words)


def _glyph(c: str) -> str:
    return c if c.isascii() or "À" <= c <= "ÿ" else f"{{[}}U+{ord(c):04X}{{]}}"
