"""Facts as text: sizes, lists, tables for a terminal; and text from elsewhere, which every exit of vbench tames."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Container, Iterable, Mapping, Sequence
from math import isfinite
from typing import Any

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

UNSEEN = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u3164\uffa0]")  # letters and marks that show nothing


def px(height: int, width: int) -> str:
    """(512, 512) -> "512", (512, 1024) -> "512x1024"."""
    return f"{height}" if height == width else f"{height}x{width}"


def listed(parts: Sequence[str]) -> str:
    """ "a, b and c"."""
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def short(value: float) -> str:
    """Three significant digits, without a point at the end."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:#.3g}".rstrip(".")


def tame(text: object) -> str:
    """Any text on one line, as `visible` shows it."""
    return visible(" ".join(str(text).split()))


def visible(text: str) -> str:
    """The text with "�" for each character that nobody sees; "\\n" stays.

    These control a terminal, turn the direction of writing, have no width, or are forbidden in UTF-8 or in XML.
    """
    if text.isprintable() and (text.isascii() or not UNSEEN.search(text)):
        return text
    return "".join(c if c == "\n" or _seen(c) else "�" for c in text)


def _seen(c: str) -> bool:
    return (c.isprintable() and not UNSEEN.match(c)) or unicodedata.category(c) == "Zs"


def tamed(value: Any) -> Any:
    """A value for JSON: all its text is tame, and what is not finite is None."""
    if isinstance(value, Mapping):
        return {tame(key) if isinstance(key, str) else key: tamed(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [tamed(one) for one in value]
    if isinstance(value, float):
        return value if isfinite(value) else None
    return tame(value) if isinstance(value, str) else value


class TameTable(Table):
    """A table that shows texts as they are: tame, and never read as markup."""

    def add_row(self, *cells: RenderableType | None, **look: Any) -> None:
        super().add_row(*(Text(tame(cell)) if isinstance(cell, str) else cell for cell in cells), **look)


def bare_table(
    heads: Sequence[str], right: Container[str] = (), *, wrap: Container[str] = (), title: str | None = None
) -> Table:
    """An empty table without lines. Columns in `right` are flush right: their cells are numbers, and stay on one line.
    Of the others, cells of columns in `wrap` are wrapped.

    A cell that is a text is shown as it is; a head may have several lines.
    """
    named = None if title is None else Text(tame(title))
    table = TameTable(
        box=None, pad_edge=False, header_style="bold", title=named, title_justify="left", show_header=bool(heads)
    )
    for head in heads:
        number = head in right
        fixed = number or head not in wrap
        table.add_column(Text(visible(head)), justify="right" if number else "left", no_wrap=fixed)
    return table


def print_whole(
    table: Table, console: Console, below: Iterable[str] = (), *, spare: Sequence[str] = (), elsewhere: str = ""
) -> None:
    """Print a table, then dim lines. A narrow terminal leaves out columns, and wraps lines; no number is cut.

    Args:
        spare: the heads of columns that a terminal may leave out, the first one first. A line says which are.
        elsewhere: where these columns are found, after the words "left out".
    """
    left_out = []
    for head in spare if console.is_terminal else ():
        if _width(table) <= console.width:
            break
        column = next(each for each in table.columns if str(each.header) == head)
        table.columns.remove(column)
        left_out.append(head.replace("\n", " "))
    table.width = _width(table)
    console.print(table, soft_wrap=True)
    if left_out:
        below = [f"left out, the terminal is narrow: {', '.join(left_out)}; {elsewhere}", *below]
    for line in below:
        console.print(Text(tame(line)), style="dim")


def _width(table: Table) -> int:
    """The characters of a table's longest line."""
    return Console(width=1000).measure(table).maximum
