"""The axes of a sweep on the command line, which several commands take: options, and the cells that they mean."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Annotated

import typer

from vbench import devices
from vbench import plan as planning
from vbench.errors import UsageError

Models = Annotated[
    str | None,
    typer.Option(
        help="Names, patterns, timm/NAME, or module:callable of your own, as in vig_t,deit_*,my_net:net. "
        "Your module is installed or lies in the current folder."
    ),
]
Res = Annotated[
    str | None,
    typer.Option(help="Pixels: 224:2048 (standard grid), 224:2048:128 (step), 224,512x1024 (height x width)."),
]
Modes = Annotated[str | None, typer.Option(help="parallel, recurrent, or both.", show_default=planning.USUAL["modes"])]
Batch = Annotated[
    str | None,
    typer.Option(
        help="Batch for throughput: knee (more gains little), max (the largest that fits), numbers.",
        show_default=planning.USUAL["batch"],
    ),
]
Dtype = Annotated[str | None, typer.Option(help="float32, bfloat16, float16.", show_default=planning.USUAL["dtype"])]
SuiteName = Annotated[str | None, typer.Option("--suite", help="A named sweep, or a .toml file.")]
Device = Annotated[str, typer.Option(help=f"{devices.NAMES}.")]
Phase = Annotated[
    str | None,
    typer.Option(help="infer, train (forward, backward, AdamW step), or both.", show_default=planning.USUAL["phase"]),
]
Backend = Annotated[str | None, typer.Option(help="eager, compile, cudagraph.", show_default=planning.USUAL["backend"])]
Layout = Annotated[str | None, typer.Option(help="Memory layout: nchw, nhwc.", show_default=planning.USUAL["layout"])]
Attention = Annotated[
    str | None, typer.Option(help="Of timm's models: fused, unfused.", show_default=planning.USUAL["attention"])
]
Form = Annotated[
    str | None,
    typer.Option(
        help="How operators are computed: fused, chunkwise, reference ...; see vbench kernels list.",
        show_default=f"{planning.USUAL['form']}, the mode's on the device",
    ),
]


@dataclass(frozen=True, slots=True)
class Asked:
    """The axes of a sweep as they stand on the command line; None for what was not given."""

    models: str | None
    res: str | None
    modes: str | None
    batch: str | None
    dtype: str | None
    phase: str | None
    backend: str | None
    layout: str | None
    attention: str | None
    form: str | None

    @property
    def given(self) -> dict[str, str]:
        """What was given, by name."""
        return {key: value for key, value in asdict(self).items() if value is not None}


def cells(
    asked: Asked, suite: str | None, device: str, *, usual: Mapping[str, str] = planning.USUAL
) -> list[planning.Case]:
    """The cells that these options mean on a device, "cpu" or "cuda:N", all checked; an option beside --suite replaces
    the suite's.

    Args:
        usual: what each axis is where neither says.

    Raises: UsageError if there are no models or sizes, or if one of these cannot be.
    """
    from vbench.suites.load import load

    sets = [{**usual, **axes, **asked.given} for axes in (load(suite).sets if suite else [{}])]
    if not all("models" in axes and "res" in axes for axes in sets):
        raise UsageError("give --models and --res, as in --models vig_t,deit_t --res 224:2048; or a --suite")
    return planning.union([planning.parse(axes, device) for axes in sets])
