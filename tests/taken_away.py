"""A `vbench` process that lacks something: a `sitecustomize` takes it away, in the children too."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

NO_FVCORE = 'import sys\n\nsys.modules["fvcore"] = None\n'
ALL_OF_THEM = """
import json
import sys

from command import vbench

done = [vbench(*command) for command in json.loads(sys.argv[1])]
print(json.dumps([(one.returncode, one.stdout, one.stderr) for one in done]))
"""


def environment(code: str, folder: Path) -> dict[str, str]:
    """Variables under which every Python runs `code` first; nothing is remembered from elsewhere."""
    preload = folder / "preload"
    preload.mkdir(exist_ok=True)
    (preload / "sitecustomize.py").write_text(code)
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(preload), *(p for p in sys.path if p)]),
        "XDG_CACHE_HOME": str(folder / "cache"),
    }


def without(code: str, folder: Path, *commands: Sequence[str]) -> list[subprocess.CompletedProcess[str]]:
    """Each `vbench COMMAND` in `folder` where every Python runs `code` first: one process, and one fork server."""
    asked = [sys.executable, "-P", "-c", ALL_OF_THEM, json.dumps(commands)]
    done = run(asked, environment(code, folder), folder)
    assert done.returncode == 0, done.stderr
    return [subprocess.CompletedProcess(asked, *one) for one in json.loads(done.stdout)]


def run(command: list[str], environment: dict[str, str], folder: Path) -> subprocess.CompletedProcess[str]:
    """A command in `folder` under these variables, with what it prints."""
    return subprocess.run(
        command, capture_output=True, text=True, env=environment, cwd=folder, check=False, timeout=300
    )
