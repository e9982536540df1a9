"""The commands `models` and `suites`."""

from __future__ import annotations

from typing import Annotated

import typer

from vbench.commands.console import AsJson, out, print_aside, print_json
from vbench.results.text import print_whole

app = typer.Typer()


@app.command()
def models(
    exports: Annotated[
        bool, typer.Option("--export", help="Show what each tiny model exports to instead, as recorded.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """List the models: family, parameters, operator, modes, published accuracy, source; or what they export to."""
    from vbench.models import field
    from vbench.reports import models as listing

    if exports:
        _exports(as_json=as_json)
        return
    if as_json:
        print_json(listing.rows())
        return
    print_whole(listing.to_rich(), out, spare=listing.SPARE, elsewhere="--json has them")
    out.print(
        "All models run in parallel mode. Column 'recurrent': what runs token by token, the operator or the network."
    )
    out.print(f"--models {field.NAME} names one of each family: {', '.join(field.FIELD)}.")
    out.print("Other timm models are timm/NAME. Top-1: ImageNet-1K at 224 px as published, not measured.")
    for line in listing.caveats():
        out.print(line)


def _exports(*, as_json: bool) -> None:
    from vbench.reports import exports as recorded

    rows = recorded.read()
    if as_json:
        print_json(rows)
        return
    print_whole(recorded.to_rich(rows), out)
    print_aside([*recorded.remarks(rows), f"Recorded with {recorded.made_by(rows)}."])
    out.print("Any other model, size or type: 'vbench export MODEL'.")


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
        print_json(found)
        return
    out.print(listing.to_rich(found))
    for axes in found[0]["sets"] if name else []:
        out.print("; ".join(f"{key} = {value}" for key, value in {**axes, **found[0]["how"]}.items()))
