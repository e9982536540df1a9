"""The command `merge`. It never imports torch."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from vbench.commands.console import AsJson, out, print_json

app = typer.Typer()


@app.command()
def merge(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Folders with records.jsonl or accuracy.jsonl.")],
    folder: Annotated[
        Path, typer.Option("--out", "-o", help="Folder for the joined records; what it has already stays in it.")
    ],
    keep: Annotated[
        str | None,
        typer.Option(help="newest: where runs disagree about a launch, the newest counts.", show_default="refuse"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Join runs in one folder: the records, turns and run.json of sweeps, the accuracies and predictions of eval.
    Measures nothing."""
    from vbench.cluster.merge import merge as joined

    found = joined(runs, folder, keep)
    if as_json:
        print_json({**asdict(found), "folder": str(found.folder)})
        return
    added = f"{found.new} of them new" if found.new else "nothing is new"
    swept = f"{found.records} launches and {found.turns} blocks of turns"
    images = f"{found.accuracies} shards of images" if found.accuracies else ""
    told = " and ".join(filter(None, (swept if found.records or not images else "", images)))
    out.print(f"{found.folder}: {told}, {added}", markup=False)
