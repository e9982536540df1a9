"""One self-contained page of several runs: answers, figures, rows, and how they were measured.

The page fetches nothing and runs only plotly.js and `page/page.js`: its policy names their digests. Text of a record is
escaped by the template, by `_json` inside a script, and by `plots` inside a hover. The first two also tame it.
"""

from __future__ import annotations

import hashlib
import json
from base64 import b64encode
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from operator import itemgetter
from pathlib import Path
from typing import Any, Literal

import pandas as pd
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

import vbench
from vbench.errors import UsageError
from vbench.files import is_file
from vbench.reports import plots, tables
from vbench.reports.series import few
from vbench.reports.tables import extent, figure
from vbench.results.answers import Answer
from vbench.results.axes import AXES, PARTS, differing
from vbench.results.code import own_code
from vbench.results.frame import frame, rows_of, uncounted
from vbench.results.lint import unfair
from vbench.results.models import attention_models, is_attention
from vbench.results.store import Record, TurnBlock, reading
from vbench.results.text import listed, px, tamed, visible

KINDS = {"ratio": "Against attention", "crossover": "Who is cheaper from where", "growth": "How its costs grow"}
MOST_ROWS = 2_000  # of the table in the page
UNFOLDED_MODELS = 3  # with more models, the answers on growth are folded away
SHAPES = {  # SVG paths of markers in the legend, around (20, 7)
    "circle": "M16 7a4 4 0 1 0 8 0a4 4 0 1 0-8 0z",
    "square": "M16 3h8v8h-8z",
    "triangle-up": "M20 2l5 9h-10z",
    "triangle-down": "M20 12l5-9h-10z",
    "diamond": "M20 2l5 5l-5 5l-5-5z",
    "triangle-left": "M15 7l9-5v10z",
    "triangle-right": "M25 7l-9-5v10z",
    "star": "M20 1.5l1.4 4h4.1l-3.3 2.5l1.3 4l-3.5-2.5l-3.5 2.5l1.3-4l-3.3-2.5h4.1z",
    "hexagon": "M20 2l4.3 2.5v5l-4.3 2.5l-4.3-2.5v-5z",
    "pentagon": "M20 2l4.8 3.5l-1.8 5.6h-6l-1.8-5.6z",
    "diamond-tall": "M20 1l3.5 6l-3.5 6l-3.5-6z",
    "cross": "M18.5 2h3v3.5h3.5v3h-3.5v3.5h-3v-3.5h-3.5v-3h3.5z",
    "x": "M16 5l2-2l2 2l2-2l2 2l-2 2l2 2l-2 2l-2-2l-2 2l-2-2l2-2z",
    "x-thin": "M16 4l1-1l3 3l3-3l1 1l-3 3l3 3l-1 1l-3-3l-3 3l-1-1l3-3z",
}
STROKES = {"solid": "", "dash": "6 4", "dot": "2 3", "dashdot": "7 3 2 3"}


@dataclass(frozen=True, slots=True)
class Run:
    """A folder of records, and its name on the page."""

    name: str
    records: list[Record]
    turns: Sequence[TurnBlock] = ()
    damaged: Sequence[str] = ()  # a line for each line of its files that is no record


def runs_of(folders: Sequence[Path]) -> list[Run]:
    """The records of each folder. Folders with the same name are shown by their paths.

    Raises: UsageError for a folder without records; SchemaError as `store.read`.
    """
    names = [folder.resolve().name for folder in folders]
    found = []
    for folder, name in zip(folders, names, strict=True):
        there = reading(folder) if is_file(folder / "records.jsonl") else None
        if there is None or not there.records:
            raise UsageError(f"{folder} has no records; give the --out folder of a sweep")
        named = name if names.count(name) == 1 else str(folder)
        found.append(Run(named, there.records, there.turns, tuple(map(str, there.damaged))))
    return found


def table_of(runs: Sequence[Run]) -> pd.DataFrame:
    """The frame of all records of the runs."""
    table = frame([record for run in runs for record in run.records], [block for run in runs for block in run.turns])
    if damaged := [line for run in runs for line in run.damaged]:
        table.attrs["damaged"] = damaged
    return table


def page(runs: Sequence[Run], table: pd.DataFrame, found: Sequence[Answer]) -> str:
    """The page as HTML; `table` is `table_of(runs)`, `found` its answers. The same records give the same text.

    Of many curves the first are drawn (`series.few`), of many rows the first are listed; the page says how many.
    """
    curves, cut = few(table)
    kept, drawn = _kept(runs), plots.plots(curves)
    shown, count = table.head(MOST_ROWS), len(table)
    cut += [f"The table has the first {MOST_ROWS:,} of {count:,} rows."] if count > MOST_ROWS else []
    models = list(table["model"].unique())
    script, plotly = _asset("page.js"), get_plotlyjs()
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, finalize=_tame
    )
    return environment.from_string(_asset("page.html")).render(
        policy=_policy(plotly, script),
        version=vbench.__version__,
        title=f"vbench: {', '.join(models[:4])}{f' and {len(models) - 4} more' if len(models) > 4 else ''}",
        lead=" ".join([_lead(runs, table), *cut]),
        conditions=tables.caption(table),
        css=Markup(_asset("page.css")),
        groups=_groups(found, attention_models(table)),
        absent=[*tables.absent(table), *tables.damaged(table)],
        keys=[_key(key) for key in plots.keys(curves)],
        plots=drawn,
        undrawn=plots.undrawn(table),
        statuses=sorted(table["status"].unique()),
        columns=_columns(runs, table),
        rows=_rows(runs, shown),
        notes=tables.notes(table),
        unfair=unfair(table),
        verified=_verified(kept),
        ledger=_ledger(kept),
        disagreements=tables.disagreements(table),
        runs=[{"name": run.name, "facts": _facts(run, runs)} for run in runs],
        data=Markup(_json({plot.key: plot.spec for plot in drawn})),
        plotly=Markup(plotly),
        script=Markup(script),
    )


def _asset(name: str) -> str:
    return (files("vbench.reports") / "page" / name).read_text(encoding="utf-8")


def _policy(*scripts: str) -> str:
    """A content security policy: no network, and only these scripts."""
    digests = " ".join(f"'sha256-{b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" for text in scripts)
    return (
        f"default-src 'none'; script-src {digests}; style-src 'unsafe-inline'; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )


def _tame(value: Any) -> Any:
    """What an expression of the template puts on the page; our own Markup stays."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _json(value: Any) -> str:
    """JSON for use inside a script element: ASCII, without characters that could end the element."""
    text = json.dumps(tamed(value), allow_nan=False, separators=(",", ":"))
    return text.replace("&", r"\u0026").replace("<", r"\u003c").replace(">", r"\u003e")


def _lead(runs: Sequence[Run], table: pd.DataFrame) -> str:
    counts = ", ".join(f"{count} {status}" for status, count in table["status"].value_counts().sort_index().items())
    sides = zip(table["height"], table["width"], strict=True)
    sizes = sorted({height * width: px(height, width) for height, width in sides}.items())
    span = f"{sizes[0][1]} to {sizes[-1][1]} px" if len(sizes) > 1 else f"{sizes[0][1]} px"
    models = table["model"].nunique()
    named = listed([run.name for run in runs])
    return f"{len(table)} cells ({counts}) of {models} model{'s'[: models > 1]}, {span}, from {named}."


def _groups(found: Sequence[Answer], attends: Container[str]) -> list[dict[str, Any]]:
    """The answers by model; those of attention models, `attends`, come last."""
    models = sorted(dict.fromkeys(answer.model for answer in found), key=lambda model: model in attends)
    return [
        {
            "model": model,
            "kinds": [
                {"title": title, "texts": texts, "folded": kind == "growth" and len(models) > UNFOLDED_MODELS}
                for kind, title in KINDS.items()
                if (texts := [answer.text for answer in found if (answer.model, answer.kind) == (model, kind)])
            ],
        }
        for model in models
    ]


def _key(key: plots.Key) -> dict[str, str]:
    return {"label": key.label, "colour": key.colour, "shape": SHAPES[key.symbol], "dashes": STROKES[key.dash]}


Row = dict[str, Any]  # of a frame, with None for a missing value


@dataclass(frozen=True, slots=True)
class PageColumn:
    """One column of the table of rows: the text of a row, and in a column of numbers the value for sorting."""

    name: str
    kind: Literal["text", "long", "number"]
    text: Callable[[Row], str]
    value: Callable[[Row], float | None] = lambda row: None


def _text(name: str, key: str, kind: Literal["text", "long", "number"] = "text") -> PageColumn:
    return PageColumn(name, kind, lambda row: "" if row[key] is None else str(row[key]))


def _number(name: str, key: str, unit: float = 1.0) -> PageColumn:
    return PageColumn(name, "number", lambda row: figure(row[key], unit), itemgetter(key))


def _columns(runs: Sequence[Run], table: pd.DataFrame) -> list[PageColumn]:
    """The columns. A setting is one if rows differ in it, energy if it was measured."""
    told = [_text(AXES[key].label, key) for key in differing(table, PARTS)]
    told += [_text("run", "run")] if len(runs) > 1 else []
    energy = [_number("J an image", "energy_j_per_image")] if table["energy_j_per_image"].notna().any() else []
    return [
        *(_text(key, key) for key in ("model", "mode", "form")),
        *told,
        PageColumn("size (px)", "number", lambda r: px(r["height"], r["width"]), lambda r: r["height"] * r["width"]),
        _text("status", "status"),
        _number("GMACs", "macs", 1e9),
        _number("latency (ms)", "latency_ms"),
        PageColumn("95 % interval", "number", lambda r: extent(r, "latency_ms"), itemgetter("latency_ms_lo")),
        _number("images/s", "throughput_img_s"),
        replace(_text("at batch", "batch", "number"), value=itemgetter("batch")),
        _number("peak memory (MiB)", "peak_memory_bytes", 2**20),
        *energy,
        _text("flags", "flags"),
        _text("reason", "reason", "long"),
        _text("case", "case_id"),
    ]


def _rows(runs: Sequence[Run], table: pd.DataFrame) -> list[dict[str, Any]]:
    columns, origin = _columns(runs, table), _origin(runs)
    found = []
    for row in rows_of(table):
        row["run"] = origin[str(row["device_name"]), str(row["case_id"])]
        cells = [{"kind": each.kind, "text": each.text(row), "value": each.value(row)} for each in columns]
        found.append({"status": row["status"], "cells": cells})
    return found


def _where(record: Record) -> tuple[str, str]:
    """The key of a cell, as in `frame`: device and case."""
    return str(record.host.get("device_name")), record.case_id


def _origin(runs: Sequence[Run]) -> dict[tuple[str, str], str]:
    """For each cell the run of its newest record."""
    return {_where(record): run.name for run in runs for record in run.records}


def _kept(runs: Sequence[Run]) -> list[Record]:
    """The newest record of each cell, sorted by model."""
    newest = {_where(record): record for run in runs for record in run.records}
    return [newest[key] for key in sorted(newest, key=lambda key: (newest[key].case["model"], key))]


def _verified(records: Sequence[Record]) -> list[tuple[str, ...]]:
    """One row for each model and verdict of the check before its cells were measured."""
    found: dict[tuple[str, ...], None] = {}
    for record in records:
        model, said = record.case["model"], record.verified
        if said is None:
            continue
        verdict, failed = "one function" if said.get("ok") else "THE MODES DIFFER", said.get("failed") or ["none"]
        found[model, verdict, str(said.get("checks", "not known")), "; ".join(map(str, failed))] = None
    there = {row[0] for row in found}
    untried = {record.case["model"]: is_attention(record.case) for record in records}
    for model in sorted(untried.keys() - there):
        found[model, "has one mode" if untried[model] else "not tried", "0", "none"] = None
    return sorted(found)


def _ledger(records: Sequence[Record]) -> list[tuple[str, ...]]:
    """One row for each model, mode and form: whether its MAC counts agree, and what is not counted."""
    groups: dict[str, list[Record]] = {}
    for record in records:
        if record.work or uncounted(record):
            case = record.case
            named = " ".join(part for part in (case["model"], case["mode"], case["form"]) if part)
            groups.setdefault(named, []).append(record)
    found: list[tuple[str, ...]] = []
    for named, group in sorted(groups.items()):
        works = [record.work for record in group if record.work]
        second = [record.second_count or {} for record in group if record.work]
        lost = sorted({uncounted(record) or "" for record in group if not record.work})
        unknown = sorted({str(op) for work in works for op in work.get("unknown") or {}})
        coverage = [work["coverage"] for work in works if work.get("coverage") is not None]
        by_hand = _votes([work.get("closed_form_agrees") for work in works], ["no formula for this model"])
        by_fvcore = _votes([count.get("agree") for count in second], [count.get("reason") for count in second])
        known = f"{min(coverage):.2%}" if coverage else "not recorded"
        lacks = ", ".join(unknown) or ("" if lost else "nothing")
        found.append((named, str(len(group)), by_hand, by_fvcore, "; ".join(filter(None, [lacks, *lost])), known))
    return found


def _votes(votes: Sequence[bool | None], reasons: Iterable[str | None]) -> str:
    """ "agrees at 3 of 3; 15 not asked (why)"."""
    asked = [vote for vote in votes if vote is not None]
    parts = [f"agrees at {sum(asked)} of {len(asked)}"] if asked else []
    if len(asked) < len(votes):
        why = "; ".join(dict.fromkeys(str(reason) for reason in reasons if reason))
        parts.append(f"{len(votes) - len(asked)} not asked" + (f" ({why})" if why else ""))
    return "; ".join(parts) or "not counted"


def _facts(run: Run, runs: Sequence[Run]) -> list[tuple[str, str]]:
    """On what a run was measured, and how busy the machine was."""
    records, origin = run.records, _origin(runs)
    hosts = [record.host for record in records]
    own = {_where(record) for record in records}
    shown = sum(origin[where] == run.name for where in own)
    states = [record.state for record in records if record.state]
    loads = [record.load["load_1min"] for record in records if record.load and "load_1min" in record.load]
    starts = sorted(record.started_at for record in records)
    again = f", of which {len(own) - shown} measured again in a later run" if shown < len(own) else ""
    commits = [(host["commit"], " with changes" * bool(host.get("dirty"))) for host in hosts if host.get("commit")]
    users = own_code(hosts)
    load = f"{min(loads):.2f} to {max(loads):.2f} runnable processes before a launch" if loads else ""
    facts = [
        ("cells", f"{len(own)}{again}"),
        ("launches", str(len(records))),
        ("measured", f"{starts[0]} to {starts[-1]}"),
        ("time that launches took", f"{sum(record.wall_s for record in records) / 60:.1f} minutes"),
        ("device", _distinct(host.get("device_name") for host in hosts)),
        ("processor", _distinct(f"{host['cpu']}, {host.get('cpu_count')} cores" for host in hosts if host.get("cpu"))),
        ("memory", _distinct(f"{host['ram_bytes'] / 2**30:.1f} GiB" for host in hosts if host.get("ram_bytes"))),
        ("GPU", _distinct(_pairs(host["gpu"]) for host in hosts if host.get("gpu")) or "none"),
        ("system", _distinct(host.get("os") for host in hosts)),
        ("versions", _distinct(_pairs(host.get("versions") or {}) for host in hosts)),
        ("commit", _distinct(map("".join, commits))),
        *([("models of users", "; ".join(users))] if users else []),
        ("conditions", _distinct(record.conditions for record in records)),
        ("protocol", _distinct(_pairs(record.protocol) for record in records)),
        ("load of the host", load),
        ("processors kept busy by others", _most(states, "others_busy_share")),
        ("processor time stolen", _most(states, "stolen_share")),
    ]
    return [(name, value or "not recorded") for name, value in facts]


def _distinct(values: Iterable[Any]) -> str:
    return "; ".join(dict.fromkeys(str(value) for value in values if value is not None))


def _pairs(facts: dict[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in facts.items())


def _most(states: Sequence[dict[str, Any]], key: str) -> str:
    known = [state[key] for state in states if state.get(key) is not None]
    return f"{max(known):.1%} at most" if known else ""
