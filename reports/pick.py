"""The answer of `vbench pick`: for a terminal, as Markdown, CSV and JSON, and as a frame."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd
from rich.console import Console

from vbench.reports import grid
from vbench.reports.grid import Block, Column, Grid, TableCell
from vbench.results.accuracy import MeasuredAccuracy
from vbench.results.frame import COLUMNS
from vbench.results.pick import KINDS, Candidate, Pick, said_budget
from vbench.results.text import bare_table, print_whole, tame

METRICS = {"top1": "top-1", "top5": "top-5"}
TOLD = 8  # cells of one kind that sentences name
COPIED = (
    "model",
    "mode",
    "form",
    "height",
    "width",
    "batch",
    "dtype",
    "backend",
    "flags",
)  # columns of the frame of records
BEST, ALIKE, HOPEFUL, FRONT = "best", "not told apart", "better, if it fits", "front"


def sentences(found: Pick) -> list[str]:
    """The answer in words: the best, what cannot be told from it, what would be better, what is left out, and notes."""
    where, best = f"On {tame(found.device)}, {said_budget(found.budget)}", found.best
    lines = []
    if best is None:
        lines.append(f"{where}: nothing fits.")
    else:
        costs = ", ".join(f"{KINDS[option].words} {one} {KINDS[option].symbol}" for option, one in best.costs.items())
        sure = (
            ""
            if best.meets == "yes"
            else ". Whether it meets the budget is open: the limit lies within an interval, or that is not known"
        )
        top = f"{METRICS[found.metric]} {best.accuracy} ({best.accuracy.source})"
        lines.append(f"{where}: {best.name}, {top}, {costs}{sure}.")
        flags = str(best.row["flags"] or "").split()
        lines += [f"Its measurement is doubtful: {', '.join(flags)} (see docs/reference/columns.md)."] if flags else []
    lines += _some([f"Not told apart: {one.name}{_open(one)}: {why}." for one, why in found.alike])
    unsure = "More accurate, if it meets the budget, which is open"
    lines += _some([f"{unsure}: {one.name}, {one.accuracy}." for one in found.hopeful])
    lines += [f"Left out, {why}: {count} cell{'s' * (count != 1)} ({which})." for why, count, which in found.left_out]
    return [*lines, *found.notes]


def _some(lines: list[str]) -> list[str]:
    """The first lines, and how many more there are."""
    return lines if len(lines) <= TOLD else [*lines[:TOLD], f"... and {len(lines) - TOLD} more, in the table."]


def _open(one: Candidate) -> str:
    return " (meets the budget: open)" if one.meets == "open" else ""


def roles(found: Pick) -> dict[int, str]:
    """What each cell is to the answer, by `id` of the candidate. The others have no part in it."""
    part = {id(one): FRONT for one in found.front}
    part |= {id(one): HOPEFUL for one in found.hopeful}
    part |= {id(one): ALIKE for one, _ in found.alike}
    return part | ({id(found.best): BEST} if found.best else {})


def shown(found: Pick) -> list[tuple[str, Candidate]]:
    """The cells of the table with their roles: the best, those like it, those that may be better, then the front."""
    part, order = roles(found), (BEST, ALIKE, HOPEFUL, FRONT)
    rows = [(part[id(one)], one) for one in found.candidates if id(one) in part]
    return sorted(rows, key=lambda row: order.index(row[0]))


def to_grid(found: Pick, *, every: bool = False) -> Grid:
    """The rows of `shown`, or of every candidate with its case_id; the sentences are caption and remarks."""
    first, *rest = sentences(found)
    part = roles(found)
    rows = [(part.get(id(one), ""), one) for one in found.candidates] if every else shown(found)
    columns = (
        *(Column(head, number=False) for head in ("", "model")),
        Column("size (px)"),
        Column(f"{METRICS[found.metric]} (%)", interval=True),
        Column("accuracy", number=False),
        *(Column(f"{KINDS[o].words} ({KINDS[o].symbol})", interval=True) for o in found.budget),
        *(Column(head, number=False) for head in ("meets the budget", "on the front")),
        *([Column("case", number=False)] if every else []),
    )
    cells = [(*_cells(role, one), *([TableCell(str(one.row["case_id"]))] if every else [])) for role, one in rows]
    return Grid("", columns, (Block(tuple(cells)),), first, tuple(rest), {"device": found.device})


def _cells(role: str, one: Candidate) -> tuple[TableCell, ...]:
    top, measured = one.accuracy, one.accuracy.measured
    bounds = f"({top.lo:.2f}–{top.hi:.2f})" if measured else ""
    costs = []
    for of in one.costs.values():
        value, _, extent = str(of).partition(" ")
        known = of.lo is not None and of.hi is not None and of.lo < of.hi
        costs.append(TableCell(value, extent, of.value, of.lo if known else None, of.hi if known else None))
    return (
        TableCell(role, bold=role == BEST),
        TableCell(one.label, bold=role == BEST),
        TableCell(one.size),
        TableCell(top.text, bounds, top.value, top.lo if measured else None, top.hi if measured else None),
        TableCell(top.source),
        *costs,
        TableCell(one.meets),
        TableCell("yes" if one.front else ""),
    )


def show(answers: Sequence[Pick], console: Console) -> None:
    """Print the table of each device, then its sentences. No number is cut."""
    for found in answers:
        first, *rest = sentences(found)
        console.print(first, markup=False, soft_wrap=True)
        made = to_grid(found)
        if rows := made.blocks[0].rows:
            right = [column.head for column in made.columns if column.number]
            table = bare_table([column.head for column in made.columns], right)
            for row in rows:
                table.add_row(*(" ".join(filter(None, [cell.text, cell.extent])) for cell in row))
            print_whole(table, console)
        for line in rest:
            console.print(line, style="dim", markup=False, soft_wrap=True)


def to_markdown(answers: Sequence[Pick]) -> str:
    return grid.to_markdown([to_grid(found) for found in answers])


def to_csv(answers: Sequence[Pick]) -> str:
    """Every candidate of each device, with intervals in columns of their own."""
    return grid.to_csv([to_grid(found, every=True) for found in answers])


def rows(answers: Sequence[Pick]) -> Iterator[dict[str, Any]]:
    """A flat dict for each candidate of each device, those over the budget too."""
    for found in answers:
        part = roles(found)
        for one in found.candidates:
            of, measured = one.accuracy.of, one.accuracy.measured
            row = {key: one.row[key] for key in COPIED}
            row |= {"device_name": found.device, "label": one.label, "role": part.get(id(one)), "meets": one.meets}
            row |= {"front": one.front, "metric": found.metric, "accuracy": one.accuracy.value}
            ends = (one.accuracy.lo, one.accuracy.hi) if measured else (None, None)
            row |= dict(zip(("accuracy_lo", "accuracy_hi"), ends, strict=True))
            named = (
                f"{of.dataset}; {of.checkpoint}" if isinstance(of, MeasuredAccuracy) else f"{of.source}; {of.locator}"
            )
            row |= {"accuracy_is": one.accuracy.source, "accuracy_source": named}
            for option, cost in one.costs.items():
                row |= {
                    option: cost.value,
                    f"{option}_lo": cost.lo,
                    f"{option}_hi": cost.hi,
                    f"{option}_meets": cost.meets,
                }
            yield row | {"case_id": one.row["case_id"]}


def frame(answers: Sequence[Pick]) -> pd.DataFrame:
    """`rows` as a frame, the most accurate first; `attrs["answers"]` has the sentences of each device."""
    kinds = {name: COLUMNS[name] for name in COPIED} | {"device_name": "string", "label": "string", "role": "string"}
    kinds |= {"meets": "string", "front": "boolean", "metric": "string"}
    kinds |= {f"accuracy{end}": "Float64" for end in ("", "_lo", "_hi")}
    kinds |= {"accuracy_is": "string", "accuracy_source": "string"}
    for option in answers[0].budget if answers else ():
        kinds |= {f"{option}{end}": "Float64" for end in ("", "_lo", "_hi")} | {f"{option}_meets": "string"}
    kinds |= {"case_id": "string"}
    table = pd.DataFrame(list(rows(answers)), columns=list(kinds)).astype(kinds)
    table.attrs["answers"] = {found.device: sentences(found) for found in answers}
    return table


def to_json(answers: Sequence[Pick]) -> list[dict[str, Any]]:
    """JSON-able: for each device its budget, the best cell, what is left out, the sentences, and all candidates."""
    return [
        {
            "device_name": found.device,
            "budget": dict(found.budget),
            "metric": found.metric,
            "best": found.best and found.best.row["case_id"],
            "not_told_apart": [{"case_id": one.row["case_id"], "why": why} for one, why in found.alike],
            "left_out": [{"why": why, "cells": count, "which": which} for why, count, which in found.left_out],
            "sentences": sentences(found),
            "candidates": list(rows([found])),
        }
        for found in answers
    ]
