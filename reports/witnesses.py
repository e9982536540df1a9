"""Our figures beside those that others published of the same device: for a terminal, as Markdown and on the page."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
from rich.console import Console

from vbench.reports.grid import Block, Column, Grid, TableCell
from vbench.reports.grid import to_markdown as markdown
from vbench.reports.labels import Labels
from vbench.results.beside import Beside, GrowthBeside, beside, grown, nearest, order
from vbench.results.text import bare_table, print_whole, short

TITLE = "Beside figures that others published"
ASKED = "Figures that others published of the same device, size, batch and precision: "
SHOWN = 200  # figures; a summary line counts the others
NUMBERS = ("size (px)", "batch", "ours", "theirs", "ours / theirs")
HEADER = ("model", "size (px)", "batch", "phase", "dtype", "quantity", *NUMBERS[2:], "note")
QUANTITIES = {
    "throughput_img_s": "images/s",
    "latency_ms": "ms a call",
    "peak_memory_mib": "peak memory (MiB)",
}


@dataclass(frozen=True, slots=True)
class Found:
    """What a report shows of witnesses: rows under `HEADER`, and lines below them. Both are empty without a match."""

    rows: tuple[tuple[str, ...], ...]
    lines: tuple[str, ...]

    @property
    def empty(self) -> bool:
        return not self.rows and not self.lines


def found(table: pd.DataFrame, *, asked: bool = False) -> Found:
    """What of a frame can be set beside published figures.

    Args:
        asked: without a match, say so in one line.
    """
    pairs, notes = beside(table), dict[str, int]()
    rows = tuple(_row(one, notes) for one in pairs[:SHOWN])
    lines = [f"[{number}] {note}" for note, number in notes.items()]
    lines += [f"{len(pairs) - SHOWN:,} more figures are not shown"] if len(pairs) > SHOWN else []
    lines += [_growth(under, own) for under, own in grown(table).items()]
    lines += [ASKED + nearest(table)] if asked and not rows else []
    return Found(rows, tuple(lines))


def _row(one: Beside, notes: dict[str, int]) -> tuple[str, ...]:
    theirs, known = one.witness, one.lo is not None and one.hi is not None
    extent = f" ({short(one.lo or 0.0)}–{short(one.hi or 0.0)})" if known else ""
    number = notes.setdefault(_note(one), len(notes) + 1)
    named = (theirs.model, str(theirs.res), str(one.batch), theirs.phase, one.dtype, QUANTITIES[theirs.quantity])
    return (*named, short(one.ours) + extent, short(theirs.value), f"{short(one.ratio)}×", f"[{number}]")


def _note(one: Beside) -> str:
    """The source, how it differs from ours ("theirs against ours"), and what it does not say."""
    parts = [one.witness.source]
    parts += [f"theirs against ours: {'; '.join(one.differs)}"] if one.differs else []
    parts += [f"not stated: {', '.join(one.unstated)}"] if one.unstated else []
    parts += ["; ".join(one.conditions)] if one.conditions else []
    return ". ".join(parts)


def _growth(under: str, own: list[GrowthBeside]) -> str:
    """The exponents of one group of models, as a check of sides and order."""
    each = []
    for one in own:
        extent = f" ({one.lo:.2f}–{one.hi:.2f})" if one.lo is not None and one.hi is not None else ""
        each.append(f"{one.theirs.model} {one.theirs.exponent:.2f} and {one.exponent:.2f}{extent}, {one.sides} sizes")
    least, largest = own[0].theirs.sides
    return (
        f"Exponents of time an image in tokens, in VMamba's Table 9 ({least} to {largest} px, an A100) and ours "
        f"({under}): {'; '.join(each)}. Order and side: {order(own)}."
    )


def show(table: pd.DataFrame, console: Console, labels: Labels | None = None, *, asked: bool = False) -> None:
    """Print them with these labels of models; without a match nothing, or one line if they were asked for."""
    there = _labelled(found(table, asked=asked), labels or Labels())
    if there.rows:
        console.print(f"\n{TITLE}")
        listing = bare_table(HEADER, NUMBERS)
        for row in there.rows:
            listing.add_row(*row)
        print_whole(listing, console, there.lines)
        return
    for line in there.lines:
        console.print(line, style="dim", markup=False, highlight=False)


def _labelled(there: Found, labels: Labels) -> Found:
    rows = tuple(tuple(map(labels.within, row)) for row in there.rows)
    return Found(rows, tuple(map(labels.within, there.lines)))


def to_markdown(table: pd.DataFrame, labels: Labels | None = None) -> str:
    """A section with the table and its lines, with these labels of models; empty without a match."""
    there = _labelled(found(table), labels or Labels())
    if there.empty:
        return ""
    if not there.rows:
        return "\n".join(["", f"### {TITLE}", *(f"\n- {line}" for line in there.lines)]) + "\n"
    columns = tuple(Column(head, number=head in NUMBERS) for head in HEADER)
    block = Block(tuple(tuple(map(TableCell, row)) for row in there.rows))
    caption = "vbench measured none of theirs. A ratio above 1 is faster for images/s, and larger for memory and time."
    return "\n" + markdown([Grid(TITLE, columns, (block,), caption, there.lines)])
