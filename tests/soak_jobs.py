"""The jobs of a soak: what a launch yields, without a model and without torch."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vbench.errors import ResolutionError

Job = Iterator[tuple[str, Any]]


def measure(argument: dict[str, Any]) -> Job:
    """The parts of a launch as `argument["parts"]`, a file, has them."""
    yield from json.loads(Path(argument["parts"]).read_text()).items()


def refuses(argument: dict[str, Any]) -> Job:
    """As `measure`, but the model refuses its size after the memory pass."""
    yield "memory", json.loads(Path(argument["parts"]).read_text())["memory"]
    raise ResolutionError(f"my_net takes no {argument['side']} px")


def dies(argument: dict[str, Any]) -> Job:
    """As `measure`, but the process dies after the memory pass."""
    yield "memory", json.loads(Path(argument["parts"]).read_text())["memory"]
    os._exit(3)
