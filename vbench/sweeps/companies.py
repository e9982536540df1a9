"""Which cells of a sweep take turns, because people compare them. Pure; imports no torch.

A *company* is a recurrent model in its modes and forms, with the attention model that reports compare it with, all of
one size and under equal settings. Every two cells of a company give a ratio.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache

from vbench.errors import UsageError
from vbench.models.registry import ours, spec
from vbench.models.row import nearest
from vbench.options import shown
from vbench.plan import Case

AUTO, NONE = "auto", "none"
MOST = 4  # cells that take turns: each is a process with a model in memory


@dataclass(frozen=True, slots=True)
class Company:
    """Cells that take turns, the attention models first."""

    cases: tuple[Case, ...]

    @property
    def id(self) -> str:
        """A digest of the cells, whatever their order."""
        return _id(self)

    def __str__(self) -> str:
        return " / ".join(map(str, self.cases))


@cache
def _id(company: Company) -> str:
    return hashlib.sha256(" ".join(sorted(case.id for case in company.cases)).encode()).hexdigest()[:16]


def companies(cases: Sequence[Case], pairs: str = AUTO) -> list[Company]:
    """The companies of a sweep, in the order of its cells.

    A latency of inference is at batch 1 whatever the batch for throughput, so only the first batch asked for counts.

    Args:
        pairs: "auto", each recurrent model or model of the user's own with the attention model that is nearest in
            parameters, each mode with the others; "none"; or a model with which all others are compared.
    """
    if pairs == NONE:
        return []
    found = []
    for together in _comparable(cases):
        for base, others in _compared(together, pairs):
            room = max(1, MOST - len(base))
            parts = _batches(others, room) if len(base) < MOST else []
            found += [Company((*base, *some)) for some in parts if len(base) + len(some) > 1]
    return found


def parse_pairs(text: str, cases: Iterable[Case]) -> str:
    """ "auto", "none", or a model of these cases. Raises: UsageError, UnknownModelError."""
    if text in (AUTO, NONE):
        return text
    name, models = ours(text), dict.fromkeys(case.model for case in cases)
    spec(name)
    if name not in models:
        raise UsageError(f"--pairs: {shown(text)} is not in this sweep; give auto, none, or one of {', '.join(models)}")
    return name


def _comparable(cases: Sequence[Case]) -> list[list[Case]]:
    """The cells that can exist, parted by size and settings."""
    parts: dict[Case, dict[Case, Case]] = {}
    for case in cases:
        if not case.unsupported:
            alike = replace(case, batch=1) if case.phase == "infer" else case
            key = replace(alike, model="", mode="parallel", form=None, attention=None)
            parts.setdefault(key, {}).setdefault(alike, case)
    return [list(part.values()) for part in parts.values()]


def _compared(cases: Sequence[Case], pairs: str) -> list[tuple[list[Case], list[Case]]]:
    """(what is compared with, cells that are compared with it and with each other)."""
    models = dict.fromkeys(case.model for case in cases)
    if pairs != AUTO:
        base = [case for case in cases if case.model == pairs and case.mode == "parallel"]
        base = base or [case for case in cases if case.model == pairs]
        others = [case for case in cases if case not in base]
        return [(base, [case for case in others if case.model == model]) for model in models if base]
    attention = [model for model in models if spec(model).baseline]
    found = []
    for model in models:
        if model not in attention:
            place = nearest(spec(model).params, [spec(other).params for other in attention])
            base = [case for case in cases if place is not None and case.model == attention[place]]
            found.append((base, [case for case in cases if case.model == model]))
    return found


def _batches(cases: Sequence[Case], most: int) -> list[tuple[Case, ...]]:
    return [tuple(cases[start : start + most]) for start in range(0, len(cases), most)]
