"""The reference of commands, from the program itself: `python -P docs/make_reference.py docs/reference/commands.md`.

It reads the commands that Typer makes of the program, by the few attributes that every version of Typer and click has.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, get_args, get_origin, get_type_hints

HEADER = """# Commands

`make reference` makes this page from the program: every command, every option, its default and its help. The option
`--help` of each command prints the same. Tables go to stdout; progress and warnings go to stderr.
[Exit codes](exit-codes.md) have their own page.

"""
WORDS = {str: "text", int: "integer", float: "number", Path: "path", bool: "flag"}
NONE = "–"


def page(root: Any) -> str:
    """The whole page for a program, given as `typer.main.get_command` returns it."""
    found = list(commands(root))
    lines = ["| command | does |", "| --- | --- |"]
    lines += [f"| [`{name}`](#{name.replace(' ', '-')}) | {_cell(_sentence(one.help))} |" for name, one in found]
    options = "\n".join(_table(root)) + "\n\nThese stand before the command, as in `vbench --debug models`.\n"
    parts = [HEADER, "\n".join(lines), "\n\n## Options of the program\n\n", options]
    return "".join([*parts, *(_section(name, one) for name, one in found)])


def commands(root: Any, name: str = "vbench") -> Iterator[tuple[str, Any]]:
    """Every command with its full name, those of a group after one another."""
    for own, command in root.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{name} {own}")
        elif not getattr(command, "hidden", False):
            yield f"{name} {own}", command


def _section(name: str, command: Any) -> str:
    arguments = [_argument(one) for one in command.params if one.param_type_name == "argument"]
    usage = " ".join([name, *arguments, "[OPTIONS]"])
    help_ = "\n\n".join(" ".join(part.split()) for part in command.help.split("\n\n"))
    return f"\n## {name}\n\n{help_}\n\n```text\n{usage}\n```\n\n" + "\n".join(_table(command)) + "\n"


def _table(command: Any) -> list[str]:
    """The arguments and options as one table, or one for each panel of its help."""
    types = _types(command)
    panels: dict[str, list[str]] = {}
    for one in command.params:
        if not getattr(one, "hidden", False) and one.name in types:
            panel = getattr(one, "rich_help_panel", None) or ""
            panels.setdefault(panel, []).append(_row(one, types[one.name]))
    lines = []
    for panel, rows in panels.items():
        lines += [f"\n{panel}:\n"] if panel else []
        lines += ["| argument or option | value | default | meaning |", "| --- | --- | --- | --- |", *rows]
    return lines


def _row(one: Any, type_: type) -> str:
    if one.param_type_name == "argument":
        name, default = f"`{_argument(one)}`", "required" if one.required else NONE
    else:
        name, default = ", ".join(f"`{word}`" for word in (*one.opts, *one.secondary_opts)), _default(one)
    cells = [name, _value(one, type_), default, getattr(one, "help", None) or ""]
    return "| " + " | ".join(_cell(text) for text in cells) + " |"


def _argument(one: Any) -> str:
    word = one.metavar or str(one.name).upper()
    word += "..." if one.nargs == -1 and not word.endswith("...") else ""
    return word if one.required or word.startswith("[") else f"[{word}]"


def _default(one: Any) -> str:
    if isinstance(one.show_default, str):
        return one.show_default if " " in one.show_default else f"`{one.show_default}`"
    if getattr(one, "is_flag", False):
        return "on" if one.default else "off"
    if one.required:
        return "required"
    if one.default in (None, (), []):
        return NONE
    return f"`{','.join(one.default) if isinstance(one.default, list | tuple) else one.default}`"


def _value(one: Any, type_: type) -> str:
    """What kind of value it takes, with its bounds."""
    kind = getattr(one, "type", None)
    low, high = (getattr(one, key, None) or getattr(kind, key, None) for key in ("min", "max"))
    bounds = [f"≥ {low}"] if low is not None else []
    bounds += [f"≤ {high}"] if high is not None else []
    word = f"{WORDS[type_]}{f' `{one.metavar}`' if one.metavar and one.param_type_name == 'option' else ''}"
    return " ".join([word, *(["(repeatable)"] if getattr(one, "multiple", False) else []), ", ".join(bounds)])


def _types(command: Any) -> dict[str, type]:
    """The Python type of each parameter, without its wrappings (Annotated, None, list)."""
    if command.callback is None:
        return {}
    hints = get_type_hints(inspect.unwrap(command.callback), include_extras=True)
    plain = {name: _plain(hint) for name, hint in hints.items()}
    return {name: type_ for name, type_ in plain.items() if type_ in WORDS}


def _plain(hint: Any) -> Any:
    while get_origin(hint) is not None:
        inner = get_args(hint)
        hint = inner[0] if get_origin(hint) is Annotated else next(one for one in inner if one is not NoneType)
    return hint


def _sentence(text: str) -> str:
    """The first sentence of a help text."""
    return " ".join(text.partition("\n\n")[0].split()).partition(". ")[0].rstrip(".") + "."


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("*", "\\*")


def main(target: Path) -> None:
    """Write the page."""
    import typer

    from vbench.commands.app import app

    target.write_text(page(typer.main.get_command(app)), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
