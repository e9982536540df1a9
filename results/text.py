"""Facts as text: sizes, lists, lines without control characters, and tables for a terminal."""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table


def px(height: int, width: int) -> str:
    """(512, 512) -> "512", (512, 1024) -> "512x1024"."""
    return f"{height}" if height == width else f"{height}x{width}"


def listed(parts: Sequence[str]) -> str:
    """ "a, b and c"."""
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def short(value: float) -> str:
    """Three significant digits, without a point at the end."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:#.3g}".rstrip(".")


def one_line(text: object) -> str:
    """Any text on one line, without characters that control a terminal."""
    return " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())


def bare_table(heads: Sequence[str], right: Container[str] = (), *, wrap: Container[str] = (), **look: Any) -> Table:
    """An empty table without lines. Columns in `right` are flush right; only cells of columns in `wrap` are wrapped."""
    table = Table(box=None, pad_edge=False, header_style="bold", **look)
    for head in heads:
        table.add_column(head, justify="right" if head in right else "left", no_wrap=head not in wrap)
    return table


def print_whole(table: Table, console: Console, below: Iterable[str] = ()) -> None:
    """Print a table, then dim lines. A narrow terminal wraps lines; no number is cut."""
    table.width = Console(width=1000).measure(table).maximum
    console.print(table, soft_wrap=True)
    for line in below:
        console.print(line, style="dim", markup=False)
