"""What all commands do with their options before they run.

One that holds a comma list adds up: `--models a --models b` is `--models a,b`. One that takes a number is held to its
bounds (`options.NUMBERS`). Each says in --help what kind of value it takes, and a shell completes it (`completion`).
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from functools import wraps
from inspect import Parameter, Signature, signature
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, get_args, get_origin

from typer.models import ArgumentInfo, OptionInfo

from vbench.commands.completion import completing
from vbench.options import check_numbers

KINDS = {str: "TEXT", int: "INTEGER", float: "NUMBER", Path: "PATH", bool: ""}  # a flag takes no value
COMMA = "a comma list"  # marks an option: Annotated[str, typer.Option(...), COMMA]


def prepared(command: Callable[..., Any]) -> Callable[..., Any]:
    """The command, with all that this module says done to its parameters.

    Options that are marked by `COMMA` are repeatable; the command gets each as one comma list. Options and arguments
    have a word for their kind of value, and are completed. Numbers are checked before it runs.

    Raises: UsageError, as `check_numbers`.
    """
    own = signature(command, eval_str=True).parameters
    lists = {name for name, one in own.items() if COMMA in getattr(one.annotation, "__metadata__", ())}
    parameters = [_told(one, command.__name__) for one in own.values()]
    parameters = [_repeatable(one) if one.name in lists else one for one in parameters]

    @wraps(command)
    def call(**values: Any) -> Any:
        check_numbers(values)
        return command(**{key: _joined(value) if key in lists else value for key, value in values.items()})

    call.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
    call.__annotations__ = {one.name: one.annotation for one in parameters} | {"return": None}
    del call.__wrapped__  # whose options these are not
    return call


def _told(one: Parameter, command: str) -> Parameter:
    """A parameter whose option or argument has a word for its values, unless it has one, and a completion."""
    if get_origin(one.annotation) is not Annotated:
        return one  # Typer's context
    hint, *about = get_args(one.annotation)
    given = next(each for each in about if isinstance(each, OptionInfo | ArgumentInfo))
    info, commas = copy(given), COMMA in about
    kind = (
        next((each for each in get_args(hint) if each is not NoneType), hint) if get_origin(hint) is UnionType else hint
    )
    if info.metavar is None and isinstance(info, ArgumentInfo):
        info.metavar = one.name.upper()
    elif info.metavar is None:
        info.metavar = "LIST" if commas else KINDS.get(kind, "TEXT")
    info.autocompletion = completing(command, one.name, commas=commas)
    return one.replace(annotation=Annotated[hint, *(info if each is given else each for each in about)])


def _repeatable(one: Parameter) -> Parameter:
    about = [each for each in one.annotation.__metadata__ if each != COMMA]
    default = None if one.default is None else [one.default]
    return one.replace(annotation=Annotated[list[str] | None, *about], default=default)


def _joined(values: list[str] | None) -> str | None:
    return ",".join(values) if values else None
