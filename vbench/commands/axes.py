"""The axes of a sweep as options, which several commands take, and the cells that they describe."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import wraps
from inspect import Parameter, Signature, signature
from types import MappingProxyType
from typing import Annotated, Any

import typer

from vbench import devices
from vbench import plan as planning
from vbench.commands.completion import FORMS, SUITES
from vbench.commands.parameters import COMMA
from vbench.errors import UsageError

Models = Annotated[
    str | None,
    typer.Option(
        help="Names, patterns, field (one of each family), all, timm/NAME, or module:callable of your own, as in "
        "vig_t,deit_*,my_net:net. "
        "Your module must be installed or be in the current folder."
    ),
    COMMA,
]
Res = Annotated[
    str | None,
    typer.Option(help="Pixels: 224:2048 (standard grid), 224:2048:128 (step), 224,512x1024 (height x width)."),
    COMMA,
]
Modes = Annotated[
    str | None,
    typer.Option(help="parallel, recurrent, or both: parallel,recurrent.", show_default=planning.USUAL["modes"]),
    COMMA,
]
Batch = Annotated[
    str | None,
    typer.Option(
        help="Batch for throughput: knee (a larger one gains little), max (the largest that fits), or numbers.",
        show_default=planning.USUAL["batch"],
    ),
    COMMA,
]
DTYPES = "float32, bfloat16, float16; amp-bf16, amp-fp16: autocast over float32 weights."
Dtype = Annotated[str | None, typer.Option(help=DTYPES, show_default=planning.USUAL["dtype"]), COMMA]
SuiteName = Annotated[
    str | None,
    typer.Option(
        "--suite", help=f"A named set of axes ({', '.join(SUITES)}), or a .toml file. Options replace its axes."
    ),
]
Device = Annotated[str, typer.Option(help=f"{devices.NAMES}.")]
Form = Annotated[
    str | None,
    typer.Option(
        help=f"How operators are computed: {', '.join(FORMS)}; 'vbench kernels list' says which have which.",
        show_default=f"{planning.USUAL['form']}, the default of the mode on the device",
    ),
    COMMA,
]


def _whole(axis: planning.Choice) -> str:
    """The help of an axis, which shows how to write both of its values."""
    return axis.help.replace("or both.", f"or both: {','.join(axis.values)}.")


OPTIONS: dict[str, Any] = {  # by the name of the axis, in the order of --help
    "models": Models,
    "res": Res,
    "modes": Modes,
    "batch": Batch,
    "dtype": Dtype,
    **{
        name: Annotated[str | None, typer.Option(help=_whole(axis), show_default=axis.usual), COMMA]
        for name, axis in planning.CHOICES.items()
    },
    "form": Form,
}
Most = Annotated[
    int,
    typer.Option(
        "--cells", help="The most cells that the plan may have; a larger plan is refused, as a mistake in typing."
    ),
]
Asked = Mapping[str, str]  # the axes that were given on the command line, by name
NONE: Asked = MappingProxyType({})


def taking(*, without: Collection[str] = ()) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command one option for each axis, in the place of its parameter `asked`, which gets those that are given.

    A parameter of its own that has the name of an axis is the option of that axis.

    Args:
        without: axes that the command does not take.
    """
    options = {name: option for name, option in OPTIONS.items() if name not in without}

    def extend(command: Callable[..., None]) -> Callable[..., None]:
        own = signature(command, eval_str=True).parameters
        taken = [
            own.get(name, Parameter(name, Parameter.POSITIONAL_OR_KEYWORD, default=None, annotation=option))
            for name, option in options.items()
        ]
        parameters: list[Parameter] = []
        for one in own.values():
            parameters += taken if one.name == "asked" else [one] if one.name not in options else []

        @wraps(command)
        def call(**values: Any) -> None:
            asked = {name: values[name] for name in options if values[name] is not None}
            command(asked=asked, **{name: value for name, value in values.items() if name in own})

        call.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
        call.__annotations__ = {one.name: one.annotation for one in parameters} | {"return": None}
        del call.__wrapped__  # whose options these are not
        return call

    return extend


def cells(
    asked: Asked,
    suite: str | None,
    device: str,
    *,
    usual: Mapping[str, str] = planning.USUAL,
    written: Mapping[str, str] = NONE,
    most: int | None = None,
) -> list[planning.Case]:
    """The cells that these options describe on a device, "cpu" or "cuda:N". All values are checked.

    An option replaces the same axis of the suite. `usual` gives each axis that neither of them sets.

    Args:
        written: how the user wrote an axis, where it is not `--axis`.
        most: the most cells that there may be, where `--cells` says it; None means `plan.CELLS`.

    Raises: UsageError if models or sizes are missing, or a value is not allowed, it names what the user wrote; and for
        a plan of too many cells.
    """
    from vbench.suites.load import load

    own = load(suite).sets if suite else [{}]
    sets = [{**usual, **axes, **asked} for axes in own]
    if not all("models" in axes and "res" in axes for axes in sets):
        raise UsageError("give --models and --res, as in --models vig_t,deit_t --res 224:2048; or a --suite")
    of_suite = {axis: f"--suite {suite}: {axis}" for axes in own for axis in axes if axis not in asked}
    try:
        parsed = [planning.parse(axes, device) for axes in sets]
        _check_size(sum(map(planning.size, parsed)), most)
        return planning.union(parsed)
    except UsageError as error:
        raise _as_written(error, {**of_suite, **written}) from None


def _check_size(count: int, most: int | None) -> None:
    """Raises: UsageError for a plan of more cells than were asked for."""
    if count > (most or planning.CELLS):
        do = "name fewer sizes or models" + ("" if most is None else f", or ask for them: --cells {count}")
        raise UsageError(f"the plan has {count:,} cells, more than {most or planning.CELLS:,}: {do}")


def _as_written(error: UsageError, written: Mapping[str, str]) -> UsageError:
    """The error of a parser, "--res: ...", under the words that a user wrote for the option."""
    option, _, rest = str(error).partition(": ")
    place = written.get(option.removeprefix("--")) if option.startswith("--") else None
    return error if place is None else type(error)(f"{place}: {rest}")
