"""What all commands share: the two consoles, which show all text tame, and how JSON, files and remarks are printed."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.status import Status
from rich.text import Text

from vbench.results.text import tame, tamed, visible


class Terminal(Console):
    """A console on which no text from elsewhere is markup, an emoji's name, or a sequence that controls a terminal.

    A text that is printed is one line.
    """

    def __init__(self, **look: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **look)

    def print(self, *shown: Any, **look: Any) -> None:
        super().print(*(tame(one) if isinstance(one, str) else one for one in shown), **look)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for text, style, control in super().render(renderable, options):
            yield Segment(text if control else visible(text), style, control)

    def status(self, status: RenderableType, **look: Any) -> Status:
        return _Status(_as_text(status), console=self, **look)


class _Status(Status):
    def update(self, status: RenderableType | None = None, **look: Any) -> None:
        super().update(_as_text(status), **look)


def _as_text(shown: Any) -> Any:
    return Text(tame(shown)) if isinstance(shown, str) else shown


out = Terminal(width=None if sys.stdout.isatty() else 160, soft_wrap=not sys.stdout.isatty())
err = Terminal(stderr=True, soft_wrap=not sys.stderr.isatty())

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def end_as_by_ctrl_c() -> None:
    """Have SIGTERM and SIGHUP end the program as Ctrl-C does. Under `nohup` SIGHUP stays ignored."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
        return
    terminals = [fd for fd in (1, 2) if os.isatty(fd)]

    def hang_up(number: int, frame: FrameType | None) -> None:
        for fd in terminals:
            if not os.isatty(fd):  # what is printed to a terminal that has gone would be an error
                with suppress(OSError):
                    os.dup2(os.open(os.devnull, os.O_WRONLY), fd)
        signal.default_int_handler(number, frame)

    signal.signal(signal.SIGHUP, hang_up)


def print_json(found: Any) -> None:
    """Print a JSON-able value, with tame text, and null for what is not finite."""
    typer.echo(json.dumps(tamed(found), indent=1))


def print_aside(lines: Iterable[str]) -> None:
    """Print lines to stderr."""
    for line in lines:
        err.print(line)


def written(files: Iterable[Path]) -> str:
    """What was written: a file, or each folder with the number of its files."""
    folders: dict[Path, list[Path]] = {}
    for file in files:
        folders.setdefault(file.parent, []).append(file)
    said = [
        str(inside[0]) if len(inside) == 1 else f"{len(inside)} files in {folder}" for folder, inside in folders.items()
    ]
    return f"written: {', '.join(said) or 'no file'}"


def print_written(files: Iterable[Path]) -> None:
    """Say on stderr what was written."""
    print_aside([written(files)])


def exit_if_failed(failed: list[str], code: int = 1) -> None:
    """Print the failures to stderr and exit with `code`; do nothing if there are none."""
    print_aside(failed)
    if failed:
        raise typer.Exit(code)
