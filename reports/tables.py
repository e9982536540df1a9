"""The table of a sweep, one row for each cell: for a terminal and as a grid for files.

One file: the rows, what is said below them, and how both are named.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple

import pandas as pd
from rich.console import Console
from rich.table import Table

from vbench.reports import grid
from vbench.reports.grid import ABSENT, Block, Column, Grid, TableCell
from vbench.reports.labels import Labels
from vbench.results import rates
from vbench.results.axes import AXES, PARTS, SETTING, SUBJECT, differing, said, unusual
from vbench.results.frame import STATED, rows_of
from vbench.results.lint import unfair
from vbench.results.statistics import CONFIDENCE
from vbench.results.text import bare_table, print_whole, px

FIGURES = ("GMACs", "latency (ms)", "95 % interval", "images/s", "at batch", "peak memory (MiB)")
HEADER = ("model", "mode", "size (px)", "status", *FIGURES, "flags")
NUMBERS = ("size (px)", *FIGURES)
SPARE = ("at batch", "images/s", "GMACs", "status")  # what a narrow terminal leaves out; remarks name what is not ok
NOTES = {
    "modes_differ": "modes_differ: THE MODES OF THIS MODEL DO NOT COMPUTE THE SAME FUNCTION; see 'vbench verify'",
    "nonfinite": "nonfinite: TIMED CALLS RETURNED NUMBERS THAT ARE NOT FINITE; `outputs` in records.jsonl says more",
    "output_differs": "output_differs: TIMED CALLS DID NOT RETURN WHAT THE MODEL COMPUTES; `outputs` says more",
    "impossible": "impossible: CALLS TOOK LESS TIME THAN THIS DEVICE NEEDS FOR THEIR WORK; see `floor_ms`",
    "caveat": "caveat: not what the family's paper describes; 'vbench models' says how",
    "few_samples": "few_samples: too slow for a second launch, or too few samples; the interval takes the scatter of "
    "the run's other cells, covers one launch, or is missing",
    "unconverged": "unconverged: successive calls still differed at the end of the warm-up time",
    "throttled": "throttled: the device ran below its clock, or a quota held the process back",
    "contended": "contended: other processes took processor time from the measurement, or used its GPU",
    "side_by_side": "side_by_side: other sweeps, or other users' jobs, ran on this machine meanwhile; see --on",
    "host_bound": "host_bound: the device waited for the host; a CUDA graph or a larger batch shows its full speed",
    "more_threads": "more_threads: the model computed on more threads than the run has; see --threads",
    "background_threads": "background_threads: the model's code started threads; a line below names them",
    "settings_changed": "settings_changed: the model's code changed settings of its process; a line below says which",
    "drift": "drift: calls became slower or faster during the timing",
    "bimodal": "bimodal: calls take one of two times; the median is one of them",
    "outliers": "outliers: single calls are far from the rest; all are kept",
    "counters_disagree": "counters_disagree: the MAC counters differ by more than 1 %:",
    "uncounted": "uncounted: work of the model is not counted, or not all; `uncounted_reason` in summary.csv says why",
    "deployable": "deployable: the model is also deployed in a form with its branches or norms merged; --reparam yes "
    "measures that",
    "padded": "padded: the model pads its image or maps at this size; `padding` in summary.csv says by how much",
    "cropped": "cropped: the model ignores pixels beyond whole patches; `padding` in summary.csv says how many",
}
SPARES = {"GMACs": 1, "images/s": 8, "at batch": 9}  # as `Column.spare`, in print
PRINTED, WRITTEN = 500, 2_000  # rows that a terminal and `table.md` show at most; a summary has them all
LINES = 100  # of one kind, below a table
BRACKETS = "brackets: no interval, but the least and the greatest of n samples, too few for one"


def rows(table: pd.DataFrame, most: int | None = None) -> list[tuple[str, ...]]:
    """One row of text for each cell, under `header`. Unsupported cells are left out; `absent` tells them.

    `most`: how many rows there are at most; `cut` says how many are left out.
    """
    named, extra = naming(table), extras(table)
    return [_row(cell, named, extra) for cell in _supported(table, most)]


def extras(table: pd.DataFrame) -> dict[str, str]:
    """Columns that a table has if it knows them, {what they are called: column}, between the others and the flags."""
    found = {"images/J": "images_per_joule", rates.head(rates.rates_of(table)): rates.COST, "gCO₂/10⁶": rates.EMISSIONS}
    return {head: key for head, key in found.items() if key in table and table[key].notna().any()}


def header(table: pd.DataFrame) -> tuple[str, ...]:
    """What the columns of `rows` are called."""
    return (*HEADER[:-1], *extras(table), HEADER[-1])


def cut(table: pd.DataFrame, most: int) -> list[str]:
    """A line on the rows that are not shown, if there are more than `most`."""
    count = int((table["status"] != "unsupported").sum())
    return [f"the first {most:,} of {count:,} rows; summary.csv has them all"] if count > most else []


def absent(table: pd.DataFrame) -> list[str]:
    """One line for each reason why cells were not, or not fully, measured, with these cells."""
    missing = _what(table[table["status"] != "ok"], "status", "reason")
    named = naming(table)
    groups = islice(missing.groupby(["status", "reason"], sort=False, dropna=False), LINES)
    lines = [f"{status}: {reason} ({_named(group, named)})" for (status, reason), group in groups]
    left = len(missing.drop_duplicates(["status", "reason"])) - LINES if len(lines) == LINES else 0
    return [*lines, f"{left:,} more reasons; summary.csv has them all"] if left > 0 else lines


def damaged(table: pd.DataFrame) -> list[str]:
    """One line for each line of the runs' files that is no record (`frame.of_folders`); `LINES` of them at most."""
    return _first(list(table.attrs.get("damaged", ())))


def without_count(table: pd.DataFrame) -> pd.DataFrame:
    """The cells whose work is not counted, or not all of it."""
    return table[table["uncounted_reason"].notna()]


def uncounted(table: pd.DataFrame) -> list[str]:
    """One line for each reason why work is not counted, with the cells."""
    named = naming(table)
    lacking = _what(without_count(table), "uncounted_reason")
    return [f"{reason} ({_named(group, named)})" for reason, group in lacking.groupby("uncounted_reason", sort=False)]


def without_throughput(table: pd.DataFrame) -> list[str]:
    """One line for each reason why measured cells have no images/s, with these cells."""
    named = naming(table)
    measured = _what(table[(table["status"] == "ok") & table["throughput_reason"].notna()], "throughput_reason")
    return [
        f"no images/s: {reason} ({_named(group, named)})"
        for reason, group in measured.groupby("throughput_reason", sort=False)
    ]


def without_emissions(table: pd.DataFrame) -> list[str]:
    """One line for each reason why measured cells have no gCO₂ though a grid was named, with these cells."""
    named = naming(table)
    return [f"no gCO₂: {reason} ({_named(group, named)})" for reason, group in rates.why_none(table)]


def _what(table: pd.DataFrame, *why: str) -> pd.DataFrame:
    """The columns by which rows are named and sorted, and those that say why: a part is taken of them alone."""
    known = dict.fromkeys([*SETTING, *SUBJECT, "height", "width", *PARTS, *why])
    return table[[name for name in known if name in table]]


def _named(group: pd.DataFrame, naming: Naming) -> str:
    """The first three cells, and the number of the others."""
    cells = [f"{label(cell, naming)} {_where(cell)}" for cell in _cells(group, 3)]
    return ", ".join(cells) + (f" and {len(group) - 3} more" if len(group) > 3 else "")


def caption(table: pd.DataFrame) -> str:
    """The conditions under which the table was measured, in words."""
    return (
        f"{_each(table, 'device_name')}; {_each(table, 'dtype')}; {_each(table, 'threads')} CPU thread(s); "
        f"{versions(table)}. "
        f"Latency: median of single calls{_at(table, 'latency_batch')}, of {_launches(table)}. Memory: peak above the "
        f"baseline{_at(table, 'memory_batch')}, weights and input included. GMACs: multiply-accumulates of one image's "
        "forward pass / 10⁹."
    )


def versions(table: pd.DataFrame) -> str:
    """The versions behind the rows: "torch 2.11.0, timm 1.0.20, vbench 0.1.0 at commit 0123456789ab".

    Models of a user's own follow, each at the commit of its own checkout.
    """
    made = ", ".join(f"{name} {_each(table, name)}" for name in ("torch", "timm", "vbench"))
    own = table.loc[table["family"] == "external", ["model", "model_commit"]].drop_duplicates()
    named = [
        f"{model} at commit {_short(at)}" if isinstance(at, str) else f"{model}, not in git"
        for model, at in own.itertuples(index=False)
    ]
    return "; ".join([f"{made} at commit {_each(table, 'commit')}", *named])


def _each(table: pd.DataFrame, column: str) -> str:
    found = [str(value) for value in table[column].dropna().unique()]
    return ", ".join(_short(value) if column == "commit" else value for value in found) or "unknown"


def _at(table: pd.DataFrame, column: str) -> str:
    batches = table[column].dropna().unique()
    return f" at batch {batches[0]}" if len(batches) == 1 else ""


def _launches(table: pd.DataFrame) -> str:
    counts = sorted(table["latency_launches"].dropna().unique())
    if counts in ([], [1]):
        return "one process, whose own scatter the interval shows"
    return f"{counts[0]} to {counts[-1]} processes" if len(counts) > 1 else f"{counts[0]} processes"


def notes(table: pd.DataFrame) -> list[str]:
    """The meaning of brackets, if there are some, and of each flag in the table."""
    used = {flag for flags in table["flags"].dropna().unique() for flag in flags.split()}
    ranges = table[["latency_ms_lo", "latency_ms_hi", "latency_level", "latency_basis", "latency_samples"]]
    ranges = ranges[ranges["latency_ms_lo"].notna() & ranges["latency_ms_hi"].notna()].drop_duplicates(
        ["latency_level", "latency_basis"]
    )
    brackets = [BRACKETS] if any(extent(cell, "latency_ms").startswith("[") for cell in rows_of(ranges)) else []
    return brackets + [text for flag, text in NOTES.items() if flag in used]


def disagreements(table: pd.DataFrame) -> list[str]:
    """One line for each count of MACs that differs from the ledger's by more than 1 %; `LINES` of them at most."""
    votes = (("macs_fvcore", "macs_matmul", "fvcore"), ("macs_closed_form", "macs", "the closed form"))
    lines = []
    for cell in _cells(table[table["flags"].str.contains("counters_disagree", na=False)]):
        for vote, ledger, name in votes:
            known = cell[vote] is not None and cell[ledger] is not None
            if known and abs(cell[vote] - cell[ledger]) > 0.01 * cell[ledger]:
                lines.append(
                    f"{label(cell)} {_where(cell)}: {name} counts {figure(cell[vote], 1e9)} GMACs, "
                    f"the ledger {figure(cell[ledger], 1e9)}"
                )
    return _first(lines)


def _first(lines: list[str]) -> list[str]:
    """The first `LINES` lines, and one that says how many are left out."""
    return lines if len(lines) <= LINES else [*lines[:LINES], f"{len(lines) - LINES:,} more lines of this kind"]


def processes(table: pd.DataFrame) -> list[str]:
    """One line for each thing that code of models has made of their processes, with the cells."""
    named = naming(table)
    noted = _what(table[table["process_note"].notna()], "process_note")
    return [f"{note} ({_named(group, named)})" for note, group in noted.groupby("process_note", sort=False)]


def remarks(table: pd.DataFrame) -> list[str]:
    """All remarks that belong to a table, beside its caption."""
    return [
        *rates.conditions(table),
        *notes(table),
        *processes(table),
        *disagreements(table),
        *unfair(table),
        *uncounted(table),
        *without_throughput(table),
        *without_emissions(table),
        *absent(table),
        *damaged(table),
    ]


def nothing(table: pd.DataFrame) -> str | None:
    """A line that says that there is no row to show; None if there is one."""
    if table.empty:
        return "nothing was measured: there is no record yet"
    return None if (table["status"] != "unsupported").any() else "nothing was measured: no cell is supported"


class Below(NamedTuple):
    """What stands below a table. It is computed once for all places where the table is shown."""

    caption: str
    remarks: tuple[str, ...]


def below(table: pd.DataFrame) -> Below:
    """The caption and the remarks of a table."""
    return Below(caption(table), tuple(remarks(table)))


def show(table: pd.DataFrame, console: Console, told: Below | None = None, labels: Labels | None = None) -> None:
    """Print the table with its caption and remarks. A narrow terminal wraps lines; no number is cut.

    A table without rows is a line that says so, and the reasons.

    `told`: `below` of the table, if it is computed already. `labels`: the names of models that a reader is shown.
    """
    told, labels = told or below(table), labels or Labels()
    if empty := nothing(table):
        console.print(labels.within("\n".join([empty, *told.remarks])))
        return
    lines = map(labels.within, [*cut(table, PRINTED), told.caption, *told.remarks])
    print_whole(to_rich(table, labels), console, lines, spare=SPARE, elsewhere="the files of the run have them")


def to_rich(table: pd.DataFrame, labels: Labels | None = None) -> Table:
    """The rows for a terminal; `show` prints them. `labels`: as in `show`."""
    labels = labels or Labels()
    right = [name.replace(" (", "\n(") for name in (*NUMBERS, *extras(table))]
    out = bare_table([name.replace(" (", "\n(") for name in header(table)], right)
    for row in rows(table, PRINTED):
        out.add_row(*map(labels.within, row))
    return out


def to_markdown(table: pd.DataFrame, told: Below | None = None, labels: Labels | None = None) -> str:
    """The first `WRITTEN` rows with caption and remarks. `told`, `labels`: as in `show`."""
    return grid.to_markdown([grid.labelled(full(table, told), labels or Labels())])


def full(table: pd.DataFrame, told: Below | None = None) -> Grid:
    """The first `WRITTEN` rows with caption and remarks, as a grid. `told`: as in `show`."""
    extra, names = extras(table), header(table)
    columns = tuple(Column(name, number=name in NUMBERS or name in extra, spare=SPARES.get(name, 0)) for name in names)
    named = naming(table)
    found = []
    for cell in _supported(table, WRITTEN):
        texts = dict(zip(names, _row(cell, named, extra), strict=True))
        found.append(tuple(_printed(name, text, cell, extra) for name, text in texts.items()))
    told = told or below(table)
    return Grid("", columns, (Block(tuple(found)),), told.caption, (*cut(table, WRITTEN), *told.remarks))


_BEHIND = {  # column and unit of the number that is printed
    "GMACs": ("macs", 1e9),
    "latency (ms)": ("latency_ms", 1.0),
    "images/s": ("throughput_img_s", 1.0),
    "peak memory (MiB)": ("peak_memory_bytes", 2.0**20),
}


def _printed(name: str, text: str, cell: dict[str, Any], extra: Mapping[str, str]) -> TableCell:
    column, unit = _BEHIND.get(name, (extra.get(name), 1.0))
    value = cell[column] / unit if column and text else None
    return TableCell(text or (ABSENT if name in NUMBERS or name in extra else ""), value=value)


def _supported(table: pd.DataFrame, most: int | None) -> list[dict[str, Any]]:
    """The first cells that are not unsupported, as `_cells`."""
    return _cells(table[table["status"] != "unsupported"], most)


def _cells(table: pd.DataFrame, most: int | None = None) -> list[dict[str, Any]]:
    """The first cells as dicts with None for missing values, sorted by settings, model and size."""
    settings = [key for key in SETTING if key in table]
    order = [*settings, "model", "attention", "mode", "form", "height", "width"]
    keys = table[order].set_axis(range(len(table)))
    if most is not None:
        keys = _leading(keys, most)
    return rows_of(table.iloc[keys.sort_values(order, kind="stable").index[:most]])


def _leading(keys: pd.DataFrame, most: int) -> pd.DataFrame:
    """The rows among which are the first `most` in the order of all columns; mostly far fewer than all."""
    for name in keys:
        if len(keys) <= most:
            break
        counts = keys[name].value_counts(dropna=False).sort_index()
        first = counts.index[: int((counts.cumsum() < most).sum()) + 1]
        if first.isna().any():
            break
        keys = keys[keys[name].isin(first)]
        if len(first) > 1:
            break
    return keys


def _row(cell: dict[str, Any], naming: Naming, extra: Mapping[str, str]) -> tuple[str, ...]:
    return (
        label(cell, naming),
        cell["mode"],
        px(cell["height"], cell["width"]),
        cell["status"],
        figure(cell["macs"], 1e9),
        figure(cell["latency_ms"]),
        extent(cell, "latency_ms"),
        figure(cell["throughput_img_s"]),
        "" if cell["throughput_img_s"] is None else str(cell["batch"]),
        figure(cell["peak_memory_bytes"], 2**20),
        *(" ".join(filter(None, [figure(cell[key]), _within(cell, key)])) for key in extra.values()),
        cell["flags"] or "",
    )


def _within(cell: dict[str, Any], key: str) -> str:
    """The interval of a column of `extras` in brackets, if it has a known one."""
    known = key in STATED and stated(cell, key)
    return f"({extent(cell, key)})" if known else ""


def several_forms(table: pd.DataFrame) -> set[tuple[str, str]]:
    """Each (model, mode) with several forms in the table; its rows must name their form."""
    measured = table.loc[table["status"] != "unsupported", ["model", "mode", "form"]]
    forms = measured.groupby(["model", "mode"])["form"].nunique().reset_index()
    several = forms[forms["form"] > 1]
    return set(zip(several["model"], several["mode"], strict=True))


class Naming(NamedTuple):
    """What rows must name beside their model: forms, for these (model, mode), and these settings."""

    forms: set[tuple[str, str]] = set()  # noqa: RUF012  # never changed
    settings: Sequence[str] = ()


def naming(table: pd.DataFrame) -> Naming:
    """What the rows of this table must name. A setting with usual values is not listed: `label` names unusual ones."""
    return Naming(several_forms(table), [key for key in differing(table, SETTING) if not AXES[key].usual])


def label(cell: dict[str, Any], naming: Naming = Naming()) -> str:  # noqa: B008
    """The model of a row, with its form and settings as `naming` says, and with unusual settings."""
    form = [cell["form"]] if cell["form"] and (cell["model"], cell["mode"]) in naming.forms else []
    settings = [said(key, cell[key]) for key in naming.settings if cell[key] is not None]
    return " ".join([cell["model"], *form, *settings, *unusual(cell)])


def _where(cell: dict[str, Any]) -> str:
    return f"{cell['mode']} {px(cell['height'], cell['width'])}"


def _short(commit: str) -> str:
    digest, _, changed = commit.partition("-")
    return digest[:12] + (" with changes" if changed else "")


def figure(value: float | None, unit: float = 1.0) -> str:
    """Four significant digits, with a thousands separator; empty for None, "0" for what is nothing."""
    if not value:
        return "" if value is None else "0"
    value = value / unit
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:#.4g}".rstrip(".")


def span(low: float | None, high: float | None, unit: float = 1.0) -> str:
    """An interval as text, "1.234–5.678"; empty if an end is missing."""
    return "" if low is None or high is None else f"{figure(low, unit)}–{figure(high, unit)}"


def stated(cell: Mapping[str, Any], column: str) -> bool:
    """Whether a cell has a 95 % interval of a cost with an interval (a key of `frame.STATED`)."""
    level, basis, low = (cell[key] for key in (f"{STATED[column]}_level", f"{STATED[column]}_basis", f"{column}_lo"))
    return low is not None and level is not None and level >= CONFIDENCE and basis != "range"


def extent(cell: Mapping[str, Any], column: str, unit: float = 1.0) -> str:
    """The 95 % interval of a cost as text, "1.234–5.678"; else "[1.234–5.678, n=2]", the range of n samples.

    Empty if neither is known. `column` is a key of `frame.STATED`.
    """
    text = span(cell[f"{column}_lo"], cell[f"{column}_hi"], unit)
    return text if not text or stated(cell, column) else f"[{text}, n={cell[f'{STATED[column]}_samples']}]"
