"""The command line: parse, call one library function, render. Results go to stdout, progress to stderr."""

from __future__ import annotations

import os
import re
import sys
import warnings
from io import TextIOWrapper
from typing import Annotated, Any, NoReturn

import typer

import vbench
from vbench.commands import checks, export, gate, kernels, lists, memory, merge, pick, reports
from vbench.commands import eval as evaluating
from vbench.commands import sweep as sweeping
from vbench.commands.console import end_as_by_ctrl_c, err, out, print_json
from vbench.commands.flags import PlainCommand, PlainGroup
from vbench.commands.parameters import prepared
from vbench.errors import UsageError, VbenchError
from vbench.options import shown

OVERWRITTEN = (
    "another project, vbench, has overwritten files of this one: pip uninstall vbench vbench-backbones, then install "
    "the one that you want"
)

app = typer.Typer(
    cls=PlainGroup,
    help="Is a recurrent vision backbone really cheaper than attention at high resolution? Measured.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for room in (sweeping, evaluating, checks, memory, export, kernels, lists, gate, reports, merge, pick):
    for one in room.app.registered_commands:
        one.callback, one.cls = prepared(one.callback) if one.callback else None, PlainCommand
app.add_typer(sweeping.app)
app.add_typer(evaluating.app)
app.add_typer(checks.app)
app.add_typer(memory.app)
app.add_typer(export.app)
app.add_typer(kernels.app, name="kernels", cls=PlainGroup)
app.add_typer(lists.app)
app.add_typer(gate.app)
app.add_typer(reports.app)
app.add_typer(merge.app)
app.add_typer(pick.app)


@app.callback(invoke_without_command=True)
def root(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    if debug:
        os.environ["VBENCH_DEBUG"] = "1"
    end_as_by_ctrl_c()
    if version:
        out.print(vbench.__version__)
        raise typer.Exit


def main() -> None:
    """Run the program. A VbenchError, or an option that Typer refuses, is printed as one line; the exit code is 2.

    With --json it is an object on stdout too.
    """
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
        _refuse(str(error))
    except OSError as error:
        if error.filename is None or os.environ.get("VBENCH_DEBUG"):
            raise
        _refuse(f"{shown(error.filename)}: {error.strerror}")
    except typer.Abort:
        sys.exit(130)
    except Exception as error:
        if not hasattr(error, "format_message"):  # what Typer and click refuse has one
            raise
        said = error.format_message()
        if not said:  # below a help text
            sys.exit(2)
        context = getattr(error, "ctx", None)
        path = context.command_path if context else "vbench"
        _refuse(f"{_plain(said).rstrip('.')}; see '{path} --help'")


def _plain(said: str) -> str:
    """What Typer says of a value that is no number, in plain words."""
    found = re.match(r"Invalid value for '(--[\w-]+)'.*: Input should be a valid (integer|number)", said)
    return f"{found[1]}: give a {'whole ' if found[2] == 'integer' else ''}number" if found else said


def _refuse(said: str) -> NoReturn:
    """Print an error as one line, and with --json as an object on stdout too; exit with 2."""
    err.print(f"vbench: {said}")
    if "--json" in sys.argv:
        print_json({"error": said, "exit_code": 2})
    sys.exit(2)


def _warn(message: Warning | str, *_: Any) -> None:
    err.print(f"vbench: {message}")
