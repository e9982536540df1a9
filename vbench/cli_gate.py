"""The commands that set runs against each other, and say by their exit code whether something became worse."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

if TYPE_CHECKING:
    from vbench.results.outcome import Outcome

app = typer.Typer()
out = Console(width=None if sys.stdout.isatty() else 160, highlight=False, soft_wrap=not sys.stdout.isatty())
err = Console(stderr=True, highlight=False, soft_wrap=True)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Folder = Annotated[Path | None, typer.Option("--out", "-o", help="Folder for what was found, as files.")]


@app.command()
def compare(
    base: Annotated[Path, typer.Argument(metavar="A", help="The --out folder of a sweep: what it was.")],
    head: Annotated[Path, typer.Argument(metavar="B", help="Another's: what it is.")],
    allow_mismatch: Annotated[
        bool, typer.Option("--allow-mismatch", help="Compare runs of different machines all the same.")
    ] = False,
    threshold: Annotated[float, typer.Option(help="The share of a cost from which a change matters.")] = 0.03,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with 4 if anything is ambiguous, gone or not measured.")
    ] = False,
    as_json: AsJson = False,
    folder: Folder = None,
) -> None:
    """Compare two stored runs cell by cell: ratios with intervals, new, gone and broken cells. Nothing is measured."""
    from vbench.results import compare as comparing

    found = comparing.compare(
        comparing.load(base), comparing.load(head), threshold=threshold, allow_mismatch=allow_mismatch
    )
    _tell(found, as_json, folder)
    raise typer.Exit(found.exit_code(strict=strict))


@app.command()
def history(
    runs: Annotated[Path, typer.Argument(metavar="DIR", help="Holds runs: --out folders of sweeps, at any depth.")],
    what: Annotated[
        str,
        typer.Option(help="latency_ms, peak_memory_bytes, energy_j_per_image, params, macs, macs_executed."),
    ] = "latency_ms",
    folder: Annotated[Path | None, typer.Option("--out", "-o", help="Folder for a chart and a page as well.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show what each cell cost from run to run, and where its level changed. Nothing is measured, nothing is judged."""
    from vbench.reports import history as reporting
    from vbench.results import history as reading

    found = reading.history(reading.load(runs), what)
    files = reporting.write(found, what, folder) if folder else []
    if as_json:
        typer.echo(json.dumps(reporting.to_json(found, what), indent=1))
    else:
        reporting.show(found, what, out)
    if files:
        err.print(f"written: {', '.join(map(str, files))}", markup=False)


def _tell(found: Outcome, as_json: bool, folder: Path | None) -> None:
    """Print an outcome, and write it if a folder is given. To be replaced by reports/gate.py."""
    from rich.markup import escape
    from rich.table import Table

    from vbench.reports.write import write_text

    text = json.dumps(asdict(found), indent=1)
    if folder is not None:
        write_text(folder / f"{found.command}.json", f"{text}\n")
    if as_json:
        typer.echo(text)
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("cell", "what", "verdict", "base", "head", "ratio", "95 % interval", "note"):
        table.add_column(name)
    for one in found.findings:
        figures = ["" if value is None else f"{value:,.6g}" for value in (one.base, one.head)]
        ratio = "" if one.ratio is None else f"{one.ratio:.3f}×"
        interval = "" if one.lo is None or one.hi is None else f"{one.lo:.3f}–{one.hi:.3f}"
        table.add_row(*map(escape, (one.cell, one.what, one.verdict, *figures, ratio, interval, one.note or "")))
    out.print(table)
    for line in [*found.facts.get("warnings", []), found.facts.get("note", "")]:
        err.print(line, markup=False)
