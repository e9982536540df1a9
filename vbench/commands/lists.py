"""The commands `models` and `suites`."""

from __future__ import annotations

from typing import Annotated

import typer

from vbench.commands.console import AsJson, out, print_json

app = typer.Typer()


@app.command()
def models(as_json: AsJson = False) -> None:
    """List the models: family, parameters, operator, modes, published accuracy, source."""
    from vbench.reports import models as listing

    if as_json:
        print_json(listing.rows())
        return
    out.print(listing.to_rich())
    out.print(
        "All models run in parallel mode. Column 'recurrent': what runs token by token, the operator or the network."
    )
    out.print("Other timm models are timm/NAME. Top-1: ImageNet-1K at 224 px as published, not measured.")
    for line in listing.caveats():
        out.print(line)


@app.command()
def suites(
    name: Annotated[
        str | None, typer.Argument(help="A suite's name or a .toml file. Default: list all suites.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the suites with their question, time and number of cells, or show one suite with its axes."""
    from vbench.reports import suites as listing

    found = listing.rows() if name is None else [listing.row(name)]
    if as_json:
        print_json(found if name is None else found[0])
        return
    out.print(listing.to_rich(found))
    for axes in found[0]["sets"] if name else []:
        out.print("; ".join(f"{key} = {value}" for key, value in axes.items()))
