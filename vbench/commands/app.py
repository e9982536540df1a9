"""The command line: parse, call one library function, render. Results go to stdout, progress to stderr."""

from __future__ import annotations

import os
import sys
import warnings
from io import TextIOWrapper
from typing import Annotated, Any

import typer

import vbench
from vbench.commands import checks, gate, kernels, lists, memory, reports
from vbench.commands import sweep as sweeping
from vbench.commands.console import err, out
from vbench.commands.repeated import adding_up
from vbench.errors import UsageError, VbenchError
from vbench.options import shown

OVERWRITTEN = (
    "another project, vbench, has overwritten files of this one: pip uninstall vbench vbench-backbones, then install "
    "the one that you want"
)

app = typer.Typer(
    help="Is a recurrent vision backbone really cheaper than attention at high resolution? Measured.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for room in (sweeping, checks, memory, kernels, lists, gate, reports):
    for one in room.app.registered_commands:
        one.callback = adding_up(one.callback) if one.callback else None
app.add_typer(sweeping.app)
app.add_typer(checks.app)
app.add_typer(memory.app)
app.add_typer(kernels.app, name="kernels")
app.add_typer(lists.app)
app.add_typer(gate.app)
app.add_typer(reports.app)


@app.callback(invoke_without_command=True)
def root(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    if debug:
        os.environ["VBENCH_DEBUG"] = "1"
    if version:
        out.print(vbench.__version__)
        raise typer.Exit


def main() -> None:
    """Run the program. A VbenchError, or an option that Typer refuses, is printed as one line; the exit code is 2."""
    warnings.showwarning = _warn  # type: ignore[assignment]  # it uses the message only
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # what its encoding lacks
    try:
        if not hasattr(vbench, "DISTRIBUTION"):
            raise UsageError(OVERWRITTEN)
        sys.exit(app(standalone_mode=False))
    except VbenchError as error:
        if os.environ.get("VBENCH_DEBUG"):
            raise
        err.print(f"vbench: {error}")
        sys.exit(2)
    except OSError as error:
        if error.filename is None or os.environ.get("VBENCH_DEBUG"):
            raise
        err.print(f"vbench: {shown(error.filename)}: {error.strerror}")
        sys.exit(2)
    except typer.Abort:
        sys.exit(130)
    except Exception as error:
        if not hasattr(error, "format_message"):  # what Typer and click refuse has one
            raise
        if said := error.format_message():  # empty below a help text
            context = getattr(error, "ctx", None)
            err.print(f"vbench: {said.rstrip('.')}; see '{context.command_path if context else 'vbench'} --help'")
        sys.exit(2)


def _warn(message: Warning | str, *_: Any) -> None:
    err.print(f"vbench: {message}")
