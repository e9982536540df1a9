"""`vbench memory`: what a CUDA card would need, predicted without one."""

from __future__ import annotations

from itertools import product
from typing import Annotated

import typer

from vbench import plan as planning
from vbench.commands import axes
from vbench.commands.console import AsJson, err, exit_if_failed, out, print_aside, print_json
from vbench.commands.parameters import COMMA
from vbench.devices import is_device
from vbench.errors import UsageError
from vbench.flops.cards import cards
from vbench.options import choices, numbers
from vbench.results.text import print_whole

app = typer.Typer()


@app.command()
@axes.taking(without=("batch", "backend"))
def memory(
    models: Annotated[str, typer.Argument(help="Names, patterns, timm/NAME, or module:callable of your own.")],
    asked: axes.Asked,
    device: Annotated[
        str, typer.Option(help=f"Cards; none is needed here. Some of {', '.join(cards())}."), COMMA
    ] = "h100",
    batch: Annotated[str, typer.Option(help="Images in a call, as in 1,32."), COMMA] = "1",
    modes: Annotated[str, typer.Option(help="parallel, recurrent, or both: parallel,recurrent."), COMMA] = "parallel",
    dtype: Annotated[str, typer.Option(help=axes.DTYPES), COMMA] = planning.USUAL["dtype"],
    largest: Annotated[bool, typer.Option("--largest", help="Find the largest batch and image that fit.")] = False,
    top: Annotated[int, typer.Option(min=0, help="List so many of the tensors alive at the peak.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Predict the peak memory of a call on a CUDA card, by simulating PyTorch's allocator; nothing is measured."""
    from vbench.flops import fit
    from vbench.jobs.launch import Launcher
    from vbench.reports import memory as rendering

    if any(map(is_device, device.split(","))):
        known = ", ".join(cards())
        raise UsageError(f"--device: '{device}' is a device, and nothing runs here; name cards, some of {known}")
    on = choices(device, "--device", tuple(cards()))
    kind = f"a number of images from 1 to {fit.MOST_IMAGES}; --largest finds the largest"
    batches = numbers(batch, "--batch", "1,32", allowed=range(1, fit.MOST_IMAGES + 1), kind=kind)
    rows, failed = [], []
    with Launcher() as launcher:
        for case, card, images in product(axes.cells(asked, None, "cuda:0", written={"models": "MODELS"}), on, batches):
            with err.status(f"predicting {case} on {card}"):
                try:
                    rows.append(fit.run(case, card, launcher, batch=images, searches=largest))
                except UsageError as error:  # another cell may be predicted
                    failed.append(str(error))
    if not rows:
        raise UsageError("; ".join(dict.fromkeys(failed)))
    if as_json:
        print_json(rendering.to_json(rows))
    else:
        print_whole(rendering.to_rich(rows), out)
        for row in rows if top else []:
            print_whole(rendering.held_to_rich(row, top), out)
        print_aside(rendering.remarks(rows))
    exit_if_failed(list(dict.fromkeys(failed)), 1)
