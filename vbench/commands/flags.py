"""Commands whose --help shows no kind of value for a flag, that of -h and the program's own ones included."""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand, TyperGroup


class PlainCommand(TyperCommand):
    """A command; see this module."""

    def get_params(self, ctx: Any) -> list[Any]:
        return [_plain(one) for one in super().get_params(ctx)]


class PlainGroup(TyperGroup):
    """A command of commands; see this module."""

    def get_params(self, ctx: Any) -> list[Any]:
        return [_plain(one) for one in super().get_params(ctx)]


def _plain(one: Any) -> Any:
    """The option; as a flag it has no word for its value."""
    if getattr(one, "is_flag", False):
        one.metavar = ""
    return one
