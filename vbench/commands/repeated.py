"""What all commands do with their options before they run.

One that holds a comma list adds up: `--models a --models b` is `--models a,b`. One that takes a number is held to its
bounds (`options.NUMBERS`).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from inspect import Parameter, Signature, signature
from typing import Annotated, Any

from vbench.options import check_numbers

COMMA = "a comma list"  # marks an option: Annotated[str, typer.Option(...), COMMA]


def adding_up(command: Callable[..., Any]) -> Callable[..., Any]:
    """The command with its options that are marked by `COMMA` as repeatable ones; it gets each as one comma list.

    Numbers are checked before it runs. Raises: UsageError, as `check_numbers`.
    """
    own = signature(command, eval_str=True).parameters
    lists = {name for name, one in own.items() if COMMA in getattr(one.annotation, "__metadata__", ())}
    parameters = [_repeatable(one) if one.name in lists else one for one in own.values()]

    @wraps(command)
    def call(**values: Any) -> Any:
        check_numbers(values)
        return command(**{key: _joined(value) if key in lists else value for key, value in values.items()})

    call.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
    call.__annotations__ = {one.name: one.annotation for one in parameters} | {"return": None}
    del call.__wrapped__  # whose options these are not
    return call


def _repeatable(one: Parameter) -> Parameter:
    about = [each for each in one.annotation.__metadata__ if each != COMMA]
    default = None if one.default is None else [one.default]
    return one.replace(annotation=Annotated[list[str] | None, *about], default=default)


def _joined(values: list[str] | None) -> str | None:
    return ",".join(values) if values else None
