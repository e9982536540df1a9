"""The commands that judge: is this code slower, larger or other than it was?"""

from __future__ import annotations

import json
import sys
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from vbench.cli_axes import Asked, Attention, Dtype, Form, Layout, Models, Modes, Res, SuiteName, cells
from vbench.errors import UsageError
from vbench.results.outcome import Outcome

app = typer.Typer()
out = Console(width=None if sys.stdout.isatty() else 160, highlight=False, soft_wrap=not sys.stdout.isatty())
err = Console(stderr=True, highlight=False, soft_wrap=True)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


@app.command()
def gate(
    counters: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Hold what is counted to this baseline; needs no device.")
    ] = None,
    write: Annotated[
        bool, typer.Option("--write", help="Make the baseline, for the cells of the axes or else of the file.")
    ] = False,
    models: Models = None,
    res: Res = None,
    modes: Modes = None,
    dtype: Dtype = None,
    layout: Layout = None,
    attention: Attention = None,
    form: Form = None,
    suite: SuiteName = None,
    device: Annotated[str, typer.Option(help="Whose default forms: cpu or cuda. None need be there.")] = "cpu",
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 4 where anything is ambiguous.")] = False,
    as_json: AsJson = False,
) -> None:
    """Fail on a regression. Exit codes: 0 pass, 1 regression, 2 usage, 3 nothing judged, 4 open, 5 modes differ."""
    from vbench import counters as counting
    from vbench.launch import Launcher

    if counters is None:
        raise UsageError("give --counters FILE, as in --counters results/counters.json")
    asked = Asked(models, res, modes, None, dtype, None, None, layout, attention, form)
    where = counting.parse_device(device)
    chosen = cells(asked, suite, where) if asked.given or suite else None
    with Launcher() as launcher, err.status("counting"):
        outcome = counting.gate(counters, launcher, cases=chosen, write=write)
    _show(outcome, as_json)
    raise typer.Exit(outcome.exit_code(strict=strict))


def _show(outcome: Outcome, as_json: bool) -> None:
    """What was found; until reports/gate.py does it."""
    if as_json:
        typer.echo(json.dumps(asdict(outcome), indent=1))
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("cell", "what", "verdict", "base", "head", "unit", "note"):
        table.add_column(name, overflow="fold")
    for each in outcome.findings:
        if each.verdict != "SAME":
            values = (each.cell, each.what, each.verdict, each.base, each.head, each.unit, each.note)
            table.add_row(
                *(
                    Text("" if value is None else f"{value:,.6g}" if isinstance(value, float) else str(value))
                    for value in values
                )
            )
    if table.row_count:
        out.print(table)
    sums = Counter(each.verdict for each in outcome.findings)
    out.print(
        f"{len(outcome.findings)} findings: " + ", ".join(f"{times} {verdict}" for verdict, times in sums.items()),
        markup=False,
    )
    for key in ("versions_that_differ", "not_looked_into", "nothing_to_compare"):
        if outcome.facts.get(key):
            err.print(f"{key.replace('_', ' ')}: {outcome.facts[key]}", markup=False)
