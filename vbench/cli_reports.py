"""The commands that make something of records alone. They measure nothing, and never import torch."""

from __future__ import annotations

import sys
from collections.abc import Sequence
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
    folder: Annotated[Path, typer.Argument(help="A folder with records.jsonl.")], as_json: AsJson = False
) -> None:
    """Make table and figures again from records; nothing is measured."""
    frame_of([folder])
    write(folder, as_json)


@app.command("tables")
def publish(
    folders: Annotated[list[Path], typer.Argument(help="Folders with records.jsonl.", metavar="RUN")],
    what: Annotated[
        str,
        typer.Option(help="all, or some of resolution, full, modes, batch, training, work, scaling, crossovers."),
    ] = "all",
    formats: Annotated[
        str | None, typer.Option("--format", help="md, tex, csv. By default md, and all three with --out.")
    ] = None,
    at: Annotated[
        str | None, typer.Option(help="Sizes, as --res of a sweep. By default all; resolution shows four at most.")
    ] = None,
    folder: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder for a file each; else one format is printed.")
    ] = None,
) -> None:
    """Make tables for a paper: Markdown, LaTeX (booktabs) or CSV, with intervals, best figures and footnotes."""
    from vbench.reports import paper_tables

    chosen = paper_tables.parse_formats(formats or ("md,tex,csv" if folder else "md"))
    if folder is None and len(chosen) > 1:
        raise UsageError(
            f"--format: only one format can be printed; name one of {', '.join(chosen)}, or give -o FOLDER"
        )
    made, lacking = paper_tables.make(frame_of(folders), what, at)
    if folder is None:
        typer.echo(paper_tables.render(made, chosen[0]), nl=False)
    else:
        err.print(f"written: {', '.join(map(str, paper_tables.write(made, chosen, folder)))}", markup=False)
    for line in lacking:
        err.print(line, markup=False)


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
