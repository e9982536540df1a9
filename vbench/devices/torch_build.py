"""What the installed torch is built for, without importing it: it says so in a small file of its own."""

from __future__ import annotations

import runpy
import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any


def built_for(library: str) -> str | None:
    """The version of "cuda", "hip" (ROCm) or "xpu" that torch was built with; None if it was built without."""
    torch = sys.modules.get("torch")
    version = getattr(torch, "version", None)
    said = _file().get(library) if version is None else getattr(version, library, None)
    return None if said is None else str(said)


@cache
def _file() -> dict[str, Any]:
    spec = find_spec("torch")
    file = Path(spec.origin).with_name("version.py") if spec and spec.origin else None
    return runpy.run_path(str(file)) if file and file.is_file() else {}
