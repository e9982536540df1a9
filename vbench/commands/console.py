"""What all commands share: the two consoles, and how JSON, files and remarks are printed."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from typing import Annotated, Any

import typer
from rich.console import Console

out = Console(width=None if sys.stdout.isatty() else 160, highlight=False, soft_wrap=not sys.stdout.isatty())
err = Console(stderr=True, highlight=False, soft_wrap=True)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


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
