"""The command line, called in this process: what it prints and how it exits, as a process of its own would.

All calls share this process's fork server, which has torch imported; a process would start another.
"""

from __future__ import annotations

import os
import signal
import sys
import warnings
from contextlib import chdir, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from subprocess import CompletedProcess
from unittest.mock import patch

from vbench.commands.app import main


def vbench(*args: str, cwd: Path | None = None) -> CompletedProcess[str]:
    """Run `vbench ARGS` in the folder `cwd`; what it does to the process at large is undone."""
    out, err, code = StringIO(), StringIO(), 0
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    with (
        patch.object(sys, "argv", ["vbench", *args]),
        patch.object(sys, "path", [*sys.path]),
        patch.object(sys, "excepthook", sys.excepthook),  # Typer's
        patch.dict(os.environ),
        chdir(cwd or "."),
        redirect_stdout(out),
        redirect_stderr(err),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("default")
        try:
            main()
        except SystemExit as exit_:
            code = int(exit_.code or 0)
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
    return CompletedProcess(["vbench", *args], code, out.getvalue(), err.getvalue())
