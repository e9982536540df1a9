"""Cells that were measured in turns: their ratios of time as a table, and the few that the README shows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import pandas as pd

from vbench.reports import tables
from vbench.reports.grid import Block, Column, Grid, TableCell, escaped, pipes
from vbench.reports.paper_cells import grid_of, parts
from vbench.results.answers import pairs
from vbench.results.frame import rows_of
from vbench.results.models import is_attention
from vbench.results.ratios import Ratio, in_turns, turns_of
from vbench.results.text import px

COLUMNS = (
    Column("size (px)"),
    Column("above", number=False),
    Column("below", number=False),
    Column("ratio of times", interval=True),
    Column("blocks", spare=8),
    Column("rounds", spare=9),
)
ALSO = (
    "in turns: the processes of both cells take turns call by call, so that both meet the same disturbances; they swap "
    "places from block to block. ratio: the time of a call above over that below",
)


class Paired(NamedTuple):
    """Two rows of a frame that were measured in turns, and the time of the first over that of the second."""

    above: dict[str, Any]
    below: dict[str, Any]
    ratio: Ratio


def paired(table: pd.DataFrame) -> list[Paired]:
    """Every two cells of a frame that were measured in turns, once; a recurrent model stands above attention.

    A cell that the frame lacks is left out.
    """
    rows = rows_of(table.sort_values(["height", "width"], kind="stable"))
    cells = {(row["device_name"], row["case_id"]): row for row in rows}
    found: dict[frozenset[str], Paired] = {}
    for row in rows:
        for name, ratio in turns_of(row).items():
            other, both = (
                cells.get((row["device_name"], name)),
                frozenset((str(row["device_name"]), row["case_id"], name)),
            )
            if other is None or both in found:
                continue
            found[both] = Paired(row, other, ratio)
            if is_attention(row) and not is_attention(other):
                found[both] = Paired(other, row, ratio.inverse())
    return list(found.values())


def grids(table: pd.DataFrame) -> list[Grid]:
    """One row for every two cells that were measured in turns, small images first; a grid for each setting."""
    every = paired(table)
    made = []
    for part in parts(table):
        own = set(zip(part.rows["device_name"], part.rows["case_id"], strict=True))
        named = tables.naming(table)
        lines = tuple(_line(one, named) for one in every if (one.above["device_name"], one.above["case_id"]) in own)
        if lines:
            made.append(grid_of("Times in turns", part, COLUMNS, [Block(lines)], ALSO))
    return made


def _line(one: Paired, named: tables.Naming) -> tuple[TableCell, ...]:
    found = one.ratio
    sizes = list(dict.fromkeys(px(row["height"], row["width"]) for row in (one.above, one.below)))
    extent = "(not known)" if found.lo is None or found.hi is None else found.bounds
    return (
        TableCell(" over ".join(sizes)),
        *(TableCell(f"{tables.label(row, named)} {row['mode']}") for row in (one.above, one.below)),
        TableCell(found.figure, extent, found.value, found.lo, found.hi),
        *(
            TableCell(str(count), value=count) if count else TableCell("not known")
            for count in (found.blocks, found.rounds)
        ),
    )


def beside(table: pd.DataFrame, sides: Sequence[int]) -> str:
    """The ratios of time to attention that were measured in turns, at these sizes, in Markdown; empty without any."""
    lines = [line for line in _beside(table, sides) if any(line[1:])]
    if not lines:
        return ""
    heads = ["time of a call over attention's", *(f"{side} px" for side in sides)]
    said = "In turns, call by call; in parentheses: the 95 % interval. –: not measured in turns."
    return "\n".join([*pipes(heads, [[cell or "–" for cell in line] for line in lines], heads[1:]), "", said])


def _beside(table: pd.DataFrame, sides: Sequence[int]) -> Iterator[list[str]]:
    for pair in pairs(table):
        line = [escaped(f"{pair.subject} / {pair.baseline}{pair.under}")]
        for size in ((side, side) for side in sides):
            found = None
            if size in pair.mine.index and size in pair.theirs.index:
                found = in_turns(pair.mine.loc[[size]].iloc[0], pair.theirs.loc[[size]].iloc[0])
            line.append(" ".join(filter(None, [found.times, found.bounds])) if found else "")
        yield line
