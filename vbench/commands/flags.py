"""Commands whose --help shows words alone: no type of Python, and for a flag no kind of value."""

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
    """The option, which as a flag has no word for its value; or the argument, with its word and no type."""
    if getattr(one, "is_flag", False):
        one.metavar = ""
    if one.param_type_name == "argument":
        usage = one.metavar if one.required else f"[{one.metavar}]"
        one.display_type_rich = lambda ctx: None
        one.get_usage_pieces = lambda ctx: [usage]
    return one
