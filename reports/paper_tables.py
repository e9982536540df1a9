"""Tables for a paper, from a frame of records: several kinds, each with one grid for each setting."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd

from vbench.errors import UsageError
from vbench.files import write_text
from vbench.options import choices, shown
from vbench.reports import pairs, tables
from vbench.reports.fitting import ROOMS
from vbench.reports.grid import ABSENT, Block, Column, Grid, Row, TableCell, labelled, to_csv, to_markdown
from vbench.reports.labels import Labels
from vbench.reports.latex import to_latex
from vbench.reports.paper_cells import (
    COUNTED,
    GMACS,
    LATENCY,
    MEMORY,
    STATE,
    SUBJECT_COLUMNS,
    THROUGHPUT,
    TRAINED,
    Cells,
    Part,
    Quantity,
    brands,
    cell_of,
    cell_remarks,
    grid_of,
    groups,
    lines_of,
    listed,
    name_of,
    parts,
    prepared,
    sizes_of,
    subjects,
)
from vbench.results import scaling
from vbench.results.axes import SETTING, SUBJECT
from vbench.results.frame import rows_of
from vbench.results.models import attention_models
from vbench.results.ratios import ratio
from vbench.results.text import px

FORMATS = ("md", "tex", "csv")


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of table: the function that makes it, and in words the records that it needs."""

    make: Callable[[pd.DataFrame], list[Grid]]
    needs: str


def _words(*heads: str) -> Iterator[Column]:
    """Columns of words."""
    return (Column(head, number=False) for head in heads)


def resolution(table: pd.DataFrame) -> list[Grid]:
    """One row for each model and mode; at each size GMACs, latency and peak memory."""
    table = table[table["phase"] == "infer"]
    shown = table[table["shown"]]
    heads = {size: f"{px(*size)} px" for size in sizes_of(shown)}
    left = ", ".join(px(*size) for size in sizes_of(table[~table["shown"]]))
    also = [f"not shown: {left} px; --at names sizes"] if left else []
    costs = (GMACS, LATENCY, MEMORY)
    return [
        grid_of("Cost of an image", part, *_beside(part, ["class"], "size", heads, costs), also)
        for part in parts(shown)
    ]


def _beside(
    part: Part, blocks_by: Sequence[str], key: str, heads: Mapping[Any, str], quantities: Sequence[Quantity]
) -> tuple[tuple[Column, ...], list[Block]]:
    """Columns and blocks with one row for each subject: side by side the quantities at each value of `key`.

    `heads` has the head of each value.
    """
    columns = (*SUBJECT_COLUMNS, *(quantity.heading(head) for head in heads.values() for quantity in quantities))
    each = [(value, quantity) for value in heads for quantity in quantities]
    blocks = []
    for name, group in groups(part.rows, *blocks_by):
        lines = [(first, [of.get(value) for value, _ in each]) for first, of in subjects(group, key)]
        blocks.append(Block(lines_of(part, lines, [quantity for _, quantity in each]), name))
    return columns, blocks


def full(table: pd.DataFrame) -> list[Grid]:
    """One row for each cell: the table of a sweep."""
    return [replace(tables.full(table), title="All cells")]


def modes(table: pd.DataFrame) -> list[Grid]:
    """One row for each model and size: parallel beside recurrent mode, their ratios, and the recurrent state."""
    each = ("parallel", "recurrent")
    columns = (
        *_words("model"),
        Column("size (px)"),
        Column("forms: parallel, recurrent", number=False, spare=9),
        Column("one function", number=False, spare=7),
        *(Column(f"{mode} (ms)", "latency", interval=True) for mode in each),
        Column("ratio", "latency", interval=True),
        *(Column(f"{mode} (MiB)", "peak memory", spare=6) for mode in each),
        Column("ratio", "peak memory"),
        STATE.heading(),
    )
    also = [
        "ratio: recurrent over parallel, measured in turns where both were. Else its interval comes from those of "
        "both; if one of these has none, it has none",
        "state: what the recurrent mode carries, in closed form. One function: whether a check before the timing found "
        "that both modes compute the same function",
    ]
    grids = []
    table = table[(table["phase"] == "infer") & (table["status"] != "unsupported")]
    both = table.groupby("model")["mode"].transform("nunique") == len(each)
    if not both.all():
        also.append(f"not shown, as they have one mode here: {', '.join(table.loc[~both, 'model'].unique())}")
    for part in parts(table[both]):
        lines: list[Row] = []
        for _, group in groups(part.rows, "model", "size"):
            for one, other in product(*([cells for cells in group if cells["mode"] == mode] for mode in each)):
                lines.append(
                    (
                        TableCell(one["model"], notes=brands([one["flags"], other["flags"]])),
                        TableCell(px(*one["size"])),
                        TableCell(f"{one['form']}, {other['form']}"),
                        TableCell(_verified(one, other)),
                        *(cell_of(cells, LATENCY) for cells in (one, other)),
                        _ratio(one, other),
                        *(cell_of(cells, MEMORY) for cells in (one, other)),
                        _share(one, other),
                        cell_of(other, STATE),
                    )
                )
        if lines:
            grids.append(grid_of("Both modes", part, columns, [Block(tuple(lines))], also))
    return grids


def batch(table: pd.DataFrame) -> list[Grid]:
    """One row for each model, mode and size; images per second at each batch that was asked for."""
    table = table[table["phase"] == "infer"]
    asked = sorted(table["batch_asked"].unique(), key=lambda text: (not text.isdecimal(), text.zfill(9)))
    if len(asked) < 2:
        return []
    heads = {one: "batch of its own (knee)" if one == "knee" else f"batch {one}" for one in asked}
    also = ["the knee is the batch beyond which images/s gain less than 3 %; summary.csv has each row's"]
    grids = []
    for part in parts(table, [key for key in SETTING if key != "batch_asked"]):
        columns, blocks = _beside(part, ["size", "class"], "batch_asked", heads, [THROUGHPUT])
        grids.append(grid_of("Images a second at each batch", part, columns, blocks, also))
    return grids


def training(table: pd.DataFrame) -> list[Grid]:
    """One row for each model, mode and size: a training step, its three parts, and the parts of its memory."""
    also = [
        "step: forward, backward and AdamW's update, at the batch asked for; the three are timed apart as well",
        "images/s are those of steps; GMACs are not shown, as records hold those of a forward pass",
    ]
    return [listed("A training step", part, TRAINED, also) for part in parts(table[table["phase"] == "train"])]


def work(table: pd.DataFrame) -> list[Grid]:
    """One row for each model, mode, form and size: MACs by three counts, FLOPs, traffic, state; of no device."""
    also = [
        "GMACs: multiply-accumulates of one image's forward pass that the algorithm needs / 10⁹; executed: what this "
        "form of it does; by hand: a closed form of the first; fvcore: a second counter, asked up to 2 GMACs",
        "GFLOPs executed = 2 · GMACs executed + pointwise work, one FLOP each. Papers often print GMACs under the name "
        "of GFLOPs",
        "least traffic: operands and results of all that has MACs, once, if pointwise work is fused; FLOP/byte: GFLOPs "
        "over it. State: what the recurrent mode carries",
    ]
    counted = table[table["macs"].notna()].drop_duplicates([*SUBJECT, "height", "width", "dtype"])
    return [listed("Work of an image", part, COUNTED, also) for part in parts(counted, ["dtype"])]


def exponents(table: pd.DataFrame) -> list[Grid]:
    """How each cost grows with the number of tokens, by `scaling.exponents`."""
    columns = (
        *_words("model", "mode", "cost"),
        Column("sizes", spare=8),
        Column("tokens", spare=9),
        Column("exponent", interval=True),
        Column("at the top", interval=True),
        *_words("verdict"),
    )
    also = [
        "exponent p: the cost grows as tokens to the power of p, fitted over all sizes; at the top: between the two "
        "largest. Of MACs, which are exact, the interval is the range over spans of a factor of 4",
        f"an exponent within {scaling.TOLERANCE:g} of 1 is taken as linear, of 2 as quadratic. Memory has no interval "
        "of its own: that of its exponent is from the scatter about the line",
    ]
    grids = []
    for part in parts(table):
        lines = tuple(_exponent(cells, part) for cells in rows_of(scaling.exponents(part.rows)))
        if lines:
            grids.append(grid_of("How costs grow", part, columns, [Block(lines)], [*also, *cell_remarks(part)]))
    return grids


def crossovers(table: pd.DataFrame) -> list[Grid]:
    """From which image size on a recurrent backbone or an attention baseline of like parameters costs less."""
    words = Column("in words", number=False, spare=9)
    columns = (*_words("cost", "cheaper", "than"), Column("from (px)", interval=True), words)
    also = ["pairs: a recurrent backbone and an attention baseline of like size; between sizes costs are power laws"]
    grids = []
    for part in parts(table):
        like = dict(zip(part.rows["model"], part.rows["class"], strict=True))
        attends = attention_models(part.rows)
        lines = []
        for cost in scaling.FITTED:
            for pair in rows_of(scaling.crossovers(part.rows, cost)):
                one, other = (pair[key].partition(" ")[0] for key in ("a", "b"))
                if like[one] == like[other] and (one in attends) != (other in attends):
                    lines.append(_crossing(pair, part.rows))
        if lines:
            said = [*also, *cell_remarks(part)]
            grids.append(grid_of("Who is cheaper from where", part, columns, [Block(tuple(lines))], said))
    return grids


KINDS: dict[str, Kind] = {
    "resolution": Kind(resolution, "inference; vbench sweep --suite resolution measures it"),
    "full": Kind(full, "a record; vbench sweep makes them"),
    "modes": Kind(modes, "a model in both modes; vbench sweep --suite modes measures them"),
    "batch": Kind(batch, "inference at several batches; vbench sweep --suite batch measures it"),
    "training": Kind(training, "training; vbench sweep --suite training measures it"),
    "work": Kind(work, "counted work; any vbench sweep counts it"),
    "scaling": Kind(exponents, "a model at two sizes; vbench sweep --suite resolution measures them"),
    "pairs": Kind(pairs.grids, "cells measured in turns; vbench sweep pairs recurrence with attention"),
    "crossovers": Kind(
        crossovers, "recurrence and attention of like size at two sizes; vbench sweep --suite resolution measures them"
    ),
}


def make(
    table: pd.DataFrame,
    what: str = "all",
    at: str | None = None,
    labels: Labels = Labels(),  # noqa: B008  # frozen
) -> tuple[dict[str, list[Grid]], list[str]]:
    """The tables of a frame by kind, and a line for each kind that these records lack data for.

    Args:
        what: names of `KINDS`, comma-separated, or "all".
        at: sizes as in --res; None for all, but `resolution` shows a few of them.
        labels: the names of models in the tables.

    Raises: UsageError for an unknown kind or size, for a named kind that cannot be made, or if no kind can be made.
    """
    named = choices(what, "--what", ("all", *KINDS))
    every = "all" in named
    names = tuple(KINDS) if every else named
    table = prepared(table, at)
    found = {name: KINDS[name].make(table) if len(table) else [] for name in names}
    lacking = [f"no table '{name}': the records lack {KINDS[name].needs}" for name, grids in found.items() if not grids]
    if lacking and (not every or not any(found.values())):
        raise UsageError(lacking[0])
    return {name: [labelled(grid, labels) for grid in grids] for name, grids in found.items() if grids}, lacking


def parse_formats(text: str) -> tuple[str, ...]:
    """ "md,tex" -> formats. Raises: UsageError."""
    return choices(text, "--format", FORMATS)


def parse_width(text: str) -> str:
    """The key of `ROOMS` that --width names. Raises: UsageError."""
    found = choices(text, "--width", tuple(ROOMS))
    if len(found) > 1:
        raise UsageError(f"--width: '{shown(text)}' names {len(found)} widths; give one of {', '.join(ROOMS)}")
    return found[0]


def render(made: dict[str, list[Grid]], form: str, width: str = "full") -> str:
    """All tables in one format, as one text; `width` is that of LaTeX, see `latex.to_latex`.

    Raises: UsageError for several tables in CSV.
    """
    if form == "csv":
        if len(made) > 1:
            raise UsageError(f"--format csv prints one table; name it by --what ({', '.join(made)}), or give -o FOLDER")
        return to_csv(next(iter(made.values())))
    if form == "tex":
        return "\n".join(to_latex(grids, f"vbench-{name}", width) for name, grids in made.items())
    return "\n".join(to_markdown(grids) for grids in made.values())


def write(made: dict[str, list[Grid]], formats: Iterable[str], folder: Path, width: str = "full") -> list[Path]:
    """Write files KIND.FORMAT, each whole or not at all. Raises: OutputError if the folder cannot be written."""
    texts = {folder / f"{name}.{form}": render({name: made[name]}, form, width) for name in made for form in formats}
    for path, text in texts.items():
        write_text(path, text)
    return list(texts)


def _verified(one: Cells, other: Cells) -> str:
    found = {one["verified"], other["verified"]}
    return "NO" if False in found else "yes" if True in found else "not tried"


def _ratio(one: Cells, other: Cells) -> TableCell:
    """The latency of `other` over that of `one`."""
    if None in (one["latency_ms"], other["latency_ms"]):
        return TableCell(ABSENT)
    found = ratio(other, one, "latency_ms")
    if found is None:
        return TableCell(ABSENT)
    return TableCell(found.figure, found.bounds or "(not known)", found.value, found.lo, found.hi)


def _share(one: Cells, other: Cells) -> TableCell:
    """The peak memory of `other` over that of `one`."""
    if None in (one["peak_memory_bytes"], other["peak_memory_bytes"]):
        return TableCell(ABSENT)
    share = other["peak_memory_bytes"] / one["peak_memory_bytes"]
    return TableCell(f"{share:.2f}", value=share)


def _exponent(cells: Cells, part: Part) -> Row:
    rows = part.rows
    flags = rows.loc[(rows["model"] == cells["model"]) & (rows["mode"] == cells["mode"]), "flags"]
    return (
        name_of(cells, brands(flags), part.several),
        TableCell(cells["mode"]),
        TableCell(scaling.COSTS[cells["cost"]]),
        TableCell(str(cells["points"]), value=cells["points"]),
        TableCell(f"{cells['tokens_lo']}–{cells['tokens_hi']}"),
        _slope(cells["exponent"], cells["exponent_lo"], cells["exponent_hi"]),
        _slope(cells["local_exponent"], cells["local_lo"], cells["local_hi"]),
        TableCell(cells["verdict"]),
    )


def _slope(value: float | None, lo: float | None, hi: float | None) -> TableCell:
    if value is None:
        return TableCell("not known")
    if lo is None or hi is None:
        return TableCell(f"{value:.2f}", "(not known)", value)
    return TableCell(f"{value:.2f}", f"({lo:.2f} to {hi:.2f})" if lo < hi else "", value, lo, hi)


def _crossing(pair: Cells, rows: pd.DataFrame) -> Row:
    names = [pair["a"], pair["b"]]
    noted = [brands(rows.loc[rows["model"] == name.partition(" ")[0], "flags"]) for name in names]
    at = TableCell(pair["verdict"])
    if pair["px"] is not None:
        at = TableCell(f"{pair['px']:.0f}", value=pair["px"], lo=pair["px_lo"], hi=pair["px_hi"])
    return (
        TableCell(scaling.COSTS[pair["cost"]]),
        *(TableCell(name, notes=notes) for name, notes in zip(names, noted, strict=True)),
        at,
        TableCell(pair["reading"].partition(f" than {pair['b']}: ")[2]),
    )
