"""`vbench memory`: what a CUDA card would need, predicted without one."""

from __future__ import annotations

from typing import Annotated

import typer

from vbench import plan as planning
from vbench.commands.axes import Asked, Attention, Form, Layout, Modes, Phase, Res, cells
from vbench.commands.console import AsJson, err, out, print_json
from vbench.errors import UsageError

app = typer.Typer()
AUTOCASTS = ("none", "bfloat16", "float16")


@app.command()
def memory(
    models: Annotated[str, typer.Argument(help="Names, patterns, timm/NAME, or module:callable of your own.")],
    res: Res = None,
    device: Annotated[str, typer.Option(help="Cards, as in h100,a100; no such card is needed.")] = "h100",
    batch: Annotated[str, typer.Option(help="Images in a call, as in 1,32.")] = "1",
    modes: Modes = "parallel",
    dtype: Annotated[str, typer.Option(help="Of weights and images: float32, bfloat16, float16.")] = "float32",
    autocast: Annotated[str, typer.Option(help="Type of products under autocast: none, bfloat16, float16.")] = "none",
    phase: Phase = None,
    layout: Layout = None,
    attention: Attention = None,
    form: Form = None,
    largest: Annotated[bool, typer.Option("--largest", help="Find the largest batch and image that fit.")] = False,
    top: Annotated[int, typer.Option(min=0, help="List so many of the tensors alive at the peak.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Predict the peak memory of a call on a CUDA card, by simulating PyTorch's allocator; nothing is measured."""
    from vbench.flops import fit
    from vbench.flops.cards import cards
    from vbench.jobs.launch import Launcher
    from vbench.reports import memory as rendering

    known = tuple(cards())
    on = planning.choices(device, "--device", known)
    types = planning.choices(autocast, "--autocast", AUTOCASTS)
    batches = planning.parse_batches(batch)
    if not all(isinstance(each, int) for each in batches):
        raise UsageError(f"--batch: '{batch}' is not numbers of images, as in 1,32; --largest finds the largest")
    asked = Asked(models, res, modes, None, dtype, phase, None, layout, attention, form)
    rows = []
    with Launcher() as launcher:
        for case in cells(asked, None, "cuda:0"):
            if case.unsupported:
                err.print(f"{case}: unsupported: {case.unsupported}", markup=False)
                continue
            for card in on:
                for images in batches:
                    for kind in types:
                        with err.status(f"predicting {case} on {card}"):
                            rows.append(
                                fit.run(
                                    case,
                                    card,
                                    launcher,
                                    batch=int(images),
                                    autocast=None if kind == "none" else kind,
                                    searches=largest,
                                )
                            )
    if as_json:
        print_json(rows)
        return
    out.print(rendering.to_rich(rows))
    for row in rows if top else []:
        out.print(rendering.held_to_rich(row, top))
    for line in rendering.remarks(rows):
        err.print(line, markup=False)
