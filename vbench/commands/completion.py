"""The words that a shell completes: the values of options and arguments, by the name of the parameter.

One command's own parameter stands before all of its name: "memory.device".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from vbench import plan
from vbench.devices import KINDS
from vbench.kernels.registry import OPS

DEEP = 3  # folders below this one in which runs are looked for
Words = Callable[[], Iterable[str]]
SUITES = (
    "minute",
    "resolution",
    "modes",
    "field",
    "batch",
    "training",
    "paper",
    "claims",
    "aa",
)  # those that vbench ships
FORMS = tuple(dict.fromkeys(form for forms in OPS.values() for form in forms))


def _models() -> list[str]:
    from vbench.models.registry import MODELS

    return [*MODELS, "field", "timm/"]


def _figures() -> list[str]:
    from vbench.reports.figures.table import FIGURES

    return ["all", *FIGURES, *_runs()]


def _cards() -> Iterable[str]:
    from vbench.flops.cards import cards

    return cards()


def _runs() -> list[str]:
    """The folders below this one that hold a run."""
    levels = ("*/" * level for level in range(1, DEEP + 1))
    return sorted(str(file.parent) for level in levels for file in Path().glob(f"{level}records.jsonl"))


def _of(*words: str) -> Words:
    return lambda: words


MODES = ("parallel", "recurrent")
WORDS: dict[str, Words] = {
    "models": _models,
    "model": _models,
    "subject": _models,
    "baseline": _models,
    "mode": _of(*MODES),
    "modes": _of(*MODES),
    "batch": _of("knee", "max", "1"),
    "dtype": _of(*plan.DTYPES),
    **{name: _of(*axis.values) for name, axis in plan.CHOICES.items()},
    "form": _of(*FORMS),
    "op": _of(*OPS),
    "suite": _of(*SUITES),
    "suites.name": _of(*SUITES),
    "device": _of("auto", *KINDS),
    "rigor": _of(*plan.RIGORS),
    "refine": _of("auto", "none"),
    "pairs": _of("auto", "none"),
    "words": _figures,
    "style": _of("paper", "slides", "dark"),
    "runs": _runs,
    "folders": _runs,
    "base": _runs,
    "head": _runs,
    "memory.device": _cards,
}


def completing(command: str, parameter: str, *, commas: bool) -> Callable[[str], list[str]] | None:
    """What completes a parameter of a command, None if its values have no names.

    Args:
        commas: the value is a comma list: what stands after the last comma is completed.
    """
    words = WORDS.get(f"{command}.{parameter}", WORDS.get(parameter))
    if words is None:
        return None

    def complete(incomplete: str) -> list[str]:
        before, comma, last = incomplete.rpartition(",") if commas else ("", "", incomplete)
        return [f"{before}{comma}{word}" for word in words() if word.startswith(last)]

    return complete
