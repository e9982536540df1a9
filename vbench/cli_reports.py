"""The commands that make something of records alone. They measure nothing, and never import torch."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from vbench.errors import UsageError

if TYPE_CHECKING:
    import pandas as pd

app = typer.Typer()
out = Console(width=None if sys.stdout.isatty() else 160, highlight=False, soft_wrap=not sys.stdout.isatty())
err = Console(stderr=True, highlight=False, soft_wrap=True)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


@app.command()
def report(
    folders: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Folders with records.jsonl.")],
    page: Annotated[
        Path | None, typer.Option("--out", "-o", help="Make one page of all runs instead, a .html file.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make table and figures again from records, or one page to look at; nothing is measured."""
    if page is not None:
        write_page(folders, page, as_json)
        return
    if len(folders) > 1:
        raise UsageError(f"{len(folders)} runs make one page: give -o FILE.html, or report one RUN at a time")
    frame_of(folders)
    write(folders[0], as_json)


def frame_of(folders: Sequence[Path]) -> pd.DataFrame:
    """The frame of all records in these folders. Raises: UsageError for a folder without any."""
    from vbench.results.frame import frame
    from vbench.results.store import read

    for folder in folders:
        if not (folder / "records.jsonl").is_file():
            raise UsageError(f"{folder} has no records.jsonl; give the --out folder of a sweep")
    return frame([record for folder in folders for record in read(folder)])


def write(folder: Path, as_json: bool) -> int:
    """Write a sweep's files beside its records, print the table; the number of cells that ended in an error."""
    from vbench.reports import tables
    from vbench.reports.write import write_all
    from vbench.results.frame import frame
    from vbench.results.store import read

    table = frame(read(folder))
    files = write_all(table, folder) if len(table) else []
    if as_json:
        typer.echo(table.to_json(orient="records", indent=1))
    else:
        tables.show(table, out)
    err.print(f"written: {', '.join(str(file) for file in files)}")
    return int((table["status"] == "error").sum())


def write_page(folders: Sequence[Path], file: Path, as_json: bool) -> None:
    """Write the page of these runs, and print what it answers."""
    from vbench.reports import html
    from vbench.reports.write import write_text
    from vbench.results.answers import answers

    if file.suffix.lower() not in (".html", ".htm") or file.is_dir():
        raise UsageError(f"-o {file}: give the name of a page, as in -o report.html")
    runs = html.runs_of(folders)
    table = html.table_of(runs)
    found = answers(table)
    write_text(file, html.page(runs, table, found))
    if as_json:
        typer.echo(json.dumps([asdict(answer) for answer in found], indent=1))
    for answer in () if as_json else found:
        out.print(answer.text, markup=False)
    err.print(f"written: {file}")
