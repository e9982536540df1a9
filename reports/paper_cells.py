"""The parts of tables for a paper: rows that share a setting, numbers with footnotes, and the best of a group."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import pandas as pd

from vbench.errors import UsageError
from vbench.plan import parse_sizes
from vbench.reports import tables
from vbench.reports.grid import ABSENT, Block, Column, Grid, Row, TableCell
from vbench.reports.tables import BRACKETS, NOTES, extent, figure, several_forms, span, stated
from vbench.results.axes import SETTING, SUBJECT, unusual
from vbench.results.frame import WRONG, batch_asked, rows_of
from vbench.results.lint import unfair
from vbench.results.models import is_attention, known_params
from vbench.results.text import px

PREFERRED_SIDES = (224, 512, 1024, 2048)  # px; shown if there are many sizes and the caller names none
SIDE_BY_SIDE = 4  # sizes that fit side by side on a page
LIKE_PARAMS = 1.5  # the parameters of models in one class differ at most by this factor
MEMORY_TIE = 0.01  # memory has no interval in a frame; values that differ by less than this share tie

BRANDS = (*WRONG, "caveat")  # flags of a model; it is then never the best
TIMING = (
    *("few_samples", "unconverged", "throttled", "contended", "side_by_side", "host_bound"),
    *("more_threads", "background_threads"),
    *("settings_changed", "drift", "bimodal", "outliers"),
)
WORK = ("counters_disagree", "uncounted", "deployable", "padded", "cropped")
DOUBTFUL = ("counters_disagree", "uncounted")  # flags of a count; it is then never the best
NO_VALUE = {"oom": "OOM", "timeout": "time-out", "error": "error", "unsupported": "n/a"}
ENDINGS = {"oom": "OOM", "timeout": "time-out", "unsupported": "n/a, not supported"}
BEST = (
    f"Bold: the best of its group, of models whose parameters differ by a factor of {LIKE_PARAMS:g} at most. "
    "Where intervals overlap that of the best, all of these tie and are bold; "
    f"where all tie, or one has no interval, none is. Memory has no interval, and ties within {100 * MEMORY_TIE:g} %."
)

Cells = dict[str, Any]  # a row of the frame, with None for a missing value
SUBJECT_COLUMNS = (Column("model", number=False), Column("mode", number=False), Column("params (M)", spare=2))


@dataclass(frozen=True, slots=True)
class Quantity:
    """How a column of the frame is printed, and which flags become footnotes."""

    column: str
    head: str
    unit: float = 1.0
    flags: tuple[str, ...] = ()
    interval: bool = False
    best: int = 0  # -1: the least is best; 1: the greatest; 0: none
    tie: float = 0.0  # values without an interval tie within this share
    without: str = ""  # only for counts: the text where there is none
    spare: int = 0  # as in `Column`

    def heading(self, group: str = "") -> Column:
        return Column(self.head, group, interval=self.interval, spare=self.spare)


GMACS = Quantity("macs", "GMACs", 1e9, WORK, best=-1, without="not counted", spare=1)
LATENCY = Quantity("latency_ms", "latency (ms)", 1, TIMING, interval=True, best=-1)
MEMORY = Quantity("peak_memory_bytes", "peak memory (MiB)", 2**20, best=-1, tie=MEMORY_TIE)
THROUGHPUT = Quantity("throughput_img_s", "images/s", 1, TIMING, interval=True, best=1)
STATE = Quantity("state_bytes", "state (KiB)", 2**10, without="not known", spare=3)
COUNTED = (
    GMACS,
    Quantity("macs_executed", "GMACs executed", 1e9, WORK, without="not counted"),
    Quantity("flops_total", "GFLOPs executed", 1e9, WORK, without="not known", spare=5),
    Quantity("macs_closed_form", "GMACs by hand", 1e9, without="no formula", spare=6),
    Quantity("macs_fvcore", "GMACs by fvcore", 1e9, without="not asked", spare=7),
    Quantity("flops_coverage", "ledger knows (%)", 0.01, without="not counted", spare=9),
    Quantity("bytes_min", "least traffic (MiB)", 2**20, without="not counted", spare=4),
    Quantity("intensity", "FLOP/byte", without="not known", spare=8),
    STATE,
)
TRAINED = (
    Quantity("latency_ms", "step (ms)", 1, TIMING, interval=True, best=-1),
    Quantity("forward_ms", "forward (ms)", spare=3),
    Quantity("backward_ms", "backward (ms)", spare=4),
    Quantity("update_ms", "update (ms)", spare=7),
    Quantity("throughput_img_s", "images/s", 1, TIMING, interval=True, best=1),
    MEMORY,
    Quantity("activation_bytes", "activations (MiB)", 2**20, spare=6),
    Quantity("gradients_bytes", "gradients (MiB)", 2**20, spare=8),
    Quantity("optimizer_bytes", "optimizer (MiB)", 2**20, spare=9),
)


def prepared(table: pd.DataFrame, at: str | None) -> pd.DataFrame:
    """The frame at these sizes, with four more columns.

    `batch_asked`; `size`, (height, width); `class`, the name of the class of models with like parameters; `shown`,
    whether the size is one of those that stand side by side.
    """
    table = table.copy()
    table["size"] = list(zip(table["height"].astype(int), table["width"].astype(int), strict=True))
    if at is not None:
        table = table[table["size"].isin(_sizes_named(table, at))].copy()
    infer = table[(table["phase"] == "infer") & (table["status"] != "unsupported")]
    table["shown"] = table["size"].isin(sizes_of(table) if at else _shown_sizes(sizes_of(infer)))
    table["batch_asked"] = batch_asked(table)
    table["class"] = table["model"].map(_classes(table))
    return table


def _sizes_named(table: pd.DataFrame, at: str) -> list[tuple[int, int]]:
    asked = parse_sizes(at, "--at")
    there = sizes_of(table)
    known = ", ".join(px(*size) for size in there) or "none"
    if missing := [size for size in asked if size not in there]:
        raise UsageError(f"--at: the records have no {px(*missing[0])} px; they have {known}")
    return list(asked)


def _classes(table: pd.DataFrame) -> dict[str, str]:
    """model -> the name of its class: models whose parameters at 224 px differ at most by `LIKE_PARAMS`."""
    known: dict[str, float] = {}
    for model, counts in table.groupby("model")["params"]:
        params = known_params(str(model)) or counts.min()
        if not pd.isna(params):
            known[str(model)] = params / 1e6
    found = dict.fromkeys(table["model"].unique(), "parameters not known")
    members: list[str] = []
    for model in sorted(known, key=lambda name: (known[name], name)):
        if members and known[model] > LIKE_PARAMS * known[members[0]]:
            members = []
        members.append(model)
        least, most = f"{known[members[0]]:.3g}", f"{known[model]:.3g}"
        found |= dict.fromkeys(members, f"{least} M parameters" if least == most else f"{least}–{most} M parameters")
    return found


@dataclass(frozen=True, slots=True)
class Part:
    """Rows of a frame that share a setting, and so may stand in one grid."""

    setting: dict[str, str]
    rows: pd.DataFrame
    several: set[tuple[str, str]]  # (model, mode) with several forms; their rows name the form
    lint: list[str]  # other differences between rows

    @property
    def comparable(self) -> bool:
        """Whether rows agree in all that must be equal; only then one may be the best."""
        return not any(line.startswith("rows differ in") for line in self.lint)


def parts(table: pd.DataFrame, by: Sequence[str] = SETTING) -> Iterator[Part]:
    """The parts of a frame that have at least one supported cell."""
    for values, rows in table.groupby(list(by), dropna=False, sort=False):
        if (rows["status"] != "unsupported").any():
            setting = dict(zip(by, map(_named, values), strict=True))
            yield Part(setting, rows, several_forms(rows), _lint(rows, counted="device_name" not in setting))


def _lint(rows: pd.DataFrame, *, counted: bool) -> list[str]:
    """`lint.unfair` without the columns that a grid shows itself. For counts only versions matter."""
    if counted:
        kept = ["status", "model", "height", "width", "padded_share", "padding", "torch", "timm", "vbench", "commit"]
        return unfair(rows[kept])
    return unfair(rows.drop(columns=["attention", "batch_policy", "throughput_img_s"]))


def _named(value: Any) -> str:
    return "not known" if pd.isna(value) else str(value)


def groups(rows: pd.DataFrame, *keys: str) -> Iterator[tuple[str, list[Cells]]]:
    """Cells with equal values of these keys, small ones first, and the name of the group.

    Subjects that are unsupported at every size, such as attention in recurrent mode, are left out.
    """

    def order(cells: Cells) -> tuple[Any, ...]:
        area = cells["size"][0] * cells["size"][1]
        return tuple(
            {"size": (area, cells["size"]), "class": least[cells["class"]], "model": cells["model"]}[key]
            for key in keys
        )

    cells = rows_of(rows[supported(rows)])
    least: dict[str, float] = {}
    for one in cells:
        least[one["class"]] = min(least.get(one["class"], float("inf")), _params(one) or float("inf"))
    for _, group in groupby(sorted(cells, key=order), key=lambda one: tuple(one[key] for key in keys)):
        members = list(group)
        yield ", ".join(px(*members[0][key]) + " px" if key == "size" else members[0][key] for key in keys), members


def supported(rows: pd.DataFrame) -> pd.Series[bool]:
    """Which rows have a model, mode, form and attention that is supported at one size at least."""
    able = rows["status"] != "unsupported"
    return able.groupby([rows[part] for part in SUBJECT], dropna=False).transform("any").astype(bool)


def subjects(group: list[Cells], key: str) -> list[tuple[Cells, dict[Hashable, Cells]]]:
    """Each model, mode, form and attention: its first cell, and all its cells by `key`."""
    found: dict[tuple[Any, ...], dict[Hashable, Cells]] = {}
    for cells in group:
        found.setdefault(tuple(cells[part] for part in SUBJECT), {})[cells[key]] = cells
    return [(next(iter(of.values())), of) for of in found.values()]


def sizes_of(table: pd.DataFrame) -> list[tuple[int, int]]:
    """Each size once, small ones first."""
    return sorted(table["size"].unique(), key=lambda size: (size[0] * size[1], size))


def _shown_sizes(sizes: Sequence[tuple[int, int]]) -> Sequence[tuple[int, int]]:
    """At most `SIDE_BY_SIDE` sizes: those of `PREFERRED_SIDES` if there are two, else some from small to large."""
    if len(sizes) <= SIDE_BY_SIDE:
        return sizes
    marks = [size for size in sizes if size[0] == size[1] and size[0] in PREFERRED_SIDES]
    if len(marks) > 1:
        return marks
    return [sizes[round(i * (len(sizes) - 1) / (SIDE_BY_SIDE - 1))] for i in range(SIDE_BY_SIDE)]


def _params(cells: Cells) -> float | None:
    """Parameters at 224 px; if they are not known, at the size of this cell."""
    return known_params(cells["model"]) or cells["params"]


def grid_of(
    title: str, part: Part, columns: tuple[Column, ...], blocks: Sequence[Block], also: Sequence[str] = ()
) -> Grid:
    """A grid with its title, caption and remarks."""
    cells = [cell for block in blocks for row in block.rows for cell in row]
    setting, rows = part.setting, part.rows
    remarks = [*also, *tables.disagreements(rows), *part.lint]
    if not part.comparable:
        remarks.append("nothing is bold, for rows differ in what must be equal")
    if any(cell.text == ABSENT for cell in cells):
        remarks.append(f"{ABSENT}: these records do not give it")
    remarks += tables.absent(rows[~supported(rows)])
    caption = tables.caption(rows) if "device_name" in setting else f"{setting['dtype']}; {tables.versions(rows)}."
    if any(column.interval for column in columns):
        caption += " In parentheses: the 95 % interval."
    if any(cell.bold for cell in cells):
        caption += f" {BEST}"
    rest = unusual(setting, [key for key in setting if key != "dtype"])
    threads = f"{setting['threads']} threads" if setting.get("threads", "1") != "1" else ""
    asked = setting.get("batch_asked", "knee")
    of = "batch" if setting.get("phase") == "train" else "images/s at batch"  # the batch changes only throughput
    batch = "" if asked == "knee" else f"{of} {asked}"
    under = [setting.get("device_name", ""), setting["dtype"], *rest, threads, batch]
    title = f"{title}: {', '.join(part for part in under if part)}"
    return Grid(title, columns, tuple(blocks), caption, tuple(remarks), setting)


def cell_remarks(part: Part) -> list[str]:
    """Remarks of a grid whose numbers come from many cells: how many cells have each flag, and which are missing."""
    flags = part.rows["flags"].str.split()
    lines = [
        f"{raised} of {len(flags)} cells are flagged {text.rstrip(':')}"
        for flag, text in NOTES.items()
        if flag not in BRANDS and (raised := sum(flag in each for each in flags))
    ]
    return lines + tables.absent(part.rows[supported(part.rows) & (part.rows["status"] != "ok")])


def listed(title: str, part: Part, quantities: Sequence[Quantity], also: Sequence[str]) -> Grid:
    """One row for each model, mode and size, in blocks of one size and one class."""
    columns = (*SUBJECT_COLUMNS, *(quantity.heading() for quantity in quantities))
    blocks = []
    for name, group in groups(part.rows, "size", "class"):
        lines = [(cells, [cells] * len(quantities)) for cells, _ in subjects(group, "size")]
        blocks.append(Block(lines_of(part, lines, quantities), name))
    return grid_of(title, part, columns, blocks, also)


def lines_of(
    part: Part, lines: Sequence[tuple[Cells, Sequence[Cells | None]]], quantities: Sequence[Quantity]
) -> tuple[Row, ...]:
    """Rows of a block: the subject, then each quantity of the cell at its place. The best are bold."""
    of = [[cell_of(cells, quantity) for cells, quantity in zip(line, quantities, strict=True)] for _, line in lines]
    for at, quantity in enumerate(quantities):
        rivals = {
            row: of[row][at]
            for row, (_, line) in enumerate(lines)
            if part.comparable and quantity.best and (cells := line[at]) and _contends(cells, quantity)
        }
        for row in _best(rivals, quantity):
            of[row][at] = replace(of[row][at], bold=True)
    return tuple(
        (*_subject(first, [cells for cells in line if cells], part.several), *row)
        for (first, line), row in zip(lines, of, strict=True)
    )


def _contends(cells: Cells, quantity: Quantity) -> bool:
    """Whether a value may be the best: it exists, its model has no brand, and a count has no doubt."""
    flags = cells["flags"].split()
    doubted = set(BRANDS) | (set(DOUBTFUL) if quantity.without else set())
    return cells[quantity.column] is not None and not doubted & set(flags)


def _best(rivals: dict[int, TableCell], quantity: Quantity) -> list[int]:
    """Rows tied for best (intervals overlap); empty if all tie, or if one has no interval where others have."""
    values = {row: cell.value * quantity.best for row, cell in rivals.items() if cell.value is not None}
    if len(values) < 2:
        return []
    if quantity.interval and any(rivals[row].lo is None for row in values):
        return []
    best = rivals[max(values, key=lambda row: values[row])]

    def ties(cell: TableCell) -> bool:
        if None not in (cell.lo, cell.hi, best.lo, best.hi):
            return cell.lo <= best.hi and best.lo <= cell.hi  # type: ignore[operator]
        return abs((cell.value or 0.0) - (best.value or 0.0)) <= quantity.tie * abs(best.value or 0.0)

    found = [row for row, cell in rivals.items() if ties(cell)]
    return found if len(found) < len(values) else []


def _subject(cells: Cells, all_of: list[Cells], several: set[tuple[str, str]]) -> Row:
    """Model, mode and parameters."""
    params = _params(cells)
    return (
        name_of(cells, brands(each["flags"] for each in all_of), several),
        TableCell(cells["mode"]),
        TableCell("not known") if params is None else TableCell(figure(params, 1e6), value=params / 1e6),
    )


def name_of(cells: Cells, notes: tuple[str, ...], several: set[tuple[str, str]]) -> TableCell:
    """The model, with its form if there are several, and its attention if it is not fused."""
    form = cells["form"] if (cells["model"], cells["mode"]) in several else None
    attention = cells["attention"] if cells["attention"] != "fused" else None
    return TableCell(" ".join(filter(None, [cells["model"], form, attention])), notes=notes)


def brands(flags: Iterable[str]) -> tuple[str, ...]:
    """The meaning of each brand among the flags of a model's cells."""
    found = {flag for text in flags for flag in text.split()}
    return tuple(NOTES[flag] for flag in BRANDS if flag in found)


def cell_of(cells: Cells | None, quantity: Quantity) -> TableCell:
    """A number with its interval and footnotes, or the reason why there is none."""
    if cells is None:
        return TableCell(ABSENT)
    value, status, reason = (cells[key] for key in (quantity.column, "status", "reason"))
    if value is None and quantity.without:
        without = "none" if quantity is STATE and is_attention(cells) else quantity.without
        why = cells["uncounted_reason"] if quantity.flags == WORK else None
        return TableCell(without, notes=(why,) if why else ())
    if value is None:
        said = ENDINGS.get(status, status)
        return TableCell("not known") if status == "ok" else TableCell(NO_VALUE[status], notes=(f"{said}: {reason}",))
    notes = [NOTES[flag].rstrip(":") for flag in quantity.flags if flag in cells["flags"].split()]
    if status == "ok" and reason and reason != cells["uncounted_reason"] and not quantity.without:
        notes.append(f"not every launch ended: {reason}")
    text, unit = figure(value, quantity.unit), quantity.unit
    if not quantity.interval:
        return TableCell(text, value=value / unit, notes=tuple(notes))
    lo, hi = (cells[f"{quantity.column}_{end}"] for end in ("lo", "hi"))
    if not stated(cells, quantity.column):
        notes += [BRACKETS] if lo is not None else []
        return TableCell(text, extent(cells, quantity.column, unit) or "(not known)", value / unit, notes=tuple(notes))
    return TableCell(text, f"({span(lo, hi, unit)})", value / unit, lo / unit, hi / unit, notes=tuple(notes))
