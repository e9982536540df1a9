"""The command `merge`. It never imports torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vbench.commands.console import AsJson, out, print_json

app = typer.Typer()


@app.command()
def merge(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Folders with records.jsonl.")],
    folder: Annotated[
        Path, typer.Option("--out", "-o", help="Folder for the joined records; what it has already stays in it.")
    ],
    keep: Annotated[
        str | None,
        typer.Option(help="newest: where runs disagree about a launch, the newest counts.", show_default="refuse"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Join runs in one folder: the records, turns and run.json of several sweeps. Measures nothing."""
    from vbench.cluster.merge import merge as joined

    found = joined(runs, folder, keep)
    if as_json:
        print_json({"folder": str(found.folder), "records": found.records, "turns": found.turns, "new": found.new})
        return
    added = f"{found.new} of them new" if found.new else "nothing is new"
    out.print(f"{found.folder}: {found.records} launches and {found.turns} blocks of turns, {added}", markup=False)
