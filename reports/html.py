"""One self-contained page of several runs: answers, figures, rows, and how they were measured.

The page fetches nothing and runs only plotly.js and the scripts beside `page/page.html`: its policy has their digests.
Text of a record is escaped by the template, by `_json` inside a script, and by the scripts, which set text and no
markup; the first two also tame it.

Its figures are drawn by the basic bundle of plotly.js (`page/plotly-basic.min.js`, `make plotly` renews it): 1.2 MB,
a quarter of the whole. It has all that the page needs: logarithmic axes, hovers, interval bars, zoom by mouse and
finger, pictures as SVG. uPlot and Chart.js are smaller, but we would have to write half of that ourselves.
"""

from __future__ import annotations

import hashlib
import json
from base64 import b64encode
from collections.abc import Container, Sequence
from importlib.resources import files
from typing import Any

import pandas as pd
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

import vbench
from vbench.reports import panels, proofs, tables
from vbench.reports import witnesses as others
from vbench.reports.labels import Labels
from vbench.reports.payload import MOST_ROWS, payload
from vbench.reports.runs import Run, kept
from vbench.reports.series import few, series_of
from vbench.results import rates
from vbench.results.accuracy import MeasuredAccuracy
from vbench.results.answers import Answer
from vbench.results.lint import unfair
from vbench.results.models import attention_models
from vbench.results.text import listed, px, tamed, visible

KINDS = {
    "ratio": "Against attention",
    "crossover": "Who is cheaper from where",
    "growth": "How its costs grow",
    "accuracy": "Accuracy that differs from what is published",
}
UNFOLDED_TEXTS = 6  # of one kind and model; the others are folded away
UNFOLDED_MODELS = 3  # with more models, the answers on growth are folded away
SCRIPTS = (  # in the order in which they are read
    *("base", "data", "ratios", "filter", "state", "verdict", "look"),
    *("specs", "figures", "table", "detail", "compare", "main"),
)


def page(
    runs: Sequence[Run],
    table: pd.DataFrame,
    found: Sequence[Answer],
    accuracy: Sequence[MeasuredAccuracy] = (),
    *,
    witnesses: bool = False,
    labels: Labels | None = None,
) -> str:
    """The page as HTML; `table` is `runs.table_of(runs)`, `found` its answers. The same records give the same text.

    Args:
        accuracy: what was measured; drawn beside what is published.
        witnesses: say so if nobody published a figure to set beside these.
        labels: the names of models that a reader is shown.
    """
    shown = labels or Labels()
    data, records, models = payload(runs, table, accuracy, shown), kept(runs), list(table["model"].unique())
    named = [shown(model) for model in models]
    scripts = (_asset("plotly-basic.min.js"), script())
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, finalize=_tame
    )
    environment.filters["named"] = shown.within
    return environment.from_string(_asset("page.html")).render(
        policy=_policy(*scripts),
        version=vbench.__version__,
        title=f"vbench: {', '.join(named[:4])}{f' and {len(named) - 4} more' if len(named) > 4 else ''}",
        lead=" ".join([_lead(runs, table), *_cut(table)]),
        conditions=tables.caption(table),
        css=Markup(_asset("page.css")),
        groups=_groups(found, attention_models(table)),
        absent=[*tables.absent(table), *tables.damaged(table)],
        undrawn=panels.undrawn(table),
        several=len(runs) > 1,
        notes=[*rates.conditions(table), *tables.notes(table), *tables.without_emissions(table)],
        unfair=unfair(table),
        beside=others.found(table, asked=witnesses),
        beside_head=others.HEADER,
        verified=proofs.verified(records),
        ledger=proofs.ledger(records),
        disagreements=tables.disagreements(table),
        runs=[{"name": run.name, "facts": proofs.facts(run, runs)} for run in runs],
        data=Markup(_json(data)),
        plotly=Markup(scripts[0]),
        script=Markup(scripts[1]),
    )


def script() -> str:
    """The page's own script: `SCRIPTS` one after another, with names that nobody else sees."""
    return "".join(['"use strict";\n(() => {\n', *(_asset(f"{name}.js") for name in SCRIPTS), "})();\n"])


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
    models, machines = table["model"].nunique(), list(map(str, table["device_name"].unique()))
    on = f" on {listed(machines)}" if len(machines) > 1 else ""
    named = listed([run.name for run in runs])
    return f"{len(table)} cells ({counts}) of {models} model{'s'[: models > 1]}, {span}{on}, from {named}."


def _cut(table: pd.DataFrame) -> list[str]:
    """What the page does not have, or does not show at once, of very many curves and rows."""
    drawn, cut = few(table)
    first = len(series_of(drawn)) if cut else 0
    lines = [f"The answers are of the {first} curves that are drawn first; a filter draws others."] if cut else []
    lines += [f"The page has the first {MOST_ROWS:,} of {len(table):,} rows."] if len(table) > MOST_ROWS else []
    return lines


def _groups(found: Sequence[Answer], attends: Container[str]) -> list[dict[str, Any]]:
    """The answers by model; those of attention models, `attends`, come last."""
    models = sorted(dict.fromkeys(answer.model for answer in found), key=lambda model: model in attends)
    return [
        {
            "model": model,
            "kinds": [
                {
                    "title": title,
                    "texts": texts[:UNFOLDED_TEXTS],
                    "more": texts[UNFOLDED_TEXTS:],
                    "folded": kind == "growth" and len(models) > UNFOLDED_MODELS,
                }
                for kind, title in KINDS.items()
                if (texts := [answer.text for answer in found if (answer.model, answer.kind) == (model, kind)])
            ],
        }
        for model in models
    ]
