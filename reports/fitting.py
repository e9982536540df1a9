"""Tables that fit the column of a paper, or its page: the same numbers in fewer columns and more lines.

The first of these that is narrow enough is taken:

1. smaller type, and intervals under their value;
2. sizes, or batches, one below the other, where they stood side by side;
3. a column whose cells are all equal becomes a remark;
4. long words are broken into lines;
5. columns are left out by `Column.spare`, and a remark names them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby
from typing import NamedTuple

from vbench.reports.grid import Block, Column, Grid, TableCell
from vbench.reports.readers import without
from vbench.reports.type_widths import RAISED, broken, points
from vbench.results.text import listed

SLACK = 1.0  # pt that stay free


@dataclass(frozen=True, slots=True)
class Room:
    """Where a table stands: its LaTeX environment, the length of its lines, and the least that this is, in pt."""

    environment: str
    length: str
    width: float


ROOMS = {  # the least of the article class on A4 and letter, IEEE and CVPR, at 10 pt in two columns
    "column": Room("table", r"\columnwidth", 221),
    "full": Room("table*", r"\textwidth", 452),
}
HEIGHT = 510  # pt of a page for one table; a higher one goes on in a second


@dataclass(frozen=True, slots=True)
class Setting:
    """How a table is set: its type in pt, whether intervals stand under their value, and where words are broken."""

    size: float
    small: float  # the type of intervals under their value, and of notes
    gap: float  # pt between columns
    stacked: bool = True
    wrap: float | None = None  # pt; None: words stay on one line


LARGE = Setting(8.0, 7.0, 6.0, stacked=False)
STACKED = replace(LARGE, stacked=True)
SMALL = Setting(7.0, 6.0, 5.0)
TIGHT = replace(SMALL, gap=4.0)
WRAPS = (90.0, 60.0)
LAST_WRAPS = (45.0, 30.0)


class Line(NamedTuple):
    """One line of a cell."""

    text: str
    extent: str = ""  # after the text, never bold
    mark: str = ""  # the letters of footnotes
    bold: bool = False
    small: bool = False


@dataclass(frozen=True)
class Fitted:
    """A table and how it is set; `width` is what it needs in pt."""

    grid: Grid
    setting: Setting

    @cached_property
    def marks(self) -> dict[str, str]:
        return self.grid.marks()

    @property
    def width(self) -> float:
        return sum(self.widths) + self.setting.gap * (len(self.grid.columns) - 1) + SLACK

    @cached_property
    def widths(self) -> list[float]:
        """The width of each column, in pt. The head of a group that is wider than its columns widens the last one."""
        grid, marks, size = self.grid, self.marks, self.setting.size
        rows = [row for block in grid.blocks for row in block.rows]
        found = []
        for at, column in enumerate(grid.columns):
            distinct = {row[at] for row in rows}
            cells = [self._line(line) for cell in distinct for line in lines(cell, column, self.setting, marks)]
            found.append(max([*cells, *(points(word, size) for word in column.head.split())], default=0.0))
        for name, first, last in groups(grid.columns):
            own = sum(found[first : last + 1]) + self.setting.gap * (last - first)
            found[last] += max(0.0, points(name, size) - own)
        return found

    def _line(self, line: Line) -> float:
        size = self.setting.small if line.small else self.setting.size
        width = points(line.text, size, bold=line.bold)
        width += points(f" {line.extent}", size) if line.extent else 0.0
        return width + points(line.mark, 6.0) * (size * RAISED / 6.0)


def fit(grid: Grid, room: Room) -> Fitted:
    """The first arrangement of a table that the room is wide enough for; the narrowest one if none is."""
    found = None
    for found in _arrangements(grid):
        if found.width <= room.width:
            return found
    assert found is not None
    return found


def lines(cell: TableCell, column: Column, setting: Setting, marks: Mapping[str, str]) -> list[Line]:
    """A cell in lines, the first one on top."""
    mark = ",".join(marks[note] for note in cell.notes)
    if cell.extent and setting.stacked:
        extent = cell.extent
        bare = extent[1:-1] if extent.startswith("(") and cell.lo is not None else extent
        below = [bare] if setting.wrap is None else broken(bare, setting.wrap, setting.small)
        return [Line(cell.text, mark=mark, bold=cell.bold), *(Line(text, small=True) for text in below)]
    if setting.wrap is None or column.number or cell.extent:
        return [Line(cell.text, cell.extent, mark, cell.bold)]
    *above, last = broken(cell.text, setting.wrap, setting.size)
    return [*(Line(text, bold=cell.bold) for text in above), Line(last, mark=mark, bold=cell.bold)]


def groups(columns: Sequence[Column]) -> Iterator[tuple[str, int, int]]:
    """Neighbours that share a second head: its name, and the places of the first and the last one."""
    at = 0
    for name, members in groupby(columns, key=lambda column: column.group):
        count = len(list(members))
        if name:
            yield name, at, at + count - 1
        at += count


def _arrangements(grid: Grid) -> Iterator[Fitted]:
    """From the widest to the narrowest; where several have equal numbers, the one that reads best comes first."""
    yield from (Fitted(grid, setting) for setting in (LARGE, STACKED, SMALL))
    if turned := _turned(grid):
        grid = turned
        yield from (Fitted(grid, setting) for setting in (LARGE, STACKED, SMALL))
    grid = _said_once(grid)
    yield from (Fitted(grid, setting) for setting in (STACKED, SMALL, TIGHT))
    yield from (Fitted(grid, replace(TIGHT, wrap=wrap)) for wrap in WRAPS)
    for narrower in _left_out(grid):
        grid = narrower
        yield Fitted(grid, replace(TIGHT, wrap=WRAPS[-1]))
    yield from (Fitted(grid, replace(TIGHT, wrap=wrap)) for wrap in LAST_WRAPS)


def _turned(grid: Grid) -> Grid | None:
    """A table with its groups of columns below each other, as blocks; None if it has no groups of equal heads."""
    found = list(groups(grid.columns))
    heads = [[column.head for column in grid.columns[first : last + 1]] for _, first, last in found]
    if len(found) < 2 or any(each != heads[0] for each in heads):
        return None
    before, after = grid.columns[: found[0][1]], grid.columns[found[-1][2] + 1 :]
    blocks = []
    for block in grid.blocks:
        for name, first, last in found:
            rows = tuple((*row[: len(before)], *row[first : last + 1], *row[found[-1][2] + 1 :]) for row in block.rows)
            blocks.append((name, Block(rows, ", ".join(filter(None, [name, block.name])))))
    order = [name for name, _, _ in found]
    inner = tuple(replace(column, group="") for column in grid.columns[found[0][1] : found[0][2] + 1])
    by_group = sorted(blocks, key=lambda each: order.index(each[0]))
    return replace(grid, columns=(*before, *inner, *after), blocks=tuple(block for _, block in by_group))


def _said_once(grid: Grid) -> Grid:
    """A table whose columns of one value, but for the first column, are a remark."""
    rows = [row for block in grid.blocks for row in block.rows]
    equal = {
        at: rows[0][at].text
        for at, column in enumerate(grid.columns)
        if at
        and not column.interval
        and len({(row[at].text, row[at].notes) for row in rows}) == 1
        and not rows[0][at].notes
    }
    if len(rows) < 2 or not equal:
        return grid
    said = "; ".join(f"{grid.columns[at].name}: {text}" for at, text in equal.items())
    return replace(without(grid, equal), remarks=(f"in all rows: {said}", *grid.remarks))


def _left_out(grid: Grid) -> Iterator[Grid]:
    """The table with one column after another left out, those of the greatest `spare` first."""
    order = sorted(
        (at for at, column in enumerate(grid.columns) if column.spare), key=lambda at: -grid.columns[at].spare
    )
    for count in range(1, len(order) + 1):
        gone = order[:count]
        said = f"not shown, as the table is narrow: {listed([grid.columns[at].name for at in gone])}"
        yield replace(without(grid, set(gone)), remarks=(*grid.remarks, said))
