"""What a user may mean by a name of a model. Imports neither torch nor timm."""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import get_close_matches
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from vbench.models import external

TIMM = "timm/"  # begins the name of a model of timm
_ENTRY = re.compile(r"^@register_model\s+(?:@.*\s+)*def (\w+)\(", re.MULTILINE)


@cache
def timm_names() -> tuple[str, ...]:
    """The names of timm's models, read from its source files in milliseconds; empty if timm is not installed."""
    found = find_spec("timm")
    folders = (found and found.submodule_search_locations) or []
    files = [file for folder in folders for file in sorted((Path(folder) / "models").glob("*.py"))]
    return tuple(name for file in files for name in _ENTRY.findall(file.read_text(encoding="utf-8")))


def of_timm(name: str) -> str:
    """A model's name as timm spells it, "ResNet50.A1_in1k" -> "resnet50.a1_in1k". Names on a hub stay as they are."""
    return name if ":" in name else name.lower().replace("-", "_")


def did_you_mean(name: str, known: Iterable[str], prefix: str = "") -> str | None:
    """A question that names up to three similar names, each after `prefix`; None if none is similar."""
    near = get_close_matches(name, known, n=3, cutoff=0.4)
    return f"did you mean {' or '.join(prefix + other for other in near)}?" if near else None


def hint(name: str, table: Iterable[str]) -> str | None:
    """A question that says what an unknown name may mean: a model of timm, of the user's own, or of our `table`."""
    spelled = of_timm(name)
    if spelled.partition(".")[0] in timm_names():
        return f"did you mean {TIMM}{spelled}?"
    own = external.meant(name)
    if own and external.folder_of(own):
        return f"did you mean {own}?"
    written = {other: TIMM + other for other in timm_names()} | {other: other for other in table}
    near = get_close_matches(spelled, written, n=3, cutoff=0.75)
    if not near and own:
        return f"did you mean {own}?"
    near = near or get_close_matches(spelled, written, n=3, cutoff=0.6)
    return f"did you mean {' or '.join(written[other] for other in near)}?" if near else None
