"""What all commands share: the two consoles, and how JSON, files and remarks are printed."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterable
from contextlib import suppress
from types import FrameType
from typing import Annotated, Any

import typer
from rich.console import Console

out = Console(width=None if sys.stdout.isatty() else 160, highlight=False, soft_wrap=not sys.stdout.isatty())
err = Console(stderr=True, highlight=False, soft_wrap=True)

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
    """Print a JSON-able value."""
    typer.echo(json.dumps(found, indent=1))


def print_aside(lines: Iterable[str]) -> None:
    """Print lines to stderr."""
    for line in lines:
        err.print(line, markup=False)


def print_written(files: Iterable[object]) -> None:
    """Say on stderr which files were written."""
    print_aside([f"written: {', '.join(map(str, files))}"])


def exit_if_failed(failed: list[str], code: int = 1) -> None:
    """Print the failures to stderr and exit with `code`; do nothing if there are none."""
    print_aside(failed)
    if failed:
        raise typer.Exit(code)
