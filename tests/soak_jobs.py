"""The jobs of a soak: what a launch yields, without a model and without torch."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Job = Iterator[tuple[str, Any]]


def measure(argument: dict[str, Any]) -> Job:
    """The parts of a launch as `argument["parts"]`, a file, has them."""
    yield from json.loads(Path(argument["parts"]).read_text()).items()


def hidden_failure(argument: dict[str, Any]) -> Job:
    """As `measure`, but the model fails after its memory pass."""
    yield "memory", json.loads(Path(argument["parts"]).read_text())["memory"]
    raise ValueError(f"my_net takes no {argument['side']} px")
