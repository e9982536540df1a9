"""The axes of a sweep as options, which several commands take, and the cells that they describe."""

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
        "Your module must be installed or be in the current folder."
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
        help="Batch for throughput: knee (a larger one gains little), max (the largest that fits), or numbers.",
        show_default=planning.USUAL["batch"],
    ),
]
Dtype = Annotated[str | None, typer.Option(help="float32, bfloat16, float16.", show_default=planning.USUAL["dtype"])]
SuiteName = Annotated[
    str | None, typer.Option("--suite", help="A named set of axes, or a .toml file. Options replace its axes.")
]
Device = Annotated[str, typer.Option(help=f"{devices.NAMES}.")]
Phase = Annotated[
    str | None,
    typer.Option(help="infer, train (forward, backward, AdamW step), or both.", show_default=planning.USUAL["phase"]),
]
Backend = Annotated[str | None, typer.Option(help="eager, compile, cudagraph.", show_default=planning.USUAL["backend"])]
Layout = Annotated[str | None, typer.Option(help="Memory layout: nchw, nhwc.", show_default=planning.USUAL["layout"])]
Attention = Annotated[
    str | None,
    typer.Option(
        help="Attention of timm's models: fused, unfused, or one kernel of fused attention: "
        "flash, cudnn, efficient, math.",
        show_default=planning.USUAL["attention"],
    ),
]
Form = Annotated[
    str | None,
    typer.Option(
        help="How operators are computed: fused, chunkwise, reference ...; see 'vbench kernels list'.",
        show_default=f"{planning.USUAL['form']}, the default of the mode on the device",
    ),
]


@dataclass(frozen=True, slots=True)
class Asked:
    """The axes of a sweep as given on the command line; None for an option that was not given."""

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
        """The options that were given, by name."""
        return {key: value for key, value in asdict(self).items() if value is not None}


def cells(
    asked: Asked, suite: str | None, device: str, *, usual: Mapping[str, str] = planning.USUAL
) -> list[planning.Case]:
    """The cells that these options describe on a device, "cpu" or "cuda:N". All values are checked.

    An option replaces the same axis of the suite. `usual` gives each axis that neither of them sets.

    Raises: UsageError if models or sizes are missing, or a value is not allowed.
    """
    from vbench.suites.load import load

    sets = [{**usual, **axes, **asked.given} for axes in (load(suite).sets if suite else [{}])]
    if not all("models" in axes and "res" in axes for axes in sets):
        raise UsageError("give --models and --res, as in --models vig_t,deit_t --res 224:2048; or a --suite")
    return planning.union([planning.parse(axes, device) for axes in sets])
