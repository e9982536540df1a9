"""The axes of a plan as options of a command, and the cells that they mean. Shared by the commands that take them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Annotated

import typer

from vbench import plan
from vbench.errors import UsageError
from vbench.plan import Case

Models = Annotated[
    str | None,
    typer.Option(help="Names, patterns, timm/NAME, or module:callable of your own: vig_t,deit_*,my_pkg.models:net."),
]
Res = Annotated[
    str | None,
    typer.Option(help="Pixels: 224:2048 (standard grid), 224:2048:128 (step), 224,512x1024 (height x width)."),
]
Modes = Annotated[str | None, typer.Option(help="parallel, recurrent, or both. [default: both]")]
Batch = Annotated[
    str | None,
    typer.Option(
        help="Batch for throughput: knee (more gains little), max (the largest that fits), numbers. [default: knee]"
    ),
]
Dtype = Annotated[str | None, typer.Option(help="float32, bfloat16, float16. [default: float32]")]
SuiteName = Annotated[str | None, typer.Option("--suite", help="A named sweep, or a .toml file.")]
Phase = Annotated[
    str | None, typer.Option(help="infer, train (forward, backward, AdamW step), or both. [default: infer]")
]
Backend = Annotated[str | None, typer.Option(help="eager, compile, cudagraph. [default: eager]")]
Layout = Annotated[str | None, typer.Option(help="Memory layout: nchw, nhwc. [default: nchw]")]
Attention = Annotated[str | None, typer.Option(help="Of timm's models: fused, unfused. [default: fused]")]
Form = Annotated[
    str | None,
    typer.Option(
        help="How operators are computed: fused, chunkwise, reference ...; see vbench kernels list. "
        "[default: auto, the mode's on the device]"
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


def cells(asked: Asked, suite: str | None, device: str) -> list[Case]:
    """The cells that these options mean on a device ("cpu", "cuda:0"), all checked; an option beside --suite replaces
    the suite's."""
    from vbench.suites.load import load

    sets = [{**plan.USUAL, **axes, **asked.given} for axes in (load(suite).sets if suite else [{}])]
    if not all("models" in axes and "res" in axes for axes in sets):
        raise UsageError("give --models and --res, as in --models vig_t,deit_t --res 224:2048; or a --suite")
    return plan.union([plan.parse(axes, device) for axes in sets])
