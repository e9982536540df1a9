"""The command line: parse, call one library function, render. Results go to stdout, progress to stderr."""

from __future__ import annotations

import os
import sys
import warnings
from typing import Annotated, Any

import typer

import vbench
from vbench.commands import checks, gate, kernels, lists, memory, pick, reports
from vbench.commands import eval as evaluating
from vbench.commands import sweep as sweeping
from vbench.commands.console import err, out
from vbench.commands.repeated import adding_up
from vbench.errors import UsageError, VbenchError

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
for room in (sweeping, evaluating, checks, memory, kernels, lists, gate, reports, pick):
    for one in room.app.registered_commands:
        one.callback = adding_up(one.callback) if one.callback else None
app.add_typer(sweeping.app)
app.add_typer(evaluating.app)
app.add_typer(checks.app)
app.add_typer(memory.app)
app.add_typer(kernels.app, name="kernels")
app.add_typer(lists.app)
app.add_typer(gate.app)
app.add_typer(reports.app)
app.add_typer(pick.app)


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
    """Run the program. A VbenchError is printed as one line, and the exit code is 2."""
    warnings.showwarning = _warn  # type: ignore[assignment]  # it uses the message only
    try:
        if not hasattr(vbench, "DISTRIBUTION"):
            raise UsageError(OVERWRITTEN)
        app()
    except VbenchError as error:
        if os.environ.get("VBENCH_DEBUG"):
            raise
        err.print(f"vbench: {error}", markup=False)
        sys.exit(2)


def _warn(message: Warning | str, *_: Any) -> None:
    err.print(f"vbench: {message}", markup=False)
