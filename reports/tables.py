"""The table of a sweep: the same cells for the terminal, for Markdown and for a spreadsheet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import pandas as pd
from rich.console import Console
from rich.table import Table

from vbench.reports import grid
from vbench.reports.grid import ABSENT, Block, Column, Grid, TableCell
from vbench.results.axes import AXES, SETTING, differing, said, unusual
from vbench.results.frame import apart, rows_of
from vbench.results.lint import unfair
from vbench.results.scaling import COSTS
from vbench.results.text import bare_table, print_whole, px

FIGURES = ("GMACs", "latency (ms)", "95 % interval", "images/s", "at batch", "peak memory (MiB)")
HEADER = ("model", "mode", "size (px)", "status", *FIGURES, "flags")
NUMBERS = ("size (px)", *FIGURES)
NOTES = {
    "modes_differ": "modes_differ: THE MODES OF THIS MODEL ARE NOT ONE FUNCTION; see 'vbench verify'",
    "caveat": "caveat: not what the family's paper describes; 'vbench models' says how",
    "few_samples": "few_samples: too slow for all launches; the interval speaks for one launch, or is the range",
    "unconverged": "unconverged: successive calls still differed when the warm-up's time was over",
    "throttled": "throttled: the device ran below its clock, or was held back by a quota",
    "contended": "contended: other processes took processor time from the measurement, or used its GPU",
    "host_bound": "host_bound: the device waited for the host; a CUDA graph or a larger batch would show its own speed",
    "drift": "drift: calls grew slower or faster while they were timed",
    "bimodal": "bimodal: calls take one of two times; the median stands for one of them",
    "outliers": "outliers: single calls far from the rest, all kept",
    "counters_disagree": "counters_disagree: the MAC counters differ by more than 1 %:",
    "uncounted": "uncounted: the model has work that the counter does not know; 'vbench flops --strict' names it",
    "padded": "padded: the model pads its image or maps at this size; `padding` in summary.csv says by how much",
    "cropped": "cropped: the model ignores what exceeds whole patches; `padding` in summary.csv says how much",
}


def rows(table: pd.DataFrame) -> list[tuple[str, ...]]:
    """One row of text a cell, under `HEADER`, without cells that cannot exist (see `absent`)."""
    named = naming(table)
    return [_row(cell, named) for cell in _cells(table) if cell["status"] != "unsupported"]


def absent(table: pd.DataFrame) -> list[str]:
    """One line for each reason why cells were not, or not wholly, measured: which, and why."""
    missing = table[table["status"] != "ok"]
    named = naming(table)
    return [
        f"{status}: {reason} ({_named(group, named)})"
        for (status, reason), group in missing.groupby(["status", "reason"], sort=False, dropna=False)
    ]


def without_work(table: pd.DataFrame) -> pd.DataFrame:
    """The cells that were measured and whose MACs are not known."""
    return table[(table["status"] == "ok") & table["macs"].isna()]


def uncounted(table: pd.DataFrame) -> list[str]:
    """One line for each reason why measured cells have no MACs: which, and why."""
    named = naming(table)
    return [
        f"no MACs: {reason if isinstance(reason, str) else 'no reason is recorded'} ({_named(group, named)})"
        for reason, group in without_work(table).groupby("reason", sort=False, dropna=False)
    ]


def _named(group: pd.DataFrame, naming: Naming) -> str:
    """The first three cells, and how many more there are."""
    cells = [f"{label(cell, naming)} {_where(cell)}" for cell in _cells(group)]
    return ", ".join(cells[:3]) + (f" and {len(cells) - 3} more" if len(cells) > 3 else "")


def caption(table: pd.DataFrame) -> str:
    """Under what conditions the table was measured, in words."""
    return (
        f"{_each(table, 'device_name')}; {_each(table, 'dtype')}; {_each(table, 'threads')} CPU thread(s); "
        f"{versions(table)}. "
        f"Latency: median of single calls{_at(table, 'latency_batch')}, of {_launches(table)}. Memory: peak above the "
        f"baseline{_at(table, 'memory_batch')}, weights and input included. GMACs: multiply-accumulates of one image's "
        "forward pass / 10⁹."
    )


def versions(table: pd.DataFrame) -> str:
    """What made the rows: "torch 2.11.0, timm 1.0.20, vbench 0.1.0 at commit 0123456789ab"."""
    made = ", ".join(f"{name} {_each(table, name)}" for name in ("torch", "timm", "vbench"))
    return f"{made} at commit {_each(table, 'commit')}"


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
    """The meaning of each flag that occurs."""
    used = {flag for flags in table["flags"].dropna() for flag in flags.split()}
    return [text for flag, text in NOTES.items() if flag in used]


def disagreements(table: pd.DataFrame) -> list[str]:
    """Which count of MACs disagrees with the ledger's by more than 1 %, and by how much: a line for each such row."""
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
    return lines


def remarks(table: pd.DataFrame) -> list[str]:
    """All that must be said with a table, beside its caption."""
    return [*notes(table), *disagreements(table), *unfair(table), *uncounted(table), *absent(table)]


def show(table: pd.DataFrame, console: Console) -> None:
    """Print the table and what must be said with it. A narrow terminal wraps lines; no figure is ever cut."""
    print_whole(to_rich(table), console, [caption(table), *remarks(table)])


def to_rich(table: pd.DataFrame) -> Table:
    """The rows for a terminal; print it by `show`."""
    out = bare_table([name.replace(" (", "\n(") for name in HEADER], [name.replace(" (", "\n(") for name in NUMBERS])
    for row in rows(table):
        out.add_row(*row)
    return out


def exponents_to_rich(found: pd.DataFrame) -> Table:
    """The rows of `scaling.exponents` for a terminal, with the settings in which they differ."""
    also = [*apart(found), *differing(found, SETTING)]
    numbers = ("sizes", "exponent", "interval", "at the top")
    out = bare_table(["model", "mode", *also, "cost", *numbers, "verdict"], numbers)
    for row in found.to_dict("records"):
        out.add_row(
            row["model"],
            row["mode"],
            *("" if pd.isna(row[key]) else str(row[key]) for key in also),
            COSTS[row["cost"]],
            str(row["points"]),
            f"{row['exponent']:.2f}",
            "" if pd.isna(row["exponent_lo"]) else f"{row['exponent_lo']:.2f}–{row['exponent_hi']:.2f}",
            "" if pd.isna(row["local_exponent"]) else f"{row['local_exponent']:.2f}",
            row["verdict"],
        )
    return out


def to_markdown(table: pd.DataFrame) -> str:
    return grid.to_markdown([full(table)])


def full(table: pd.DataFrame) -> Grid:
    """The rows and all that must be said with them, for paper."""
    columns = tuple(Column(name, number=name in NUMBERS) for name in HEADER)
    named = naming(table)
    found = []
    for cell in _cells(table):
        if cell["status"] != "unsupported":
            texts = dict(zip(HEADER, _row(cell, named), strict=True))
            found.append(tuple(_printed(name, text, cell) for name, text in texts.items()))
    return Grid("", columns, (Block(tuple(found)),), caption(table), tuple(remarks(table)))


_BEHIND = {  # what a figure is made of
    "GMACs": ("macs", 1e9),
    "latency (ms)": ("latency_ms", 1.0),
    "images/s": ("throughput_img_s", 1.0),
    "peak memory (MiB)": ("peak_memory_bytes", 2.0**20),
}


def _printed(name: str, text: str, cell: dict[str, Any]) -> TableCell:
    column, unit = _BEHIND.get(name, (None, 1.0))
    value = cell[column] / unit if column and text else None
    return TableCell(text or (ABSENT if name in NUMBERS else ""), value=value)


def _cells(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Cells as dicts with None for what is missing, models together, small images first."""
    settings = [key for key in SETTING if key in table]
    order = [*settings, "model", "attention", "mode", "form", "height", "width"]
    return rows_of(table.sort_values(order, kind="stable"))


def _row(cell: dict[str, Any], naming: Naming) -> tuple[str, ...]:
    interval = (
        "" if cell["latency_ms_lo"] is None else f"{figure(cell['latency_ms_lo'])}–{figure(cell['latency_ms_hi'])}"
    )
    return (
        label(cell, naming),
        cell["mode"],
        px(cell["height"], cell["width"]),
        cell["status"],
        figure(cell["macs"], 1e9),
        figure(cell["latency_ms"]),
        interval,
        figure(cell["throughput_img_s"]),
        "" if cell["throughput_img_s"] is None else str(cell["batch"]),
        figure(cell["peak_memory_bytes"], 2**20),
        cell["flags"] or "",
    )


def several_forms(table: pd.DataFrame) -> set[tuple[str, str]]:
    """(model, mode) of which the table has measured several forms, so that a row must say its own."""
    measured = table[table["status"] != "unsupported"]
    forms = measured.groupby(["model", "mode"])["form"].nunique().reset_index()
    several = forms[forms["form"] > 1]
    return set(zip(several["model"], several["mode"], strict=True))


class Naming(NamedTuple):
    """What rows of a table must say beside their model: (model, mode) with several forms, and settings that differ."""

    forms: set[tuple[str, str]] = set()  # noqa: RUF012  # never changed
    settings: Sequence[str] = ()


def naming(table: pd.DataFrame) -> Naming:
    """What the rows of this table must say; settings that have a usual value are said by `label` wherever unusual."""
    return Naming(several_forms(table), [key for key in differing(table, SETTING) if not AXES[key].usual])


def label(cell: dict[str, Any], naming: Naming = Naming()) -> str:  # noqa: B008
    """A row's model, its form where there are several, its settings where rows differ or they are unusual."""
    form = [cell["form"]] if cell["form"] and (cell["model"], cell["mode"]) in naming.forms else []
    settings = [said(key, cell[key]) for key in naming.settings if cell[key] is not None]
    return " ".join([cell["model"], *form, *settings, *unusual(cell)])


def _where(cell: dict[str, Any]) -> str:
    return f"{cell['mode']} {px(cell['height'], cell['width'])}"


def _short(commit: str) -> str:
    digest, _, changed = commit.partition("-")
    return digest[:12] + (" with changes" if changed else "")


def figure(value: float | None, unit: float = 1.0) -> str:
    """Four significant digits, with a thousands separator; empty if missing."""
    if value is None:
        return ""
    value = value / unit
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:#.4g}".rstrip(".")
